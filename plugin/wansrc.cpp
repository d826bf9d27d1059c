// SPDX-License-Identifier: LGPL-2.1-or-later

/**
 * SECTION:element-wansrc
 * @title: wansrc
 * @short_description: makes video from text and pictures with Wan
 *
 * wansrc runs a Wan diffusion model, which makes video from text or from a picture and text, and pushes the
 * frames of the clip while the rest of it is still being decoded. The model is a directory, in Diffusers'
 * format, of the original release or of single files; without #GstWanSrc:model a small embedded one is used,
 * with #GstWanSrc:is-live one that makes an endless video.
 * #GstWanSrc:loras are merged into it.
 *
 * Size, rate and format are caps, as in videotestsrc; what downstream leaves open becomes the checkpoint's
 * own. They are fixed by the first negotiation of a run. Width and height must be multiples of 16.
 *
 * ## Live
 *
 * With #GstWanSrc:is-live the video starts at once and keeps its rate by the clock, whatever generation does:
 * before the first frame it is black, and when no frame is ready at its time, #GstWanSrc:underrun says what
 * is sent. Timestamps are the running time at which a frame is sent; the latency is one frame.
 *
 * ## Clips
 *
 * What a clip begins and ends with is #GstWanSrc:image and #GstWanSrc:last-image, or what comes in at the
 * pads image_sink and last_image_sink, with models that take pictures. #GstWanSrc:continuity begins each clip
 * with the last frame of the one before.
 *
 * After the clips that #GstWanSrc:prompts and #GstWanSrc::enqueue have queued come those of
 * #GstWanSrc:prompt, until there are #GstWanSrc:num-clips. #GstWanSrc::skip ends the one that is on air.
 *
 * Text that comes in at the pad prompt_sink is the prompt from its time on, until the text ends: clips are
 * cut at these times. A live source changes the prompt at the next clip.
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
 * gst-launch-1.0 wansrc is-live=true num-clips=-1 prompt="a green star rising" ! videoconvert ! autovideosink
 * ]| Live, clip after clip, each with the next seed.
 *
 * |[
 * gst-launch-1.0 filesrc location=story.srt ! subparse ! wan.prompt_sink wansrc name=wan ! x264enc ! mp4mux !
 *   filesink location=story.mp4
 * ]| A film whose script are subtitles.
 *
 * ## Messages
 *
 * - progress messages (code "preroll") from the start to the first frame, with the time left; none when live,
 * since applications wait in PAUSED until they are complete;
 * - element messages "wan-progress" while a clip is made (and, live, while the model is loaded): clip (int),
 * seed (guint64), stage (string: load, text, denoise or decode), step and steps (int: done and in all),
 * seconds (double, since the stage began), cached-forwards (int: see #GstWanSrc:cache);
 * - element messages "wan-clip" when the first frame of a clip is sent: id (guint, what #GstWanSrc::enqueue
 * has returned), clip, pts (guint64), width, height, and the settings in effect, named as the properties;
 * - element messages "wan-clip-done" and "wan-clip-skipped" when a clip has ended: id, clip, seed, prompt,
 * frames (int, sent);
 * - element messages "wan-clip-failed" when a clip could not be made and the stream goes on: id, clip, seed,
 * prompt, error (string), domain (string), code (int), and a warning message that says the same;
 * - live: element messages "wan-underrun" when frames begin to be missing and when they are there again:
 * running (boolean), pts (guint64), frames (guint64, missing so far); QoS messages when downstream was late.
 *
 * ## Frames
 *
 * Every buffer is one frame with exact timestamps and duration, its number as the offset, and a custom meta
 * "GstWanMeta" (see gst_buffer_get_custom_meta()): clip (int), chunk (int, the latent frame in the clip),
 * frame (int, in the clip), seed (guint64) and repeated (boolean; a filler before the first frame has clip
 * -1). Each clip starts with tags: title (the prompt), encoder, and comment (a launch line that makes it
 * again).
 *
 * ## Errors
 *
 * A model or file that is missing is RESOURCE/NOT_FOUND; a wrong checkpoint, value or size is
 * RESOURCE/SETTINGS; too little memory is RESOURCE/NO_SPACE_LEFT; a device that is absent or fails is
 * RESOURCE/OPEN_READ_WRITE; an engine library that is missing or of another version is LIBRARY/INIT; all else
 * is STREAM/FAILED.
 */
#include "wansrc.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "downstream_pool.h"
#include "engine_loader.h"
#include "log.h"
#include "picture_pad.h"
#include "prompt_pad.h"
#include "uri.h"
#include "values.h"
#include "video_caps.h"
#include "wansrc_private.h"

using namespace wan;

namespace {

// How long stop() waits for the worker, which answers a cancel within one layer's time.
constexpr std::chrono::seconds kStopPatience(1);

}  // namespace

static void gst_wan_src_uri_handler_init(gpointer iface, gpointer);
static void gst_wan_src_preset_init(gpointer iface, gpointer);

G_DEFINE_FINAL_TYPE_WITH_CODE(GstWanSrc, gst_wan_src, GST_TYPE_PUSH_SRC,
                              G_IMPLEMENT_INTERFACE(GST_TYPE_URI_HANDLER, gst_wan_src_uri_handler_init)
                                  G_IMPLEMENT_INTERFACE(GST_TYPE_PRESET, gst_wan_src_preset_init))
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(wansrc, "wansrc", GST_RANK_NONE, GST_TYPE_WAN_SRC,
                                      GST_DEBUG_CATEGORY_INIT(wan::wansrc_debug, "wansrc", 0,
                                                              "Wan video source"))

// The base class queues the event behind the segment. Its method is called directly, since
// gst_element_send_event() takes the state lock, which stop() holds while it waits for the streaming thread.
void wan::queue_event(GstWanSrc *self, GstEvent *event) {
  GST_ELEMENT_CLASS(gst_wan_src_parent_class)->send_event(GST_ELEMENT(self), event);
}

static GstFlowReturn gst_wan_src_create(GstPushSrc *src, GstBuffer **buffer) {
  return next_frame(GST_WAN_SRC(src), buffer);
}

// ---- starting and stopping

static void warn_of_rounding(GstWanSrc *self, int wanted) {
  const WanDefaults &defaults = self->priv->run.settings.defaults;
  const int rounded = round_frames(wanted, defaults);
  if (wanted == 0 || wanted == rounded) return;
  post_warning(self, "num-frames=" + std::to_string(wanted) + " becomes " + std::to_string(rounded) +
                         ": it must be a multiple of " + std::to_string(defaults.frames_multiple) +
                         " plus 1.");
}

// An endless video continues itself.
static WanContinuity continuity_of(WanContinuity asked, const WanDefaults &defaults) {
  return defaults.endless ? WAN_CONTINUITY_NONE : asked;
}

