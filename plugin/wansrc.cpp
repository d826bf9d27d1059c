// SPDX-License-Identifier: LGPL-2.1-or-later

/**
 * SECTION:element-wansrc
 * @title: wansrc
 * @short_description: makes video from text with Wan 2.2
 *
 * wansrc runs a Wan 2.2 text-to-video diffusion model and pushes the frames of the clip while the rest of it
 * is still being decoded. The model is a directory in Diffusers' format; without #GstWanSrc:model a small
 * embedded one is used.
 *
 * Size, rate and format are caps, as in videotestsrc; what downstream leaves open becomes the checkpoint's
 * own. They are fixed by the first negotiation of a run. Width and height must be multiples of 16.
 *
 * ## Launch lines
 *
 * |[
 * gst-launch-1.0 wansrc prompt="a red circle bouncing on a blue background" ! x264enc ! mp4mux ! filesink
 * location=wan.mp4
 * ]| The embedded model to an MP4.
 *
 * |[
 * gst-launch-1.0 -e wansrc model=Wan2.2-T2V-A14B-Diffusers prompt="a cat walks on the grass" seed=1 !
 *   video/x-raw,width=832,height=480,framerate=16/1 ! x264enc ! mp4mux ! filesink location=cat.mp4
 * ]| The released 14B checkpoint; the seed makes the video repeatable.
 *
 * |[
 * gst-launch-1.0 -m wansrc num-clips=-1 prompt="a green star rising" ! videoconvert ! autovideosink
 * ]| Clip after clip, each with the next seed, with all messages shown.
 *
 * ## Messages
 *
 * - progress messages (code "load") while the model is loaded, complete before the first buffer;
 * - element messages "wan-progress" while a clip is made: clip (int), seed (guint64), stage (string: text,
 * denoise or decode), step and steps (int: done and in all), seconds (double, since the stage began).
 *
 * ## Frames
 *
 * Every buffer is one frame with exact timestamps and duration, its number as the offset, and a custom meta
 * "GstWanMeta" (see gst_buffer_get_custom_meta()): clip (int), chunk (int, the latent frame in the clip),
 * frame (int, in the clip) and seed (guint64). Each clip starts with tags: title (the prompt), encoder, and
 * comment (the settings, as properties).
 *
 * ## Errors
 *
 * A model or file that is missing is RESOURCE/NOT_FOUND; a wrong checkpoint, value or size is
 * RESOURCE/SETTINGS; too little memory is RESOURCE/NO_SPACE_LEFT; a device that is absent or fails is
 * RESOURCE/OPEN_READ_WRITE; an engine library that is missing or of another version is LIBRARY/INIT; all else
 * is STREAM/FAILED.
 */
#include "wansrc.h"

#include <gst/video/video.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "downstream_pool.h"
#include "engine_loader.h"
#include "enums.h"
#include "frame_pump.h"
#include "reports.h"
#include "video_caps.h"

GST_DEBUG_CATEGORY_STATIC(wansrc_debug);
#define GST_CAT_DEFAULT wansrc_debug

using namespace wan;

