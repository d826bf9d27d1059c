// SPDX-License-Identifier: LGPL-2.1-or-later
#include "reports.h"

#include <array>

#include "engine_loader.h"
#include "enums.h"

namespace wan {
namespace {

constexpr char kMeta[] = "GstWanMeta";
constexpr std::array kStages = {"load", "text", "denoise", "decode"};

std::string list(const std::vector<double> &values) {
  std::string text;
  for (const double value : values) text.append(text.empty() ? "<" : ",").append(text_of(value));
  return text.append(">");
}

// As gst-launch-1.0 reads it.
std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += letter;
  }
  return result + '"';
}

// A string in the notation of a GValue, with no backslash but before an escaped letter: what is quoted once
// more may not end in one.
std::string serialized(const std::string &text) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, G_TYPE_STRING);
  g_value_set_string(&value, text.c_str());
  gchar *serial = gst_value_serialize(&value);
  std::string result = serial ? serial : "";
  g_free(serial);
  g_value_unset(&value);
  for (size_t at = 0; (at = result.find("\\\\", at)) != std::string::npos; at += 4)
    result.replace(at, 2, "\\134");
  return result;
}

// " name=text" for a property that holds a string. What could be taken for the notation of something else is
// put in that notation.
std::string assignment(const char *name, const std::string &text) {
  const bool plain = text.find('\\') == std::string::npos && !text.starts_with('"') && text != "NULL";
  return std::string(" ") + name + "=" + quoted(plain ? text : serialized(text));
}

std::string loras_text(const std::vector<LoraChoice> &loras) {
  GValue array = G_VALUE_INIT;
  g_value_init(&array, GST_TYPE_ARRAY);
  for (const LoraChoice &lora : loras) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, GST_TYPE_STRUCTURE);
    g_value_take_boxed(
        &item, gst_structure_new("lora", "path", G_TYPE_STRING, lora.path.c_str(), "strength", G_TYPE_DOUBLE,
                                 lora.strength, "strength-2", G_TYPE_DOUBLE, lora.strength_2, nullptr));
    gst_value_array_append_and_take_value(&array, &item);
  }
  gchar *serial = gst_value_serialize(&array);
  const std::string text = serial ? serial : "";
  g_free(serial);
  g_value_unset(&array);
  return " loras=" + quoted(text);
}

// What makes the model another one than without it.
std::string model_text(const ModelChoice &choice) {
  std::string text;
  if (choice.directory != model_directory("")) text += assignment("model", choice.directory);
  if (choice.device != "auto") text += assignment("device", choice.device);
  if (choice.dtype != WAN_DTYPE_AUTO) text += std::string(" dtype=") + dtype_nick(choice.dtype);
  if (choice.quantization != WAN_QUANTIZATION_NONE)
    text += std::string(" quantization=") + quantization_nick(choice.quantization);
  if (!choice.loras.empty()) text += loras_text(choice.loras);
  return text;
}

// The settings as wansrc's own properties, so that a launch line can take them over.
std::string settings_text(const Clip &clip) {
  const ClipSettings &settings = clip.settings;
  std::string text =
      "seed=" + std::to_string(clip.seed) + " num-frames=" + std::to_string(settings.num_frames) +
      " steps=" + std::to_string(settings.steps) + " guidance-scale=" + text_of(settings.guidance_scale) +
      " guidance-scale-2=" + text_of(settings.guidance_scale_2) +
      " flow-shift=" + text_of(settings.flow_shift) + " scheduler=" + scheduler_nick(settings.scheduler);
  if (!settings.sigmas.empty()) text += " sigmas=\"" + list(settings.sigmas) + "\"";
  if (settings.cache != WAN_CACHE_NONE)
    text += " cache=first-block cache-threshold=" + text_of(*settings.cache_threshold);
  if (!settings.negative_prompt.empty()) text += assignment("negative-prompt", settings.negative_prompt);
  if (!settings.prompt.empty()) text += assignment("prompt", settings.prompt);
  return text;
}

// An element, so that a launch line may go on with caps of its own, such as the format.
std::string caps_text(const GstVideoInfo &info) {
  return " ! capsfilter caps=\"video/x-raw,width=" + std::to_string(info.width) +
         ",height=" + std::to_string(info.height) + ",framerate=" + std::to_string(info.fps_n) + "/" +
         std::to_string(info.fps_d) + "\"";
}

}  // namespace

void register_meta() {
  static const gchar *tags[] = {nullptr};  // none: it stays with the frame whatever is done to the pixels
  gst_meta_register_custom(kMeta, tags, nullptr, nullptr, nullptr);
}

void add_meta(GstBuffer *buffer, const Chunk &chunk, int frame, bool repeated) {
  GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, kMeta);
  gst_structure_set(
      gst_custom_meta_get_structure(meta), "id", G_TYPE_UINT, guint{chunk.clip ? chunk.clip->id : 0}, "clip",
      G_TYPE_INT, chunk.clip ? chunk.clip->index : -1, "chunk", G_TYPE_INT,
      chunk.frames ? chunk.frames->chunk : -1, "frame", G_TYPE_INT, frame, "seed", G_TYPE_UINT64,
      guint64{chunk.clip ? chunk.clip->seed : 0}, "repeated", G_TYPE_BOOLEAN, gboolean{repeated}, nullptr);
}

