// Hours of a live source in minutes: pipelines with random properties, to which all that may happen happens
// in random order, on the stub engine and a clock that runs faster than time.
//
//     soak [--seconds=1800] [--rate=20] [--seed=N]
//
// Fails on an error of a pipeline, a stall, a PTS that goes back inside a segment, frames that are not of the
// clip that they say, and memory or GStreamer objects that are left behind. Needs WAN_TEST_STUB_ENGINE, as
// tests/element.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/check/gsttestclock.h>
#include <gst/gst.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/allocated_bytes.h"
#include "common/dice.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using wan::test::Dice;

// In wall time. The stub never takes longer than a second for a clip, so nothing that is well takes that
// long.
constexpr std::chrono::seconds kPatience(30);
constexpr double kMostHeapGrowth = 2,
                 kMostGrowth = 16;  // MB, from the second quarter of the runs to the last

// For the report of a failure.
std::atomic<const char *> launch_line = "", last_action = "";

[[noreturn]] void fail(const std::string &what) {
  std::fprintf(stderr, "FAILED: %s\nafter: %s\nin: %s\n", what.c_str(), last_action.load(),
               launch_line.load());
  std::fflush(nullptr);
  std::_Exit(1);
}

std::string to_string(GstClockTime time) {
  return std::to_string(double(time) / GST_SECOND) + " s";
}

void rest(int wall_milliseconds) {
  std::this_thread::sleep_for(milliseconds(wall_milliseconds));
}

// A clock `rate` times as fast as time. The system clock cannot be scaled: a wait on it lasts as long as the
// difference says, whatever its calibration is.
class FastClock {
 public:
  FastClock(double rate, std::function<void()> on_tick)
      : clock_(GST_TEST_CLOCK(gst_test_clock_new())),
        on_tick_(std::move(on_tick)),
        ticker_([this, rate] { tick(rate); }) {}
  ~FastClock() {
    stopping_ = true;
    ticker_.join();
    gst_object_unref(clock_);
  }

  GstClock *get() const { return GST_CLOCK(clock_); }

 private:
  void tick(double rate) {
    const Clock::time_point start = Clock::now();
    while (!stopping_) {
      const std::chrono::nanoseconds elapsed = Clock::now() - start;
      const GstClockTime now = GstClockTime(double(elapsed.count()) * rate);
      gst_test_clock_set_time(clock_, now);
      wake_until(now);
      on_tick_();
      rest(1);
    }
  }
  void wake_until(GstClockTime now) {
    GstClockID id = nullptr;
    while (gst_test_clock_peek_next_pending_id(clock_, &id)) {
      const bool due = gst_clock_id_get_time(id) <= now;
      gst_clock_id_unref(id);
      if (!due) return;
      if (GstClockID woken = gst_test_clock_process_next_clock_id(clock_)) gst_clock_id_unref(woken);
    }
  }

  GstTestClock *clock_;
  const std::function<void()> on_tick_;
  std::atomic<bool> stopping_ = false;
  std::thread ticker_;
};

// Looks at all that leaves the source.
class Watch {
 public:
  void attach(GstElement *src) {
    GstPad *pad = gst_element_get_static_pad(src, "src");
    const auto types = GstPadProbeType(GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM |
                                       GST_PAD_PROBE_TYPE_EVENT_FLUSH);
    gst_pad_add_probe(
        pad, types,
        [](GstPad *, GstPadProbeInfo *info, gpointer watch) {
          static_cast<Watch *>(watch)->see(info);
          return GST_PAD_PROBE_OK;
        },
        this, nullptr);
    gst_object_unref(pad);
    may_go_back_ = false;
    feed();
  }

  /** Fails if nothing came for too long. For any thread: the main one may be what hangs. */
  void expect_life() const {
    if (Clock::now() - last_sign_.load() > kPatience) fail("a stall");
  }
  void feed() { last_sign_ = Clock::now(); }
  /** Downstream takes so long for the next frame. */
  void delay(int wall_milliseconds) { delay_ = wall_milliseconds; }
  /** A flush sets the running time to 0, perhaps only after the first frame that follows it. */
  void allow_reset() { may_go_back_ = true; }
  /** Frames fade in, so that their bytes are not the stub's. */
  void set_fading(bool fading) { fading_ = fading; }

  std::atomic<guint64> frames = 0, repeated = 0, gaps = 0, segments = 0;

 private:
  void see(GstPadProbeInfo *info) {
    if (GST_PAD_PROBE_INFO_TYPE(info) & GST_PAD_PROBE_TYPE_BUFFER)
      see_frame(GST_PAD_PROBE_INFO_BUFFER(info));
    else
      see_event(GST_PAD_PROBE_INFO_EVENT(info));
  }

