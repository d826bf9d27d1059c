// The pump and the prompt track under ThreadSanitizer: everything that threads of an application, of
// GStreamer and of the worker do to them, at once and in random order, on the stub engine. Also checks what
// the streaming thread gets.
//
//     pump_test ROUNDS [SEED]
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "frame_pump.h"
#include "tsan/support.h"

using namespace wan;
using test::Dice;

namespace {

// The stub, but that it asks what follows, as an engine that crossfades does.
const WanEngineApi *engine() {
  static const WanEngineApi api = [] {
    WanEngineApi asking = *wan_engine(WAN_ENGINE_ABI);
    asking.generate = [](WanModel *model, const WanGenerateOptions *options, const WanCallbacks *callbacks,
                         WanError *error) {
      if (options->fade_frames > 0) callbacks->followed(callbacks->user);
      return wan_engine(WAN_ENGINE_ABI)->generate(model, options, callbacks, error);
    };
    return asking;
  }();
  return &api;
}

ClipSettings random_clip(Dice &dice) {
  static const char *const prompts[] = {"", "", "", "chunk=1", "clip=5", "clip=30", "invalid", "warns"};
  ClipSettings clip;
  clip.prompt = prompts[dice.roll(std::size(prompts))];
  if (dice.roll(2)) clip.num_frames = 1 + 4 * dice.roll(5);
  if (dice.roll(2)) clip.seed = dice.roll(256);
  return clip;
}

RunSettings random_run(Dice &dice, std::shared_ptr<PromptTrack> track) {
  RunSettings run;
  run.num_clips = dice.roll(3) ? -1 : 20;
  run.queue_size = 1 + dice.roll(4);
  run.fade_frames = dice.roll(2) * 2;
  run.live = dice.roll(2);
  WanError error;
  CHECK(engine()->describe("", &run.defaults, &error) == WAN_OK);
  run.track = std::move(track);
  return run;
}

FrameFormat frame_format() {
  FrameFormat format;
  format.layout.size = 64;
  format.clock = {25, 1};
  return format;
}

// What the streaming thread does, and what it may rely on: whole clips in order, or the beginning of one that
// was skipped, with the frames of the clip that they say they are of.
class Consumer {
 public:
  Consumer(FramePump &pump, unsigned seed) : pump_(pump), dice_(seed) {}

  void operator()() {
    for (bool more = true; more;) {
      const auto event = dice_.roll(2) ? pump_.poll(1 + dice_.roll(8)) : pump_.pop(1 + dice_.roll(3));
      if (event)
        more = std::visit([this](const auto &event) { return take(event); }, *event);
      else
        miss();
      while (held_.size() > 3) held_.erase(held_.begin());
    }
  }

  int frames() const { return frames_; }

 private:
  void miss() {
    pump_.set_air_time(++frame_times_ * 40000000);
    dice_.rest(2);
  }
  bool take(const Loaded &) { return true; }
  bool take(const Log &log) {
    CHECK(log.message == "The stub warns.");
    return true;
  }
  bool take(const ClipFailed &failed) {
    CHECK(failed.clip && failed.failure.status == WAN_INVALID);
    return true;
  }
  // Each clip that was begun ends once, by itself or since it was skipped or failed.
  bool take(const ClipBegun &begun) {
    CHECK(begun.clip->index > begun_);
    begun_ = begun.clip->index;
    return true;
  }
  bool take(const ClipEnded &ended) {
    CHECK(ended.clip && (ended.skipped || ended_.count(ended.clip->index) == 0));
    ended_.insert(ended.clip->index);
    return true;
  }
  bool take(const Progress &progress) {
    CHECK(!progress.clip || progress.clip->index >= clip_);
    return true;
  }
  bool take(const Chunk &chunk) {
    const WanFrames &frames = *chunk.frames;
    const bool follows = chunk.clip->index == clip_ && frames.first_frame == next_frame_;
    const bool begins = chunk.clip->index > clip_ && frames.first_frame == 0;
    CHECK(follows || begins);
    clip_ = chunk.clip->index;
    next_frame_ = frames.first_frame + frames.num_frames;
    CHECK(next_frame_ <= chunk.clip->settings.num_frames);
    for (size_t i = 0; i < frames.num_frames * frame_format().layout.size; ++i)
      CHECK(frames.data[i] == (chunk.clip->seed & 255));
    frames_ += frames.num_frames;
    held_.push_back(chunk.frames);
    if (chunk.ends_clip) take(ClipEnded{chunk.clip, false});
    dice_.rest(1);
    return true;
  }
  bool take(const Finished &finished) {
    // Where all clips fail, so does the stream.
    const WanStatus status = finished.failure.status;
    CHECK(status == WAN_OK || status == WAN_CANCELLED || status == WAN_INVALID);
    return false;
  }
  bool take(const Flushing &) {
    std::this_thread::yield();
    return true;
  }

