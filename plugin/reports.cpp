// SPDX-License-Identifier: LGPL-2.1-or-later
#include "reports.h"

#include <array>
#include <cmath>
#include <utility>

#include "engine_loader.h"
#include "enums.h"
#include "log.h"
#include "values.h"
#include "wansrc_private.h"

namespace wan {
namespace {

constexpr char kMeta[] = "GstWanMeta";
constexpr std::array kStages = {"load", "text", "pictures", "denoise", "decode"};

// ---- texts

// As in "2 min 20 s".
std::string duration_text(double seconds) {
  const auto whole = static_cast<guint64>(std::ceil(seconds));
  const auto of = [](guint64 number, const char *unit) { return std::to_string(number) + " " + unit; };
  if (whole < 60) return of(whole, "s");
  if (whole < 3600) return of(whole / 60, "min") + " " + of(whole % 60, "s");
  return of(whole / 3600, "h") + " " + of(whole % 3600 / 60, "min");
}

// ", 2 min 20 s left", if what is done says.
std::string time_left(const WanProgress &now) {
  if (now.step <= 0 || now.step >= now.steps) return "";
  return ", " + duration_text(now.seconds / now.step * (now.steps - now.step)) + " left";
}

std::string progress_text(const WanProgress &now) {
  const std::string done = std::to_string(now.step) + " of " + std::to_string(now.steps);
  switch (now.stage) {
    case WAN_STAGE_LOAD:
      return "loading the model, " + std::to_string(now.step * 100 / std::max(now.steps, 1)) + " %" +
             time_left(now);
    case WAN_STAGE_TEXT:
      return "encoding prompts, " + done;
    case WAN_STAGE_PICTURES:
      return "encoding pictures, " + done;
    case WAN_STAGE_DENOISE:
      return "step " + done + time_left(now);
    case WAN_STAGE_DECODE:
      break;
  }
  return "decoding, " + done;
}

std::string literal(const std::string &text) {
  Value value(G_TYPE_STRING);
  write_value(text, value.get());
  return launch_text(value.get());
}

std::string loras_text(const std::vector<LoraChoice> &loras) {
  Value array(GST_TYPE_ARRAY);
  for (const LoraChoice &lora : loras) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, GST_TYPE_STRUCTURE);
    g_value_take_boxed(
        &item, gst_structure_new("lora", "path", G_TYPE_STRING, lora.path.c_str(), "strength", G_TYPE_DOUBLE,
                                 lora.strength, "strength-2", G_TYPE_DOUBLE, lora.strength_2, nullptr));
    gst_value_array_append_and_take_value(array.get(), &item);
  }
  return assignment("loras", launch_text(array.get()));
}

// What makes the model another one than without it. The line is one for a file.
std::string model_text(const ModelChoice &choice) {
  std::string text;
  if (choice.directory != model_directory("", /*live=*/false))
    text += assignment("model", literal(choice.directory));
  if (choice.device != "auto") text += assignment("device", literal(choice.device));
  if (!choice.decoder_device.empty()) text += assignment("decoder-device", literal(choice.decoder_device));
  if (choice.dtype != WAN_DTYPE_AUTO) text += assignment("dtype", dtype_nick(choice.dtype));
  if (choice.quantization != WAN_QUANTIZATION_NONE)
    text += assignment("quantization", quantization_nick(choice.quantization));
  if (choice.decoder != "full") text += assignment("decoder", literal(choice.decoder));
  if (!choice.loras.empty()) text += loras_text(choice.loras);
  return text;
}

// An element, so that a launch line may go on with caps of its own, such as the format.
std::string caps_text(const GstVideoInfo &info) {
  return " ! capsfilter caps=\"video/x-raw,width=" + std::to_string(info.width) +
         ",height=" + std::to_string(info.height) + ",framerate=" + std::to_string(info.fps_n) + "/" +
         std::to_string(info.fps_d) + "\"";
}

// ---- messages