static RunSettings run_settings(GstWanSrc *self, const WanDefaults &defaults, bool live) {
  const Settings &settings = self->priv->settings;
  RunSettings run;
  run.num_clips = settings.num_clips;
  run.queue_size = settings.queue_size;
  // An endless video has no seams.
  run.fade_frames =
      settings.transition == Transition::Crossfade && !defaults.endless ? settings.transition_frames : 0;
  run.continuity = continuity_of(settings.continuity, defaults);
  run.live = live;
  run.defaults = defaults;
  run.track = self->priv->track;
  run.picture_tracks = self->priv->picture_tracks;
  return run;
}

static bool is_enqueued(const QueuedClip &clip) {
  return clip.id != 0;
}

static void begin_run(GstWanSrc *self, const ModelChoice &choice, const WanDefaults &defaults) {
  const bool live = gst_base_src_is_live(GST_BASE_SRC(self));
  auto cuda = std::make_shared<CudaMemory>(cuda_ordinal(frames_device(choice.device, choice.decoder_device)));
  const ObjectLock lock(self);
  const RunSettings run = run_settings(self, defaults, live);
  auto pump = std::make_shared<FramePump>(run);
  pump->configure(self->priv->settings.clip);
  pump->set_seed(self->priv->settings.clip.seed);
  pump->set_queue(self->priv->settings.queue);
  // What was enqueued is played once, what is in the property counts for every run.
  std::erase_if(self->priv->settings.queue, is_enqueued);
  self->priv->run = {};
  self->priv->run.num_frames = self->priv->settings.clip.num_frames;
  self->priv->run.pump = std::move(pump);
  self->priv->run.cuda = std::move(cuda);
  self->priv->run.choice = choice;
  self->priv->run.settings = run;
  self->priv->told_frames = kUntold;
  self->priv->live.filler = self->priv->settings.filler;
  self->priv->run.started = true;
}

static void reset_air(GstWanSrc *self) {
  std::destroy_at(&self->priv->live);
  new (&self->priv->live) Live;
  for (std::atomic<guint64> *counter :
       {&self->priv->air.frames_pushed, &self->priv->air.repeated, &self->priv->air.gaps,
        &self->priv->air.dropped, &self->priv->air.underruns})
    *counter = 0;
  self->priv->air.first_frame_seconds = self->priv->air.prompt_to_screen = 0;
}

// The settings as they are, and the model that they choose; false and the reason if they cannot be.
static bool read_settings(GstWanSrc *self, Settings *settings, std::string *reason) {
  const ObjectLock lock(self);
  *settings = self->priv->settings;
  ModelChoice &choice = self->priv->run.choice;
  choice = {self->priv->engine,
            model_directory(settings->model, self->priv->is_live),
            settings->device,
            settings->decoder_device,
            settings->worker,
            settings->dtype,
            settings->quantization,
            settings->memory,
            {},
            settings->decoder};
  *reason = settings_fault(*settings);
  return reason->empty() && read_loras(*settings, &choice.loras, reason);
}

static WanStatus check(const WanEngineApi *engine, const std::string &directory, const ClipSettings &clip,
                       const std::array<bool, WAN_PICTURE_KINDS> &pictures, WanContinuity continuity,
                       const WanDefaults &defaults, WanError *error) {
  const ClipSettings whole = complete(clip, defaults);
  WanGenerateOptions options = generate_options(whole);
  std::copy(pictures.begin(), pictures.end(), options.pictures);
  options.continuity = continuity;
  return engine->check(directory.c_str(), &options, error);
}

// The pictures that a clip has, its own or those of the pads.
static std::array<bool, WAN_PICTURE_KINDS> pictures_of(GstWanSrc *self, const ClipSettings &settings,
                                                       const ClipPictures &own) {
  std::array<bool, WAN_PICTURE_KINDS> has = {};
  for (const WanPictureKind kind : {WAN_PICTURE_FIRST, WAN_PICTURE_LAST})
    has[kind] = own[kind] || !picture_location(settings, kind).empty() ||
                self->priv->picture_tracks[kind]->is_attached();
  return has;
}

// The clip that a run begins with, as far as it is known.
static QueuedClip first_clip(const Settings &settings) {
  QueuedClip clip;
  if (!settings.queue.empty()) clip = settings.queue.front();
  clip.settings = overlay(clip.settings, settings.clip);
  return clip;
}

static Failure check_start(GstWanSrc *self, const Settings &settings, const WanDefaults &defaults) {
  const QueuedClip first = first_clip(settings);
  const auto pictures = pictures_of(self, first.settings, first.pictures);
  WanError error = {};
  const WanStatus status = check(self->priv->engine, self->priv->run.choice.directory, first.settings,
                                 pictures, WAN_CONTINUITY_NONE, defaults, &error);
  return failure_of(status, error);
}

// Diffusers' size for a picture: of its aspect, with as many pixels as the checkpoint suggests.
static void fit_size(int width, int height, WanDefaults *defaults) {
  const double area = double(defaults->width) * defaults->height, aspect = double(height) / width;
  const int multiple = defaults->size_multiple;
  const auto round_down = [multiple](double size) {
    return std::max(int(std::round(size)) / multiple, 1) * multiple;
  };
  defaults->height = round_down(std::sqrt(area * aspect));
  defaults->width = round_down(std::sqrt(area / aspect));
}

// The picture that a run begins with decides the size that downstream leaves open.
static Failure fit_first_picture(const Settings &settings, WanDefaults *defaults) {
  const QueuedClip first = first_clip(settings);
  std::shared_ptr<const Picture> picture = first.pictures[WAN_PICTURE_FIRST];
  Failure failure = {WAN_OK, "", __FILE__, __LINE__};
  if (!picture && !first.settings.image.empty())
    picture = read_picture(
        first.settings.image, [] { return false; }, &failure.status, &failure.message);
  if (picture) fit_size(picture->width, picture->height, defaults);
  return failure;
}

static bool is_prompt_pad(GstPad *pad);

static gboolean gst_wan_src_start(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  Settings settings;
  std::string reason;
  if (!read_settings(self, &settings, &reason)) {
    post_error(self, WAN_INVALID, reason);
    return FALSE;
  }
  const ModelChoice choice = self->priv->run.choice;
  WanError error = {};
  WanDefaults defaults = {};
  const WanStatus status = self->priv->engine->describe(choice.directory.c_str(), &defaults, &error);
  Failure failure = failure_of(status, error);
  if (failure.status == WAN_OK) failure = check_start(self, settings, defaults);
  if (failure.status == WAN_OK) failure = fit_first_picture(settings, &defaults);
  if (failure.status != WAN_OK) {
    post_error(self, failure);
    return FALSE;
  }
  gst_element_foreach_sink_pad(
      GST_ELEMENT(self),
      [](GstElement *, GstPad *pad, gpointer) -> gboolean {
        is_prompt_pad(pad) ? prompt_pad_update_link(pad) : picture_pad_update_link(pad);
        return TRUE;
      },
      nullptr);
  for (const auto &track : self->priv->picture_tracks) track->set_live(gst_base_src_is_live(src));
  reset_air(self);
  begin_run(self, choice, defaults);
  GST_INFO_OBJECT(
      self, "model %s, device %s, dtype %s, quantization %s, memory %s, decoder %s, %zu LoRAs, engine %s%s",
      choice.directory.c_str(), choice.device.c_str(), dtype_nick(choice.dtype),
      quantization_nick(choice.quantization), memory_mode_nick(choice.memory), choice.decoder.c_str(),
      choice.loras.size(), self->priv->engine->version, is_live(self) ? ", live" : "");
  warn_of_rounding(self, settings.clip.num_frames);
  return TRUE;
}

