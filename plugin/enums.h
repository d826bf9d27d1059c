// Enumerations of properties: the engine's, and the element's own.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <glib-object.h>

#include "wan/engine.h"

namespace wan {

/** What a live source sends when no frame is ready at its time. */
enum class Underrun { Repeat, Gap, Stall };
/** What a live source shows before its first frame. */
enum class Filler { Black, Fade };
/** How one clip becomes the next. */
enum class Transition { Cut, Crossfade };

GType scheduler_type();
GType cache_type();
GType dtype_type();
GType quantization_type();
GType memory_mode_type();
GType underrun_type();
GType filler_type();
GType transition_type();
GType continuity_type();
GType prompt_switch_type();

/** "auto", "unipc" or "euler". */
const char *scheduler_nick(WanScheduler scheduler);
/** "auto", "float32" or "bfloat16". */
const char *dtype_nick(WanDtype dtype);
/** "none", "fp8" or "stored". */
const char *quantization_nick(WanQuantization quantization);
/** "auto", "resident", "one-expert", "stream" or "split". */
const char *memory_mode_nick(WanMemoryMode mode);

}  // namespace wan
