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
#include <vector>

#include "clip_settings.h"
#include "model_pool.h"
#include "prompt_track.h"
#include "wan/engine.h"

namespace wan {

/** What is fixed for a whole run. */
struct RunSettings {
  int num_clips = 0;        // -1: endless
  unsigned queue_size = 0;  // chunks
  int fade_frames = 0;      // between clips; 0: cut
  int fps_n = 0, fps_d = 1;
  bool live = false;
  bool on_device = false;
  WanPixelLayout layout = {};
  WanDefaults defaults = {};
  std::shared_ptr<PromptTrack> track;
};

/** A clip that was asked for by itself. */
struct QueuedClip {
  uint32_t id = 0;  // for whoever enqueued it; 0: of the property prompts
  ClipSettings settings;
};

/** Why a clip is made. */
enum class ClipOrigin { Configured, Queued, Timed };

struct Clip {
  int index;
  uint32_t id;  // QueuedClip's, 0 if it is none
  ClipOrigin origin;
  uint64_t seed;
  ClipSettings settings;  // complete
  int used_frames;        // of settings.num_frames
  int fade_frames;        // of those, at both ends where another clip follows or went before; 0: cut
  bool is_timed = false;  // its last fade_frames are beyond its time, there to fade into the next clip
  bool is_last = false;   // of the timed prompts
  uint64_t time = 0;      // of its beginning, as timed prompts count; only where it is one of theirs
  std::chrono::steady_clock::time_point denoised = {};  // when the last step was done
};

/** The model is loaded. */
struct Loaded {};

struct Progress {
  std::shared_ptr<const Clip> clip;  // none while loading
  WanProgress progress;
};

/** A clip could not be made, or not to its end; the stream goes on. */
struct ClipFailed {
  std::shared_ptr<const Clip> clip;
  WanStatus status;
  std::string message;
  std::chrono::seconds pause;  // before the next one
};

/** What the engine has to say. */
struct Log {
  WanLogLevel level;
  std::string message;
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

using PumpEvent = std::variant<Loaded, Progress, ClipFailed, Log, Chunk, Finished, Flushing>;

struct PumpStats {
  WanProgress progress = {};
  std::array<double, WAN_STAGE_DECODE + 1> seconds = {};  // by stage; of the newest clip
  int clip = -1, chunk = -1;                              // the newest, none yet: -1
  int on_air_clip = -1;                                   // whose chunk was taken last, none yet: -1
  uint64_t seed = 0;
  size_t queue_level = 0, queued_clips = 0;
  double queue_seconds = 0;
  int cached_forwards = 0;  // of the newest clip
  double fps = 0;           // frames that could be made in a second, text to pixels; of the newest whole clip
  bool running = false;
  WanMemory memory = {};
};

class FramePump : public std::enable_shared_from_this<FramePump> {
 public:
  FramePump();
  FramePump(const FramePump &) = delete;
  FramePump &operator=(const FramePump &) = delete;

  /** What clips have where a queued one leaves it open. Takes effect at the next clip. */
  void configure(const ClipSettings &settings);
  /** The next clip's seed; those after it count on from there. */
  void set_seed(int64_t seed);

  /** Clips that are made before those of configure(). */
  void enqueue(const QueuedClip &clip);
  void set_queue(const std::vector<QueuedClip> &clips);
  /** Those that were not begun, also after stop(). */
  std::vector<QueuedClip> queue() const;
  /** Ends the clip that is on air: drops what is left of it, and does not make the rest. If nothing is left
   * of it, or none is on air yet, that is done to the clip that is being made. */
  void skip();

  /** Starts the worker, which loads the model where it is not loaded. Workers of the same element, which may
   * be slow to stop, work one after the other, in `workers`. Once per pump. */
  void start(const RunSettings &run, std::shared_ptr<SharedModel> model, std::shared_ptr<Turns> workers);
  bool started() const { return worker_.joinable(); }