// Clips that were enqueued and not begun wait for the next run, behind the property's and before newer ones.
static void keep_enqueued(GstWanSrc *self) {
  std::vector<QueuedClip> left = self->priv->run.pump->queue();
  std::erase_if(left, std::not_fn(is_enqueued));
  const ObjectLock lock(self);
  std::vector<QueuedClip> &queue = self->priv->settings.queue;
  queue.insert(std::find_if(queue.begin(), queue.end(), is_enqueued), left.begin(), left.end());
}

static gboolean gst_wan_src_stop(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  Run &run = self->priv->run;
  {
    const ObjectLock lock(self);
    run.started = false;
  }
  run.chunk = {};
  self->priv->live.last = {};
  run.pump->stop(kStopPatience);
  keep_enqueued(self);
  end_preroll(self, GST_PROGRESS_TYPE_CANCELED, "stopped before the first frame");
  return TRUE;
}

// The model of the run before is kept until here, whatever became of runs between.
static void start_worker(GstWanSrc *self) {
  Run &run = self->priv->run;
  if (self->priv->kept_model && self->priv->kept_model->choice() != run.choice)
    self->priv->kept_model.reset();
  if (!self->priv->kept_model) self->priv->kept_model = SharedModel::of(run.choice);
  const bool loaded = self->priv->kept_model->is_loaded();
  GST_INFO_OBJECT(self, "the model is %s", loaded ? "in memory already" : "not in memory yet");
  begin_preroll(self, (loaded ? "using the model " : "loading the model ") + run.choice.directory);
  run.pump->start(run.format, self->priv->kept_model, self->priv->workers);
}

// Events may interrupt an element that was never started.
static gboolean gst_wan_src_unlock(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  const ObjectLock lock(self);
  if (self->priv->run.pump) self->priv->run.pump->set_flushing(true);
  self->priv->pacer.interrupt();
  return TRUE;
}

static gboolean gst_wan_src_unlock_stop(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  const ObjectLock lock(self);
  if (self->priv->run.pump) self->priv->run.pump->set_flushing(false);
  self->priv->pacer.resume();
  self->priv->live.segment_sent = false;
  return TRUE;
}

static gboolean open_engine(GstWanSrc *self) {
  std::string file, reason;
  {
    const ObjectLock lock(self);
    file = engine_file(self->priv->settings.engine);
  }
  const WanEngineApi *engine = open_engine(file, &reason);
  {
    const ObjectLock lock(self);
    self->priv->engine = engine;
  }
  if (engine) return TRUE;
  GST_ELEMENT_ERROR(self, LIBRARY, INIT, ("%s", utf8(reason).c_str()),
                    ("from the property engine, $GST_WAN_ENGINE or the place where gst-wan was installed"));
  return FALSE;
}

// An editor's (GES). It plays nothing before its sources have followed a seek, and waits for ever where they
// refuse.
static bool is_in_timeline(GstWanSrc *self) {
  const GType timeline = g_type_from_name("NleObject");
  bool found = false;
  GstObject *object = gst_object_get_parent(GST_OBJECT(self));
  while (object) {
    found |= timeline && g_type_is_a(G_OBJECT_TYPE(object), timeline);
    GstObject *parent = gst_object_get_parent(object);
    gst_object_unref(object);
    object = parent;
  }
  return found;
}

static bool can_play_here(GstWanSrc *self) {
  if (!is_in_timeline(self)) return true;
  post_error(self, WAN_INVALID,
             "wansrc cannot be used in a timeline, since it cannot seek: save the video to a file and use "
             "the file.");
  return false;
}

// Not when the property is set: to the base class, a source that plays cannot become live.
static void take_is_live(GstWanSrc *self) {
  bool live = false;
  {
    const ObjectLock lock(self);
    live = self->priv->is_live;
  }
  gst_base_src_set_live(GST_BASE_SRC(self), live);
}

// GstBaseSrc names its stream with gst_pad_create_stream_id(), which wants no more than one sink pad, and
// else gives no name, so that the stream would have no beginning. That call is the first thing that the
// streaming thread does, and it asks for the URI: from the one to the other the pads are out of its sight.
static void hide_sink_pads(GstWanSrc *self) {
  GstElement *element = GST_ELEMENT(self);
  const ObjectLock lock(self);
  if (self->priv->hidden_pads || element->numsinkpads < 2) return;
  self->priv->hidden_pads = std::exchange(element->sinkpads, nullptr);
  element->numsinkpads = 0;
}

// Also before anything else looks at them, since a thread that is to stop asks for no URI.
static void show_sink_pads(GstWanSrc *self) {
  GstElement *element = GST_ELEMENT(self);
  const ObjectLock lock(self);
  if (!self->priv->hidden_pads) return;
  element->sinkpads = std::exchange(self->priv->hidden_pads, nullptr);
  element->numsinkpads = g_list_length(element->sinkpads);
}

static bool begins_streaming(GstWanSrc *self, GstMessage *message) {
  if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_STREAM_STATUS) return false;
  GstStreamStatusType status;
  gst_message_parse_stream_status(message, &status, nullptr);
  if (status != GST_STREAM_STATUS_TYPE_ENTER) return false;
  GstEvent *begun = gst_pad_get_sticky_event(GST_BASE_SRC_PAD(self), GST_EVENT_STREAM_START, 0);
  const bool is_first = !begun;
  gst_clear_event(&begun);
  return is_first;
}

static gboolean gst_wan_src_post_message(GstElement *element, GstMessage *message) {
  GstWanSrc *self = GST_WAN_SRC(element);
  if (begins_streaming(self, message)) hide_sink_pads(self);
  return GST_ELEMENT_CLASS(gst_wan_src_parent_class)->post_message(element, message);
}

static GstStateChangeReturn gst_wan_src_change_state(GstElement *element, GstStateChange transition) {
  GstWanSrc *self = GST_WAN_SRC(element);
  show_sink_pads(self);
  if (transition == GST_STATE_CHANGE_NULL_TO_READY && !open_engine(self)) return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !can_play_here(self)) return GST_STATE_CHANGE_FAILURE;
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED) take_is_live(self);
  const GstStateChangeReturn result =
      GST_ELEMENT_CLASS(gst_wan_src_parent_class)->change_state(element, transition);
  // Before 1.24 the base class interrupts no wait for a pause, which may bring another clock.
  if (transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED) self->priv->pacer.look_again();
  if (transition == GST_STATE_CHANGE_READY_TO_NULL) self->priv->kept_model.reset();
  return result;
}

// ---- events