namespace {

// How long stop() waits for the worker, which answers a cancel within one layer's time.
constexpr std::chrono::seconds kStopPatience(1);

enum Property {
  PROP_MODEL = 1,
  PROP_PROMPT,
  PROP_NEGATIVE_PROMPT,
  PROP_SEED,
  PROP_NUM_FRAMES,
  PROP_STEPS,
  PROP_GUIDANCE_SCALE,
  PROP_GUIDANCE_SCALE_2,
  PROP_FLOW_SHIFT,
  PROP_SCHEDULER,
  PROP_DEVICE,
  PROP_DTYPE,
  PROP_NUM_CLIPS,
  PROP_QUEUE_SIZE,
  PROP_ENGINE,
  PROP_STATS,
};

// The properties. In clip, 0 steps, the scheduler AUTO and negative scales stand for the checkpoint's own.
struct Settings {
  std::string model, device = "auto", engine;
  WanDtype dtype = WAN_DTYPE_AUTO;
  gint64 seed = -1;
  int num_frames = 0, num_clips = 1;
  guint queue_size = 4;
  ClipSettings clip = {"", "", 0, -1, -1, -1, WAN_SCHEDULER_AUTO};
};

// What start() sets up and stop() ends. Pump, settings and info are written under the object lock.
struct Run {
  std::shared_ptr<FramePump> pump;
  ModelChoice choice;
  WanDefaults defaults = {};
  RunSettings settings;
  GstVideoInfo info = {};
  bool loading = false;
  Chunk chunk;         // being pushed; empty between chunks
  int chunk_next = 0;  // its next frame
};

struct ObjectLock {
  explicit ObjectLock(gpointer object) : object(object) { GST_OBJECT_LOCK(object); }
  ~ObjectLock() { GST_OBJECT_UNLOCK(object); }
  gpointer object;
};

}  // namespace

struct _GstWanSrc {
  GstPushSrc parent;

  Settings settings;  // object lock
  const WanEngineApi *engine;
  Run run;
  std::atomic<guint64> frames_pushed;
  std::atomic<double> first_frame_seconds;  // after the last denoising step, of the newest clip
  ModelChoice kept_choice;  // of the model that is kept from run to run until NULL
  std::shared_ptr<WanModel> kept_model;
};

G_DEFINE_FINAL_TYPE(GstWanSrc, gst_wan_src, GST_TYPE_PUSH_SRC)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(wansrc, "wansrc", GST_RANK_NONE, GST_TYPE_WAN_SRC,
                                      GST_DEBUG_CATEGORY_INIT(wansrc_debug, "wansrc", 0, "Wan video source"))

static void post_error(GstWanSrc *self, WanStatus status, const std::string &message) {
  GQuark domain = GST_RESOURCE_ERROR;
  int code = GST_RESOURCE_ERROR_SETTINGS;
  switch (status) {
    case WAN_NOT_FOUND:
      code = GST_RESOURCE_ERROR_NOT_FOUND;
      break;
    case WAN_INVALID:
      break;
    case WAN_OUT_OF_MEMORY:
      code = GST_RESOURCE_ERROR_NO_SPACE_LEFT;
      break;
    case WAN_DEVICE:
      code = GST_RESOURCE_ERROR_OPEN_READ_WRITE;
      break;
    default:
      domain = GST_STREAM_ERROR;
      code = GST_STREAM_ERROR_FAILED;
  }
  const ModelChoice &choice = self->run.choice;
  gchar *debug = g_strdup_printf("engine %s, status %d, model \"%s\", device \"%s\", size %dx%d",
                                 self->engine->version, status, choice.directory.c_str(),
                                 choice.device.c_str(), self->run.info.width, self->run.info.height);
  gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_ERROR, domain, code, g_strdup(message.c_str()),
                           debug, __FILE__, GST_FUNCTION, __LINE__);
}

static void post_load_progress(GstWanSrc *self, GstProgressType type, const std::string &text) {
  self->run.loading = type == GST_PROGRESS_TYPE_START || type == GST_PROGRESS_TYPE_CONTINUE;
  gst_element_post_message(GST_ELEMENT(self),
                           gst_message_new_progress(GST_OBJECT(self), type, "load", text.c_str()));
}

// ---- what the pump delivers, on the streaming thread

static GstFlowReturn take(GstWanSrc *, const Flushing &) {
  return GST_FLOW_FLUSHING;
}

static GstFlowReturn take(GstWanSrc *self, const Loaded &) {
  post_load_progress(self, GST_PROGRESS_TYPE_COMPLETE, "The model is loaded");
  return GST_FLOW_OK;
}