  FramePump &pump_;
  Dice dice_;
  std::vector<std::shared_ptr<WanFrames>> held_;  // by downstream
  std::set<int> ended_;
  int begun_ = -1;
  int clip_ = -1, next_frame_ = 0, frames_ = 0;
  uint64_t frame_times_ = 0;
};

// What an application's threads do: properties, signals, flushes.
void control(FramePump &pump, const std::atomic<bool> &stopping, unsigned seed) {
  Dice dice(seed);
  while (!stopping) {
    switch (dice.roll(16)) {
      case 0:
        pump.configure(random_clip(dice));
        break;
      case 1:
        pump.set_seed(dice.roll(512));
        break;
      case 2:
        pump.enqueue({unsigned(1 + dice.roll(100)), random_clip(dice)});
        break;
      case 3:
        pump.set_queue({{0, random_clip(dice)}, {0, random_clip(dice)}});
        break;
      case 4:
        pump.skip();
        break;
      case 5:
        pump.set_flushing(true);
        dice.rest(1);
        pump.set_flushing(false);
        break;
      default:
        CHECK(pump.stats().queued_clips <= 100000);
        CHECK(pump.queue().size() <= 100000);
    }
    dice.rest(3);
  }
}

// What comes in at the pad prompt_sink.
void write_prompts(PromptTrack &track, const std::atomic<bool> &stopping, unsigned seed) {
  Dice dice(seed);
  constexpr uint64_t kMillisecond = 1000000;
  track.attach();
  track.set_linked(true);
  for (uint64_t time = 0; !stopping; dice.rest(5)) {
    time += dice.roll(500) * kMillisecond;
    switch (dice.roll(10)) {
      case 0:
        track.advance(time);
        break;
      case 1:
        track.set_ended(true);
        track.reset();
        time = 0;
        break;
      case 2:
        if (!track.attach()) track.detach();
        break;
      case 3:
        track.set_linked(dice.roll(2));
        break;
      case 4:
        track.set_flushing(true);
        track.set_flushing(false);
        break;
      case 5:
        track.add_now("typed");
        break;
      default:
        // Far away, too, and out of order.
        track.add(dice.roll(8) ? "chunk=1" : "invalid", dice.roll(20) ? time : time / 2,
                  dice.roll(2) ? PromptTrack::kOpen
                               : dice.roll(500) * (dice.roll(9) ? kMillisecond : UINT64_MAX / 500));
    }
  }
  track.set_ended(true);
}

// An element: one run after the other, whose workers and models are shared.
struct Source {
  const std::shared_ptr<Turns> workers = std::make_shared<Turns>();
  std::shared_ptr<SharedModel> kept;
  int frames = 0;
};

ModelChoice random_choice(Dice &dice) {
  ModelChoice choice;
  choice.engine = engine();
  choice.dtype = dice.roll(3) ? WAN_DTYPE_AUTO : WAN_DTYPE_FLOAT32;
  return choice;
}

void play(Source &source, unsigned seed) {
  Dice dice(seed);
  const auto track = std::make_shared<PromptTrack>();
  const auto pump = std::make_shared<FramePump>(random_run(dice, track));
  std::atomic<bool> stopping = false;
  std::vector<std::thread> threads;
  // The application may use the pump before it starts.
  for (int i = 0; i < 2; ++i) threads.emplace_back(control, std::ref(*pump), std::ref(stopping), dice.seed());
  if (dice.roll(2)) threads.emplace_back(write_prompts, std::ref(*track), std::ref(stopping), dice.seed());
  dice.rest(5);
  const ModelChoice choice = random_choice(dice);
  if (source.kept && source.kept->choice() != choice) source.kept.reset();
  if (!source.kept || dice.roll(4) == 0) source.kept = SharedModel::of(choice);
  pump->start(frame_format(), source.kept, source.workers);
  Consumer consumer(*pump, dice.seed());
  std::thread streaming(std::ref(consumer));
  dice.rest(400);

  // Now and then it does not wait for the worker, whose model the next run waits for.
  pump->stop(dice.roll(4) ? std::chrono::milliseconds(60000) : std::chrono::milliseconds(0));
  stopping = true;
  track->set_flushing(true);
  for (std::thread &thread : threads) thread.join();
  pump->set_flushing(false);
  streaming.join();
  source.frames += consumer.frames();
}

}  // namespace

int main(int argc, char **argv) {
  const auto [rounds, seed] = test::parse_rounds(argc, argv);
  clip_settings();                 // by GObject, whose locks ThreadSanitizer does not see
  std::vector<Source> sources(3);  // side by side
  std::vector<std::thread> threads;
  for (size_t i = 0; i < sources.size(); ++i)
    threads.emplace_back([&, i] {
      Dice dice(seed + unsigned(i));
      for (int round = 0; round < rounds; ++round) play(sources[i], dice.seed());
    });
  for (std::thread &thread : threads) thread.join();
  int frames = 0;
  for (Source &source : sources) {
    CHECK(source.workers->take([] { return false; }, nullptr));  // those left behind have ended
    source.kept.reset();
    frames += source.frames;
  }
  CHECK(frames > 0);
  std::printf("%d rounds, %d frames\n", rounds, frames);
}
