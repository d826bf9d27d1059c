// Everything that an application, a neighbour or a stranger's text can do to a wansrc, at the same time and
// in random order: states, properties, signals, pads, caps, relinks, clocks, latencies, flushes, seeks,
// events, queries and URIs, on the stub engine.
//
//     storm [--seconds=600] [--seed=N] [--source=wansrc]
//
// With another source it shows what is GStreamer's: videotestsrc has criticals, but plays on.
//
// Fails on a crash, a critical, a call that does not return, a source that no longer plays when the storm is
// over, and threads, descriptors or memory that are left behind. An error message is no failure: some of what
// is asked for cannot be. Needs WAN_TEST_STUB_ENGINE, as tests/element.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/gst.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/allocated_bytes.h"
#include "common/dice.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using wan::test::Dice;

// The stub is never busy for longer than a moment, so what is well never takes that long.
constexpr std::chrono::seconds kPatience(60);
constexpr int kRoundMilliseconds = 1500;
constexpr double kMostGrowth = 24;  // MB of heap, from the first quarter of the rounds to the last

// What each thread does now, for the report of a hang.
class Watchdog {
 public:
  explicit Watchdog(unsigned seed) : seed_(seed), thread_([this] { watch(); }) {}
  ~Watchdog() {
    stopping_ = true;
    thread_.join();
  }
  void begin(size_t actor, const char *what) {
    what_[actor] = what;
    since_[actor] = Clock::now().time_since_epoch().count();
  }
  void end(size_t actor) { since_[actor] = 0; }

  static constexpr size_t kActors = 16;

 private:
  void watch() {
    while (!stopping_) {
      std::this_thread::sleep_for(milliseconds(100));
      for (size_t actor = 0; actor < kActors; ++actor) {
        const Clock::rep since = since_[actor];
        if (since == 0 || Clock::now() - Clock::time_point(Clock::duration(since)) < kPatience) continue;
        std::fprintf(stderr, "FAILED: \"%s\" does not return (--seed=%u). At the same time:\n",
                     what_[actor].load(), seed_);
        for (size_t other = 0; other < kActors; ++other)
          if (other != actor && since_[other] != 0) std::fprintf(stderr, "  %s\n", what_[other].load());
        std::fflush(nullptr);
        std::abort();  // for a debugger, or a core with every thread's stack
      }
    }
  }

  const unsigned seed_;
  std::atomic<const char *> what_[kActors] = {};
  std::atomic<Clock::rep> since_[kActors] = {};
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

[[noreturn]] void fail(const std::string &what) {
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::fflush(nullptr);
  std::_Exit(1);
}

// ---- random values

constexpr const char *kPrompts[] = {"",        "chunk=2",          "clip=20", "clip=200",
                                    "invalid", "out-of-memory",    "refused", "internal",
                                    "a",       "fails-at-the-end", "\xc3\xa9"};
constexpr guint64 kTimes[] = {0,
                              1,
                              GST_MSECOND,
                              100 * GST_MSECOND,
                              GST_SECOND,
                              100 * GST_SECOND,
                              guint64{1} << 62,
                              (guint64{1} << 63) - 1,
                              guint64{1} << 63,
                              GST_CLOCK_TIME_NONE - 1,
                              GST_CLOCK_TIME_NONE};

template <typename T>
T extreme(Dice &dice, T least, T most, T usual) {
  const T choices[] = {least, most, usual, T(least + (most > least)), T(most - (most > least)), usual};
  return dice.pick(choices);
}

double extreme_double(Dice &dice, const GParamSpecDouble *spec) {
  const double choices[] = {spec->minimum, spec->maximum, spec->default_value, 0, 1, 5, -0.5, 1e300};
  return dice.pick(choices);
}

void random_structures(Dice &dice, GValue *array) {
  static constexpr const char *kStructures[] = {
      "lora, path=/nowhere.safetensors", "lora, path=/nowhere, strength=1e300", "x, y=1", "lora, strength=2"};
  for (int i = dice.roll(3); i > 0; --i) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, GST_TYPE_STRUCTURE);
    g_value_take_boxed(&item, gst_structure_new_from_string(dice.pick(kStructures)));
    gst_value_array_append_and_take_value(array, &item);
  }
}