// The error of GStreamer's that stands for a status.
void error_kind(WanStatus status, GQuark *domain, int *code) {
  *domain = GST_RESOURCE_ERROR;
  *code = GST_RESOURCE_ERROR_SETTINGS;
  switch (status) {
    case WAN_NOT_FOUND:
      *code = GST_RESOURCE_ERROR_NOT_FOUND;
      break;
    case WAN_INVALID:
      break;
    case WAN_OUT_OF_MEMORY:
      *code = GST_RESOURCE_ERROR_NO_SPACE_LEFT;
      break;
    case WAN_DEVICE:
    case WAN_LOST:
      *code = GST_RESOURCE_ERROR_OPEN_READ_WRITE;
      break;
    default:
      *domain = GST_STREAM_ERROR;
      *code = GST_STREAM_ERROR_FAILED;
  }
}

void post(GstWanSrc *self, GstMessageType type, const Failure &failure) {
  GQuark domain;
  int code;
  error_kind(failure.status, &domain, &code);
  gchar *debug;
  {
    const ObjectLock lock(self);  // any thread may warn while a run begins
    const Run &run = self->priv->run;
    debug = g_strdup_printf("engine %s, status %d, model \"%s\", device \"%s\", size %dx%d",
                            self->priv->engine ? self->priv->engine->version : "none", failure.status,
                            run.choice.directory.c_str(), run.choice.device.c_str(), run.info.width,
                            run.info.height);
  }
  gst_element_message_full(GST_ELEMENT(self), type, domain, code, g_strdup(utf8(failure.message).c_str()),
                           g_strdup(utf8(debug).c_str()), failure.file ? failure.file : "", "", failure.line);
  g_free(debug);
}

Failure failure_at(WanStatus status, const std::string &message, const std::source_location &where) {
  return {status, message, where.file_name(), int(where.line())};
}

void post_element_message(GstWanSrc *self, GstStructure *structure) {
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), structure));
}

void post_preroll(GstWanSrc *self, GstProgressType type, const std::string &text) {
  gst_element_post_message(GST_ELEMENT(self),
                           gst_message_new_progress(GST_OBJECT(self), type, "preroll", utf8(text).c_str()));
}

// Which clip a message is about.
GstStructure *structure_of(const char *name, const Clip &clip) {
  return gst_structure_new(name, "id", G_TYPE_UINT, guint{clip.id}, "clip", G_TYPE_INT, clip.index, "seed",
                           G_TYPE_UINT64, guint64{clip.seed}, "prompt", G_TYPE_STRING,
                           clip.settings.prompt.c_str(), nullptr);
}

void add_settings(GstStructure *structure, const Clip &clip, const GstVideoInfo &info) {
  add_fields(clip.settings, structure);
  gst_structure_set(structure, "seed", G_TYPE_UINT64, guint64{clip.seed}, "width", G_TYPE_INT, info.width,
                    "height", G_TYPE_INT, info.height, nullptr);
}

GstStructure *clip_structure(GstWanSrc *self, const Clip &clip, GstClockTime pts) {
  GstStructure *structure = structure_of("wan-clip", clip);
  add_settings(structure, clip, self->priv->run.info);
  gst_structure_set(structure, "pts", G_TYPE_UINT64, pts, nullptr);
  return structure;
}

}  // namespace

void post_error(GstWanSrc *self, WanStatus status, const std::string &message,
                const std::source_location &where) {
  post_error(self, failure_at(status, message, where));
}

void post_error(GstWanSrc *self, const Failure &failure) {
  post(self, GST_MESSAGE_ERROR, failure);
}

void post_warning(GstWanSrc *self, const std::string &message, const std::source_location &where) {
  post(self, GST_MESSAGE_WARNING, failure_at(WAN_INVALID, message, where));
}

void post_log(GstWanSrc *self, const Log &log) {
  if (log.level == WAN_LOG_WARNING)
    post_warning(self, log.message);
  else if (log.level == WAN_LOG_INFO)
    GST_INFO_OBJECT(self, "%s", log.message.c_str());
  else
    GST_DEBUG_OBJECT(self, "%s", log.message.c_str());
}

void begin_preroll(GstWanSrc *self, const std::string &text) {
  if (is_live(self)) return;
  self->priv->run.prerolling = true;
  post_preroll(self, GST_PROGRESS_TYPE_START, text);
}

