// SPDX-License-Identifier: LGPL-2.1-or-later
#include "clip_planner.h"

#include <algorithm>
#include <random>
#include <utility>

namespace wan {
namespace {

// A queued clip without an end makes way for the next one after so long.
constexpr int kSceneSeconds = 5;

}  // namespace

void ClipPlanner::configure(const ClipSettings &settings) {
  const bool new_image = settings.image != settings_.image;
  if (new_image || settings.prompt != settings_.prompt) {
    has_news_ = true;
    has_new_image_ |= new_image;
    configured_at_ = std::chrono::steady_clock::now();
  }
  settings_ = settings;
}

void ClipPlanner::set_seed(int64_t seed) {
  next_seed_ = seed == kRandomSeed ? std::random_device()() : static_cast<uint64_t>(seed);
}

std::vector<uint32_t> ClipPlanner::set_queue(const std::vector<QueuedClip> &clips) {
  std::vector<uint32_t> dropped;
  for (const QueuedClip &clip : queue_) dropped.push_back(clip.id);
  for (const QueuedClip &clip : clips) std::erase(dropped, clip.id);
  queue_ = {clips.begin(), clips.end()};
  chosen_.reset();
  return dropped;
}

bool ClipPlanner::remove(uint32_t id) {
  return std::erase_if(queue_, [id](const QueuedClip &clip) { return clip.id == id; }) > 0;
}

void ClipPlanner::put_back() {
  if (chosen_) queue_.push_front(*std::exchange(chosen_, std::nullopt));
}

bool ClipPlanner::has_news_for(const Clip &clip) {
  if (has_new_image_) return true;
  if (clip.origin == ClipOrigin::Timed) return false;  // its cue says what it shows
  has_news_ = has_news_ && settings_.prompt != clip.settings.prompt;
  return has_news_;
}

void ClipPlanner::resume() {
  if (!begun_ || !queue_.empty() || has_news_) return;
  begun_->asked = {};
  queue_.push_front(*std::exchange(begun_, std::nullopt));
}

bool ClipPlanner::begins_anew(const QueuedClip &clip) {
  return clip.pictures[WAN_PICTURE_FIRST] || !clip.settings.image.empty();
}

std::shared_ptr<Clip> ClipPlanner::choose(const QueuedClip &asked, ClipOrigin origin) {
  const ClipSettings &settings = asked.settings;
  const ClipSettings clip = complete(overlay(settings, settings_), run_.defaults);
  const bool own_seed = settings.seed != kRandomSeed;
  const uint64_t seed = own_seed ? static_cast<uint64_t>(settings.seed) : next_seed_;
  if (!own_seed && static_cast<int64_t>(++next_seed_) == kRandomSeed) next_seed_ = 0;
  auto chosen = std::make_shared<Clip>(Clip{clips_++,
                                            asked.id,
                                            origin,
                                            seed,
                                            clip,
                                            clip.num_frames,
                                            std::min(run_.fade_frames, clip.num_frames / 2),
                                            has_last_frame_ && !begins_anew(asked),
                                            asked.pictures,
                                            {!settings.image.empty(), !settings.last_image.empty()}});
  if (origin == ClipOrigin::Queued) chosen->asked = asked.asked;
  if (run_.defaults.endless) make_endless(chosen.get(), begins_anew(asked));
  return chosen;
}

// Of an endless model, what a clip is: a part of the video, until something else is to be shown or for so
// many frames.
void ClipPlanner::make_endless(Clip *clip, bool begins_anew) {
  const bool is_first = clip->index == 0;
  const bool is_queued = clip->origin == ClipOrigin::Queued;
  const bool others_wait = !queue_.empty() || run_.track->is_attached();
  clip->shared_frames = clip->used_frames == 0 ? 0 : 1;  // it goes on from the clip before
  if (clip->used_frames == 0 && is_queued && others_wait)
    clip->used_frames = kSceneSeconds * run_.defaults.fps_n / std::max(run_.defaults.fps_d, 1);
  clip->begins_scene = begins_anew || clip->settings.prompt_switch == WAN_SWITCH_CUT;
  if (clip->origin == ClipOrigin::Configured && has_news_ && !is_first) clip->asked = configured_at_;
  if (!is_queued) clip->begins_scene |= has_new_image_;
  if (clip->origin != ClipOrigin::Timed) {
    is_open_ |= clip->used_frames == 0;
    clip->is_last =
        clip->used_frames > 0 && !has_configured_clip() && (is_queued ? !others_wait : queue_.empty());
  }
  const bool shows_news = clip->settings.prompt == settings_.prompt && !has_new_image_;
  if (is_first || !is_queued || shows_news) has_news_ = has_new_image_ = false;
}

std::shared_ptr<Clip> ClipPlanner::queued_clip() {
  chosen_ = std::move(queue_.front());
  queue_.pop_front();
  return choose(*chosen_, ClipOrigin::Queued);
}

std::shared_ptr<Clip> ClipPlanner::configured_clip() {
  return has_configured_clip() ? choose({}, ClipOrigin::Configured) : nullptr;
}

std::shared_ptr<Clip> ClipPlanner::timed_clip(const PromptTrack::Cue &cue, uint64_t first_frame,
                                              uint64_t time) {
  QueuedClip asked;
  asked.settings.prompt = cue.prompt;
  std::shared_ptr<Clip> clip = choose(asked, ClipOrigin::Timed);
  clip->time = time;
  if (run_.defaults.endless) clip->used_frames = clip->shared_frames = 0;
  if (run_.live || cue.until == PromptTrack::kOpen) return clip;
  const auto left = std::max<int64_t>(static_cast<int64_t>(clock_.frame_from(cue.until) - first_frame), 1);
  if (run_.defaults.endless) {
    clip->used_frames = static_cast<int>(std::min<int64_t>(left, INT32_MAX));
    clip->is_last = cue.last;
    return clip;
  }
  clip->is_last = cue.last && left <= clip->used_frames - clip->shared_frames;
  clip->is_timed = !clip->is_last;
  const int shown = clip->is_last ? static_cast<int>(left) : even_part(left, *clip, cue.last);
  use_frames(clip.get(), shown + clip->shared_frames);
  return clip;
}

// Used for a while, a clip has its fade_frames more than that, to fade into the next one.
int ClipPlanner::even_part(int64_t left, const Clip &clip, bool last) const {
  const int64_t longest = clip.used_frames - clip.shared_frames - clip.fade_frames;
  const int64_t time = last ? left - clip.fade_frames : left;  // the last clip of all has no next one
  const int64_t clips = (time - 1) / longest + 1;
  const auto part = static_cast<int>((time - 1) / clips + 1);
  return part + std::min(part, clip.fade_frames);
}

void ClipPlanner::use_frames(Clip *clip, int frames) const {
  const int step = run_.defaults.frames_multiple;
  clip->used_frames = frames;
  clip->settings.num_frames = (frames - 1 + step - 1) / step * step + 1;
  clip->fade_frames = std::min(clip->fade_frames, frames / 2);
}

bool ClipPlanner::fade(const Clip &clip, Clip *next) const {
  if (next->fade_frames < clip.fade_frames) return clip.is_timed;
  if (next->is_timed) use_frames(next, next->used_frames - (next->fade_frames - clip.fade_frames));
  next->fade_frames = clip.fade_frames;
  return true;
}

uint64_t ClipPlanner::frames_to_come(int fade_frames, const Clip *chosen) const {
  const bool continues = run_.continuity == WAN_CONTINUITY_LAST_FRAME;
  bool is_first = clips_ == 0;  // of the stream, which shares no frame
  uint64_t frames = 0;
  int fade = fade_frames;
  const auto add = [&](uint64_t clips, int clip_frames, int clip_fade, bool shares_frame) {
    if (clips == 0) return;
    const int first_fade = clip_fade < fade ? 0 : fade;  // as fade() has it
    if (fade == 0 || clip_fade < fade) fade = clip_fade;
    frames += clips * clip_frames - first_fade - (clips - 1) * fade;
    if (continues && shares_frame) frames -= clips - (is_first ? 1 : 0);
    is_first = false;
  };
  const auto add_clips = [&](uint64_t clips, const QueuedClip &clip) {
    const int clip_frames = complete(overlay(clip.settings, settings_), run_.defaults).num_frames;
    add(clips, clip_frames, std::min(run_.fade_frames, clip_frames / 2), !begins_anew(clip));
  };
  if (chosen) add(1, chosen->used_frames, chosen->fade_frames, chosen->shared_frames > 0);
  for (const QueuedClip &clip : queue_) add_clips(1, clip);
  add_clips(std::max<int64_t>(0, int64_t{run_.num_clips} - clips_ - int64_t(queue_.size())), QueuedClip());
  return frames;
}

}  // namespace wan
