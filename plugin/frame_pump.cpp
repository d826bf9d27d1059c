// SPDX-License-Identifier: LGPL-2.1-or-later
#include "frame_pump.h"

#include <random>
#include <utility>

namespace wan {

void FramePump::configure(const ClipSettings &settings) {
  std::lock_guard lock(mutex_);
  next_settings_ = settings;
}

void FramePump::set_seed(int64_t seed) {
  std::lock_guard lock(mutex_);
  next_seed_ = seed < 0 ? std::random_device()() : static_cast<uint64_t>(seed);
}

void FramePump::start(const RunSettings &run, std::shared_ptr<WanModel> model) {
  run_ = run;
  model_ = std::move(model);
  stats_.running = true;
  worker_ = std::thread([self = shared_from_this()] { self->work(); });
}

PumpEvent FramePump::pop() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return flushing_ || !news_.empty() || !chunks_.empty() || finished_; });
  if (flushing_) return Flushing{};
  if (!news_.empty()) {
    PumpEvent event = std::move(news_.front());
    news_.pop_front();
    return event;
  }
  if (chunks_.empty()) return *finished_;
  PumpEvent event = std::move(chunks_.front());
  chunks_.pop_front();
  changed_.notify_all();
  return event;
}

void FramePump::set_flushing(bool flushing) {
  std::lock_guard lock(mutex_);
  flushing_ = flushing;
  changed_.notify_all();
}

std::shared_ptr<WanModel> FramePump::stop(std::chrono::milliseconds patience) {
  std::deque<Chunk> dropped;  // freed after the lock is released
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
  return stats;
}

void FramePump::work() {
  WanError error = {};
  WanStatus status = load(&error);
  for (int made = 0; status == WAN_OK && made != run_.num_clips; ++made)
    status = generate(next_clip(), &error);

  std::lock_guard lock(mutex_);
  finished_ = Finished{status, error.message};
  stats_.running = false;
  changed_.notify_all();
}

WanStatus FramePump::load(WanError *error) {
  if (model_) return WAN_OK;
  const WanLoadOptions options = {choice_.directory.c_str(), choice_.device.c_str(), choice_.dtype};
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
  const ClipSettings &settings = clip->settings;
  WanGenerateOptions options = {};
  options.prompt = settings.prompt.c_str();
  options.negative_prompt = settings.negative_prompt.c_str();
  options.seed = clip->seed;
  options.num_frames = run_.num_frames;
  options.steps = settings.steps;
  options.guidance_scale = settings.guidance_scale;
  options.guidance_scale_2 = settings.guidance_scale_2;
  options.flow_shift = settings.flow_shift;
  options.scheduler = settings.scheduler;
  options.layout = run_.layout;
  const WanCallbacks callbacks = this->callbacks();
  return choice_.engine->generate(model_.get(), &options, &callbacks, error);
}

std::shared_ptr<const Clip> FramePump::next_clip() {
  std::lock_guard lock(mutex_);
  clip_ = std::make_shared<Clip>(Clip{clip_ ? clip_->index + 1 : 0, next_seed_, next_settings_});
  next_seed_ = (next_seed_ + 1) & INT64_MAX;  // what the property can hold
  stats_.clip = clip_->index;
  stats_.seed = clip_->seed;
  stats_.chunk = -1;
  return clip_;
}

WanCallbacks FramePump::callbacks() {
  WanCallbacks callbacks = {};
  callbacks.user = this;
  callbacks.progress = [](void *pump, const WanProgress *progress) {
    static_cast<FramePump *>(pump)->report(*progress);
  };
  callbacks.cancelled = [](void *pump) { return static_cast<FramePump *>(pump)->cancelled_.load(); };
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
  stats_.memory = memory;
  changed_.notify_all();
}

bool FramePump::push(WanFrames *frames) {
  std::shared_ptr<WanFrames> owned(frames, choice_.engine->frames_free);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return cancelled_ || chunks_.size() < run_.queue_size; });
  if (cancelled_) return false;
  stats_.chunk = frames->chunk;
  chunks_.push_back({clip_, std::move(owned)});
  changed_.notify_all();
  return true;
}

}  // namespace wan