void continue_preroll(GstWanSrc *self, const std::string &text) {
  if (self->priv->run.prerolling) post_preroll(self, GST_PROGRESS_TYPE_CONTINUE, text);
}

void end_preroll(GstWanSrc *self, GstProgressType type, const std::string &text) {
  if (std::exchange(self->priv->run.prerolling, false)) post_preroll(self, type, text);
}

void post_progress(GstWanSrc *self, const Progress &progress) {
  const WanProgress &now = progress.progress;
  const Clip *clip = progress.clip.get();
  const std::string text = progress_text(now);
  if (clip)
    GST_DEBUG_OBJECT(self, "clip %d: %s", clip->index, text.c_str());
  else
    GST_DEBUG_OBJECT(self, "%s", text.c_str());
  continue_preroll(self, text);
  if (!clip && !is_live(self)) return;
  post_element_message(
      self,
      gst_structure_new("wan-progress", "id", G_TYPE_UINT, guint{clip ? clip->id : 0}, "clip", G_TYPE_INT,
                        clip ? clip->index : -1, "seed", G_TYPE_UINT64, guint64{clip ? clip->seed : 0},
                        "stage", G_TYPE_STRING, kStages[now.stage], "step", G_TYPE_INT, now.step, "steps",
                        G_TYPE_INT, now.steps, "seconds", G_TYPE_DOUBLE, now.seconds, "cached-forwards",
                        G_TYPE_INT, now.cached, nullptr));
}

void post_clip(GstWanSrc *self, const Clip &clip, GstClockTime pts) {
  GST_DEBUG_OBJECT(self, "clip %d (id %u) is on air at %" GST_TIME_FORMAT, clip.index, clip.id,
                   GST_TIME_ARGS(pts));
  post_element_message(self, clip_structure(self, clip, pts));
}

void post_clip_ended(GstWanSrc *self, const ClipEnded &ended, int frames) {
  const Clip &clip = *ended.clip;
  GST_DEBUG_OBJECT(self, "clip %d (id %u) is %s after %d frames", clip.index, clip.id,
                   ended.skipped ? "skipped" : "done", frames);
  GstStructure *structure = structure_of(ended.skipped ? "wan-clip-skipped" : "wan-clip-done", clip);
  gst_structure_set(structure, "frames", G_TYPE_INT, frames, nullptr);
  post_element_message(self, structure);
}

void post_clip_dropped(GstWanSrc *self, guint id) {
  GST_DEBUG_OBJECT(self, "the clip of id %u has left the queue", id);
  post_element_message(self, gst_structure_new("wan-clip-skipped", "id", G_TYPE_UINT, id, "clip", G_TYPE_INT,
                                               -1, "frames", G_TYPE_INT, 0, nullptr));
}

void post_clip_failed(GstWanSrc *self, const ClipFailed &failed) {
  const Clip &clip = *failed.clip;
  Failure warning = failed.failure;
  GQuark domain;
  int code;
  error_kind(warning.status, &domain, &code);
  GstStructure *structure = structure_of("wan-clip-failed", clip);
  gst_structure_set(structure, "error", G_TYPE_STRING, utf8(warning.message).c_str(), "domain", G_TYPE_STRING,
                    g_quark_to_string(domain), "code", G_TYPE_INT, code, nullptr);
  post_element_message(self, structure);
  warning.message = "Clip " + std::to_string(clip.index) + " could not be made: " + warning.message;
  if (failed.pause.count() > 0)
    warning.message += " It is tried again in " + std::to_string(failed.pause.count()) + " s.";
  post(self, GST_MESSAGE_WARNING, warning);
}

void post_underrun(GstWanSrc *self, bool running, GstClockTime pts, guint64 frames) {
  GST_INFO_OBJECT(self, "an underrun %s at %" GST_TIME_FORMAT ", %" G_GUINT64_FORMAT " frames missing so far",
                  running ? "begins" : "is over", GST_TIME_ARGS(pts), frames);
  post_element_message(self,
                       gst_structure_new("wan-underrun", "running", G_TYPE_BOOLEAN, gboolean{running}, "pts",
                                         G_TYPE_UINT64, pts, "frames", G_TYPE_UINT64, frames, nullptr));
}