void random_array(Dice &dice, const char *property, GValue *array) {
  if (std::strcmp(property, "loras") == 0) return random_structures(dice, array);
  const bool text = std::strcmp(property, "prompts") == 0;
  for (int i = dice.roll(4); i > 0; --i) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, text ? G_TYPE_STRING : G_TYPE_DOUBLE);
    if (text)
      g_value_set_string(&item, dice.pick(kPrompts));
    else
      g_value_set_double(&item, dice.pick({1.0, 0.75, 0.5, 0.25, 0.0, -1.0, 1e300}));
    gst_value_array_append_and_take_value(array, &item);
  }
}

// A value that the property's type can hold; what it is worth is for the element to say.
bool random_value(Dice &dice, GParamSpec *spec, GValue *value) {
  g_value_init(value, spec->value_type);
  if (G_IS_PARAM_SPEC_BOOLEAN(spec)) {
    g_value_set_boolean(value, dice.one_in(2));
  } else if (auto *range = G_IS_PARAM_SPEC_INT(spec) ? G_PARAM_SPEC_INT(spec) : nullptr) {
    g_value_set_int(value, extreme(dice, range->minimum, range->maximum, range->default_value + 5));
  } else if (auto *range = G_IS_PARAM_SPEC_UINT(spec) ? G_PARAM_SPEC_UINT(spec) : nullptr) {
    g_value_set_uint(value, extreme(dice, range->minimum, range->maximum, range->default_value));
  } else if (auto *range = G_IS_PARAM_SPEC_INT64(spec) ? G_PARAM_SPEC_INT64(spec) : nullptr) {
    g_value_set_int64(value, extreme(dice, range->minimum, range->maximum, range->default_value));
  } else if (auto *range = G_IS_PARAM_SPEC_UINT64(spec) ? G_PARAM_SPEC_UINT64(spec) : nullptr) {
    g_value_set_uint64(value, extreme(dice, range->minimum, range->maximum, range->default_value));
  } else if (auto *range = G_IS_PARAM_SPEC_DOUBLE(spec) ? G_PARAM_SPEC_DOUBLE(spec) : nullptr) {
    g_value_set_double(value, extreme_double(dice, range));
  } else if (G_IS_PARAM_SPEC_ENUM(spec)) {
    const GEnumClass *choices = G_PARAM_SPEC_ENUM(spec)->enum_class;
    g_value_set_enum(value, choices->values[dice.roll(int(choices->n_values))].value);
  } else if (G_IS_PARAM_SPEC_STRING(spec)) {
    g_value_set_string(value, dice.pick(kPrompts));
  } else if (spec->value_type == GST_TYPE_ARRAY) {
    random_array(dice, spec->name, value);
  } else {
    return false;
  }
  return true;
}

// ---- a pipeline under attack

struct Target {
  GstElement *pipeline, *source, *filter;
  std::atomic<guint64> frames = 0;
  std::atomic<bool> over = false;
  std::mutex flushing;  // a flush whose start meets no neighbour, since they are relinked, is the
                        // application's fault
};

void count_frame(GstElement *, GstBuffer *, GstPad *, gpointer target) {
  ++static_cast<Target *>(target)->frames;
}

// Not those that open another library, take as much memory as one says, or are not the source's own.
bool is_stormy(const GParamSpec *spec) {
  static constexpr std::string_view kLeftAlone[] = {"engine", "queue-size", "prebuffer", "name", "parent"};
  return (spec->flags & G_PARAM_WRITABLE) &&
         std::ranges::find(kLeftAlone, spec->name) == std::end(kLeftAlone);
}

void set_property(Target &target, Dice &dice) {
  guint count = 0;
  GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(target.source), &count);
  GParamSpec *spec = specs[dice.roll(int(count))];
  GValue value = G_VALUE_INIT;
  if (is_stormy(spec) && random_value(dice, spec, &value)) {
    g_param_value_validate(spec, &value);  // what is out of range GObject refuses by itself
    g_object_set_property(G_OBJECT(target.source), spec->name, &value);
  }
  if (G_IS_VALUE(&value)) g_value_unset(&value);
  g_free(specs);
}

