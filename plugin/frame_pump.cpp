// SPDX-License-Identifier: LGPL-2.1-or-later
#include "frame_pump.h"

#include <algorithm>
#include <random>
#include <utility>

namespace wan {
namespace {

constexpr uint64_t kSecond = 1000000000;

/** Nanoseconds. */
uint64_t time_of(uint64_t frame, const RunSettings &run) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(frame) * kSecond * run.fps_d / run.fps_n);
}

/** The first frame at or after `time`. */
uint64_t frame_at(uint64_t time, const RunSettings &run) {
  const uint64_t unit = kSecond * run.fps_d;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(time) * run.fps_n + unit - 1) / unit);
}

}  // namespace

void FramePump::configure(const ClipSettings &settings) {
  std::lock_guard lock(mutex_);
  settings_ = settings;
}

void FramePump::set_seed(int64_t seed) {
  std::lock_guard lock(mutex_);
  next_seed_ = seed < 0 ? std::random_device()() : static_cast<uint64_t>(seed);
}

void FramePump::enqueue(const ClipSettings &clip) {
  std::lock_guard lock(mutex_);
  queue_.push_back(clip);
}

void FramePump::set_queue(const std::vector<ClipSettings> &clips) {
  std::lock_guard lock(mutex_);
  queue_ = {clips.begin(), clips.end()};
}

std::vector<ClipSettings> FramePump::queue() const {
  std::lock_guard lock(mutex_);
  return {queue_.begin(), queue_.end()};
}

bool FramePump::has_frames(int clip) const {
  if (generating_ && clip_->index == clip) return true;
  return std::any_of(chunks_.begin(), chunks_.end(),
                     [clip](const Chunk &chunk) { return chunk.clip->index == clip; });
}

void FramePump::skip() {
  std::deque<Chunk> kept, dropped;  // freed after the lock is released
  std::lock_guard lock(mutex_);
  if (!clip_) return;
  const int clip = has_frames(stats_.on_air_clip) ? stats_.on_air_clip : clip_->index;
  for (Chunk &chunk : chunks_) (chunk.clip->index == clip ? dropped : kept).push_back(std::move(chunk));
  chunks_.swap(kept);
  for (const Chunk &chunk : dropped) {
    queued_frames_ -= chunk.frames->num_frames;
    passed_frames_ -= chunk.frames->num_frames;
  }
  if (generating_ && clip_->index == clip) clip_cancelled_ = true;
  changed_.notify_all();
}

void FramePump::start(const RunSettings &run, std::shared_ptr<WanModel> model) {
  {
    std::lock_guard lock(mutex_);
    run_ = run;
    model_ = std::move(model);
    stats_.running = true;
  }
  worker_ = std::thread([self = shared_from_this()] { self->work(); });
}

// A live source holds a whole clip, so that the next one is denoised while it plays.
bool FramePump::has_room() const {
  if (chunks_.size() < run_.queue_size) return true;
  return run_.live && queued_frames_ < std::max<uint64_t>(clip_->settings.num_frames, held_frames_);
}

std::optional<PumpEvent> FramePump::take_event(uint64_t least_frames) {
  if (!news_.empty()) {
    PumpEvent event = std::move(news_.front());
    news_.pop_front();
    return event;
  }
  if (chunks_.empty()) return finished_ ? std::optional<PumpEvent>(*finished_) : std::nullopt;
  if (queued_frames_ < least_frames && !finished_) return std::nullopt;
  Chunk chunk = std::move(chunks_.front());
  chunks_.pop_front();
  queued_frames_ -= chunk.frames->num_frames;
  stats_.on_air_clip = chunk.clip->index;
  changed_.notify_all();
  return chunk;
}

PumpEvent FramePump::pop(uint64_t least_frames) {
  std::unique_lock lock(mutex_);
  std::optional<PumpEvent> event;
  changed_.wait(lock, [&] { return flushing_ || (event = take_event(least_frames)).has_value(); });
  return event ? *std::move(event) : Flushing{};
}

std::optional<PumpEvent> FramePump::poll(uint64_t least_frames) {
  std::lock_guard lock(mutex_);
  return take_event(least_frames);
}