static GstFlowReturn take(GstWanSrc *self, const Progress &progress) {
  if (progress.clip) {
    GstMessage *message = gst_message_new_element(GST_OBJECT(self), progress_structure(progress));
    gst_element_post_message(GST_ELEMENT(self), message);
  } else {
    const WanProgress &now = progress.progress;
    post_load_progress(
        self, GST_PROGRESS_TYPE_CONTINUE,
        "Loading the model: " + std::to_string(now.step * 100 / std::max(now.steps, 1)) + " %");
  }
  return GST_FLOW_OK;
}

static GstFlowReturn take(GstWanSrc *self, const Chunk &chunk) {
  Run &run = self->run;
  if (chunk.frames->first_frame == 0) {
    // The base class queues the event behind the segment and before the next buffer. Its method is called
    // directly, since gst_element_send_event() takes the state lock, which stop() holds while it waits for
    // this thread.
    GST_ELEMENT_CLASS(gst_wan_src_parent_class)
        ->send_event(GST_ELEMENT(self), gst_event_new_tag(clip_tags(*chunk.clip, run.settings)));
  }
  run.chunk = chunk;
  run.chunk_next = 0;
  return GST_FLOW_OK;
}

static GstFlowReturn take(GstWanSrc *self, const Finished &finished) {
  if (finished.status == WAN_OK) return GST_FLOW_EOS;
  if (self->run.loading) post_load_progress(self, GST_PROGRESS_TYPE_ERROR, finished.message);
  post_error(self, finished.status, finished.message);
  return GST_FLOW_ERROR;
}

static GstMemory *wrap_frame(const Chunk &chunk, int frame, gsize size) {
  auto *owner = new std::shared_ptr<WanFrames>(chunk.frames);
  return gst_memory_new_wrapped(
      GstMemoryFlags(0), chunk.frames->data + frame * chunk.frames->frame_size, size, 0, size, owner,
      [](gpointer owner) { delete static_cast<std::shared_ptr<WanFrames> *>(owner); });
}

static GstClockTime frame_time(const GstVideoInfo &info, guint64 frame) {
  return gst_util_uint64_scale(frame, GST_SECOND * info.fps_d, info.fps_n);
}

// Copies the frame into the pool that downstream offered; without one it stays in the engine's memory.
static GstFlowReturn move_to_pool(GstWanSrc *self, GstBuffer **buffer) {
  GstBufferPool *pool = gst_base_src_get_buffer_pool(GST_BASE_SRC(self));
  if (!pool) return GST_FLOW_OK;
  GstBuffer *copy = nullptr;
  const GstFlowReturn flow = gst_buffer_pool_acquire_buffer(pool, &copy, nullptr);
  gst_object_unref(pool);
  if (flow != GST_FLOW_OK) return flow;
  const bool copied = copy_frame(self->run.info, *buffer, copy);
  gst_buffer_unref(std::exchange(*buffer, copy));
  if (copied) return GST_FLOW_OK;
  post_error(self, WAN_INTERNAL, "A frame could not be copied into the memory that downstream offers.");
  return GST_FLOW_ERROR;
}

static void stamp(GstWanSrc *self, GstBuffer *buffer) {
  const Run &run = self->run;
  const guint64 frame = self->frames_pushed++;
  GST_BUFFER_PTS(buffer) = frame_time(run.info, frame);
  GST_BUFFER_DURATION(buffer) = frame_time(run.info, frame + 1) - GST_BUFFER_PTS(buffer);
  GST_BUFFER_OFFSET(buffer) = frame;
  GST_BUFFER_OFFSET_END(buffer) = frame + 1;
}

static void note_first_frame(GstWanSrc *self, const Clip &clip) {
  const std::chrono::duration<double> latency = std::chrono::steady_clock::now() - clip.denoised;
  self->first_frame_seconds = latency.count();
  g_object_notify(G_OBJECT(self), "stats");
}