static gboolean gst_wan_src_event(GstBaseSrc *src, GstEvent *event) {
  GstWanSrc *self = GST_WAN_SRC(src);
  if (GST_EVENT_TYPE(event) == GST_EVENT_LATENCY) {
    GstClockTime latency = 0;
    gst_event_parse_latency(event, &latency);
    GST_DEBUG_OBJECT(self, "the pipeline's latency is %" GST_TIME_FORMAT, GST_TIME_ARGS(latency));
    self->priv->pacer.set_latency(latency);
  }
  return GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->event(src, event);
}

// From the beginning, and perhaps to an end.
static bool is_from_the_start(GstEvent *event) {
  gdouble rate;
  GstFormat format;
  GstSeekType start_type;
  gint64 start;
  gst_event_parse_seek(event, &rate, &format, nullptr, &start_type, &start, nullptr, nullptr);
  return rate == 1 && format == GST_FORMAT_TIME &&
         (start_type == GST_SEEK_TYPE_NONE || (start_type == GST_SEEK_TYPE_SET && start == 0));
}

// The base class executes a seek that is sent to the element, whether it is seekable or not. Before the start
// it can keep a stop position; after it, all that a seek can do is to interrupt the stream.
static bool is_vain_seek(GstPad *pad, GstEvent *event) {
  return GST_EVENT_TYPE(event) == GST_EVENT_SEEK && (GST_PAD_IS_ACTIVE(pad) || !is_from_the_start(event));
}

// The base class would wait for the streaming thread, which only the flush's start sets free: for ever, if
// that thread waits in a paused sink.
static bool is_lone_flush_stop(GstPad *pad, GstEvent *event) {
  return GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_STOP && !GST_PAD_IS_FLUSHING(pad);
}

static gboolean gst_wan_src_send_event(GstElement *element, GstEvent *event) {
  GstPad *pad = GST_BASE_SRC_PAD(element);
  if (!is_vain_seek(pad, event) && !is_lone_flush_stop(pad, event))
    return GST_ELEMENT_CLASS(gst_wan_src_parent_class)->send_event(element, event);
  gst_event_unref(event);
  return FALSE;
}

// ---- negotiation

static void post_change_refused(GstWanSrc *self) {
  GstCaps *caps = gst_pad_get_current_caps(GST_BASE_SRC_PAD(self));
  if (!caps) caps = gst_video_info_to_caps(&self->priv->run.info);  // a flush has interrupted the negotiation
  GstCaps *frames = frame_caps(caps);
  gchar *text = gst_caps_to_string(frames);
  const std::string converter =
      self->priv->run.format.on_device ? "cudadownload and a converter" : "a converter";
  post_error(self, WAN_INVALID,
             "Downstream asks for other caps while wansrc plays, but they can only change in READY: put " +
                 converter + " after it, since its frames stay " + text + ".");
  g_free(text);
  gst_caps_unref(frames);
  gst_caps_unref(caps);
}

// Whether "auto" stands for a GPU, as far as that is known: before READY there is no engine to ask. No
// checkpoint is named: a caps query must not wait for files.
static bool chooses_gpu(const WanEngineApi *engine) {
  WanGenerateOptions options = {};
  options.prompt = options.negative_prompt = "";
  options.on_device = true;
  WanError error = {};
  return !engine || engine->check("", &options, &error) != WAN_DEVICE;
}

// All that there can be, by the properties device and decoder-device.
static GstCaps *possible_caps(GstWanSrc *self) {
  std::string device;
  const WanEngineApi *engine = nullptr;
  {
    const ObjectLock lock(self);
    device = frames_device(self->priv->settings.device, self->priv->settings.decoder_device);
    engine = self->priv->engine;
  }
  const bool cuda = cuda_memory_available(cuda_ordinal(device)) && (device != "auto" || chooses_gpu(engine));
  return video_caps(cuda);
}

// The layout is chosen once a run: after that, frames of it are on their way or already paid for.
static GstCaps *offered_caps(GstWanSrc *self) {
  GstCaps *current = gst_pad_get_current_caps(GST_BASE_SRC_PAD(self));
  if (!current) return possible_caps(self);
  GstCaps *caps = frame_caps(current);
  gst_caps_unref(current);
  return caps;
}

