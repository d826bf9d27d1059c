// SPDX-License-Identifier: LGPL-2.1-or-later
#include "reports.h"

#include <array>

#include "enums.h"

namespace wan {
namespace {

constexpr char kMeta[] = "GstWanMeta";
constexpr std::array kStages = {"load", "text", "denoise", "decode"};

std::string number(double value) {
  std::array<char, G_ASCII_DTOSTR_BUF_SIZE> text;
  return g_ascii_formatd(text.data(), text.size(), "%g", value);  // the same in every locale
}

std::string list(const std::vector<double> &values) {
  std::string text;
  for (const double value : values) text.append(text.empty() ? "<" : ",").append(number(value));
  return text.append(">");
}

// The settings as wansrc's own properties, so that a launch line can take them over.
std::string settings_text(const Clip &clip) {
  const ClipSettings &settings = clip.settings;
  std::string text =
      "seed=" + std::to_string(clip.seed) + " num-frames=" + std::to_string(settings.num_frames) +
      " steps=" + std::to_string(settings.steps) + " guidance-scale=" + number(settings.guidance_scale) +
      " guidance-scale-2=" + number(settings.guidance_scale_2) +
      " flow-shift=" + number(settings.flow_shift) + " scheduler=" + scheduler_nick(settings.scheduler);
  if (!settings.sigmas.empty()) text += " sigmas=\"" + list(settings.sigmas) + "\"";
  if (settings.cache != WAN_CACHE_NONE)
    text += " cache=first-block cache-threshold=" + number(*settings.cache_threshold);
  if (!settings.negative_prompt.empty()) text += " negative-prompt=\"" + settings.negative_prompt + "\"";
  return text;
}

}  // namespace

void register_meta() {
  static const gchar *tags[] = {nullptr};  // none: it stays with the frame whatever is done to the pixels
  gst_meta_register_custom(kMeta, tags, nullptr, nullptr, nullptr);
}

void add_meta(GstBuffer *buffer, const Chunk &chunk, int frame, bool repeated) {
  GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, kMeta);
  gst_structure_set(
      gst_custom_meta_get_structure(meta), "clip", G_TYPE_INT, chunk.clip ? chunk.clip->index : -1, "chunk",
      G_TYPE_INT, chunk.frames ? chunk.frames->chunk : -1, "frame", G_TYPE_INT, frame, "seed", G_TYPE_UINT64,
      guint64{chunk.clip ? chunk.clip->seed : 0}, "repeated", G_TYPE_BOOLEAN, gboolean{repeated}, nullptr);
}

GstStructure *progress_structure(const Progress &progress) {
  const WanProgress &now = progress.progress;
  const Clip *clip = progress.clip.get();
  return gst_structure_new("wan-progress", "clip", G_TYPE_INT, clip ? clip->index : -1, "seed", G_TYPE_UINT64,
                           guint64{clip ? clip->seed : 0}, "stage", G_TYPE_STRING, kStages[now.stage], "step",
                           G_TYPE_INT, now.step, "steps", G_TYPE_INT, now.steps, "seconds", G_TYPE_DOUBLE,
                           now.seconds, "cached-forwards", G_TYPE_INT, now.cached, nullptr);
}

GstStructure *clip_structure(const Clip &clip, GstClockTime pts) {
  return gst_structure_new("wan-clip", "clip", G_TYPE_INT, clip.index, "seed", G_TYPE_UINT64,
                           guint64{clip.seed}, "prompt", G_TYPE_STRING, clip.settings.prompt.c_str(), "pts",
                           G_TYPE_UINT64, pts, nullptr);
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
      "first-frame-seconds", G_TYPE_DOUBLE, air.first_frame_seconds.load(), nullptr);
  for (size_t stage = 0; stage < kStages.size(); ++stage) {
    const std::string field = std::string(kStages[stage]) + "-seconds";
    gst_structure_set(structure, field.c_str(), G_TYPE_DOUBLE, stats.seconds[stage], nullptr);
  }
  return structure;
}

GstTagList *clip_tags(const Clip &clip) {
  GstTagList *tags = gst_tag_list_new(GST_TAG_ENCODER, "gst-wan " WAN_VERSION, GST_TAG_COMMENT,
                                      settings_text(clip).c_str(), nullptr);
  if (!clip.settings.prompt.empty())
    gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_TITLE, clip.settings.prompt.c_str(), nullptr);
  return tags;
}

}  // namespace wan