static GstFlowReturn next_buffer(GstWanSrc *self, GstBuffer **buffer) {
  Run &run = self->run;
  *buffer = gst_buffer_new();
  gst_buffer_append_memory(*buffer, wrap_frame(run.chunk, run.chunk_next, run.settings.layout.size));
  if (const GstFlowReturn flow = move_to_pool(self, buffer); flow != GST_FLOW_OK) {
    gst_clear_buffer(buffer);
    return flow;  // the frame is still the next one
  }
  const int frame = run.chunk.frames->first_frame + run.chunk_next;
  add_meta(*buffer, run.chunk, frame);
  stamp(self, *buffer);
  if (frame == 0) note_first_frame(self, *run.chunk.clip);
  if (++run.chunk_next == run.chunk.frames->num_frames) run.chunk = {};
  return GST_FLOW_OK;
}

static GstFlowReturn gst_wan_src_create(GstPushSrc *src, GstBuffer **buffer) {
  GstWanSrc *self = GST_WAN_SRC(src);
  while (!self->run.chunk.frames) {
    const GstFlowReturn flow =
        std::visit([self](const auto &event) { return take(self, event); }, self->run.pump->pop());
    if (flow != GST_FLOW_OK) return flow;
  }
  return next_buffer(self, buffer);
}

// ---- starting and stopping

// What the user left open is the checkpoint's, but one scale alone counts for both experts, as in Diffusers.
static ClipSettings complete(ClipSettings clip, const WanDefaults &defaults) {
  if (clip.steps == 0) clip.steps = defaults.steps;
  if (clip.guidance_scale_2 < 0)
    clip.guidance_scale_2 = clip.guidance_scale < 0 ? defaults.guidance_scale_2 : clip.guidance_scale;
  if (clip.guidance_scale < 0) clip.guidance_scale = defaults.guidance_scale;
  if (clip.flow_shift < 0) clip.flow_shift = defaults.flow_shift;
  if (clip.scheduler == WAN_SCHEDULER_AUTO) clip.scheduler = defaults.scheduler;
  return clip;
}

// Rounded as Diffusers does, which is up from a multiple: 6 becomes 5, but 8 becomes 9.
static int clip_length(GstWanSrc *self, int wanted, const WanDefaults &defaults) {
  if (wanted == 0) return defaults.num_frames;
  const int step = defaults.frames_multiple;
  if (wanted % step == 1 % step) return wanted;
  const int rounded = wanted / step * step + 1;
  GST_ELEMENT_WARNING(
      self, RESOURCE, SETTINGS,
      ("num-frames=%d becomes %d: it must be 1 more than a multiple of %d.", wanted, rounded, step),
      (nullptr));
  return rounded;
}

static gboolean gst_wan_src_start(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  Run run;
  {
    ObjectLock lock(self);
    const Settings &settings = self->settings;
    run.choice = {self->engine, model_directory(settings.model), settings.device, settings.dtype};
    run.settings = {settings.num_frames, settings.num_clips, settings.queue_size, {}};
  }
  WanError error = {};
  const WanStatus status = self->engine->describe(run.choice.directory.c_str(), &run.defaults, &error);
  if (status == WAN_OK) {
    run.settings.num_frames = clip_length(self, run.settings.num_frames, run.defaults);
    run.pump = std::make_shared<FramePump>(run.choice);
  }
  {
    ObjectLock lock(self);
    self->run = run;
    self->frames_pushed = 0;
    self->first_frame_seconds = 0;
    if (run.pump) {
      run.pump->configure(complete(self->settings.clip, run.defaults));
      run.pump->set_seed(self->settings.seed);
    }
  }
  if (status != WAN_OK) post_error(self, status, error.message);
  return status == WAN_OK;
}

static gboolean gst_wan_src_stop(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  Run &run = self->run;
  run.chunk = {};
  self->kept_model = run.pump->stop(kStopPatience);
  self->kept_choice = run.choice;
  if (run.loading) post_load_progress(self, GST_PROGRESS_TYPE_CANCELED, "Loading was cancelled");
  return TRUE;
}