void get_property(Target &target, Dice &dice) {
  guint count = 0;
  GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(target.source), &count);
  GValue value = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(target.source), specs[dice.roll(int(count))]->name, &value);
  g_value_unset(&value);
  g_free(specs);
}

bool is_wansrc(const Target &target) {
  return g_signal_lookup("enqueue", G_OBJECT_TYPE(target.source)) != 0;
}

void emit_signal(Target &target, Dice &dice) {
  if (!is_wansrc(target)) return;
  static constexpr const char *kSettings[] = {"s,num-frames=(int)1",
                                              "s,num-frames=(int)2147483647",
                                              "s,num-frames=(int)-5",
                                              "s,steps=(int)1",
                                              "s,sigmas=<1.0,0.5>",
                                              "s,sigmas=<0.2,0.9>",
                                              "s,flow-shift=0.0",
                                              "s,seed=(int64)-7",
                                              "s,guidance-scale=1e300",
                                              "s,steps=(string)many",
                                              "s,model=/x",
                                              "s,num-buffers=(int)5",
                                              "s,typefind=(boolean)true,do-timestamp=(boolean)true",
                                              "s,cache=first-block",
                                              "s,seed=(guint64)18446744073709551615",
                                              "s,prompt=other"};
  switch (dice.roll(4)) {
    case 0:
      g_signal_emit_by_name(target.source, "skip");
      break;
    case 1:
      g_signal_emit_by_name(target.source, "clear");
      break;
    default: {
      GstStructure *settings = dice.one_in(3) ? nullptr : gst_structure_new_from_string(dice.pick(kSettings));
      guint64 id = 0;  // wide enough for whatever it returns
      g_signal_emit_by_name(target.source, "enqueue", dice.one_in(5) ? nullptr : dice.pick(kPrompts),
                            settings, &id);
      if (settings) gst_structure_free(settings);
    }
  }
}

void send_text(Dice &dice, GstPad *pad) {
  static constexpr GstFormat kFormats[] = {GST_FORMAT_TIME, GST_FORMAT_TIME, GST_FORMAT_BYTES,
                                           GST_FORMAT_DEFAULT};
  static constexpr const char *kTexts[] = {"chunk=1",  "clip=5",  "",    "<b>a</b>",
                                           "\xff\xfe", "refused", "a\nb"};
  GstSegment segment;
  gst_segment_init(&segment, dice.pick(kFormats));
  if (dice.one_in(4)) segment.start = dice.pick(kTimes);
  gst_pad_send_event(pad, gst_event_new_stream_start("storm"));
  GstCaps *caps = gst_caps_from_string("text/x-raw, format=utf8");
  gst_pad_send_event(pad, gst_event_new_caps(caps));
  gst_caps_unref(caps);
  gst_pad_send_event(pad, gst_event_new_segment(&segment));
  for (int i = dice.roll(6); i > 0; --i) {
    const char *text = dice.pick(kTexts);
    GstBuffer *buffer = gst_buffer_new_allocate(nullptr, std::strlen(text), nullptr);
    gst_buffer_fill(buffer, 0, text, std::strlen(text));
    GST_BUFFER_PTS(buffer) = dice.pick(kTimes);
    GST_BUFFER_DURATION(buffer) = dice.pick(kTimes);
    gst_pad_chain(pad, buffer);
    if (dice.one_in(3))
      gst_pad_send_event(pad, gst_event_new_gap(dice.roll(1000) * GST_MSECOND, dice.pick(kTimes)));
  }
  if (dice.one_in(2)) gst_pad_send_event(pad, gst_event_new_eos());
  if (dice.one_in(3)) {
    gst_pad_send_event(pad, gst_event_new_flush_start());
    gst_pad_send_event(pad, gst_event_new_flush_stop(dice.one_in(2)));
  }
}

