// SPDX-License-Identifier: LGPL-2.1-or-later
#include "enums.h"

namespace wan {

const char *scheduler_nick(WanScheduler scheduler) {
  static GEnumClass *schedulers = G_ENUM_CLASS(g_type_class_ref(scheduler_type()));
  return g_enum_get_value(schedulers, scheduler)->value_nick;
}

const char *memory_mode_nick(WanMemoryMode mode) {
  static GEnumClass *modes = G_ENUM_CLASS(g_type_class_ref(memory_mode_type()));
  return g_enum_get_value(modes, mode)->value_nick;
}

const char *dtype_nick(WanDtype dtype) {
  static GEnumClass *dtypes = G_ENUM_CLASS(g_type_class_ref(dtype_type()));
  return g_enum_get_value(dtypes, dtype)->value_nick;
}

const char *quantization_nick(WanQuantization quantization) {
  static GEnumClass *quantizations = G_ENUM_CLASS(g_type_class_ref(quantization_type()));
  return g_enum_get_value(quantizations, quantization)->value_nick;
}

GType scheduler_type() {
  static const GEnumValue values[] = {
      {WAN_SCHEDULER_AUTO, "The checkpoint's own", "auto"},
      {WAN_SCHEDULER_UNIPC, "UniPC multistep", "unipc"},
      {WAN_SCHEDULER_EULER, "Flow matching Euler", "euler"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanScheduler", values);
  return type;
}

GType cache_type() {
  static const GEnumValue values[] = {
      {WAN_CACHE_NONE, "Every step is computed whole", "none"},
      {WAN_CACHE_FIRST_BLOCK, "All blocks but the first are skipped where its output changes little",
       "first-block"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanCache", values);
  return type;
}

GType dtype_type() {
  static const GEnumValue values[] = {
      {WAN_DTYPE_AUTO, "bfloat16 on a GPU, float32 on the CPU", "auto"},
      {WAN_DTYPE_FLOAT32, "32-bit floating point", "float32"},
      {WAN_DTYPE_BFLOAT16, "bfloat16", "bfloat16"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanDtype", values);
  return type;
}

GType quantization_type() {
  static const GEnumValue values[] = {
      {WAN_QUANTIZATION_NONE, "As dtype says", "none"},
      {WAN_QUANTIZATION_FP8, "FP8 (e4m3): faster on GPUs that have it, and less exact", "fp8"},
      {WAN_QUANTIZATION_STORED, "As a GGUF file has them, which takes less memory", "stored"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanQuantization", values);
  return type;
}

GType memory_mode_type() {
  static const GEnumValue values[] = {
      {WAN_MEMORY_AUTO, "The first of the others that fits the free memory of the GPU and of the host",
       "auto"},
      {WAN_MEMORY_RESIDENT, "Both experts on the GPU", "resident"},
      {WAN_MEMORY_ONE_EXPERT, "One expert on the GPU; the other is copied there before its steps",
       "one-expert"},
      {WAN_MEMORY_STREAM, "Both experts in host memory; each block is copied to the GPU when it is needed",
       "stream"},
      {WAN_MEMORY_SPLIT, "Each expert on half of the devices", "split"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanMemoryMode", values);
  return type;
}

GType underrun_type() {
  static const GEnumValue values[] = {
      {int(Underrun::Repeat), "The last frame again", "repeat"},
      {int(Underrun::Gap), "A gap event", "gap"},
      {int(Underrun::Stall), "Nothing until there is a frame", "stall"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanUnderrun", values);
  return type;
}

GType filler_type() {
  static const GEnumValue values[] = {
      {int(Filler::Black), "Black", "black"},
      {int(Filler::Fade), "Black, from which the first frames fade in", "fade"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanFiller", values);
  return type;
}

GType transition_type() {
  static const GEnumValue values[] = {
      {int(Transition::Cut), "A cut", "cut"},
      {int(Transition::Crossfade), "A crossfade of transition-frames", "crossfade"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanTransition", values);
  return type;
}

GType prompt_switch_type() {
  static const GEnumValue values[] = {
      {WAN_SWITCH_AUTO, "The checkpoint's own", "auto"},
      {WAN_SWITCH_RECACHE, "The scene goes on as if the new prompt had always been there", "recache"},
      {WAN_SWITCH_CROSS, "The scene goes on and changes slowly", "cross"},
      {WAN_SWITCH_CUT, "A new scene", "cut"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanPromptSwitch", values);
  return type;
}

GType continuity_type() {
  static const GEnumValue values[] = {
      {WAN_CONTINUITY_NONE, "Each clip begins anew", "none"},
      {WAN_CONTINUITY_LAST_FRAME,
       "Each clip begins with the last frame of the one before, which is not shown twice", "last-frame"},
      {0, nullptr, nullptr},
  };
  static const GType type = g_enum_register_static("GstWanContinuity", values);
  return type;
}

}  // namespace wan