  /** Waits for the next event: news before frames, and all frames before the end. Frames not before
   * `least_frames` of them wait in the queue (only a live source may ask for more than one), or no more come.
   */
  PumpEvent pop(uint64_t least_frames);
  /** The same without waiting, and so never interrupted: none if there is no event. */
  std::optional<PumpEvent> poll(uint64_t least_frames);
  void set_flushing(bool flushing);
  /** Live: how many frames the queue should take, more than a clip if need be. */
  void hold(uint64_t frames);
  /** Frames of the whole stream, if nothing more is queued or skipped. Not for endless streams or timed
   * prompts.
   */
  uint64_t expected_frames(int num_clips, int fade_frames, const WanDefaults &defaults) const;
  /** Live: the running time (ns) of the frame that is sent next. Timed prompts go by that. */
  void set_air_time(uint64_t time);

  /** Cancels the worker and waits for it, but not for longer than `patience`: a worker that is busy for
   * longer ends by itself and takes the pump with it. Drops the frames in the queue. Must be called before
   * the last reference is dropped. */
  void stop(std::chrono::milliseconds patience);

  PumpStats stats() const;

 private:
  void work();
  Finished make_clips();
  WanStatus in_turn(const std::function<bool()> &cancelled, const std::function<WanStatus()> &use);
  void give_way();
  WanStatus check(WanError *error);
  WanStatus load(WanError *error);
  WanStatus make(const std::shared_ptr<const Clip> &clip, WanError *error);
  WanStatus generate(const Clip &clip, WanError *error);
  WanStatus survive(const std::shared_ptr<const Clip> &clip, WanStatus status, const std::string &message);
  bool await_choice(uint64_t first_frame, const std::function<bool()> &given_up);
  std::shared_ptr<Clip> choose_clip(uint64_t first_frame);
  std::shared_ptr<const Clip> next_clip();
  bool followed();
  WanCallbacks callbacks();
  void report(const WanProgress &progress);
  void tell(PumpEvent news);
  bool push(WanFrames *frames);
  bool is_stopped() const { return cancelled_ || clip_cancelled_; }
  // With the lock held:
  std::optional<PumpEvent> take_event(uint64_t least_frames);
  std::shared_ptr<Clip> begin_clip(const ClipSettings &settings, ClipOrigin origin, uint32_t id = 0);
  std::shared_ptr<Clip> begin_clip(const PromptTrack::Cue &cue, uint64_t first_frame, uint64_t time);
  bool has_room() const;
  uint64_t track_time(uint64_t frame) const;
  int even_part(int64_t left, const Clip &clip, bool last) const;
  void use_frames(Clip *clip, int frames) const;
  bool has_frames(int clip) const;
  bool can_repeat(const Clip &failed) const;

  const uint64_t stream_;               // WanGenerateOptions.stream
  RunSettings run_;                     // written at the start, with the lock held, as are the next two
  std::shared_ptr<SharedModel> model_;  // let go at the end
  std::shared_ptr<Turns> workers_;
  std::thread worker_;
  std::atomic<bool> cancelled_ = false, clip_cancelled_ = false;

  mutable std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  ClipSettings settings_;
  uint64_t next_seed_ = 0;
  std::deque<QueuedClip> queue_;
  std::optional<QueuedClip> chosen_;       // taken from it, and not begun: a stop puts it back
  std::shared_ptr<Clip> clip_, upcoming_;  // being made or made last; chosen before its turn
  bool generating_ = false;
  int clips_ = 0;               // chosen so far
  int failures_ = 0;            // of the same settings, one after the other
  Finished failure_ = {WAN_OK, ""};  // the last one
  bool reconfigured_ = false;   // since then
  bool made_ = false;           // a whole clip, once
  uint64_t passed_frames_ = 0;  // of the stream, up to the end of the queue
  uint64_t air_time_ = 0;       // live: ns, of the next frame
  bool overfull_ = false;       // the queue, since others waited for the model
  uint64_t queued_frames_ = 0, held_frames_ = 0;
  uint64_t clip_first_ = 0, clip_frames_ = 0;        // of clip_: first frame time, frames made
  std::chrono::steady_clock::duration waited_ = {};  // for room in the queue, of clip_
  std::deque<PumpEvent> news_;
  std::deque<Chunk> chunks_;
  std::optional<Finished> finished_;
  bool flushing_ = false;
  PumpStats stats_;
};

}  // namespace wan