static GstCaps *gst_wan_src_get_caps(GstBaseSrc *src, GstCaps *filter) {
  GstCaps *caps = offered_caps(GST_WAN_SRC(src));
  if (!filter) return caps;
  GstCaps *filtered = gst_caps_intersect_full(filter, caps, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref(caps);
  return filtered;
}

// Elements that do not heed the filter of a caps query (interlace) leave out fields, or offer what was not
// asked for.
static GstCaps *gst_wan_src_fixate(GstBaseSrc *src, GstCaps *caps) {
  GstCaps *possible = gst_wan_src_get_caps(src, caps);
  gst_caps_unref(caps);
  if (gst_caps_is_empty(possible)) return possible;
  return fixate_caps(choose_memory(GST_BASE_SRC_PAD(src), possible),
                     GST_WAN_SRC(src)->priv->run.settings.defaults);
}

// Without this, all that is told of a change downstream that cannot be followed is "not negotiated".
static bool refuse_other_caps(GstWanSrc *self) {
  GstPad *pad = GST_BASE_SRC_PAD(self);
  GstCaps *current = gst_pad_get_current_caps(pad);
  if (!current) return false;
  GstCaps *frames = frame_caps(current), *common = gst_pad_peer_query_caps(pad, frames);
  const bool refused = gst_caps_is_empty(common) && !GST_PAD_IS_FLUSHING(pad);
  if (refused) post_change_refused(self);
  for (GstCaps *caps : {current, frames, common}) gst_caps_unref(caps);
  return refused;
}

// How long a pad may be silent before the size is chosen without its picture.
constexpr GstClockTime kPicturePatience = 5 * GST_SECOND;

// The first picture that comes in decides the size that downstream leaves open.
static void fit_incoming_picture(GstWanSrc *self) {
  const std::shared_ptr<PictureTrack> &track = self->priv->picture_tracks[WAN_PICTURE_FIRST];
  GstPad *pad = GST_BASE_SRC_PAD(self);
  PictureTrack::Sample sample;
  for (GstClockTime waited = 0; !sample && waited < kPicturePatience; waited += 50 * GST_MSECOND) {
    if (!track->is_attached() || GST_PAD_IS_FLUSHING(pad)) break;
    const bool is_ended = track->is_ended();  // before it is looked at: what came before the end counts
    sample = track->at(0, std::chrono::milliseconds(50), [] { return false; });
    if (!sample) sample = track->earliest();
    if (is_ended) break;
  }
  GstVideoInfo info;
  GstCaps *caps = sample ? gst_sample_get_caps(sample.get()) : nullptr;
  if (!caps || !gst_video_info_from_caps(&info, caps)) return;
  const ObjectLock lock(self);
  fit_size(info.width * info.par_n / info.par_d, info.height, &self->priv->run.settings.defaults);
}

static gboolean gst_wan_src_negotiate(GstBaseSrc *src) {
  GstWanSrc *self = GST_WAN_SRC(src);
  if (!self->priv->run.pump->started()) fit_incoming_picture(self);
  return !refuse_other_caps(self) && GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->negotiate(src);
}

static GstClockTime frame_duration(GstWanSrc *self) {
  const FrameClock &clock = self->priv->run.format.clock;
  const WanDefaults &defaults = self->priv->run.settings.defaults;
  if (clock.fps_n) return clock.duration_of(0);
  return defaults.fps_n ? gst_util_uint64_scale(GST_SECOND, defaults.fps_d, defaults.fps_n) : 0;
}

static void set_frames(GstWanSrc *self, const GstCaps *caps, const GstVideoInfo &info,
                       const WanPixelLayout &layout) {
  const ObjectLock lock(self);
  self->priv->run.format = {layout, is_cuda_memory(caps), {info.fps_n, info.fps_d}};
  self->priv->run.info = info;
}

// What the caps ask for, or why that cannot be made.
static std::string read_caps(GstWanSrc *self, const GstCaps *caps, GstVideoInfo *info,
                             WanPixelLayout *layout) {
  std::string reason;
  if (gst_video_info_from_caps(info, caps)) {
    pixel_layout(*info, self->priv->run.settings.defaults, layout, &reason);
  } else {
    gchar *text = gst_caps_to_string(caps);
    reason = std::string("Frames of these caps cannot be made: ") + text + ".";
    g_free(text);
  }
  return reason;
}

static bool same_frames(const Run &run, const GstCaps *caps, const GstVideoInfo &info,
                        const WanPixelLayout &layout) {
  return same_layout(layout, run.format.layout) && FrameClock{info.fps_n, info.fps_d} == run.format.clock &&
         is_cuda_memory(caps) == run.format.on_device;
}

// Once a run.
static void begin_frames(GstWanSrc *self, const GstCaps *caps, const GstVideoInfo &info,
                         const WanPixelLayout &layout) {
  const GstClockTime answered = frame_duration(self);
  set_frames(self, caps, info, layout);
  GST_INFO_OBJECT(self, "frames of %" GST_PTR_FORMAT, caps);
  self->priv->pacer.reset(self->priv->run.format.clock);
  // A latency that was answered before the caps were known may have become another.
  if (is_live(self) && frame_duration(self) != answered)
    gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
  start_worker(self);
}

// Comes again when downstream changes, and after a flush that interrupted the negotiation.
static gboolean gst_wan_src_set_caps(GstBaseSrc *src, GstCaps *caps) {
  GstWanSrc *self = GST_WAN_SRC(src);
  GstVideoInfo info;
  WanPixelLayout layout;
  const std::string reason = read_caps(self, caps, &info, &layout);
  if (!reason.empty()) {
    post_error(self, WAN_INVALID, reason);
    return FALSE;
  }
  if (!self->priv->run.pump->started()) {
    begin_frames(self, caps, info, layout);
    return TRUE;
  }
  if (!same_frames(self->priv->run, caps, info, layout)) {
    post_change_refused(self);
    return FALSE;
  }
  set_frames(self, caps, info, layout);
  return TRUE;
}

static gboolean gst_wan_src_decide_allocation(GstBaseSrc *src, GstQuery *query) {
  GstWanSrc *self = GST_WAN_SRC(src);
  if (!self->priv->run.format.on_device) {
    choose_pool(query);
    const bool copies = gst_query_get_n_allocation_pools(query) > 0;
    GST_INFO_OBJECT(self, "frames are %s", copies ? "copied into downstream's pool" : "not copied");
  } else if (!self->priv->run.cuda->choose_pool(GST_ELEMENT(src), query)) {
    post_error(self, WAN_OUT_OF_MEMORY, "The GPU has no memory for frames.");
    return FALSE;
  }
  return GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->decide_allocation(src, query);
}

// ---- queries

// Frames of the whole stream, as far as is known now, -1 where that is open.
static gint64 all_frames(GstWanSrc *self) {
  const Run &run = self->priv->run;
  const bool open = run.settings.num_clips < 0 || is_live(self) || self->priv->track->is_attached() ||
                    run.settings.defaults.endless;
  if (open) return -1;
  return gint64(run.pump->expected_frames());
}

static gboolean query_duration(GstWanSrc *self, GstQuery *query) {
  GstFormat format;
  gst_query_parse_duration(query, &format, nullptr);
  if (format != GST_FORMAT_TIME && format != GST_FORMAT_DEFAULT)
    return GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->query(GST_BASE_SRC(self), query);
  const ObjectLock lock(self);
  const Run &run = self->priv->run;
  if (run.info.fps_n == 0) return FALSE;
  const gint64 frames = self->priv->told_frames = all_frames(self);
  const gint64 time = frames < 0 ? -1 : gint64(run.format.clock.time_of(guint64(frames)));
  gst_query_set_duration(query, format, format == GST_FORMAT_TIME ? time : frames);
  return TRUE;
}

static bool duration_changed(GstWanSrc *self) {
  const ObjectLock lock(self);
  if (!self->priv->run.started || self->priv->told_frames == kUntold) return false;
  const gint64 told = self->priv->told_frames;
  self->priv->told_frames = all_frames(self);
  return self->priv->told_frames != told;
}

void wan::announce_duration(GstWanSrc *self) {
  if (duration_changed(self))
    gst_element_post_message(GST_ELEMENT(self), gst_message_new_duration_changed(GST_OBJECT(self)));
}

// The base class asks this for positions in frames, too.
static gboolean query_convert(GstWanSrc *self, GstQuery *query) {
  GstFormat from, to;
  gint64 value = 0, result = 0;
  gst_query_parse_convert(query, &from, &value, &to, nullptr);
  const ObjectLock lock(self);
  if (self->priv->run.info.fps_n == 0) return FALSE;
  // Times of frames are rounded down.
  const bool rounded = from == GST_FORMAT_TIME && to != GST_FORMAT_TIME && value >= 0 && value < G_MAXINT64;
  if (!gst_video_info_convert(&self->priv->run.info, from, rounded ? value + 1 : value, to, &result))
    return FALSE;
  gst_query_set_convert(query, from, value, to, result);
  return TRUE;
}

// From it the base class makes the stream-id, which would be random without one.
static gboolean query_uri(GstWanSrc *self, GstQuery *query) {
  if (GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->query(GST_BASE_SRC(self), query)) return TRUE;
  const ObjectLock lock(self);
  gchar *prompt = g_uri_escape_string(self->priv->settings.clip.prompt.c_str(), nullptr, TRUE);
  gst_query_set_uri(query, (std::string("wan://") + prompt).c_str());
  g_free(prompt);
  return TRUE;
}

// A frame is sent at its time. That it lasts until the next one's is what sinks and muxers have to know of.
static gboolean query_latency(GstWanSrc *self, GstQuery *query) {
  const ObjectLock lock(self);
  gst_query_set_latency(query, TRUE, frame_duration(self), GST_CLOCK_TIME_NONE);
  return TRUE;
}

// In NULL, too: elements that open before a source ask its neighbours for a context.
static std::shared_ptr<CudaMemory> cuda_memory(GstWanSrc *self) {
  const ObjectLock lock(self);
  Run &run = self->priv->run;
  if (!run.started)
    run.cuda = std::make_shared<CudaMemory>(
        cuda_ordinal(frames_device(self->priv->settings.device, self->priv->settings.decoder_device)));
  return run.cuda;
}

static gboolean query_context(GstWanSrc *self, GstQuery *query) {
  return cuda_memory(self)->answer(GST_ELEMENT(self), query) ||
         GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->query(GST_BASE_SRC(self), query);
}

static gboolean gst_wan_src_query(GstBaseSrc *src, GstQuery *query) {
  GstWanSrc *self = GST_WAN_SRC(src);
  switch (GST_QUERY_TYPE(query)) {
    case GST_QUERY_CONTEXT:
      return query_context(self, query);
    case GST_QUERY_DURATION:
      return query_duration(self, query);
    case GST_QUERY_CONVERT:
      return query_convert(self, query);
    case GST_QUERY_URI:
      show_sink_pads(self);
      return query_uri(self, query);
    case GST_QUERY_LATENCY:
      if (is_live(self)) return query_latency(self, query);
      break;
    default:
      break;
  }
  return GST_BASE_SRC_CLASS(gst_wan_src_parent_class)->query(src, query);
}

// ---- sink pads

static const char *const kPicturePads[WAN_PICTURE_KINDS] = {"image_sink", "last_image_sink"};

// Which picture a pad takes; -1: it takes prompts.
static int picture_kind(const char *pad_name) {
  for (int kind = 0; kind < WAN_PICTURE_KINDS; ++kind)
    if (g_str_equal(pad_name, kPicturePads[kind])) return kind;
  return -1;
}

static bool is_prompt_pad(GstPad *pad) {
  return picture_kind(GST_PAD_NAME(pad)) < 0;
}

static GstPad *new_pad(GstWanSrc *self, GstPadTemplate *pad_template) {
  const char *name = GST_PAD_TEMPLATE_NAME_TEMPLATE(pad_template);
  const int kind = picture_kind(name);
  if (kind < 0)
    return self->priv->track->attach() ? prompt_pad_new(pad_template, self->priv->track) : nullptr;
  const std::shared_ptr<PictureTrack> &track = self->priv->picture_tracks[kind];
  return track->attach() ? picture_pad_new(pad_template, name, track) : nullptr;
}

// Of each kind one.
static GstPad *gst_wan_src_request_new_pad(GstElement *element, GstPadTemplate *pad_template, const gchar *,
                                           const GstCaps *) {
  show_sink_pads(GST_WAN_SRC(element));
  GstPad *pad = new_pad(GST_WAN_SRC(element), pad_template);
  if (!pad) return nullptr;
  gst_pad_set_active(pad, TRUE);
  gst_element_add_pad(element, pad);
  return pad;
}

static void gst_wan_src_release_pad(GstElement *element, GstPad *pad) {
  GstWanSrc *self = GST_WAN_SRC(element);
  const int kind = picture_kind(GST_PAD_NAME(pad));
  show_sink_pads(self);
  gst_pad_set_active(pad, FALSE);
  gst_element_remove_pad(element, pad);
  // Last: from here on there may be another pad.
  if (kind < 0)
    self->priv->track->detach();
  else
    self->priv->picture_tracks[kind]->detach();
}

// ---- the queue of clips

static FramePump *running_pump(GstWanSrc *self) {
  return self->priv->run.started ? self->priv->run.pump.get() : nullptr;
}

// Why no clip of these settings can be made, as far as that can be told without weights; empty if it can.
// Reads the checkpoint's files, so the object lock is for others meanwhile.
static std::string fault_of_clip(GstWanSrc *self, const QueuedClip &clip) {
  const WanEngineApi *engine = nullptr;
  std::string directory;
  WanDefaults defaults = {};
  WanContinuity continuity;
  bool started;
  {
    const ObjectLock lock(self);
    engine = self->priv->engine;
    started = self->priv->run.started;
    directory = started ? self->priv->run.choice.directory
                        : model_directory(self->priv->settings.model, self->priv->is_live);
    defaults = self->priv->run.settings.defaults;
    continuity = started ? self->priv->run.settings.continuity : self->priv->settings.continuity;
  }
  WanError error = {};
  if (!engine || (!started && engine->describe(directory.c_str(), &defaults, &error) != WAN_OK)) return "";
  const auto pictures = pictures_of(self, clip.settings, clip.pictures);
  const WanStatus status = check(engine, directory, clip.settings, pictures,
                                 continuity_of(continuity, defaults), defaults, &error);
  return status == WAN_INVALID ? error.message : "";
}

static guint queue_clip(GstWanSrc *self, QueuedClip clip) {
  const ObjectLock lock(self);
  if (++self->priv->clips_enqueued == 0) ++self->priv->clips_enqueued;
  clip.id = self->priv->clips_enqueued;
  if (FramePump *pump = running_pump(self))
    pump->enqueue(clip);
  else
    self->priv->settings.queue.push_back(clip);
  return clip.id;
}

// What clips have where a queued one leaves it open; called with the object lock.
static ClipSettings running_settings(GstWanSrc *self) {
  ClipSettings clip = self->priv->settings.clip;
  if (self->priv->run.started) clip.num_frames = self->priv->run.num_frames;
  return clip;
}

static QueuedClip over_settings(GstWanSrc *self, QueuedClip clip) {
  const ObjectLock lock(self);
  clip.settings = overlay(clip.settings, running_settings(self));
  return clip;
}

// Takes the fields that hold a picture itself, a GstSample, out of the structure.
static void take_samples(GstStructure *structure, ClipPictures *pictures, std::string *reason) {
  for (const auto &[name, kind] : {std::pair{"image", WAN_PICTURE_FIRST}, {"last-image", WAN_PICTURE_LAST}}) {
    const GValue *field = gst_structure_get_value(structure, name);
    if (!field || !GST_VALUE_HOLDS_SAMPLE(field)) continue;
    GstSample *sample = gst_value_get_sample(field);
    if (sample)
      (*pictures)[kind] = convert_picture(sample, reason);
    else
      *reason = std::string(name) + " holds no sample.";
    gst_structure_remove_field(structure, name);
  }
}

static std::string read_clip(GstWanSrc *self, const gchar *prompt, const GstStructure *structure,
                             QueuedClip *clip) {
  std::string reason;
  if (structure) {
    GstStructure *copy = gst_structure_copy(structure);
    take_samples(copy, &clip->pictures, &reason);
    if (reason.empty()) read_clip_settings(G_OBJECT_GET_CLASS(self), copy, &clip->settings, &reason);
    gst_structure_free(copy);
  }
  if (prompt && *prompt) clip->settings.prompt = prompt;
  if (reason.empty()) reason = clip_fault(clip->settings);
  return reason.empty() ? fault_of_clip(self, over_settings(self, *clip)) : reason;
}

static guint gst_wan_src_enqueue(GstWanSrc *self, const gchar *prompt, const GstStructure *structure) {
  QueuedClip clip;
  const std::string reason = read_clip(self, prompt, structure, &clip);
  if (!reason.empty()) {
    post_warning(self, "A clip was not queued: " + reason);
    return 0;
  }
  const guint id = queue_clip(self, clip);
  GST_DEBUG_OBJECT(self, "a clip was queued, id %u:%s", id, launch_line(clip.settings).c_str());
  g_object_notify(G_OBJECT(self), "prompts");
  return id;
}

static void gst_wan_src_skip(GstWanSrc *self) {
  const ObjectLock lock(self);
  if (FramePump *pump = running_pump(self)) pump->skip();
}

// Puts other clips in the queue, and tells of those that are dropped for them.
static void replace_queue(GstWanSrc *self, const std::vector<QueuedClip> &queue) {
  std::vector<uint32_t> dropped;
  {
    const ObjectLock lock(self);
    for (const QueuedClip &clip : self->priv->settings.queue) dropped.push_back(clip.id);
    self->priv->settings.queue = queue;
    if (FramePump *pump = running_pump(self)) dropped = pump->set_queue(queue);
  }
  for (const uint32_t id : dropped)
    if (id != 0) post_clip_dropped(self, id);
}

static void gst_wan_src_clear(GstWanSrc *self) {
  replace_queue(self, {});
  g_object_notify(G_OBJECT(self), "prompts");
}

static bool take_from_queue(GstWanSrc *self, guint id) {
  const ObjectLock lock(self);
  if (FramePump *pump = running_pump(self)) return pump->remove(id);
  return std::erase_if(self->priv->settings.queue, [id](const QueuedClip &clip) { return clip.id == id; }) >
         0;
}

static gboolean gst_wan_src_remove(GstWanSrc *self, guint id) {
  if (id == 0 || !take_from_queue(self, id)) return FALSE;
  post_clip_dropped(self, id);
  g_object_notify(G_OBJECT(self), "prompts");
  return TRUE;
}

// ---- properties

static bool is_seed(const GParamSpec *pspec) {
  return std::string_view(pspec->name) == "seed";
}

static bool is_prompts(const GParamSpec *pspec) {
  return std::string_view(pspec->name) == "prompts";
}

// Why a property cannot have a value while clips are made; before that, start() says it as an error.
static std::string fault_while_running(GstWanSrc *self, const GParamSpec *pspec, const GValue *value) {
  Settings changed;
  {
    const ObjectLock lock(self);
    if (!running_pump(self) || !(is_clip_property(pspec) || is_prompts(pspec))) return "";
    changed = self->priv->settings;
  }
  changed.continuity = WAN_CONTINUITY_NONE;  // what is set for the next run is looked at when that begins
  set_property(&changed, pspec->param_id, value);
  const std::string fault = settings_fault(changed);
  const bool matters_to_model = is_clip_property(pspec) && !is_seed(pspec);
  return fault.empty() && matters_to_model ? fault_of_clip(self, {0, changed.clip, {}}) : fault;
}

static void gst_wan_src_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec) {
  GstWanSrc *self = GST_WAN_SRC(object);
  if (id == PROP_IS_LIVE) {
    const ObjectLock lock(self);
    self->priv->is_live = g_value_get_boolean(value);
    return;
  }
  if (const std::string fault = fault_while_running(self, pspec, value); !fault.empty()) {
    post_warning(self, std::string(pspec->name) + " stays as it was: " + fault);
    return;
  }
  if (is_prompts(pspec)) {
    Settings settings;
    set_property(&settings, id, value);
    replace_queue(self, settings.queue);
    return;
  }
  const ObjectLock lock(self);
  if (!set_property(&self->priv->settings, id, value)) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  FramePump *pump = running_pump(self);
  if (!pump) return;
  if (is_clip_property(pspec)) pump->configure(running_settings(self));
  if (is_seed(pspec)) pump->set_seed(self->priv->settings.clip.seed);
}