void use_prompt_pad(Target &target, Dice &dice) {
  if (!is_wansrc(target)) return;
  GstPad *pad = gst_element_request_pad_simple(target.source, "prompt_sink");
  if (!pad) return;
  // A cue in order of its time may have to wait for room: a released pad must let go of it.
  std::thread text([&] { send_text(dice, pad); });
  if (dice.one_in(2)) std::this_thread::sleep_for(milliseconds(20));
  gst_element_release_request_pad(target.source, pad);
  text.join();
  gst_object_unref(pad);
}

void change_caps(Target &target, Dice &dice) {
  static constexpr const char *kCaps[] = {"video/x-raw",
                                          "ANY",
                                          "video/x-raw, format=I420",
                                          "video/x-raw, format=I420, chroma-site=mpeg2",
                                          "video/x-raw, multiview-mode=mono",
                                          "video/x-raw, width=64, height=48, framerate=25/1",
                                          "video/x-raw, width=128",
                                          "video/x-raw, width=17",
                                          "video/x-raw, framerate=0/1",
                                          "video/x-raw, framerate=2147483647/1",
                                          "video/x-raw, colorimetry={bt2020,bt709}",
                                          "video/x-raw, format=RGB; video/x-raw(ANY)",
                                          "EMPTY"};
  GstCaps *caps = gst_caps_from_string(dice.pick(kCaps));
  g_object_set(target.filter, "caps", caps, nullptr);
  gst_caps_unref(caps);
}

void change_clock(Target &target, Dice &dice) {
  GstClock *clock = nullptr;
  switch (dice.roll(5)) {
    case 0:
      gst_pipeline_use_clock(GST_PIPELINE(target.pipeline), nullptr);
      return;
    case 1:
      gst_pipeline_auto_clock(GST_PIPELINE(target.pipeline));
      return;
    case 2:
      gst_pipeline_set_latency(GST_PIPELINE(target.pipeline), dice.roll(500) * GST_MSECOND);
      return;
    case 3:
      gst_pipeline_set_latency(GST_PIPELINE(target.pipeline), GST_CLOCK_TIME_NONE);
      return;
    default:
      clock =
          GST_CLOCK(g_object_new(GST_TYPE_SYSTEM_CLOCK, "clock-type",
                                 dice.pick({GST_CLOCK_TYPE_REALTIME, GST_CLOCK_TYPE_MONOTONIC}), nullptr));
      if (dice.one_in(2))
        gst_clock_set_calibration(clock, gst_clock_get_internal_time(clock), 50 * GST_SECOND, 1, 1);
      gst_pipeline_use_clock(GST_PIPELINE(target.pipeline), clock);
      gst_object_unref(clock);
  }
}

// An event that the source is sent is pushed with the source's state lock held. Where the sink answers with a
// LATENCY message, the pipeline distributes its latency at once, for which it takes its own state lock; a
// change of state takes these two in the other order. That is GStreamer's, whatever the source is, so a
// thread that sends an event leaves the latency to others.
thread_local bool sending = false;

// What the pipeline would do by itself, if no one was asked.
gboolean distribute_latency(GstBin *pipeline, gpointer) {
  return sending || GST_BIN_GET_CLASS(pipeline)->do_latency(pipeline);
}

void send_to_source(Target &target, GstEvent *event) {
  sending = true;
  gst_element_send_event(target.source, event);
  sending = false;
}

void flush(Target &target, Dice &dice) {
  const std::lock_guard lock(target.flushing);
  send_to_source(target, gst_event_new_flush_start());
  dice.rest(10);
  send_to_source(target, gst_event_new_flush_stop(dice.one_in(2)));
}