GstEvent *clip_event(GstWanSrc *self, const Clip &clip, GstClockTime pts) {
  return gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, clip_structure(self, clip, pts));
}

GstTagList *clip_tags(const Clip &clip, const ModelChoice &choice, const GstVideoInfo &info) {
  ClipSettings settings = clip.settings;
  settings.seed = static_cast<int64_t>(clip.seed);
  const std::string line = launch_line(settings) + model_text(choice) + caps_text(info);
  GstTagList *tags = gst_tag_list_new(GST_TAG_ENCODER, "gst-wan " WAN_VERSION, GST_TAG_COMMENT,
                                      utf8(line.substr(1)).c_str(), nullptr);
  if (!clip.settings.prompt.empty())
    gst_tag_list_add(tags, GST_TAG_MERGE_REPLACE, GST_TAG_TITLE, clip.settings.prompt.c_str(), nullptr);
  return tags;
}

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

GstStructure *stats_structure(const PumpStats &stats, const AirStats &air, const WanDefaults &defaults,
                              const GstVideoInfo &info) {
  const Clip *clip = stats.newest.get();
  GstStructure *structure = gst_structure_new(
      "wan-stats", "stage", G_TYPE_STRING, stats.running ? kStages[stats.progress.stage] : "idle", "step",
      G_TYPE_INT, stats.progress.step, "steps", G_TYPE_INT, stats.progress.steps, "clip", G_TYPE_INT,
      clip ? clip->index : -1, "chunk", G_TYPE_INT, stats.chunk, "seed", G_TYPE_UINT64,
      guint64{clip ? clip->seed : 0}, "cached-forwards", G_TYPE_INT, stats.cached_forwards, "fps",
      G_TYPE_DOUBLE, stats.fps, "on-air-clip", G_TYPE_INT, stats.on_air_clip, "queued-clips", G_TYPE_UINT,
      guint(stats.queued_clips), "queue-level", G_TYPE_UINT, guint(stats.queue_level), "queue-seconds",
      G_TYPE_DOUBLE, stats.queue_seconds, "frames-pushed", G_TYPE_UINT64, air.frames_pushed.load(),
      "repeated", G_TYPE_UINT64, air.repeated.load(), "gaps", G_TYPE_UINT64, air.gaps.load(), "dropped",
      G_TYPE_UINT64, air.dropped.load(), "underruns", G_TYPE_UINT64, air.underruns.load(), "gpu-bytes",
      G_TYPE_UINT64, guint64{stats.memory.gpu_bytes}, "gpu-peak-bytes", G_TYPE_UINT64,
      guint64{stats.memory.gpu_peak_bytes}, "pinned-bytes", G_TYPE_UINT64, guint64{stats.memory.pinned_bytes},
      "pool-bytes", G_TYPE_UINT64, guint64{stats.memory.pool_bytes}, "memory-mode", G_TYPE_STRING,
      memory_mode_nick(stats.memory.mode), "device", G_TYPE_STRING, stats.memory.device, "guidance-devices",
      G_TYPE_INT, stats.memory.guidance_devices, "sequence-devices", G_TYPE_INT,
      stats.memory.sequence_devices, "first-frame-seconds", G_TYPE_DOUBLE, air.first_frame_seconds.load(),
      "prompt-to-screen", G_TYPE_DOUBLE, air.prompt_to_screen.load(), "endless", G_TYPE_BOOLEAN,
      gboolean{defaults.endless}, "takes-image", G_TYPE_BOOLEAN,
      gboolean{defaults.pictures[WAN_PICTURE_FIRST] != WAN_PICTURE_REFUSED}, nullptr);
  for (size_t stage = 0; stage < kStages.size(); ++stage) {
    const std::string field = std::string(kStages[stage]) + "-seconds";
    gst_structure_set(structure, field.c_str(), G_TYPE_DOUBLE, stats.seconds[stage], nullptr);
  }
  if (clip) {
    GstStructure *settings = gst_structure_new_empty("wan-settings");
    add_settings(settings, *clip, info);
    gst_structure_set(structure, "settings", GST_TYPE_STRUCTURE, settings, nullptr);
    gst_structure_free(settings);
  }
  return structure;
}

}  // namespace wan