// Events may interrupt an element that was never started.
static void set_flushing(GstBaseSrc *src, bool flushing) {
  ObjectLock lock(src);
  if (const auto &pump = GST_WAN_SRC(src)->run.pump) pump->set_flushing(flushing);
}

static gboolean gst_wan_src_unlock(GstBaseSrc *src) {
  set_flushing(src, true);
  return TRUE;
}

static gboolean gst_wan_src_unlock_stop(GstBaseSrc *src) {
  set_flushing(src, false);
  return TRUE;
}

static gboolean open_engine(GstWanSrc *self) {
  std::string file, reason;
  {
    ObjectLock lock(self);
    file = engine_file(self->settings.engine);
  }
  self->engine = open_engine(file, &reason);
  if (self->engine) return TRUE;
  GST_ELEMENT_ERROR(self, LIBRARY, INIT, ("%s", reason.c_str()),
                    ("from the property engine, $GST_WAN_ENGINE or the place where gst-wan was installed"));
  return FALSE;
}

static GstStateChangeReturn gst_wan_src_change_state(GstElement *element, GstStateChange transition) {
  GstWanSrc *self = GST_WAN_SRC(element);
  if (transition == GST_STATE_CHANGE_NULL_TO_READY && !open_engine(self)) return GST_STATE_CHANGE_FAILURE;
  const GstStateChangeReturn result =
      GST_ELEMENT_CLASS(gst_wan_src_parent_class)->change_state(element, transition);
  if (transition == GST_STATE_CHANGE_READY_TO_NULL) self->kept_model.reset();
  return result;
}

// ---- negotiation

static GstCaps *gst_wan_src_fixate(GstBaseSrc *src, GstCaps *caps) {
  return fixate_caps(caps, GST_WAN_SRC(src)->run.defaults);
}

// Once a run: after that, frames of the first caps are on their way or already paid for.
static gboolean gst_wan_src_negotiate(GstBaseSrc *src) {
  return gst_pad_has_current_caps(GST_BASE_SRC_PAD(src)) ||
         GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->negotiate(src);
}

// The worker starts here and not in start(), so that bad caps fail before any weights are loaded.
static gboolean gst_wan_src_set_caps(GstBaseSrc *src, GstCaps *caps) {
  GstWanSrc *self = GST_WAN_SRC(src);
  Run &run = self->run;
  GstVideoInfo info;
  std::string reason;
  if (!gst_video_info_from_caps(&info, caps)) {
    gchar *text = gst_caps_to_string(caps);
    reason = std::string("Frames of these caps are too large: ") + text + ".";
    g_free(text);
  } else {
    ObjectLock lock(self);
    run.info = info;
    pixel_layout(info, run.defaults, &run.settings.layout, &reason);
  }
  if (!reason.empty()) {
    post_error(self, WAN_INVALID, reason);
    return FALSE;
  }
  std::shared_ptr<WanModel> model = std::move(self->kept_model);
  if (self->kept_choice != run.choice) model.reset();
  if (!model) post_load_progress(self, GST_PROGRESS_TYPE_START, "Loading the model " + run.choice.directory);
  run.pump->start(run.settings, std::move(model));
  return TRUE;
}

static gboolean gst_wan_src_decide_allocation(GstBaseSrc *src, GstQuery *query) {
  choose_pool(query);
  return GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->decide_allocation(src, query);
}

// ---- queries

static gboolean query_duration(GstWanSrc *self, GstQuery *query) {
  GstFormat format;
  gst_query_parse_duration(query, &format, nullptr);
  ObjectLock lock(self);
  const Run &run = self->run;
  const bool endless = run.settings.num_clips < 0;
  const guint64 frames = guint64(run.settings.num_frames) * run.settings.num_clips;
  if (run.info.fps_n == 0) return FALSE;
  if (format == GST_FORMAT_TIME)
    gst_query_set_duration(query, format, endless ? -1 : frame_time(run.info, frames));
  else if (format == GST_FORMAT_DEFAULT)
    gst_query_set_duration(query, format, endless ? -1 : frames);
  else
    return FALSE;
  return TRUE;
}

