// SPDX-License-Identifier: LGPL-2.1-or-later
#include "frame_pump.h"

#include <algorithm>
#include <random>
#include <system_error>
#include <utility>

namespace wan {
namespace {

constexpr uint64_t kSecond = 1000000000;
// A stream that has more to show gives up after so many clips that fail one after the other.
constexpr int kMaxFailures = 3;
constexpr int kLongestPause = 6;  // as a power of two, seconds

// What a script may say goes beyond all numbers: times of centuries, at rates of millions.
uint64_t saturate(unsigned __int128 value) {
  return static_cast<uint64_t>(std::min<unsigned __int128>(value, INT64_MAX));
}

/** Nanoseconds. */
uint64_t time_of(uint64_t frame, const RunSettings &run) {
  return saturate(static_cast<unsigned __int128>(frame) * kSecond * run.fps_d / run.fps_n);
}

/** The first frame at or after `time`. */
uint64_t frame_at(uint64_t time, const RunSettings &run) {
  const uint64_t unit = kSecond * run.fps_d;
  return saturate((static_cast<unsigned __int128>(time) * run.fps_n + unit - 1) / unit);
}

uint64_t next_stream() {
  static std::atomic<uint64_t> streams = 0;
  return ++streams;
}

}  // namespace

FramePump::FramePump() : stream_(next_stream()) {}

void FramePump::configure(const ClipSettings &settings) {
  std::lock_guard lock(mutex_);
  settings_ = settings;
  failures_ = 0;
  reconfigured_ = true;
  changed_.notify_all();
}

void FramePump::set_seed(int64_t seed) {
  std::lock_guard lock(mutex_);
  next_seed_ = seed == kRandomSeed ? std::random_device()() : static_cast<uint64_t>(seed);
}

void FramePump::enqueue(const QueuedClip &clip) {
  std::unique_lock lock(mutex_);
  queue_.push_back(clip);
  changed_.notify_all();
  const std::shared_ptr<PromptTrack> track = run_.track;
  lock.unlock();
  if (track) track->wake();  // a queued clip waits for no text
}

void FramePump::set_queue(const std::vector<QueuedClip> &clips) {
  std::unique_lock lock(mutex_);
  queue_ = {clips.begin(), clips.end()};
  chosen_.reset();
  changed_.notify_all();
  const std::shared_ptr<PromptTrack> track = run_.track;
  lock.unlock();
  if (track) track->wake();
}

std::vector<QueuedClip> FramePump::queue() const {
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
  std::unique_lock lock(mutex_);
  if (!clip_) return;
  const int clip = has_frames(stats_.on_air_clip) ? stats_.on_air_clip : clip_->index;
  for (Chunk &chunk : chunks_) (chunk.clip->index == clip ? dropped : kept).push_back(std::move(chunk));
  chunks_.swap(kept);
  for (const Chunk &chunk : dropped) {
    queued_frames_ -= chunk.frames->num_frames;
    passed_frames_ -= chunk.frames->num_frames;
    if (clip != clip_->index) clip_first_ -= chunk.frames->num_frames;  // it moves up
  }
  if (generating_ && clip_->index == clip) {
    clip_cancelled_ = true;
    model_->turns().wake();
  }
  changed_.notify_all();
  const std::shared_ptr<PromptTrack> track = run_.track;
  lock.unlock();
  if (track) track->wake();  // a clip that is cancelled waits for no text
}

void FramePump::start(const RunSettings &run, std::shared_ptr<SharedModel> model,
                      std::shared_ptr<Turns> workers) {
  {
    std::lock_guard lock(mutex_);
    run_ = run;
    model_ = std::move(model);
    workers_ = std::move(workers);
    stats_.running = true;
  }
  try {
    worker_ = std::thread([self = shared_from_this()] { self->work(); });
  } catch (const std::system_error &error) {
    std::lock_guard lock(mutex_);
    stats_.running = false;
    finished_ =
        Finished{WAN_INTERNAL, std::string("This process can start no more threads: ") + error.what() + "."};
  }
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
  for (const QueuedClip &clip : queue_) add_clip(1, clip.settings);
  add_clip(std::max<int64_t>(0, int64_t{num_clips} - clips_ - int64_t(queue_.size())), ClipSettings());
  return frames;
}

void FramePump::set_air_time(uint64_t time) {
  std::lock_guard lock(mutex_);
  air_time_ = time;
}

void FramePump::set_flushing(bool flushing) {
  std::lock_guard lock(mutex_);
  flushing_ = flushing;
  changed_.notify_all();
}

void FramePump::stop(std::chrono::milliseconds patience) {
  std::deque<Chunk> dropped;  // freed after the lock is released
  cancelled_ = true;
  give_way();
  std::unique_lock lock(mutex_);
  if (chosen_) queue_.push_front(*std::exchange(chosen_, std::nullopt));
  const std::shared_ptr<SharedModel> model = model_;
  lock.unlock();
  if (model) model->turns().wake();
  if (started()) workers_->wake();
  lock.lock();
  if (worker_.joinable() && !changed_.wait_for(lock, patience, [&] { return finished_.has_value(); })) {
    worker_.detach();
    return;
  }
  dropped.swap(chunks_);
  lock.unlock();
  if (worker_.joinable()) worker_.join();
}

// Lets whatever waits look again.
void FramePump::give_way() {
  std::unique_lock lock(mutex_);
  const std::shared_ptr<PromptTrack> track = run_.track;
  changed_.notify_all();
  lock.unlock();
  if (track) track->wake();
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
  Finished finished = {WAN_CANCELLED, ""};
  // One that is slow to stop has its model still.
  const auto turn = workers_->take([this] { return cancelled_.load(); }, nullptr);
  if (turn) finished = make_clips();

  std::unique_lock lock(mutex_);
  const std::shared_ptr<SharedModel> model = std::move(model_);  // let go before the turn is over
  finished_ = std::move(finished);
  stats_.running = false;
  changed_.notify_all();
  lock.unlock();
}

Finished FramePump::make_clips() {
  WanError error = {};
  WanStatus status = check(&error);
  if (status == WAN_OK) status = load(&error);
  while (status == WAN_OK) {
    const std::shared_ptr<const Clip> clip = next_clip();
    if (!clip) return made_ ? Finished{WAN_OK, ""} : failure_;
    status = make(clip, &error);
  }
  return {status, error.message};
}

// Uses the model when it is this pump's turn.
WanStatus FramePump::in_turn(const std::function<bool()> &cancelled, const std::function<WanStatus()> &use) {
  const auto wanted = [weak = weak_from_this()] {
    if (const auto pump = weak.lock()) pump->give_way();
  };
  const auto turn = model_->turns().take(cancelled, wanted);
  return turn ? use() : WAN_CANCELLED;
}

// What can be refused before the weights are read, which takes long: here the size, too, is known.
WanStatus FramePump::check(WanError *error) {
  std::unique_lock lock(mutex_);
  const ClipSettings settings = complete(settings_, run_.defaults);
  lock.unlock();
  WanGenerateOptions options = generate_options(settings);
  options.layout = run_.layout;
  const ModelChoice &choice = model_->choice();
  return choice.engine->check(choice.directory.c_str(), &options, error);
}

WanStatus FramePump::load(WanError *error) {
  const WanCallbacks callbacks = this->callbacks();
  const WanStatus status =
      in_turn([this] { return cancelled_.load(); }, [&] { return model_->load(callbacks, error); });
  if (status == WAN_OK) tell(Loaded{});
  return status;
}

WanStatus FramePump::make(const std::shared_ptr<const Clip> &clip, WanError *error) {
  const WanStatus status = in_turn([this] { return is_stopped(); }, [&] { return generate(*clip, error); });
  std::unique_lock lock(mutex_);
  generating_ = false;
  if (status == WAN_CANCELLED && !cancelled_) return WAN_OK;  // skipped
  if (status == WAN_OK) {
    made_ = true;
    failures_ = 0;
  }
  lock.unlock();
  return status == WAN_OK || status == WAN_CANCELLED ? status : survive(clip, status, error->message);
}

WanStatus FramePump::generate(const Clip &clip, WanError *error) {
  const auto start = std::chrono::steady_clock::now();
  WanGenerateOptions options = generate_options(clip.settings);
  options.seed = clip.seed;
  options.used_frames = clip.used_frames;
  options.fade_frames = clip.fade_frames;
  options.on_device = run_.on_device;
  options.layout = run_.layout;
  options.stream = stream_;
  const WanCallbacks callbacks = this->callbacks();
  const WanStatus status = model_->choice().engine->generate(model_->get(), &options, &callbacks, error);

  std::lock_guard lock(mutex_);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start - waited_;
  if (status != WAN_CANCELLED || cancelled_) stats_.fps = static_cast<double>(clip_frames_) / seconds.count();
  return status;
}

// What a clip's failure means for the stream: WAN_OK if it goes on.
WanStatus FramePump::survive(const std::shared_ptr<const Clip> &clip, WanStatus status,
                             const std::string &message) {
  if (cancelled_) return status;  // the track is another run's now
  const bool replaced =
      clip->origin == ClipOrigin::Timed && run_.track->replace(clip->settings.prompt, clip->time);
  const bool single = replaced || clip->origin == ClipOrigin::Queued;  // the next one has other settings
  std::unique_lock lock(mutex_);
  failure_ = {status, message};
  failures_ += !single;
  if (status == WAN_DEVICE || !(single || can_repeat(*clip))) return status;
  const std::chrono::seconds pause(single || !run_.live ? 0 : 1 << std::min(failures_ - 1, kLongestPause));
  reconfigured_ = false;
  news_.emplace_back(ClipFailed{clip, status, message, pause});
  changed_.notify_all();
  changed_.wait_for(lock, pause, [&] { return cancelled_ || reconfigured_ || !queue_.empty(); });
  return WAN_OK;
}

// Whether clips of the settings that have failed may be tried again. They are likely to fail again, but time
// may help, and a live stream that never ends has it. Timed prompts have their clips whatever num_clips is.
bool FramePump::can_repeat(const Clip &failed) const {
  if (!queue_.empty()) return true;
  const bool more = failed.origin == ClipOrigin::Timed || run_.num_clips < 0 || clips_ < run_.num_clips;
  return more && (failures_ < kMaxFailures || (run_.live && run_.num_clips < 0));
}

std::shared_ptr<Clip> FramePump::begin_clip(const ClipSettings &settings, ClipOrigin origin, uint32_t id) {
  const ClipSettings clip = complete(overlay(settings, settings_), run_.defaults);
  const bool own_seed = settings.seed != kRandomSeed;
  const uint64_t seed = own_seed ? static_cast<uint64_t>(settings.seed) : next_seed_;
  if (!own_seed && static_cast<int64_t>(++next_seed_) == kRandomSeed) next_seed_ = 0;
  return std::make_shared<Clip>(Clip{clips_++, id, origin, seed, clip, clip.num_frames,
                                     std::min(run_.fade_frames, clip.num_frames / 2)});
}

// A live clip is not cut: when it will be on air depends on how long it takes to make.
std::shared_ptr<Clip> FramePump::begin_clip(const PromptTrack::Cue &cue, uint64_t first_frame,
                                            uint64_t time) {
  ClipSettings settings;
  settings.prompt = cue.prompt;
  std::shared_ptr<Clip> clip = begin_clip(settings, ClipOrigin::Timed);
  clip->time = time;
  if (run_.live || cue.until == PromptTrack::kOpen) return clip;
  const auto left = std::max<int64_t>(static_cast<int64_t>(frame_at(cue.until, run_) - first_frame), 1);
  clip->is_last = cue.last && left <= clip->used_frames;
  clip->is_timed = !clip->is_last;
  use_frames(clip.get(), clip->is_last ? static_cast<int>(left) : even_part(left, *clip, cue.last));
  return clip;
}

// Used for a while, a clip has its fade_frames more than that, to fade into the next one.
int FramePump::even_part(int64_t left, const Clip &clip, bool last) const {
  const int64_t longest = clip.used_frames - clip.fade_frames;
  const int64_t time = last ? left - clip.fade_frames : left;  // the last clip of all has no next one
  const int64_t clips = (time - 1) / longest + 1;
  const auto part = static_cast<int>((time - 1) / clips + 1);
  return part + std::min(part, clip.fade_frames);
}

void FramePump::use_frames(Clip *clip, int frames) const {
  const int step = run_.defaults.frames_multiple;
  clip->used_frames = frames;
  clip->settings.num_frames = (frames - 1 + step - 1) / step * step + 1;
  clip->fade_frames = std::min(clip->fade_frames, frames / 2);
}

// When a frame of the stream is on air, as timed prompts count: ns of running time.
uint64_t FramePump::track_time(uint64_t frame) const {
  return run_.live ? air_time_ + time_of(frame - (passed_frames_ - queued_frames_), run_)
                   : time_of(frame, run_);
}

// Waits until it can be told which clip begins at a frame, unless that is given up.
bool FramePump::await_choice(uint64_t first_frame, const std::function<bool()> &given_up) {
  std::unique_lock lock(mutex_);
  if (run_.live) return true;
  const uint64_t end = first_frame + complete(settings_, run_.defaults).num_frames;
  lock.unlock();
  const auto look = [&] {
    const std::lock_guard lock(mutex_);
    return !queue_.empty() || given_up();
  };
  return run_.track->wait(time_of(first_frame, run_), time_of(end, run_), look) || !queue().empty();
}

// The next clip: of the queue, of the timed prompts, or as configured, in this order; none if the stream
// ends.
std::shared_ptr<Clip> FramePump::choose_clip(uint64_t first_frame) {
  std::unique_lock lock(mutex_);
  if (cancelled_) return nullptr;
  if (!queue_.empty()) {
    chosen_ = std::move(queue_.front());
    queue_.pop_front();
    return begin_clip(chosen_->settings, ClipOrigin::Queued, chosen_->id);
  }
  const uint64_t time = track_time(first_frame);
  lock.unlock();
  const auto cue = run_.track->at(time, run_.live);
  lock.lock();
  if (cue) return begin_clip(*cue, first_frame, time);
  const bool more = run_.num_clips < 0 || clips_ < run_.num_clips;
  return more ? begin_clip(ClipSettings(), ClipOrigin::Configured) : nullptr;
}

std::shared_ptr<const Clip> FramePump::next_clip() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return cancelled_ || !overfull_ || has_room(); });
  overfull_ = false;
  std::shared_ptr<Clip> clip = std::exchange(upcoming_, nullptr);
  const uint64_t first_frame = passed_frames_;
  if (!clip) {
    lock.unlock();
    await_choice(first_frame, [this] { return cancelled_.load(); });
    clip = choose_clip(first_frame);
    lock.lock();
  }
  if (!clip || cancelled_) return nullptr;
  clip_ = clip;
  chosen_.reset();
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
  const bool is_timed = clip_->is_timed;
  lock.unlock();
  // Others who want the model wait for no text. That of a timed clip is not over yet in any case.
  const auto given_up = [this] { return is_stopped() || model_->turns().is_wanted(); };
  if (!await_choice(next_first, given_up)) return is_timed;
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
  callbacks.log = [](void *pump, WanLogLevel level, const char *message) {
    static_cast<FramePump *>(pump)->tell(Log{level, message});
  };
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

void FramePump::tell(PumpEvent news) {
  std::lock_guard lock(mutex_);
  news_.push_back(std::move(news));
  changed_.notify_all();
}

void FramePump::report(const WanProgress &progress) {
  // On the worker's own thread, which alone writes model_ while it runs.
  WanMemory memory = {};
  if (model_->is_loaded()) model_->choice().engine->memory(model_->get(), &memory);

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
  std::shared_ptr<WanFrames> owned(frames, model_->choice().engine->frames_free);
  std::unique_lock lock(mutex_);
  const auto start = std::chrono::steady_clock::now();
  // Who waits for the model may be what downstream waits for: then this clip is finished at once.
  changed_.wait(lock, [&] { return is_stopped() || has_room() || model_->turns().is_wanted(); });
  waited_ += std::chrono::steady_clock::now() - start;
  if (is_stopped()) return false;
  overfull_ |= !has_room();
  stats_.chunk = frames->chunk;
  queued_frames_ += frames->num_frames;
  passed_frames_ += frames->num_frames;
  clip_frames_ += frames->num_frames;
  chunks_.push_back({clip_, std::move(owned)});
  changed_.notify_all();
  return true;
}

}  // namespace wan
