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

#include "clip_planner.h"
#include "frame_clock.h"
#include "model_pool.h"
#include "wan/engine.h"

namespace wan {

/** What downstream has asked for: the frames of the whole run. */
struct FrameFormat {
  WanPixelLayout layout = {};
  bool on_device = false;
  FrameClock clock;
};

/** The model is loaded. */
struct Loaded {};

struct Progress {
  std::shared_ptr<const Clip> clip;  // none while loading
  WanProgress progress;
};

/** Why something could not be done, and where in the sources that was found. */
struct Failure {
  WanStatus status = WAN_OK;
  std::string message;
  const char *file = nullptr;
  int line = 0;
};

/** The engine begins to make a clip. */
struct ClipBegun {
  std::shared_ptr<const Clip> clip;
};

/** All frames of a clip were sent, or what was left of it is dropped. */
struct ClipEnded {
  std::shared_ptr<const Clip> clip;
  bool skipped;
};

/** A clip could not be made, or not to its end; the stream goes on. */
struct ClipFailed {
  std::shared_ptr<const Clip> clip;
  Failure failure;
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
  bool ends_clip = false;  // ClipEnded comes with its last frame
  bool skipped = false;    // and the clip was to go on
};

/** The last event: every clip is made (WAN_OK), or why not. */
struct Finished {
  Failure failure;
};

/** The wait was interrupted by set_flushing(true); nothing is lost. */
struct Flushing {};

Failure failure_of(WanStatus status, const WanError &error);

using PumpEvent =
    std::variant<Loaded, Progress, ClipBegun, ClipEnded, ClipFailed, Log, Chunk, Finished, Flushing>;

struct PumpStats {
  WanProgress progress = {};
  std::array<double, WAN_STAGE_DECODE + 1> seconds = {};  // by stage; of the newest clip
  std::shared_ptr<const Clip> newest;                     // none yet: null
  int chunk = -1;                                         // of the newest clip, none yet: -1
  int on_air_clip = -1;                                   // whose chunk was taken last, none yet: -1
  size_t queue_level = 0, queued_clips = 0;
  double queue_seconds = 0;
  int cached_forwards = 0;  // of the newest clip
  double fps = 0;           // frames that could be made in a second, text to pixels; of the newest whole clip
  bool running = false;
  WanMemory memory = {};
};

/** What is known of the endless video that is being made. */
struct EndlessVideo {
  /** Where a clip begins. */
  struct Start {
    int section, frame;
    std::shared_ptr<const Clip> clip;
    bool is_skipped = false;  // it was to go on
    int chunk = -1;           // the number of its first one; not known yet: -1
  };
  uint64_t first_frame = 0;     // in the stream
  int32_t handed_over = 0;      // frames that the engine has, with those beyond the last clip
  std::deque<Start> starts;     // of the clips whose frames are still to come, the newest last
  bool clip_is_over = false;    // by skip()
  bool is_interrupted = false;  // it has ended only because others want the model
  /** When a section was asked for. */
  struct Asked {
    int section, frame;
    std::chrono::steady_clock::time_point time;
    bool begins_clip = false;
  };
  std::deque<Asked> asked;  // the sections whose frames are still to come, the newest last
  /** Seconds before a section's first frame is due that it must be asked for, so that none of its frames
   * comes late: as the newest section shows so far, the one before, and the last one that had a new prompt or
   * picture, which take time. 0: not known yet. */
  double lead = 0, last_lead = 0, clip_lead = 0;
};

class FramePump : public std::enable_shared_from_this<FramePump> {
 public:
  explicit FramePump(const RunSettings &run);
  FramePump(const FramePump &) = delete;
  FramePump &operator=(const FramePump &) = delete;

  /** What clips have where a queued one leaves it open. Takes effect at the next clip. */
  void configure(const ClipSettings &settings);
  /** The next clip's seed; those after it count on from there. */
  void set_seed(int64_t seed);