  void see_time(GstClockTime time, const char *of) {
    if (!GST_CLOCK_TIME_IS_VALID(time)) fail(std::string("no time on a ") + of);
    const GstClockTime before = last_time_.exchange(time);
    if (GST_CLOCK_TIME_IS_VALID(before) && time <= before && !may_go_back_.exchange(false))
      fail(std::string("the time of a ") + of + " is " + to_string(time) + ", after " + to_string(before));
    feed();
  }

  void see_frame(GstBuffer *buffer) {
    see_time(GST_BUFFER_PTS(buffer), "frame");
    GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, "GstWanMeta");
    if (!meta) fail("a frame without GstWanMeta");
    gint clip = 0;
    guint64 seed = 0;
    gboolean again = FALSE;
    gst_structure_get(gst_custom_meta_get_structure(meta), "clip", G_TYPE_INT, &clip, "seed", G_TYPE_UINT64,
                      &seed, "repeated", G_TYPE_BOOLEAN, &again, nullptr);
    if (clip >= 0 && !fading_) expect_bytes(buffer, guint8(seed));
    ++frames;
    repeated += again ? 1 : 0;
    rest(delay_.exchange(0));
  }

  static void expect_bytes(GstBuffer *buffer, guint8 value) {
    GstMapInfo map;
    if (!gst_buffer_map(buffer, &map, GST_MAP_READ)) fail("a frame cannot be read");
    const bool same =
        std::all_of(map.data, map.data + map.size, [value](guint8 byte) { return byte == value; });
    gst_buffer_unmap(buffer, &map);
    if (!same) fail("a frame is not of its clip");
  }

  void see_event(GstEvent *event) {
    GstClockTime start;
    switch (GST_EVENT_TYPE(event)) {
      case GST_EVENT_SEGMENT:
      case GST_EVENT_FLUSH_STOP:
      case GST_EVENT_STREAM_START:
        segments += GST_EVENT_TYPE(event) == GST_EVENT_SEGMENT;
        last_time_ = GST_CLOCK_TIME_NONE;
        break;
      case GST_EVENT_GAP:
        gst_event_parse_gap(event, &start, nullptr);
        see_time(start, "gap");
        ++gaps;
        break;
      default:
        break;
    }
  }

  std::atomic<GstClockTime> last_time_ = GST_CLOCK_TIME_NONE;
  std::atomic<Clock::time_point> last_sign_ = Clock::now();
  std::atomic<int> delay_ = 0;
  std::atomic<bool> fading_ = false, may_go_back_ = false;
};

// One pipeline, from NULL to NULL.
class Run {
 public:
  Run(Dice &dice, Watch &watch, GstClock *clock) : dice_(dice), watch_(watch) {
    const bool fade = dice.one_in(3);
    watch.set_fading(fade);
    launch_ = std::string("wansrc name=src is-live=true num-clips=-1 engine=") +
              std::getenv("WAN_TEST_STUB_ENGINE") + " seed=" + std::to_string(dice.roll(1000)) +
              " underrun=" + dice.pick({"repeat", "gap", "stall"}) + " filler=" + (fade ? "fade" : "black") +
              " prebuffer=" + dice.pick({"0", "100000000", "2000000000"}) +
              " transition=" + dice.pick({"cut", "crossfade"}) +
              " queue-size=" + std::to_string(1 + dice.roll(8)) +
              " ! video/x-raw,width=64,height=48,framerate=" + dice.pick({"25/1", "16/1", "30000/1001"}) +
              ",format=" + dice.pick({"NV12", "I420", "RGB"}) + dice.pick({" ! queue", ""}) +
              " ! fakesink name=sink sync=" + dice.pick({"true", "false"});
    launch_line = launch_.c_str();
    last_action = "the start";
    GError *error = nullptr;
    pipeline_ = gst_parse_launch(launch_.c_str(), &error);
    if (error) fail(error->message);
    gst_pipeline_use_clock(GST_PIPELINE(pipeline_), clock);
    src_ = gst_bin_get_by_name(GST_BIN(pipeline_), "src");
    watch.attach(src_);
  }
  ~Run() {
    set_state(GST_STATE_NULL);
    gst_object_unref(src_);
    gst_object_unref(pipeline_);
  }

  void play(Clock::time_point until) {
    set_state(GST_STATE_PLAYING);
    while (Clock::now() < until) {
      act();
      rest(dice_.roll(30));
      check();
    }
    if (dice_.one_in(2)) end();
  }