static void gst_wan_src_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec) {
  GstWanSrc *self = GST_WAN_SRC(object);
  const ObjectLock lock(self);
  if (id == PROP_IS_LIVE) {
    g_value_set_boolean(value, self->priv->is_live);
    return;
  }
  const FramePump *pump = running_pump(self);
  if (id == PROP_STATS) {
    const PumpStats stats = self->priv->run.pump ? self->priv->run.pump->stats() : PumpStats();
    const Run &run = self->priv->run;
    g_value_take_boxed(value, stats_structure(stats, self->priv->air, run.settings.defaults, run.info));
    return;
  }
  Settings settings = self->priv->settings;
  if (pump) settings.queue = pump->queue();
  if (!get_property(settings, id, value)) G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
}

// More clips in the queue, or fewer, make another duration.
static void gst_wan_src_notify(GObject *object, GParamSpec *pspec) {
  if (is_prompts(pspec)) announce_duration(GST_WAN_SRC(object));
}

// ---- wan://

static const gchar *const *gst_wan_src_get_protocols(GType) {
  static const gchar *const protocols[] = {"wan", nullptr};
  return protocols;
}

static gchar *gst_wan_src_get_uri(GstURIHandler *handler) {
  GstWanSrc *self = GST_WAN_SRC(handler);
  const ObjectLock lock(self);
  return self->priv->uri.empty() ? nullptr : g_strdup(self->priv->uri.c_str());
}

