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

// The settings as wansrc's own properties, so that a launch line can take them over.
std::string settings_text(const Clip &clip, const RunSettings &run) {
  const ClipSettings &settings = clip.settings;
  std::string text =
      "seed=" + std::to_string(clip.seed) + " num-frames=" + std::to_string(run.num_frames) +
      " steps=" + std::to_string(settings.steps) + " guidance-scale=" + number(settings.guidance_scale) +
      " guidance-scale-2=" + number(settings.guidance_scale_2) +
      " flow-shift=" + number(settings.flow_shift) + " scheduler=" + scheduler_nick(settings.scheduler);
  if (!settings.negative_prompt.empty()) text += " negative-prompt=\"" + settings.negative_prompt + "\"";
  return text;
}

}  // namespace

void register_meta() {
  static const gchar *tags[] = {nullptr};  // none: it stays with the frame whatever is done to the pixels
  gst_meta_register_custom(kMeta, tags, nullptr, nullptr, nullptr);
}

void add_meta(GstBuffer *buffer, const Chunk &chunk, int frame) {
  GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, kMeta);
  gst_structure_set(gst_custom_meta_get_structure(meta), "clip", G_TYPE_INT, chunk.clip->index, "chunk",
                    G_TYPE_INT, chunk.frames->chunk, "frame", G_TYPE_INT, frame, "seed", G_TYPE_UINT64,
                    guint64{chunk.clip->seed}, nullptr);
}

GstStructure *progress_structure(const Progress &progress) {
  const WanProgress &now = progress.progress;
  return gst_structure_new("wan-progress", "clip", G_TYPE_INT, progress.clip->index, "seed", G_TYPE_UINT64,
                           guint64{progress.clip->seed}, "stage", G_TYPE_STRING, kStages[now.stage], "step",
                           G_TYPE_INT, now.step, "steps", G_TYPE_INT, now.steps, "seconds", G_TYPE_DOUBLE,
                           now.seconds, nullptr);
}

GstStructure *stats_structure(const PumpStats &stats, guint64 frames_pushed, double first_frame_seconds) {
  GstStructure *structure = gst_structure_new(
      "wan-stats", "stage", G_TYPE_STRING, stats.running ? kStages[stats.progress.stage] : "idle", "step",
      G_TYPE_INT, stats.progress.step, "steps", G_TYPE_INT, stats.progress.steps, "clip", G_TYPE_INT,
      stats.clip, "chunk", G_TYPE_INT, stats.chunk, "seed", G_TYPE_UINT64, guint64{stats.seed}, "queue-level",
      G_TYPE_UINT, guint(stats.queue_level), "frames-pushed", G_TYPE_UINT64, frames_pushed, "gpu-bytes",
      G_TYPE_UINT64, guint64{stats.memory.gpu_bytes}, "gpu-peak-bytes", G_TYPE_UINT64,
      guint64{stats.memory.gpu_peak_bytes}, "pinned-bytes", G_TYPE_UINT64, guint64{stats.memory.pinned_bytes},
      "pool-bytes", G_TYPE_UINT64, guint64{stats.memory.pool_bytes}, "first-frame-seconds", G_TYPE_DOUBLE,
      first_frame_seconds, nullptr);
  for (size_t stage = 0; stage < kStages.size(); ++stage) {
    const std::string field = std::string(kStages[stage]) + "-seconds";
    gst_structure_set(structure, field.c_str(), G_TYPE_DOUBLE, stats.seconds[stage], nullptr);
  }
  return structure;
}

GstTagList *clip_tags(const Clip &clip, const RunSettings &run) {
  GstTagList *tags = gst_tag_list_new(GST_TAG_ENCODER, "gst-wan " WAN_VERSION, GST_TAG_COMMENT,
                                      settings_text(clip, run).c_str(), nullptr);
  if (!clip.settings.prompt.empty())
    gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_TITLE, clip.settings.prompt.c_str(), nullptr);
  return tags;
}

}  // namespace wan