GstEvent *random_event(Dice &dice) {
  static constexpr GstFormat kFormats[] = {GST_FORMAT_TIME, GST_FORMAT_DEFAULT, GST_FORMAT_BYTES,
                                           GST_FORMAT_PERCENT};
  switch (dice.roll(9)) {
    case 0:
      return gst_event_new_reconfigure();
    case 1:
      return gst_event_new_latency(dice.roll(2000) * GST_MSECOND);
    case 2:
      return gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 2, dice.roll(1000), dice.roll(1000) * GST_MSECOND);
    case 3:
      return gst_event_new_navigation(gst_structure_new_empty("application/x-gst-navigation"));
    case 4:
      return gst_event_new_custom(GST_EVENT_CUSTOM_UPSTREAM, gst_structure_new_empty("storm"));
    case 5:
      return gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, gst_structure_new_empty("storm"));
    case 6:
      return gst_event_new_step(dice.pick(kFormats), dice.roll(10), 1, dice.one_in(2), dice.one_in(2));
    default: {
      static constexpr int kFlags[] = {GST_SEEK_FLAG_NONE, GST_SEEK_FLAG_FLUSH,
                                       GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_SEGMENT};
      return gst_event_new_seek(dice.pick({1.0, 0.5, -1.0, 2.0}), dice.pick(kFormats),
                                GstSeekFlags(dice.pick(kFlags)), GST_SEEK_TYPE_SET,
                                gint64(dice.roll(3)) * GST_SECOND, GST_SEEK_TYPE_NONE, -1);
    }
  }
}

void send_event(Target &target, Dice &dice) {
  GstEvent *event = random_event(dice);
  if (dice.one_in(2)) {
    send_to_source(target, event);
    return;
  }
  GstPad *pad = gst_element_get_static_pad(target.source, "src");
  if (gst_event_type_get_flags(GST_EVENT_TYPE(event)) & GST_EVENT_TYPE_UPSTREAM)
    gst_pad_send_event(pad, event);
  else
    gst_pad_push_event(pad, event);
  gst_object_unref(pad);
}

void query(Target &target, Dice &dice) {
  static constexpr GstFormat kFormats[] = {GST_FORMAT_TIME, GST_FORMAT_DEFAULT, GST_FORMAT_BYTES,
                                           GST_FORMAT_PERCENT, GST_FORMAT_BUFFERS};
  const GstFormat format = dice.pick(kFormats);
  const std::function<GstQuery *()> queries[] = {
      [&] { return gst_query_new_position(format); },
      [&] { return gst_query_new_duration(format); },
      [&] { return gst_query_new_latency(); },
      [&] { return gst_query_new_seeking(format); },
      [&] { return gst_query_new_segment(format); },
      [&] { return gst_query_new_uri(); },
      [&] { return gst_query_new_scheduling(); },
      [&] { return gst_query_new_buffering(format); },
      [&] { return gst_query_new_context("gst.cuda.context"); },
      [&] { return gst_query_new_caps(nullptr); },
      [&] { return gst_query_new_formats(); },
      [&] { return gst_query_new_convert(format, gint64(dice.bits()), dice.pick(kFormats)); },
  };
  GstQuery *query = queries[dice.roll(int(G_N_ELEMENTS(queries)))]();
  gst_element_query(target.source, query);
  gst_query_unref(query);
}

void set_uri(Target &target, Dice &dice) {
  if (!GST_IS_URI_HANDLER(target.source)) return;
  static constexpr const char *kUris[] = {"wan://a?num-clips=-1",
                                          "WAN://b",
                                          "wan://x?steps=5&bogus=1",
                                          "wan:x",
                                          "wan://%ff",
                                          "wan://?",
                                          "wan://a#b?c=d",
                                          "wan://a?seed=18446744073709551615"};
  GError *error = nullptr;
  gst_uri_handler_set_uri(GST_URI_HANDLER(target.source), dice.pick(kUris), &error);
  g_clear_error(&error);
}

// Where the filter's caps do not allow it, the source stays alone until the next time.
void link(Target &target) {
  GstPad *source = gst_element_get_static_pad(target.source, "src");
  GstPad *sink = gst_element_get_static_pad(target.filter, "sink");
  gst_pad_link(source, sink);
  gst_object_unref(source);
  gst_object_unref(sink);
}