  /** Clips that are made before those of configure(). */
  void enqueue(const QueuedClip &clip);
  /** The ids of the clips that were dropped for these. */
  std::vector<uint32_t> set_queue(const std::vector<QueuedClip> &clips);
  /** False if no clip of this id waits. */
  bool remove(uint32_t id);
  /** Those that were not begun, also after stop(). */
  std::vector<QueuedClip> queue() const;
  /** Ends the clip that is on air: drops what is left of it, and does not make the rest. If nothing is left
   * of it, or none is on air yet, that is done to the clip that is being made. Of an endless video, what is
   * made is shown, and the next section begins a new scene. */
  void skip();

  /** Starts the worker, which loads the model where it is not loaded. Workers of the same element, which may
   * be slow to stop, work one after the other, in `workers`. Once per pump. */
  void start(const FrameFormat &format, std::shared_ptr<SharedModel> model, std::shared_ptr<Turns> workers);
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
  uint64_t expected_frames() const;
  /** Live: the running time (ns) of the frame that is sent next. Timed prompts go by that. */
  void set_air_time(uint64_t time);

  /** Cancels the worker and waits for it, but not for longer than `patience`: a worker that is busy for
   * longer ends by itself and takes the pump with it. Drops the frames in the queue. Must be called before
   * the last reference is dropped. */
  void stop(std::chrono::milliseconds patience);

  PumpStats stats() const;

 private:
  void work();
  Failure make_clips();
  Failure in_turn(const std::function<bool()> &cancelled, const std::function<Failure()> &use);
  void give_way();
  bool may_have_picture(WanPictureKind kind, const ClipSettings &settings) const;
  Failure check();
  Failure load();
  Failure make(const std::shared_ptr<const Clip> &clip);
  Failure find_pictures(const Clip &clip);
  std::shared_ptr<const Picture> find_picture(const Clip &clip, WanPictureKind kind, Failure *failure);
  std::shared_ptr<const Picture> incoming_picture(const Clip &clip, WanPictureKind kind, Failure *failure);
  Failure generate(const Clip &clip);
  Failure survive(const std::shared_ptr<const Clip> &clip, const Failure &failure);
  bool await_choice(uint64_t first_frame, const std::function<bool()> &given_up);
  std::shared_ptr<Clip> choose_clip(uint64_t first_frame, std::optional<PromptTrack::Cue> cue = {});
  std::shared_ptr<const Clip> next_clip();
  bool followed();
  WanCallbacks callbacks();
  bool hand_over(WanPictureKind kind, WanPicture *picture) const;
  void report(const WanProgress &progress);
  void tell(PumpEvent news);
  bool push(WanFrames *frames);
  bool is_stopped() const { return cancelled_ || clip_cancelled_; }
  // With the lock held:
  std::optional<PumpEvent> take_event(uint64_t least_frames);
  bool has_room() const;
  uint64_t track_time(uint64_t frame) const;
  bool has_frames(int clip) const;
  void end_clip(const std::shared_ptr<const Clip> &clip, bool skipped);
  // Of an endless video (endless_pump.cpp):
  bool next_section(WanSection *section);
  bool await_demand(const WanSection &section);
  void measure_lead(const WanFrames &frames);
  bool is_clip_over(const WanSection &section, uint64_t first_frame, std::optional<PromptTrack::Cue> *cue);
  bool begin_clip(const std::shared_ptr<Clip> &clip, WanSection *section);
  void begin_video(const std::shared_ptr<Clip> &clip);
  std::shared_ptr<const Clip> end_video(const std::shared_ptr<const Clip> &first);
  std::shared_ptr<const Clip> take_frames(WanFrames *frames);
  uint64_t wanted_frames() const;
  bool can_repeat(const Clip &failed) const;

  const uint64_t stream_;  // WanGenerateOptions.stream
  const RunSettings run_;
  FrameFormat format_;                  // written at the start, with the lock held, as are the next two
  std::shared_ptr<SharedModel> model_;  // let go at the end
  std::shared_ptr<Turns> workers_;
  std::thread worker_;
  ClipPictures pictures_;  // the worker's, of the clip that it makes
  std::atomic<bool> cancelled_ = false, clip_cancelled_ = false;

  mutable std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  ClipPlanner planner_;
  EndlessVideo video_;
  std::shared_ptr<Clip> clip_, upcoming_;  // being made or made last; chosen before its turn
  bool generating_ = false;
  int failures_ = 0;            // of the same settings, one after the other
  Failure failure_;             // the last one
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