void FramePump::hold(uint64_t frames) {
  std::lock_guard lock(mutex_);
  if (std::exchange(held_frames_, frames) < frames) changed_.notify_all();  // there is more room now
}

uint64_t FramePump::expected_frames(int num_clips, int fade_frames, const WanDefaults &defaults) const {
  std::lock_guard lock(mutex_);
  uint64_t frames = passed_frames_;
  int fade = 0;  // of the clip before
  const auto add = [&](uint64_t clips, int clip_frames, int clip_fade) {
    if (clips == 0) return;
    const int first_fade = clip_fade < fade ? 0 : fade;  // as followed() has it
    if (fade == 0 || clip_fade < fade) fade = clip_fade;
    frames += clips * clip_frames - first_fade - (clips - 1) * fade;
  };
  const auto add_clip = [&](uint64_t clips, const ClipSettings &settings) {
    const int clip_frames = complete(overlay(settings, settings_), defaults).num_frames;
    add(clips, clip_frames, std::min(fade_frames, clip_frames / 2));
  };
  if (generating_ && !clip_cancelled_) {
    frames += clip_->used_frames - clip_frames_;
    fade = clip_->fade_frames;
  }
  if (upcoming_) add(1, upcoming_->used_frames, upcoming_->fade_frames);
  for (const ClipSettings &clip : queue_) add_clip(1, clip);
  add_clip(std::max<int64_t>(0, int64_t{num_clips} - clips_ - int64_t(queue_.size())), ClipSettings());
  return frames;
}

void FramePump::pass_time(uint64_t frames) {
  std::lock_guard lock(mutex_);
  passed_frames_ += frames;
}

void FramePump::set_flushing(bool flushing) {
  std::lock_guard lock(mutex_);
  flushing_ = flushing;
  changed_.notify_all();
}

std::shared_ptr<WanModel> FramePump::stop(std::chrono::milliseconds patience) {
  std::deque<Chunk> dropped;  // freed after the lock is released
  if (started()) run_.track->set_flushing(true);
  std::unique_lock lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
  if (worker_.joinable() && !changed_.wait_for(lock, patience, [&] { return finished_.has_value(); })) {
    worker_.detach();
    return nullptr;
  }
  dropped.swap(chunks_);
  std::shared_ptr<WanModel> model = std::move(model_);
  lock.unlock();
  if (worker_.joinable()) worker_.join();
  return model;
}

PumpStats FramePump::stats() const {
  std::lock_guard lock(mutex_);
  PumpStats stats = stats_;
  stats.queue_level = chunks_.size();
  stats.queued_clips = queue_.size();
  if (run_.fps_n) stats.queue_seconds = static_cast<double>(queued_frames_) * run_.fps_d / run_.fps_n;
  return stats;
}

void FramePump::work() {
  WanError error = {};
  WanStatus status = load(&error);
  while (status == WAN_OK) {
    const std::shared_ptr<const Clip> clip = next_clip();
    if (!clip) break;
    status = generate(clip, &error);
  }

  std::lock_guard lock(mutex_);
  finished_ = Finished{status, error.message};
  stats_.running = false;
  changed_.notify_all();
}

WanStatus FramePump::load(WanError *error) {
  if (model_) return WAN_OK;
  std::vector<WanLora> loras;
  for (const LoraChoice &lora : choice_.loras)
    loras.push_back({lora.path.c_str(), lora.strength, lora.strength_2});
  WanLoadOptions options = {};
  options.model_dir = choice_.directory.c_str();
  options.device = choice_.device.c_str();
  options.dtype = choice_.dtype;
  options.quantization = choice_.quantization;
  options.memory = choice_.memory;
  options.loras = loras.data();
  options.num_loras = loras.size();
  const WanCallbacks callbacks = this->callbacks();
  WanModel *model = nullptr;
  const WanStatus status = choice_.engine->load(&options, &callbacks, &model, error);
  if (status != WAN_OK) return status;

  std::lock_guard lock(mutex_);
  model_ = {model, choice_.engine->model_free};
  news_.emplace_back(Loaded{});
  changed_.notify_all();
  return WAN_OK;
}

