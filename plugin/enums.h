// The engine's enumerations as types of GObject properties.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <glib-object.h>

#include "wan/engine.h"

namespace wan {

GType scheduler_type();
GType dtype_type();

/** "auto", "unipc" or "euler". */
const char *scheduler_nick(WanScheduler scheduler);

}  // namespace wan