// What the URI before has set, and this one does not, is as by default again.
static void take_uri(GstWanSrc *self, const char *uri, const std::list<Assignment> &assignments) {
  std::vector<GParamSpec *> settings;
  for (const Assignment &assignment : assignments) settings.push_back(assignment.pspec);
  {
    const ObjectLock lock(self);
    self->priv->uri = uri;
    settings.swap(self->priv->uri_settings);
  }
  GObject *object = G_OBJECT(self);
  g_object_freeze_notify(object);
  for (GParamSpec *pspec : settings)
    g_object_set_property(object, pspec->name, g_param_spec_get_default_value(pspec));
  for (const Assignment &assignment : assignments)
    g_object_set_property(object, assignment.pspec->name, &assignment.value);
  g_object_thaw_notify(object);
}

static gboolean gst_wan_src_set_uri(GstURIHandler *handler, const gchar *uri, GError **error) {
  GstWanSrc *self = GST_WAN_SRC(handler);
  if (GST_STATE(self) > GST_STATE_READY) {
    g_set_error(error, GST_URI_ERROR, GST_URI_ERROR_BAD_STATE, "wansrc takes no URI while it runs.");
    return FALSE;
  }
  std::list<Assignment> assignments;
  std::string reason;
  if (!read_uri(G_OBJECT_GET_CLASS(self), uri, &assignments, &reason)) {
    g_set_error(error, GST_URI_ERROR, GST_URI_ERROR_BAD_REFERENCE, "%s", utf8(reason).c_str());
    return FALSE;
  }
  take_uri(self, uri, assignments);
  return TRUE;
}