 private:
  void act() {
    switch (dice_.roll(16)) {
      case 0:
      case 1:
        return enqueue();
      case 2:
        return emit("skip");
      case 3:
        return emit("clear");
      case 4:
        last_action = "prompt";
        return g_object_set(src_, "prompt", prompt(), nullptr);
      case 5:
        return write_prompts();
      case 6:
        return pause();
      case 7:
        return flush();
      case 8:
        return reconfigure();
      case 9:
        last_action = "latency";
        gst_bin_recalculate_latency(GST_BIN(pipeline_));
        return;
      case 10:
        last_action = "a slow sink";
        return watch_.delay(dice_.roll(40));
      case 11:
        return restart();
      case 12:
        last_action = "underrun";
        return gst_util_set_object_arg(G_OBJECT(src_), "underrun", dice_.pick({"repeat", "gap", "stall"}));
      default:
        return read_stats();
    }
  }

  // Some clips are late: at a rate of 20, a clip of 9 frames is on air for 18 ms.
  const char *prompt() {
    return dice_.pick({"", "", "a red circle", "chunk=1", "chunk=10", "clip=20", "clip=200"});
  }

  void enqueue() {
    last_action = "enqueue";
    GstStructure *settings =
        dice_.one_in(2) ? nullptr
                        : gst_structure_new("settings", "seed", G_TYPE_INT64, gint64(dice_.roll(1000)),
                                            "num-frames", G_TYPE_INT, 1 + 4 * dice_.roll(20), nullptr);
    gboolean accepted = FALSE;
    g_signal_emit_by_name(src_, "enqueue", prompt(), settings, &accepted);
    if (settings) gst_structure_free(settings);
    if (!accepted) fail("enqueue was refused");
  }

  void emit(const char *signal) {
    last_action = signal;
    g_signal_emit_by_name(src_, signal);
  }

  void write_prompts() {
    last_action = "prompts";
    GValue array = G_VALUE_INIT, text = G_VALUE_INIT;
    g_value_init(&array, GST_TYPE_ARRAY);
    g_value_init(&text, G_TYPE_STRING);
    for (int left = dice_.roll(4); left > 0; --left) {
      g_value_set_string(&text, prompt());
      gst_value_array_append_value(&array, &text);
    }
    g_object_set_property(G_OBJECT(src_), "prompts", &array);
    g_value_unset(&text);
    g_value_unset(&array);
  }

  void pause() {
    last_action = "a pause";
    set_state(GST_STATE_PAUSED);
    rest(dice_.roll(50));
    set_state(GST_STATE_PLAYING);
  }

  // A flushed sink gets back to PLAYING later, in a thread of the pipeline. Events that are sent to elements
  // before that may wait for it with a lock held for which it waits, whatever the source is.
  void settle() {
    if (gst_element_get_state(pipeline_, nullptr, nullptr, 30 * GST_SECOND) != GST_STATE_CHANGE_SUCCESS)
      fail("not back in PLAYING");
  }

  void flush() {
    last_action = "a flush";
    settle();
    gst_element_send_event(src_, gst_event_new_flush_start());
    rest(dice_.roll(5));
    const bool reset = dice_.one_in(2);
    if (reset) watch_.allow_reset();
    gst_element_send_event(src_, gst_event_new_flush_stop(reset));
  }

  void reconfigure() {
    last_action = "reconfigure";
    GstPad *pad = gst_element_get_static_pad(src_, "src");
    gst_pad_send_event(pad, gst_event_new_reconfigure());
    gst_object_unref(pad);
  }

  void restart() {
    last_action = "a restart";
    if (dice_.roll(4)) return;
    set_state(GST_STATE_READY);
    set_state(GST_STATE_PLAYING);
  }

  void read_stats() {
    GstStructure *stats = nullptr;
    g_object_get(src_, "stats", &stats, nullptr);
    double seconds = -1;
    if (!gst_structure_get_double(stats, "queue-seconds", &seconds) || seconds < 0)
      fail("stats without queue-seconds");
    gst_structure_free(stats);
  }

  void set_state(GstState state) {
    if (gst_element_set_state(pipeline_, state) == GST_STATE_CHANGE_FAILURE) fail("a state change");
    watch_.feed();
  }

  void end() {
    last_action = "EOS";
    settle();
    gst_element_send_event(pipeline_, gst_event_new_eos());
    const Clock::time_point start = Clock::now();
    while (!check())
      if (rest(1); Clock::now() - start > kPatience) fail("no end of the stream");
  }