WanStatus FramePump::generate(std::shared_ptr<const Clip> clip, WanError *error) {
  const auto start = std::chrono::steady_clock::now();
  const ClipSettings &settings = clip->settings;
  WanGenerateOptions options = {};
  options.prompt = settings.prompt.c_str();
  options.negative_prompt = settings.negative_prompt.c_str();
  options.seed = clip->seed;
  options.num_frames = settings.num_frames;
  options.used_frames = clip->used_frames;
  options.fade_frames = clip->fade_frames;
  options.on_device = run_.on_device;
  options.steps = settings.steps;
  options.guidance_scale = settings.guidance_scale;
  options.guidance_scale_2 = settings.guidance_scale_2;
  options.flow_shift = settings.flow_shift;
  options.scheduler = settings.scheduler;
  options.sigmas = settings.sigmas.empty() ? nullptr : settings.sigmas.data();
  options.num_sigmas = settings.sigmas.size();
  options.cache = *settings.cache;
  options.cache_threshold = *settings.cache_threshold;
  options.layout = run_.layout;
  const WanCallbacks callbacks = this->callbacks();
  WanStatus status = choice_.engine->generate(model_.get(), &options, &callbacks, error);

  std::lock_guard lock(mutex_);
  generating_ = false;
  if (status == WAN_CANCELLED && !cancelled_) return WAN_OK;  // skipped
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start - waited_;
  stats_.fps = static_cast<double>(clip_frames_) / seconds.count();
  return status;
}

std::shared_ptr<Clip> FramePump::begin_clip(const ClipSettings &settings) {
  const ClipSettings clip = complete(overlay(settings, settings_), run_.defaults);
  const uint64_t seed = settings.seed < 0 ? next_seed_ : static_cast<uint64_t>(settings.seed);
  if (settings.seed < 0) next_seed_ = (next_seed_ + 1) & INT64_MAX;  // what the property can hold
  return std::make_shared<Clip>(
      Clip{clips_++, seed, clip, clip.num_frames, std::min(run_.fade_frames, clip.num_frames / 2)});
}

// A live clip is not cut: when it will be on air depends on how long it takes to make.
std::shared_ptr<Clip> FramePump::begin_clip(const PromptTrack::Cue &cue, uint64_t first_frame) {
  ClipSettings settings;
  settings.prompt = cue.prompt;
  std::shared_ptr<Clip> clip = begin_clip(settings);
  if (run_.live || cue.until == PromptTrack::kOpen) return clip;
  const int left = static_cast<int>(frame_at(cue.until, run_) - first_frame);
  clip->is_last = cue.last && left <= clip->used_frames;
  clip->is_timed = !clip->is_last;
  use_frames(clip.get(), clip->is_last ? left : even_part(left, *clip, cue.last));
  return clip;
}

// Used for a while, a clip has its fade_frames more than that, to fade into the next one.
int FramePump::even_part(int left, const Clip &clip, bool last) const {
  const int longest = clip.used_frames - clip.fade_frames;
  const int time = last ? left - clip.fade_frames : left;  // the last clip of all has no next one
  const int clips = (time - 1) / longest + 1;
  const int part = (time - 1) / clips + 1;
  return part + std::min(part, clip.fade_frames);
}

void FramePump::use_frames(Clip *clip, int frames) const {
  const int step = run_.defaults.frames_multiple;
  clip->used_frames = frames;
  clip->settings.num_frames = (frames - 1 + step - 1) / step * step + 1;
  clip->fade_frames = std::min(clip->fade_frames, frames / 2);
}

// The next clip: of the queue, of the timed prompts, or as configured, in this order; none if the stream
// ends. Called without the lock, since it may wait for a timed prompt.
std::shared_ptr<Clip> FramePump::choose_clip(uint64_t first_frame) {
  std::unique_lock lock(mutex_);
  if (!queue_.empty()) {
    const ClipSettings clip = std::move(queue_.front());
    queue_.pop_front();
    return begin_clip(clip);
  }
  const uint64_t end = first_frame + complete(settings_, run_.defaults).num_frames;
  lock.unlock();
  const auto cue = run_.track->at(time_of(first_frame, run_), time_of(end, run_), !run_.live);
  lock.lock();
  if (cancelled_) return nullptr;
  if (cue) return begin_clip(*cue, first_frame);
  return run_.num_clips < 0 || clips_ < run_.num_clips ? begin_clip(ClipSettings()) : nullptr;
}