static void gst_wan_src_uri_handler_init(gpointer iface, gpointer) {
  auto *handler = static_cast<GstURIHandlerInterface *>(iface);
  handler->get_type = [](GType) { return GST_URI_SRC; };
  handler->get_protocols = gst_wan_src_get_protocols;
  handler->get_uri = gst_wan_src_get_uri;
  handler->set_uri = gst_wan_src_set_uri;
}

// ---- presets

// How clips are made, but not what they show.
static gchar **gst_wan_src_get_preset_properties(GstPreset *) {
  GStrvBuilder *names = g_strv_builder_new();
  for (const ClipSetting &setting : clip_settings()) {
    static const std::set<std::string_view> shown = {"prompt", "seed", "image", "last-image"};
    if (!shown.contains(setting.name())) g_strv_builder_add(names, setting.name());
  }
  gchar **result = g_strv_builder_end(names);
  g_strv_builder_unref(names);
  return result;
}

static void gst_wan_src_preset_init(gpointer iface, gpointer) {
  static_cast<GstPresetInterface *>(iface)->get_property_names = gst_wan_src_get_preset_properties;
}

// ---- the class

static void gst_wan_src_init(GstWanSrc *self) {
  self->priv = new Private;
  gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME);
  const auto leaves = [](GstPad *, GstPadProbeInfo *info, gpointer self) {
    frame_leaves(GST_WAN_SRC(self), gst_pad_probe_info_get_buffer(info));
    return GST_PAD_PROBE_OK;
  };
  gst_pad_add_probe(GST_BASE_SRC_PAD(self), GST_PAD_PROBE_TYPE_BUFFER, leaves, self, nullptr);
  // Of an end before the first frame, which the base class makes, nobody else hears here.
  const auto ends = [](GstPad *, GstPadProbeInfo *info, gpointer self) {
    if (GST_EVENT_TYPE(gst_pad_probe_info_get_event(info)) == GST_EVENT_EOS)
      end_preroll(GST_WAN_SRC(self), GST_PROGRESS_TYPE_COMPLETE, "the stream has ended");
    return GST_PAD_PROBE_OK;
  };
  gst_pad_add_probe(GST_BASE_SRC_PAD(self), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, ends, self, nullptr);
}

static void gst_wan_src_finalize(GObject *object) {
  GstWanSrc *self = GST_WAN_SRC(object);
  delete self->priv;
  G_OBJECT_CLASS(gst_wan_src_parent_class)->finalize(object);
}

static void add_pad_template(GstElementClass *klass, const char *name, GstPadDirection direction,
                             GstPadPresence presence, GstCaps *caps) {
  gst_element_class_add_pad_template(klass, gst_pad_template_new(name, direction, presence, caps));
  gst_caps_unref(caps);
}

static void install_signals(GType type) {
  const auto flags = GSignalFlags(G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION);
  /**
   * GstWanSrc::enqueue:
   * @self: the source
   * @prompt: (nullable): what the clip shows; the property prompt if it is empty
   * @settings: (nullable): fields named and typed as the properties image, last-image (also a GstSample),
   * seed, negative-prompt, num-frames, steps, guidance-scale, guidance-scale-2, flow-shift, scheduler,
   * sigmas, cache, cache-threshold, continuity-correction and prompt-switch; the properties count for those
   * left out
   *
   * Queues a clip, to be made before those of the property prompt.
   *
   * Returns: the clip's id, which messages about it and its frames' meta carry; 0, after a warning message
   * that says why, if it cannot be made
   */
  g_signal_new_class_handler("enqueue", type, flags, G_CALLBACK(gst_wan_src_enqueue), nullptr, nullptr,
                             nullptr, G_TYPE_UINT, 2, G_TYPE_STRING, GST_TYPE_STRUCTURE);
  /**
   * GstWanSrc::skip:
   * @self: the source
   *
   * Ends the clip that is on air at its next chunk, or the one being made if nothing is left of that.
   */
  g_signal_new_class_handler("skip", type, flags, G_CALLBACK(gst_wan_src_skip), nullptr, nullptr, nullptr,
                             G_TYPE_NONE, 0);
  /**
   * GstWanSrc::clear:
   * @self: the source
   *
   * Empties the queue of clips; the one being made is not in it any more.
   */
  g_signal_new_class_handler("clear", type, flags, G_CALLBACK(gst_wan_src_clear), nullptr, nullptr, nullptr,
                             G_TYPE_NONE, 0);
  /**
   * GstWanSrc::remove:
   * @self: the source
   * @id: what #GstWanSrc::enqueue has returned
   *
   * Takes a clip out of the queue.
   *
   * Returns: %FALSE if it is not in the queue, or not any more
   */
  g_signal_new_class_handler("remove", type, flags, G_CALLBACK(gst_wan_src_remove), nullptr, nullptr, nullptr,
                             G_TYPE_BOOLEAN, 1, G_TYPE_UINT);
}

static void gst_wan_src_class_init(GstWanSrcClass *klass) {
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  object_class->set_property = gst_wan_src_set_property;
  object_class->get_property = gst_wan_src_get_property;
  object_class->notify = gst_wan_src_notify;
  object_class->finalize = gst_wan_src_finalize;
  install_properties(object_class);
  install_signals(G_TYPE_FROM_CLASS(klass));

  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  element_class->change_state = gst_wan_src_change_state;
  element_class->send_event = gst_wan_src_send_event;
  element_class->post_message = gst_wan_src_post_message;
  element_class->request_new_pad = gst_wan_src_request_new_pad;
  element_class->release_pad = gst_wan_src_release_pad;
  gst_element_class_set_static_metadata(
      element_class, "Wan video source", "Source/Video",
      "Makes video from text and pictures with Wan diffusion models, on a GPU "
      "or the CPU. Size, rate and format are caps.",
      "The gst-wan developers");
  add_pad_template(element_class, "src", GST_PAD_SRC, GST_PAD_ALWAYS, video_caps(true));
  add_pad_template(element_class, "prompt_sink", GST_PAD_SINK, GST_PAD_REQUEST,
                   gst_caps_from_string(kPromptCaps));
  for (const char *name : kPicturePads)
    add_pad_template(element_class, name, GST_PAD_SINK, GST_PAD_REQUEST,
                     gst_caps_new_empty_simple("video/x-raw"));

  GstBaseSrcClass *base_class = GST_BASE_SRC_CLASS(klass);
  base_class->start = gst_wan_src_start;
  base_class->stop = gst_wan_src_stop;
  base_class->unlock = gst_wan_src_unlock;
  base_class->unlock_stop = gst_wan_src_unlock_stop;
  base_class->get_caps = gst_wan_src_get_caps;
  base_class->event = gst_wan_src_event;
  base_class->negotiate = gst_wan_src_negotiate;
  base_class->fixate = gst_wan_src_fixate;
  base_class->set_caps = gst_wan_src_set_caps;
  base_class->decide_allocation = gst_wan_src_decide_allocation;
  base_class->query = gst_wan_src_query;
  GST_PUSH_SRC_CLASS(klass)->create = gst_wan_src_create;

  register_meta();
}