  // True if the stream has ended.
  bool check() {
    bool ended = false;
    GstBus *bus = gst_element_get_bus(pipeline_);
    while (GstMessage *message = gst_bus_pop(bus)) {
      if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) report(message);
      ended |= GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS;
      gst_message_unref(message);
    }
    gst_object_unref(bus);
    return ended;
  }

  void report(GstMessage *message) {
    GError *error = nullptr;
    gchar *debug = nullptr;
    gst_message_parse_error(message, &error, &debug);
    fail(std::string(error->message) + " " + debug);
  }

  Dice &dice_;
  Watch &watch_;
  GstElement *pipeline_ = nullptr, *src_ = nullptr;
  std::string launch_;
};

struct Memory {
  double heap, resident;  // MB
};

Memory memory_now() {
  size_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return {double(wan::test::allocated_bytes()) / 1e6, double(resident * size_t(sysconf(_SC_PAGESIZE))) / 1e6};
}

double median(const std::vector<Memory> &values, size_t begin, size_t end, double Memory::*field) {
  std::vector<double> part;
  for (size_t i = begin; i < end; ++i) part.push_back(values[i].*field);
  std::nth_element(part.begin(), part.begin() + part.size() / 2, part.end());
  return part[part.size() / 2];
}

// The first quarter warms up.
void check_growth(const std::vector<Memory> &after_runs, const char *what, double Memory::*field,
                  double most) {
  const size_t count = after_runs.size();
  if (count < 8) fail("too few runs to tell whether memory grows: more seconds are needed");
  const double early = median(after_runs, count / 4, count / 2, field);
  const double late = median(after_runs, count * 3 / 4, count, field);
  std::printf("%s: %.1f MB in the second quarter, %.1f MB in the last\n", what, early, late);
  if (late - early > most) fail(std::string(what) + " grows");
}

void soak(int seconds, double rate, unsigned seed) {
  Dice dice(seed);
  Watch watch;
  std::vector<Memory> after_runs;
  const Clock::time_point start = Clock::now(), end = start + std::chrono::seconds(seconds);
  {
    const FastClock clock(rate, [&watch] { watch.expect_life(); });
    while (Clock::now() < end) {
      Run(dice, watch, clock.get()).play(std::min(end, Clock::now() + milliseconds(200 + dice.roll(1600))));
      after_runs.push_back(memory_now());
      watch.feed();
    }
  }
  std::printf("%.1f hours of running time: %zu runs, %" G_GUINT64_FORMAT " segments, %" G_GUINT64_FORMAT
              " frames (%" G_GUINT64_FORMAT " repeated), %" G_GUINT64_FORMAT " gaps\n",
              seconds * rate / 3600, after_runs.size(), watch.segments.load(), watch.frames.load(),
              watch.repeated.load(), watch.gaps.load());
  check_growth(after_runs, "heap", &Memory::heap, kMostHeapGrowth);
  check_growth(after_runs, "resident", &Memory::resident, kMostGrowth);
}

}  // namespace

int main(int argc, char **argv) {
  setenv("GST_TRACERS", "leaks", 0);
  // The leaks tracer warns of what is left at the end.
  g_log_set_always_fatal(GLogLevelFlags(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING));
  gint seconds = 1800, seed = -1;
  gdouble rate = 20;
  const GOptionEntry entries[] = {{"seconds", 0, 0, G_OPTION_ARG_INT, &seconds, "Wall time (1800)", "N"},
                                  {"rate", 0, 0, G_OPTION_ARG_DOUBLE, &rate,
                                   "Seconds of the pipeline's clock in one of wall time (20)", "R"},
                                  {"seed", 0, 0, G_OPTION_ARG_INT, &seed, "Of all that is random", "N"},
                                  {nullptr, 0, 0, G_OPTION_ARG_NONE, nullptr, nullptr, nullptr}};
  GOptionContext *context = g_option_context_new("- runs live pipelines in every way for a long time");
  g_option_context_add_main_entries(context, entries, nullptr);
  GError *error = nullptr;
  if (!g_option_context_parse(context, &argc, &argv, &error)) fail(error->message);
  g_option_context_free(context);
  if (!std::getenv("WAN_TEST_STUB_ENGINE"))
    fail("WAN_TEST_STUB_ENGINE is not set: run it through meson test");

  gst_init(nullptr, nullptr);
  if (seed < 0) seed = int(std::random_device()() & G_MAXINT);
  std::printf("seed %d\n", seed);
  std::fflush(stdout);
  soak(seconds, rate, unsigned(seed));
  gst_deinit();  // lets the leaks tracer speak
}