static gboolean gst_wan_src_query(GstBaseSrc *src, GstQuery *query) {
  if (GST_QUERY_TYPE(query) == GST_QUERY_DURATION) return query_duration(GST_WAN_SRC(src), query);
  return GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->query(src, query);
}

// ---- properties

static std::string get_string(const GValue *value) {
  const gchar *text = g_value_get_string(value);
  return text ? text : "";
}

static void gst_wan_src_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec) {
  GstWanSrc *self = GST_WAN_SRC(object);
  ObjectLock lock(self);
  Settings &settings = self->settings;
  FramePump *pump = self->run.pump.get();
  switch (id) {
    case PROP_MODEL:
      settings.model = get_string(value);
      break;
    case PROP_PROMPT:
      settings.clip.prompt = get_string(value);
      break;
    case PROP_NEGATIVE_PROMPT:
      settings.clip.negative_prompt = get_string(value);
      break;
    case PROP_SEED:
      settings.seed = g_value_get_int64(value);
      if (pump) pump->set_seed(settings.seed);
      break;
    case PROP_NUM_FRAMES:
      settings.num_frames = g_value_get_int(value);
      break;
    case PROP_STEPS:
      settings.clip.steps = g_value_get_int(value);
      break;
    case PROP_GUIDANCE_SCALE:
      settings.clip.guidance_scale = g_value_get_double(value);
      break;
    case PROP_GUIDANCE_SCALE_2:
      settings.clip.guidance_scale_2 = g_value_get_double(value);
      break;
    case PROP_FLOW_SHIFT:
      settings.clip.flow_shift = g_value_get_double(value);
      break;
    case PROP_SCHEDULER:
      settings.clip.scheduler = WanScheduler(g_value_get_enum(value));
      break;
    case PROP_DEVICE:
      settings.device = get_string(value);
      break;
    case PROP_DTYPE:
      settings.dtype = WanDtype(g_value_get_enum(value));
      break;
    case PROP_NUM_CLIPS:
      settings.num_clips = g_value_get_int(value);
      break;
    case PROP_QUEUE_SIZE:
      settings.queue_size = g_value_get_uint(value);
      break;
    case PROP_ENGINE:
      settings.engine = get_string(value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
  if (pump) pump->configure(complete(settings.clip, self->run.defaults));
}

static void gst_wan_src_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec) {
  GstWanSrc *self = GST_WAN_SRC(object);
  ObjectLock lock(self);
  const Settings &settings = self->settings;
  switch (id) {
    case PROP_MODEL:
      g_value_set_string(value, settings.model.c_str());
      break;
    case PROP_PROMPT:
      g_value_set_string(value, settings.clip.prompt.c_str());
      break;
    case PROP_NEGATIVE_PROMPT:
      g_value_set_string(value, settings.clip.negative_prompt.c_str());
      break;
    case PROP_SEED:
      g_value_set_int64(value, settings.seed);
      break;
    case PROP_NUM_FRAMES:
      g_value_set_int(value, settings.num_frames);
      break;
    case PROP_STEPS:
      g_value_set_int(value, settings.clip.steps);
      break;
    case PROP_GUIDANCE_SCALE:
      g_value_set_double(value, settings.clip.guidance_scale);
      break;
    case PROP_GUIDANCE_SCALE_2:
      g_value_set_double(value, settings.clip.guidance_scale_2);
      break;
    case PROP_FLOW_SHIFT:
      g_value_set_double(value, settings.clip.flow_shift);
      break;
    case PROP_SCHEDULER:
      g_value_set_enum(value, settings.clip.scheduler);
      break;
    case PROP_DEVICE:
      g_value_set_string(value, settings.device.c_str());
      break;
    case PROP_DTYPE:
      g_value_set_enum(value, settings.dtype);
      break;
    case PROP_NUM_CLIPS:
      g_value_set_int(value, settings.num_clips);
      break;
    case PROP_QUEUE_SIZE:
      g_value_set_uint(value, settings.queue_size);
      break;
    case PROP_ENGINE:
      g_value_set_string(value, settings.engine.c_str());
      break;
    case PROP_STATS:
      g_value_take_boxed(value, stats_structure(self->run.pump ? self->run.pump->stats() : PumpStats(),
                                                self->frames_pushed, self->first_frame_seconds));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
}

static void install_properties(GObjectClass *klass) {
  constexpr auto kPlaying =
      GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING);
  constexpr auto kReady = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
  constexpr auto kNull = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
  const Settings defaults;
  const ClipSettings &clip = defaults.clip;
  const auto install = [klass](guint id, GParamSpec *pspec) {
    g_object_class_install_property(klass, id, pspec);
  };

  install(PROP_MODEL,
          g_param_spec_string(
              "model", "Model",
              "Directory of the checkpoint, in Diffusers' format (empty: $GST_WAN_MODEL, else the "
              "small embedded model)",
              defaults.model.c_str(), kReady));
  install(PROP_PROMPT, g_param_spec_string("prompt", "Prompt", "What the video shows, from the next clip on",
                                           clip.prompt.c_str(), kPlaying));
  install(PROP_NEGATIVE_PROMPT,
          g_param_spec_string(
              "negative-prompt", "Negative prompt",
              "What guidance leads away from, from the next clip on; used with a guidance scale above 1",
              clip.negative_prompt.c_str(), kPlaying));
  install(PROP_SEED,
          g_param_spec_int64("seed", "Seed",
                             "Seed of the next clip; each clip after it has the next seed (-1: a random one, "
                             "to be read in stats, tags and each frame's meta)",
                             -1, G_MAXINT64, defaults.seed, kPlaying));
  install(PROP_NUM_FRAMES,
          g_param_spec_int(
              "num-frames", "Number of frames",
              "Frames of a clip: 1 more than a multiple of 4, else rounded to one with a warning (0: as the "
              "checkpoint suggests)",
              0, G_MAXINT, defaults.num_frames, kReady));
  install(PROP_STEPS,
          g_param_spec_int("steps", "Steps",
                           "Denoising steps, from the next clip on (0: as the checkpoint suggests)", 0, 1000,
                           clip.steps, kPlaying));
  install(PROP_GUIDANCE_SCALE,
          g_param_spec_double(
              "guidance-scale", "Guidance scale",
              "How strongly the prompt leads, from the next clip on; up to 1 is without guidance and "
              "twice as fast (-1: as the checkpoint suggests)",
              -1, 100, clip.guidance_scale, kPlaying));
  install(PROP_GUIDANCE_SCALE_2,
          g_param_spec_double(
              "guidance-scale-2", "Guidance scale 2",
              "Guidance scale of the low-noise expert, from the next clip on (-1: guidance-scale if that "
              "is set, else as the checkpoint suggests)",
              -1, 100, clip.guidance_scale_2, kPlaying));
  install(
      PROP_FLOW_SHIFT,
      g_param_spec_double("flow-shift", "Flow shift",
                          "Shift of the noise schedule towards high noise, from the next clip on (-1: the "
                          "checkpoint's)",
                          -1, 100, clip.flow_shift, kPlaying));
  install(PROP_SCHEDULER,
          g_param_spec_enum("scheduler", "Scheduler", "Denoising scheduler, from the next clip on",
                            scheduler_type(), clip.scheduler, kPlaying));
  install(PROP_DEVICE,
          g_param_spec_string("device", "Device",
                              "Where the model runs: auto (a GPU if there is one), cpu, cuda or cuda:N",
                              defaults.device.c_str(), kReady));
  install(PROP_DTYPE,
          g_param_spec_enum("dtype", "Data type", "Number format of the weights and of the computation",
                            dtype_type(), defaults.dtype, kReady));
  install(PROP_NUM_CLIPS, g_param_spec_int("num-clips", "Number of clips",
                                           "Clips to make before the end of the stream (-1: endless)", -1,
                                           G_MAXINT, defaults.num_clips, kReady));
  install(PROP_QUEUE_SIZE,
          g_param_spec_uint(
              "queue-size", "Queue size",
              "Decoded chunks (of up to 4 frames) to hold for a slow downstream before decoding waits", 1,
              1000, defaults.queue_size, kReady));
  install(PROP_ENGINE,
          g_param_spec_string(
              "engine", "Engine",
              "Engine library, read when the element leaves NULL (empty: $GST_WAN_ENGINE, else the "
              "installed one)",
              defaults.engine.c_str(), kNull));
  install(PROP_STATS,
          g_param_spec_boxed(
              "stats", "Statistics",
              "Structure wan-stats: stage, step and steps, clip, chunk, seed, seconds by stage, queue-level "
              "(chunks), frames-pushed, first-frame-seconds, gpu-bytes, gpu-peak-bytes, pinned-bytes, "
              "pool-bytes",
              GST_TYPE_STRUCTURE, GParamFlags(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
  gst_type_mark_as_plugin_api(scheduler_type(), GstPluginAPIFlags(0));
  gst_type_mark_as_plugin_api(dtype_type(), GstPluginAPIFlags(0));
}

// ---- the class

static void gst_wan_src_init(GstWanSrc *self) {
  new (&self->settings) Settings;
  new (&self->run) Run;
  new (&self->frames_pushed) std::atomic<guint64>(0);
  new (&self->first_frame_seconds) std::atomic<double>(0);
  new (&self->kept_choice) ModelChoice;
  new (&self->kept_model) std::shared_ptr<WanModel>;
  gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME);
}

static void gst_wan_src_finalize(GObject *object) {
  GstWanSrc *self = GST_WAN_SRC(object);
  std::destroy_at(&self->settings);
  std::destroy_at(&self->run);
  std::destroy_at(&self->frames_pushed);
  std::destroy_at(&self->first_frame_seconds);
  std::destroy_at(&self->kept_choice);
  std::destroy_at(&self->kept_model);
  G_OBJECT_CLASS(gst_wan_src_parent_class)->finalize(object);
}

static void gst_wan_src_class_init(GstWanSrcClass *klass) {
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  object_class->set_property = gst_wan_src_set_property;
  object_class->get_property = gst_wan_src_get_property;
  object_class->finalize = gst_wan_src_finalize;
  install_properties(object_class);

  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  element_class->change_state = gst_wan_src_change_state;
  gst_element_class_set_static_metadata(element_class, "Wan video source", "Source/Video",
                                        "Makes video from text with Wan 2.2 diffusion models, on a GPU or "
                                        "the CPU. Size, rate and format are caps.",
                                        "The gst-wan developers");
  GstCaps *caps = gst_caps_from_string(kVideoCaps);
  gst_element_class_add_pad_template(element_class,
                                     gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
  gst_caps_unref(caps);

  GstBaseSrcClass *base_class = GST_BASE_SRC_CLASS(klass);
  base_class->start = gst_wan_src_start;
  base_class->stop = gst_wan_src_stop;
  base_class->unlock = gst_wan_src_unlock;
  base_class->unlock_stop = gst_wan_src_unlock_stop;
  base_class->fixate = gst_wan_src_fixate;
  base_class->negotiate = gst_wan_src_negotiate;
  base_class->set_caps = gst_wan_src_set_caps;
  base_class->decide_allocation = gst_wan_src_decide_allocation;
  base_class->query = gst_wan_src_query;
  GST_PUSH_SRC_CLASS(klass)->create = gst_wan_src_create;

  register_meta();
}
