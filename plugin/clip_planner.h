// What is made next: the queue of clips, the seeds, and how long each clip is.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "clip_settings.h"
#include "frame_clock.h"
#include "picture_track.h"
#include "prompt_track.h"
#include "wan/engine.h"

namespace wan {

/** What is fixed for a whole run. */
struct RunSettings {
  int num_clips = 0;        // -1: endless
  unsigned queue_size = 0;  // chunks
  int fade_frames = 0;      // between clips; 0: cut
  WanContinuity continuity = WAN_CONTINUITY_NONE;
  bool live = false;
  WanDefaults defaults = {};
  std::shared_ptr<PromptTrack> track;
  std::array<std::shared_ptr<PictureTrack>, WAN_PICTURE_KINDS> picture_tracks = {};  // by WanPictureKind
};

/** Why a clip is made. */
enum class ClipOrigin { Configured, Queued, Timed };

struct Clip {
  int index;
  uint32_t id;  // QueuedClip's, 0 if it is none
  ClipOrigin origin;
  uint64_t seed;
  ClipSettings settings;  // complete
  int used_frames;        // of settings.num_frames; 0: until something else is to be shown
  int fade_frames;        // of those, at both ends where another clip follows or went before; 0: cut
  int shared_frames;      // of those, that were shown at the end of the clip before: 0 or 1
  ClipPictures pictures;  // that it was enqueued with
  std::array<bool, WAN_PICTURE_KINDS> has_own_picture;  // by its own settings, not the element's
  bool is_timed = false;  // its last fade_frames are beyond its time, there to fade into the next clip
  bool is_last = false;   // of the timed prompts; of an endless model, of the video
  uint64_t time = 0;      // of its beginning, as timed prompts and pictures count
  /** Of an endless model: a new scene, which begins from its picture where there is one. */
  bool begins_scene = false;
  std::chrono::steady_clock::time_point asked = {};     // for it; none where nobody has
  std::chrono::steady_clock::time_point denoised = {};  // when the last step was done
};

/** Chooses each next clip when asked. It neither waits nor locks: FramePump does both for it. */
class ClipPlanner {
 public:
  explicit ClipPlanner(const RunSettings &run) : run_(run) {}
  /** Before timed clips. */
  void set_clock(const FrameClock &clock) { clock_ = clock; }

  /** What clips have where a queued one leaves it open. */
  void configure(const ClipSettings &settings);
  /** The next clip's seed; those after it count on from there. */
  void set_seed(int64_t seed);
  /** The settings of a clip that leaves all open, complete. */
  ClipSettings configured() const { return complete(settings_, run_.defaults); }

  void enqueue(const QueuedClip &clip) { queue_.push_back(clip); }
  /** The ids of the clips that are not in it any more. */
  std::vector<uint32_t> set_queue(const std::vector<QueuedClip> &clips);
  /** False if no clip of this id waits. */
  bool remove(uint32_t id);
  const std::deque<QueuedClip> &queue() const { return queue_; }

  /** The first clip of the queue, which must not be empty. It can be put back until it is begun. */
  std::shared_ptr<Clip> queued_clip();
  /** A clip that shows a cue, at most until the next one. A live clip is not cut: when it will be on air
   * depends on how long it takes to make. */
  std::shared_ptr<Clip> timed_clip(const PromptTrack::Cue &cue, uint64_t first_frame, uint64_t time);
  /** A clip as the properties say; none if there are num_clips. An endless one that others interrupted goes
   * on. */
  std::shared_ptr<Clip> configured_clip();
  bool has_configured_clip() const { return run_.num_clips < 0 || clips_ < run_.num_clips || is_open_; }
  /** Of an endless model: whether the properties say something else to show than this clip, since a clip was
   * chosen last. A change that was taken back is forgotten. */
  bool has_news_for(const Clip &clip);
  /** What a clip of a cue shows. */
  const std::string &prompt_of(const PromptTrack::Cue &cue) const {
    return cue.prompt.empty() ? settings_.prompt : cue.prompt;
  }
  /** The clip that was chosen last is being made, or cannot be made. */
  void begin() { begun_ = std::exchange(chosen_, std::nullopt); }
  void give_up() { chosen_.reset(); }
  /** Of an endless model: the video was interrupted. A queued clip that was on air is chosen again, unless
   * there is something else to show. */
  void resume();
  /** A whole clip was made: with continuity, the next ones begin with its last frame. */
  void end() { has_last_frame_ = run_.continuity == WAN_CONTINUITY_LAST_FRAME; }
  void put_back();

  /** Whether a clip that is being made keeps its last frames for the next one to fade in over: both sides of
   * a seam must have as many. */
  bool fade(const Clip &clip, Clip *next) const;
  /** Frames of all clips that are still to be made: the one that was chosen already, the queue, and those of
   * num_clips. `fade_frames`: of the clip before. */
  uint64_t frames_to_come(int fade_frames, const Clip *chosen) const;

 private:
  /** With a picture of its own, which no clip before it gives. */
  static bool begins_anew(const QueuedClip &clip);
  std::shared_ptr<Clip> choose(const QueuedClip &asked, ClipOrigin origin);
  void make_endless(Clip *clip, bool begins_anew);
  int even_part(int64_t left, const Clip &clip, bool last) const;
  void use_frames(Clip *clip, int frames) const;

  const RunSettings run_;
  FrameClock clock_;
  ClipSettings settings_;
  uint64_t next_seed_ = 0;
  std::deque<QueuedClip> queue_;
  std::optional<QueuedClip> chosen_;                          // taken from it, and not begun
  std::optional<QueuedClip> begun_;                           // the last clip that was begun, if queued
  int clips_ = 0;                                             // chosen so far
  bool has_last_frame_ = false;                               // the model, for the next clip
  bool has_news_ = false, has_new_image_ = false;             // of settings_
  bool is_open_ = false;                                      // a clip without an end was chosen
  std::chrono::steady_clock::time_point configured_at_ = {};  // when the news came
};

}  // namespace wan