// As an application must do it: while nothing passes the pad.
void relink(Target &target, Dice &) {
  const auto idle = [](GstPad *, GstPadProbeInfo *, gpointer target) {
    Target &relinked = *static_cast<Target *>(target);
    const std::unique_lock lock(relinked.flushing, std::try_to_lock);
    if (!lock) return GST_PAD_PROBE_REMOVE;
    gst_element_unlink(relinked.source, relinked.filter);
    link(relinked);
    return GST_PAD_PROBE_REMOVE;
  };
  GstPad *pad = gst_element_get_static_pad(target.source, "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_IDLE, idle, &target, nullptr);
  gst_object_unref(pad);
}

// ---- who does what

struct Actor {
  const char *name;
  void (*act)(Target &, Dice &);
  int most_rest;  // ms between two acts
};

constexpr Actor kActors[] = {
    {"a property is set", set_property, 4},
    {"a property is read", get_property, 4},
    {"a signal", emit_signal, 4},
    {"text at prompt_sink", use_prompt_pad, 60},
    {"caps of the filter", change_caps, 60},
    {"a clock", change_clock, 80},
    {"a flush", flush, 80},
    {"an event", send_event, 20},
    {"a query", query, 4},
    {"a URI", set_uri, 30},
    {"a relink", relink, 120},
};

void clear_bus(Target &target) {
  GstBus *bus = gst_element_get_bus(target.pipeline);
  while (GstMessage *message = gst_bus_pop(bus)) gst_message_unref(message);
  gst_object_unref(bus);
}

void change_states(Target &target, Dice &dice, Watchdog &watchdog, size_t actor) {
  static constexpr GstState kStates[] = {GST_STATE_PLAYING, GST_STATE_PLAYING, GST_STATE_PLAYING,
                                         GST_STATE_PLAYING, GST_STATE_PAUSED,  GST_STATE_READY,
                                         GST_STATE_NULL};
  const Clock::time_point end = Clock::now() + milliseconds(kRoundMilliseconds);
  while (Clock::now() < end) {
    watchdog.begin(actor, "a change of state");
    gst_element_set_state(target.pipeline, dice.pick(kStates));
    watchdog.end(actor);
    clear_bus(target);
    dice.rest(150);
  }
}

// What must always help: back to NULL, sane settings, and play.
void require_life(Target &target, Watchdog &watchdog) {
  watchdog.begin(0, "the way to NULL after the storm");
  gst_element_set_state(target.pipeline, GST_STATE_NULL);
  watchdog.end(0);
  clear_bus(target);
  gst_pipeline_auto_clock(GST_PIPELINE(target.pipeline));
  gst_pipeline_set_latency(GST_PIPELINE(target.pipeline), GST_CLOCK_TIME_NONE);
  GstCaps *caps = gst_caps_from_string("video/x-raw");
  g_object_set(target.filter, "caps", caps, nullptr);
  gst_caps_unref(caps);
  link(target);
  guint count = 0;
  GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(target.source), &count);
  for (guint i = 0; i < count; ++i)
    if (is_stormy(specs[i])) {
      GValue value = G_VALUE_INIT;
      g_value_init(&value, specs[i]->value_type);
      g_param_value_set_default(specs[i], &value);
      g_object_set_property(G_OBJECT(target.source), specs[i]->name, &value);
      g_value_unset(&value);
    }
  g_free(specs);
  if (is_wansrc(target)) {
    g_signal_emit_by_name(target.source, "clear");
    g_object_set(target.source, "num-clips", -1, nullptr);
  }

  const guint64 before = target.frames;
  watchdog.begin(0, "playing after the storm");
  gst_element_set_state(target.pipeline, GST_STATE_PLAYING);
  GstBus *bus = gst_element_get_bus(target.pipeline);
  while (target.frames < before + 20) {
    GstMessage *message = gst_bus_timed_pop_filtered(bus, 10 * GST_MSECOND, GST_MESSAGE_ERROR);
    if (!message) continue;
    GError *error = nullptr;
    gchar *debug = nullptr;
    gst_message_parse_error(message, &error, &debug);
    fail(std::string("an error after the storm: ") + error->message + "\n" + debug);
  }
  gst_object_unref(bus);
  gst_element_set_state(target.pipeline, GST_STATE_NULL);
  watchdog.end(0);
  clear_bus(target);
}