std::shared_ptr<const Clip> FramePump::next_clip() {
  std::unique_lock lock(mutex_);
  std::shared_ptr<Clip> clip = std::exchange(upcoming_, nullptr);
  const uint64_t first_frame = passed_frames_;
  if (!clip) {
    lock.unlock();
    clip = choose_clip(first_frame);
    lock.lock();
  }
  if (!clip || cancelled_) return nullptr;
  clip_ = clip;
  clip_first_ = first_frame;
  clip_frames_ = 0;
  waited_ = {};
  clip_cancelled_ = false;
  generating_ = true;
  stats_.clip = clip->index;
  stats_.seed = clip->seed;
  stats_.chunk = -1;
  return clip;
}

// Whether the last frames of this clip are for another one to fade in over, which is chosen now. If it cannot
// (both sides of a seam must have as many), they are shown, but for those of a timed clip, whose time is
// over.
bool FramePump::followed() {
  std::unique_lock lock(mutex_);
  const int fade_frames = clip_->fade_frames;
  const uint64_t next_first = clip_first_ + clip_->used_frames - (clip_->is_last ? 0 : fade_frames);
  lock.unlock();
  std::shared_ptr<Clip> next = choose_clip(next_first);
  lock.lock();
  upcoming_ = std::move(next);
  if (!upcoming_) return false;
  if (upcoming_->fade_frames < fade_frames) return clip_->is_timed;
  if (upcoming_->is_timed)
    use_frames(upcoming_.get(), upcoming_->used_frames - (upcoming_->fade_frames - fade_frames));
  upcoming_->fade_frames = fade_frames;
  return true;
}

WanCallbacks FramePump::callbacks() {
  WanCallbacks callbacks = {};
  callbacks.user = this;
  callbacks.progress = [](void *pump, const WanProgress *progress) {
    static_cast<FramePump *>(pump)->report(*progress);
  };
  callbacks.cancelled = [](void *pump) { return static_cast<FramePump *>(pump)->is_stopped(); };
  callbacks.followed = [](void *pump) { return static_cast<FramePump *>(pump)->followed(); };
  callbacks.frames = [](void *pump, WanFrames *frames) {
    return static_cast<FramePump *>(pump)->push(frames);
  };
  return callbacks;
}

void FramePump::report(const WanProgress &progress) {
  // On the worker's own thread, which alone writes model_ while it runs.
  WanMemory memory = {};
  if (model_) choice_.engine->memory(model_.get(), &memory);

  std::lock_guard lock(mutex_);
  if (progress.stage == WAN_STAGE_DENOISE && progress.step == progress.steps)
    clip_->denoised = std::chrono::steady_clock::now();
  news_.emplace_back(Progress{clip_, progress});
  stats_.progress = progress;
  stats_.seconds[progress.stage] = progress.seconds;
  if (progress.stage == WAN_STAGE_DENOISE) stats_.cached_forwards = progress.cached;
  stats_.memory = memory;
  changed_.notify_all();
}

bool FramePump::push(WanFrames *frames) {
  std::shared_ptr<WanFrames> owned(frames, choice_.engine->frames_free);
  std::unique_lock lock(mutex_);
  const auto start = std::chrono::steady_clock::now();
  changed_.wait(lock, [&] { return is_stopped() || has_room(); });
  waited_ += std::chrono::steady_clock::now() - start;
  if (is_stopped()) return false;
  stats_.chunk = frames->chunk;
  queued_frames_ += frames->num_frames;
  passed_frames_ += frames->num_frames;
  clip_frames_ += frames->num_frames;
  chunks_.push_back({clip_, std::move(owned)});
  changed_.notify_all();
  return true;
}

}  // namespace wan
