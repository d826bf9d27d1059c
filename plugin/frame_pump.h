// The thread that drives the engine, and the bounded queue of decoded frames between it and the streaming
// thread.
//
// The worker knows nothing of the element: all that happens is an event in the queue, which the streaming
// thread takes, posts or pushes. So a worker that is slow to stop can be left behind without holding anything
// of GStreamer's.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "wan/engine.h"

namespace wan {

/** What makes a loaded model reusable: the same choice gives the same model. */
struct ModelChoice {
  const WanEngineApi *engine = nullptr;
  std::string directory, device;
  WanDtype dtype = WAN_DTYPE_AUTO;
  bool operator==(const ModelChoice &) const = default;
};

/** What may change from clip to clip. */
struct ClipSettings {
  std::string prompt, negative_prompt;
  int steps = 0;
  double guidance_scale = 0, guidance_scale_2 = 0, flow_shift = 0;
  WanScheduler scheduler = WAN_SCHEDULER_AUTO;
};

/** What is fixed for a whole run. */
struct RunSettings {
  int num_frames = 0;
  int num_clips = 0;  // -1: endless
  unsigned queue_size = 0;
  WanPixelLayout layout = {};
};

struct Clip {
  int index;
  uint64_t seed;
  ClipSettings settings;
  std::chrono::steady_clock::time_point denoised = {};  // when the last step was done
};

/** The model is loaded. */
struct Loaded {};

struct Progress {
  std::shared_ptr<const Clip> clip;  // none while loading
  WanProgress progress;
};

struct Chunk {
  std::shared_ptr<const Clip> clip;
  std::shared_ptr<WanFrames> frames;
};

/** The last event: every clip is made (WAN_OK), or why not. */
struct Finished {
  WanStatus status;
  std::string message;
};

/** The wait was interrupted by set_flushing(true); nothing is lost. */
struct Flushing {};

using PumpEvent = std::variant<Loaded, Progress, Chunk, Finished, Flushing>;

struct PumpStats {
  WanProgress progress = {};
  std::array<double, WAN_STAGE_DECODE + 1> seconds = {};  // by stage; of the newest clip
  int clip = -1, chunk = -1;                              // the newest, none yet: -1
  uint64_t seed = 0;
  size_t queue_level = 0;
  bool running = false;
  WanMemory memory = {};
};

class FramePump : public std::enable_shared_from_this<FramePump> {
 public:
  explicit FramePump(const ModelChoice &choice) : choice_(choice) {}
  FramePump(const FramePump &) = delete;
  FramePump &operator=(const FramePump &) = delete;

  /** Takes effect at the next clip. */
  void configure(const ClipSettings &settings);
  /** The next clip's seed; those after it count on from there. Negative: a random one. */
  void set_seed(int64_t seed);

  /** Starts the worker, with a model of the same choice where one is loaded already. Once per pump. */
  void start(const RunSettings &run, std::shared_ptr<WanModel> model);
  bool started() const { return worker_.joinable(); }

  /** Waits for the next event: news before frames, and all frames before the end. */
  PumpEvent pop();
  void set_flushing(bool flushing);

  /** Cancels the worker and waits for it, but not for longer than `patience`: a worker that is busy for
   * longer ends by itself and takes the pump with it. Drops the frames in the queue. Returns the model if it
   * is free again. Must be called before the last reference is dropped. */
  std::shared_ptr<WanModel> stop(std::chrono::milliseconds patience);

  PumpStats stats() const;

 private:
  void work();
  WanStatus load(WanError *error);
  WanStatus generate(std::shared_ptr<const Clip> clip, WanError *error);
  std::shared_ptr<const Clip> next_clip();
  WanCallbacks callbacks();
  void report(const WanProgress &progress);
  bool push(WanFrames *frames);

  const ModelChoice choice_;
  RunSettings run_;
  std::thread worker_;
  std::atomic<bool> cancelled_ = false;

  mutable std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  ClipSettings next_settings_;
  uint64_t next_seed_ = 0;
  std::shared_ptr<WanModel> model_;
  std::shared_ptr<Clip> clip_;
  std::deque<PumpEvent> news_;
  std::deque<Chunk> chunks_;
  std::optional<Finished> finished_;
  bool flushing_ = false;
  PumpStats stats_;
};

}  // namespace wan