void run_round(const std::string &source, bool live, unsigned seed, Watchdog &watchdog) {
  const std::string launch = source + " name=src " + (live ? "is-live=true" : "") +
                             " ! capsfilter name=filter ! fakesink name=sink signal-handoffs=true sync=" +
                             (seed % 2 ? "true" : "false");
  GError *error = nullptr;
  Target target{};
  target.pipeline = gst_parse_launch(launch.c_str(), &error);
  if (error) fail(error->message);
  target.source = gst_bin_get_by_name(GST_BIN(target.pipeline), "src");
  target.filter = gst_bin_get_by_name(GST_BIN(target.pipeline), "filter");
  GstElement *sink = gst_bin_get_by_name(GST_BIN(target.pipeline), "sink");
  g_signal_connect(sink, "handoff", G_CALLBACK(count_frame), &target);
  g_signal_connect(target.pipeline, "do-latency", G_CALLBACK(distribute_latency), nullptr);

  std::vector<std::thread> threads;
  for (size_t i = 0; i < std::size(kActors); ++i)
    threads.emplace_back([&, i] {
      Dice dice(seed * 100 + unsigned(i));
      while (!target.over) {
        watchdog.begin(i + 1, kActors[i].name);
        kActors[i].act(target, dice);
        watchdog.end(i + 1);
        dice.rest(kActors[i].most_rest);
      }
    });
  Dice dice(seed);
  change_states(target, dice, watchdog, 0);
  target.over = true;
  // What an event or a text waits for may be a paused sink.
  watchdog.begin(0, "the way to NULL");
  gst_element_set_state(target.pipeline, GST_STATE_NULL);
  watchdog.end(0);
  for (std::thread &thread : threads) thread.join();
  require_life(target, watchdog);

  for (GstElement *element : {sink, target.filter, target.source, target.pipeline}) gst_object_unref(element);
}

// ---- what must not grow

size_t entries(const char *directory) {
  const std::filesystem::directory_iterator begin(directory);
  return size_t(std::distance(begin, std::filesystem::directory_iterator()));
}

double heap_megabytes() {
  malloc_trim(0);
  return double(wan::test::allocated_bytes()) / 1e6;
}

std::string option(int argc, char **argv, const std::string &name, const std::string &fallback) {
  for (int i = 1; i < argc; ++i)
    if (const std::string argument = argv[i]; argument.starts_with("--" + name + "="))
      return argument.substr(name.size() + 3);
  return fallback;
}

}  // namespace

int main(int argc, char **argv) {
  gst_init(nullptr, nullptr);
  const int seconds = std::stoi(option(argc, argv, "seconds", "600"));
  const auto seed =
      unsigned(std::stoul(option(argc, argv, "seed", std::to_string(std::random_device()() % 1000000))));
  const std::string source = option(
      argc, argv, "source", std::string("wansrc num-clips=-1 engine=") + g_getenv("WAN_TEST_STUB_ENGINE"));
  // A warning is how a setting is refused; a critical is a fault, of which videotestsrc has some.
  if (source.starts_with("wansrc"))
    g_log_set_always_fatal(GLogLevelFlags(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL));
  std::printf("storm --seconds=%d --seed=%u, GStreamer %s\n", seconds, seed, gst_version_string());
  std::fflush(stdout);

  const Clock::time_point begin = Clock::now(), end = begin + std::chrono::seconds(seconds);
  Watchdog watchdog(seed);
  run_round(source, false, seed, watchdog);  // opens what stays open
  run_round(source, true, seed + 1, watchdog);
  const size_t threads = entries("/proc/self/task"), files = entries("/proc/self/fd");
  std::vector<double> heap = {heap_megabytes()};
  unsigned rounds = 2;
  for (; Clock::now() < end; ++rounds) {
    run_round(source, rounds % 2, seed + rounds, watchdog);
    heap.push_back(heap_megabytes());
  }
  if (entries("/proc/self/fd") > files) fail("descriptors are left open");
  // GLib's pools keep threads for a while that have nothing to do.
  for (int waited = 0; entries("/proc/self/task") > threads; waited += 100) {
    if (waited == 30000) fail("threads are left running");
    std::this_thread::sleep_for(milliseconds(100));
  }
  const double growth = heap.back() - heap[heap.size() / 4];
  std::printf("%u rounds, heap %.1f to %.1f MB\n", rounds, heap[heap.size() / 4], heap.back());
  if (growth > kMostGrowth) fail("memory grows");
  return 0;
}
