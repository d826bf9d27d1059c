// FramePump with an endless model: one call of the engine makes a video of many clips, section by section.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <cmath>
#include <utility>

#include "frame_pump.h"

namespace wan {
namespace {

// How much longer than the last section the next one may take before a live source has no frames left: a part
// of that time, and some seconds at least.
constexpr double kSlack = 0.5, kLeastSlack = 0.1;
// Others who want the model have it after so many seconds of frames, or when it has had nothing to do for so
// long.
constexpr int kTurnSeconds = 5;

}  // namespace

void FramePump::begin_video(const std::shared_ptr<Clip> &clip) {
  clip->shared_frames = 0;
  video_.first_frame = passed_frames_;
  video_.handed_over = 0;
  video_.starts = {{0, 0, clip}};
  video_.clip_is_over = video_.is_interrupted = false;
  video_.asked = {{0, 0, std::chrono::steady_clock::now()}};
}

// Ends all clips of the video but the last one, which is returned; `first` where the model makes clips.
std::shared_ptr<const Clip> FramePump::end_video(const std::shared_ptr<const Clip> &first) {
  if (video_.starts.empty()) return first;
  for (; video_.starts.size() > 1; video_.starts.pop_front()) end_clip(video_.starts.front().clip, false);
  const std::shared_ptr<const Clip> last = video_.starts.front().clip;
  video_.starts.clear();
  return last;
}

// A section's frames come one chunk after the other, while the first ones are shown.
void FramePump::measure_lead(const WanFrames &frames) {
  std::deque<EndlessVideo::Asked> &asked = video_.asked;
  for (; asked.size() > 1 && asked[1].section <= frames.section; asked.pop_front()) {
    video_.last_lead = std::exchange(video_.lead, 0);
    if (asked.front().begins_clip) video_.clip_lead = video_.last_lead;
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - asked.front().time;
  const FrameClock &clock = format_.clock;
  const double shown_before = double(frames.first_frame - asked.front().frame) * clock.fps_d / clock.fps_n;
  video_.lead = std::max(video_.lead, taken.count() - shown_before);
}

// Frames that a live source needs so that it has some left when the next section is made. No more are made:
// what waits in the queue is what a new prompt waits for.
uint64_t FramePump::wanted_frames() const {
  const auto section = static_cast<uint64_t>(run_.defaults.section_frames);
  const FrameClock &clock = format_.clock;
  const double lead = std::max(video_.lead, video_.last_lead);
  const double seconds = std::max(lead, video_.clip_lead) + std::max(kSlack * lead, kLeastSlack);
  const auto known = static_cast<uint64_t>(std::ceil(seconds * clock.fps_n / clock.fps_d));
  return std::max(lead > 0 ? std::min(known, 2 * section) : section, held_frames_);
}

// Waits until another section is needed; false if the video is to end. What is denoised and not decoded yet
// counts as if it were in the queue.
bool FramePump::await_demand(const WanSection &section) {
  std::unique_lock lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> taken = now - video_.asked.back().time - waited_;
  waited_ = {};
  // Where frames wait for room on another thread, denoising went on meanwhile.
  stats_.fps = run_.defaults.section_frames / std::max(taken.count(), stats_.seconds[WAN_STAGE_DENOISE]);
  const uint64_t turn = uint64_t(kTurnSeconds) * format_.clock.fps_n / format_.clock.fps_d;
  const auto frames_to_come = [&] {
    return queued_frames_ + uint64_t(std::max(section.first_frame - video_.handed_over, 0));
  };
  const auto idle_until = now + std::chrono::seconds(kTurnSeconds);
  const auto gives_way = [&] {
    const bool had_turn = passed_frames_ - video_.first_frame >= turn;
    return model_->turns().is_wanted() && (had_turn || std::chrono::steady_clock::now() >= idle_until);
  };
  const auto is_over = [&] {
    return is_stopped() || gives_way() || !run_.live || frames_to_come() < wanted_frames();
  };
  if (!changed_.wait_until(lock, idle_until, is_over)) changed_.wait(lock, is_over);
  video_.asked.push_back({section.index, section.first_frame, std::chrono::steady_clock::now()});
  return !is_stopped() && !gives_way();
}

// Whether the clip that is being made makes way for another one at this section. `cue`: what the timed
// prompts said, if they were asked, because a text without a time is given only once.
bool FramePump::is_clip_over(const WanSection &section, uint64_t first_frame,
                             std::optional<PromptTrack::Cue> *cue) {
  std::unique_lock lock(mutex_);
  if (video_.clip_is_over) return true;
  const Clip &clip = *clip_;
  const int made = section.first_frame - video_.starts.back().frame;
  if (clip.used_frames > 0) return made >= clip.used_frames - clip.shared_frames;
  if (!planner_.queue().empty() || planner_.has_news_for(clip)) return true;
  if (!run_.track->is_attached()) return false;
  const uint64_t time = track_time(first_frame);
  lock.unlock();
  *cue = run_.track->at(time, run_.live);
  lock.lock();
  return *cue ? planner_.prompt_of(**cue) != clip.settings.prompt : clip.origin == ClipOrigin::Timed;
}

// The engine is about to make a section: says what it shows. False if the video is to end.
bool FramePump::next_section(WanSection *section) {
  const uint64_t first_frame = video_.first_frame + section->first_frame;
  const auto given_up = [this] { return is_stopped() || model_->turns().is_wanted(); };
  if (!await_demand(*section) || (run_.track->is_attached() && !await_choice(first_frame, given_up))) {
    const std::lock_guard lock(mutex_);
    video_.is_interrupted = true;
    return false;
  }
  for (std::optional<PromptTrack::Cue> cue; is_clip_over(*section, first_frame, &cue); cue.reset()) {
    const std::shared_ptr<Clip> next = choose_clip(first_frame, cue);
    if (!next) return false;
    if (begin_clip(next, section)) return true;
    if (next->id != 0) continue;
    // What the properties say would fail again at once: the clip before goes on.
    const std::lock_guard lock(mutex_);
    video_.clip_is_over = false;
    break;
  }
  return !is_stopped();
}

// A clip begins with a section, unless it has a picture that cannot be had.
bool FramePump::begin_clip(const std::shared_ptr<Clip> &clip, WanSection *section) {
  std::unique_lock lock(mutex_);
  clip->settings.flow_shift = clip_->settings.flow_shift;  // the whole video has one
  news_.emplace_back(ClipBegun{clip});
  changed_.notify_all();
  clip->begins_scene |= video_.clip_is_over;
  if (clip->begins_scene) clip->shared_frames = 0;
  lock.unlock();
  pictures_ = {};
  const Failure failure = clip->begins_scene ? find_pictures(*clip) : Failure();
  if (failure.status == WAN_CANCELLED) return false;
  lock.lock();
  if (failure.status != WAN_OK) {
    planner_.give_up();
    news_.emplace_back(ClipFailed{clip, failure, std::chrono::seconds(0)});
    changed_.notify_all();
    const bool is_new = clip->origin == ClipOrigin::Timed && clip->settings.prompt != clip_->settings.prompt;
    lock.unlock();
    // As survive() does it: else it would be tried again at each section.
    if (is_new) run_.track->replace(clip->settings.prompt, clip->time);
    return false;
  }
  planner_.begin();
  if (clip->settings.prompt != clip_->settings.prompt) section->prompt = clip->settings.prompt.c_str();
  section->prompt_switch = video_.clip_is_over ? WAN_SWITCH_CUT : clip->settings.prompt_switch;
  section->picture = pictures_[WAN_PICTURE_FIRST] != nullptr;
  section->seed = clip->seed;
  video_.starts.back().is_skipped = std::exchange(video_.clip_is_over, false);
  video_.starts.push_back({section->index, section->first_frame, clip});
  video_.asked.back().begins_clip = true;
  stats_.newest = clip_ = clip;
  return true;
}

// Which clip these frames of the video are of, in which they are counted from here on. The clip before has
// ended then; beyond the last clip there are none.
std::shared_ptr<const Clip> FramePump::take_frames(WanFrames *frames) {
  std::deque<EndlessVideo::Start> &starts = video_.starts;
  if (starts.empty()) return clip_;
  measure_lead(*frames);
  video_.handed_over = frames->first_frame + frames->num_frames;
  for (; starts.size() > 1 && starts[1].section <= frames->section; starts.pop_front())
    end_clip(starts.front().clip, starts.front().is_skipped);
  EndlessVideo::Start &start = starts.front();
  if (start.chunk < 0) start.chunk = frames->chunk;
  frames->chunk -= start.chunk;
  frames->first_frame -= start.frame;
  const int shown = start.clip->used_frames - start.clip->shared_frames;
  if (start.clip->is_last)
    frames->num_frames = std::clamp(shown - frames->first_frame, 0, frames->num_frames);
  return start.clip;
}

}  // namespace wan