GstStructure *progress_structure(const Progress &progress) {
  const WanProgress &now = progress.progress;
  const Clip *clip = progress.clip.get();
  return gst_structure_new("wan-progress", "id", G_TYPE_UINT, guint{clip ? clip->id : 0}, "clip", G_TYPE_INT,
                           clip ? clip->index : -1, "seed", G_TYPE_UINT64, guint64{clip ? clip->seed : 0},
                           "stage", G_TYPE_STRING, kStages[now.stage], "step", G_TYPE_INT, now.step, "steps",
                           G_TYPE_INT, now.steps, "seconds", G_TYPE_DOUBLE, now.seconds, "cached-forwards",
                           G_TYPE_INT, now.cached, nullptr);
}

GstStructure *clip_structure(const Clip &clip, GstClockTime pts) {
  return gst_structure_new("wan-clip", "id", G_TYPE_UINT, guint{clip.id}, "clip", G_TYPE_INT, clip.index,
                           "seed", G_TYPE_UINT64, guint64{clip.seed}, "prompt", G_TYPE_STRING,
                           clip.settings.prompt.c_str(), "pts", G_TYPE_UINT64, pts, nullptr);
}

GstStructure *failure_structure(const Clip &clip, const char *error, GQuark domain, int code) {
  return gst_structure_new("wan-clip-failed", "id", G_TYPE_UINT, guint{clip.id}, "clip", G_TYPE_INT,
                           clip.index, "seed", G_TYPE_UINT64, guint64{clip.seed}, "prompt", G_TYPE_STRING,
                           clip.settings.prompt.c_str(), "error", G_TYPE_STRING, error, "domain",
                           G_TYPE_STRING, g_quark_to_string(domain), "code", G_TYPE_INT, code, nullptr);
}

GstStructure *underrun_structure(bool running, GstClockTime pts, guint64 frames) {
  return gst_structure_new("wan-underrun", "running", G_TYPE_BOOLEAN, gboolean{running}, "pts", G_TYPE_UINT64,
                           pts, "frames", G_TYPE_UINT64, frames, nullptr);
}

GstStructure *stats_structure(const PumpStats &stats, const AirStats &air) {
  GstStructure *structure = gst_structure_new(
      "wan-stats", "stage", G_TYPE_STRING, stats.running ? kStages[stats.progress.stage] : "idle", "step",
      G_TYPE_INT, stats.progress.step, "steps", G_TYPE_INT, stats.progress.steps, "clip", G_TYPE_INT,
      stats.clip, "chunk", G_TYPE_INT, stats.chunk, "seed", G_TYPE_UINT64, guint64{stats.seed},
      "cached-forwards", G_TYPE_INT, stats.cached_forwards, "fps", G_TYPE_DOUBLE, stats.fps, "on-air-clip",
      G_TYPE_INT, stats.on_air_clip, "queued-clips", G_TYPE_UINT, guint(stats.queued_clips), "queue-level",
      G_TYPE_UINT, guint(stats.queue_level), "queue-seconds", G_TYPE_DOUBLE, stats.queue_seconds,
      "frames-pushed", G_TYPE_UINT64, air.frames_pushed.load(), "repeated", G_TYPE_UINT64,
      air.repeated.load(), "gaps", G_TYPE_UINT64, air.gaps.load(), "dropped", G_TYPE_UINT64,
      air.dropped.load(), "underruns", G_TYPE_UINT64, air.underruns.load(), "gpu-bytes", G_TYPE_UINT64,
      guint64{stats.memory.gpu_bytes}, "gpu-peak-bytes", G_TYPE_UINT64, guint64{stats.memory.gpu_peak_bytes},
      "pinned-bytes", G_TYPE_UINT64, guint64{stats.memory.pinned_bytes}, "pool-bytes", G_TYPE_UINT64,
      guint64{stats.memory.pool_bytes}, "memory-mode", G_TYPE_STRING, memory_mode_nick(stats.memory.mode),
      "device", G_TYPE_STRING, stats.memory.device, "first-frame-seconds", G_TYPE_DOUBLE,
      air.first_frame_seconds.load(), nullptr);
  for (size_t stage = 0; stage < kStages.size(); ++stage) {
    const std::string field = std::string(kStages[stage]) + "-seconds";
    gst_structure_set(structure, field.c_str(), G_TYPE_DOUBLE, stats.seconds[stage], nullptr);
  }
  return structure;
}

GstTagList *clip_tags(const Clip &clip, const ModelChoice &choice, const GstVideoInfo &info) {
  const std::string settings = settings_text(clip) + model_text(choice) + caps_text(info);
  gchar *comment =
      g_utf8_make_valid(settings.data(), gssize(settings.size()));  // names of files may be any bytes
  GstTagList *tags =
      gst_tag_list_new(GST_TAG_ENCODER, "gst-wan " WAN_VERSION, GST_TAG_COMMENT, comment, nullptr);
  g_free(comment);
  if (!clip.settings.prompt.empty())
    gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_TITLE, clip.settings.prompt.c_str(), nullptr);
  return tags;
}

}  // namespace wan
