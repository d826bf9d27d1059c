// SPDX-License-Identifier: LGPL-2.1-or-later
#include "frame_pump.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace wan {
namespace {

// A stream that has more to show gives up after so many clips that fail one after the other.
constexpr int kMaxFailures = 3;
constexpr int kLongestPause = 6;  // as a power of two, seconds
// A pad that is silent for longer has no picture for a clip.
constexpr std::chrono::seconds kPatience(10);

uint64_t next_stream() {
  static std::atomic<uint64_t> streams = 0;
  return ++streams;
}

}  // namespace

Failure failure_of(WanStatus status, const WanError &error) {
  return {status, error.message, error.file, error.line};
}

FramePump::FramePump(const RunSettings &run) : stream_(next_stream()), run_(run), planner_(run) {}

void FramePump::configure(const ClipSettings &settings) {
  std::lock_guard lock(mutex_);
  planner_.configure(settings);
  failures_ = 0;
  reconfigured_ = true;
  changed_.notify_all();
}

void FramePump::set_seed(int64_t seed) {
  std::lock_guard lock(mutex_);
  planner_.set_seed(seed);
}

void FramePump::enqueue(const QueuedClip &clip) {
  {
    std::lock_guard lock(mutex_);
    planner_.enqueue(clip);
  }
  give_way();  // a queued clip waits for no text
}

std::vector<uint32_t> FramePump::set_queue(const std::vector<QueuedClip> &clips) {
  std::unique_lock lock(mutex_);
  std::vector<uint32_t> dropped = planner_.set_queue(clips);
  lock.unlock();
  give_way();
  return dropped;
}

bool FramePump::remove(uint32_t id) {
  std::lock_guard lock(mutex_);
  return planner_.remove(id);
}

std::vector<QueuedClip> FramePump::queue() const {
  std::lock_guard lock(mutex_);
  return {planner_.queue().begin(), planner_.queue().end()};
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
  if (run_.defaults.endless) {
    video_.clip_is_over = true;
    return;
  }
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
  } else if (!dropped.empty()) {
    news_.emplace_back(ClipEnded{dropped.front().clip, true});
  }
  lock.unlock();
  give_way();  // a clip that is cancelled waits for no text
}

void FramePump::start(const FrameFormat &format, std::shared_ptr<SharedModel> model,
                      std::shared_ptr<Turns> workers) {
  {
    std::lock_guard lock(mutex_);
    format_ = format;
    planner_.set_clock(format.clock);
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
        Finished{{WAN_INTERNAL, std::string("This process can start no more threads: ") + error.what() + ".",
                  __FILE__, __LINE__}};
  }
}

// A live source holds a whole clip, so that the next one is denoised while it plays.
bool FramePump::has_room() const {
  if (chunks_.size() < run_.queue_size) return true;
  if (run_.live && run_.defaults.endless) return true;  // it asks for no more sections than it needs
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

uint64_t FramePump::expected_frames() const {
  std::lock_guard lock(mutex_);
  const bool making = generating_ && !clip_cancelled_;
  const uint64_t frames =
      passed_frames_ + (making ? clip_->used_frames - clip_->shared_frames - clip_frames_ : 0);
  return frames + planner_.frames_to_come(making ? clip_->fade_frames : 0, upcoming_.get());
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
  planner_.put_back();
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
  {
    std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  if (run_.track) run_.track->wake();
  for (const auto &track : run_.picture_tracks)
    if (track) track->wake();
}

PumpStats FramePump::stats() const {
  std::lock_guard lock(mutex_);
  PumpStats stats = stats_;
  stats.queue_level = chunks_.size();
  stats.queued_clips = planner_.queue().size();
  const FrameClock &clock = format_.clock;
  if (clock.fps_n) stats.queue_seconds = static_cast<double>(queued_frames_) * clock.fps_d / clock.fps_n;
  return stats;
}

void FramePump::work() {
  Failure failure = {WAN_CANCELLED, ""};
  // One that is slow to stop has its model still.
  const auto turn = workers_->take([this] { return cancelled_.load(); }, nullptr);
  if (turn) failure = make_clips();

  std::unique_lock lock(mutex_);
  const std::shared_ptr<SharedModel> model = std::move(model_);  // let go before the turn is over
  finished_ = Finished{std::move(failure)};
  stats_.running = false;
  changed_.notify_all();
  lock.unlock();
}

Failure FramePump::make_clips() {
  Failure failure = check();
  if (failure.status == WAN_OK) failure = load();
  while (failure.status == WAN_OK) {
    const std::shared_ptr<const Clip> clip = next_clip();
    if (!clip) return made_ ? Failure() : failure_;
    failure = make(clip);
  }
  return failure;
}

// Uses the model when it is this pump's turn.
Failure FramePump::in_turn(const std::function<bool()> &cancelled, const std::function<Failure()> &use) {
  const auto wanted = [weak = weak_from_this()] {
    if (const auto pump = weak.lock()) pump->give_way();
  };
  const auto turn = model_->turns().take(cancelled, wanted);
  return turn ? use() : Failure{WAN_CANCELLED, ""};
}

// Of the first clip. A queued one was looked at by whoever queued it.
bool FramePump::may_have_picture(WanPictureKind kind, const ClipSettings &settings) const {
  const std::shared_ptr<PictureTrack> &track = run_.picture_tracks[kind];
  return !queue().empty() || !picture_location(settings, kind).empty() || (track && track->is_fed());
}

// What can be refused before the weights are read, which takes long: here the size, too, is known, and
// whether a pad is linked. What the clips are made from was looked at by whoever set it.
Failure FramePump::check() {
  std::unique_lock lock(mutex_);
  const ClipSettings settings = planner_.configured();
  lock.unlock();
  WanGenerateOptions options = generate_options(settings);
  options.layout = format_.layout;
  for (const WanPictureKind kind : {WAN_PICTURE_FIRST, WAN_PICTURE_LAST})
    options.pictures[kind] =
        run_.defaults.pictures[kind] == WAN_PICTURE_REQUIRED && may_have_picture(kind, settings);
  const ModelChoice &choice = model_->choice();
  WanError error = {};
  return failure_of(choice.engine->check(choice.directory.c_str(), &options, &error), error);
}

Failure FramePump::load() {
  const WanCallbacks callbacks = this->callbacks();
  const Failure failure = in_turn([this] { return cancelled_.load(); },
                                  [&] {
                                    WanError error = {};
                                    return failure_of(model_->load(callbacks, &error), error);
                                  });
  if (failure.status == WAN_OK) tell(Loaded{});
  return failure;
}

Failure FramePump::make(const std::shared_ptr<const Clip> &clip) {
  tell(ClipBegun{clip});
  Failure failure = find_pictures(*clip);
  if (failure.status == WAN_OK)
    failure = in_turn([this] { return is_stopped(); }, [&] { return generate(*clip); });
  pictures_ = {};
  std::unique_lock lock(mutex_);
  generating_ = false;
  const std::shared_ptr<const Clip> last = end_video(clip);
  const bool skipped = clip_cancelled_ && !cancelled_;
  if (skipped || failure.status == WAN_OK) {
    end_clip(last, skipped);
    return {};
  }
  lock.unlock();
  return failure.status == WAN_CANCELLED ? failure : survive(last, failure);
}

// Before the model is this pump's: pictures may have to be waited for.
Failure FramePump::find_pictures(const Clip &clip) {
  Failure failure;
  for (const WanPictureKind kind : {WAN_PICTURE_FIRST, WAN_PICTURE_LAST}) {
    const bool continues = kind == WAN_PICTURE_FIRST && clip.shared_frames > 0;
    if (!continues && failure.status == WAN_OK) pictures_[kind] = find_picture(clip, kind, &failure);
  }
  return failure;
}

// A queued clip's own picture, what has come in at the pad, or the element's.
std::shared_ptr<const Picture> FramePump::find_picture(const Clip &clip, WanPictureKind kind,
                                                       Failure *failure) {
  if (clip.pictures[kind]) return clip.pictures[kind];
  if (!clip.has_own_picture[kind])
    if (auto picture = incoming_picture(clip, kind, failure); picture || failure->status != WAN_OK)
      return picture;
  const std::string &location = picture_location(clip.settings, kind);
  if (location.empty()) return nullptr;
  *failure = {WAN_OK, "", __FILE__, __LINE__};
  return read_picture(
      location, [this] { return is_stopped(); }, &failure->status, &failure->message);
}

std::shared_ptr<const Picture> FramePump::incoming_picture(const Clip &clip, WanPictureKind kind,
                                                           Failure *failure) {
  const std::shared_ptr<PictureTrack> &track = run_.picture_tracks[kind];
  if (!track || !track->is_attached()) return nullptr;
  PictureTrack::Sample sample = track->at(clip.time, kPatience, [this] { return is_stopped(); });
  // A camera's first picture comes a little after the stream has begun.
  if (!sample && run_.defaults.pictures[kind] == WAN_PICTURE_REQUIRED) sample = track->earliest();
  if (is_stopped()) {
    *failure = {WAN_CANCELLED, ""};
    return nullptr;
  }
  if (!sample) {
    track->set_silent();
    return nullptr;
  }
  std::shared_ptr<const Picture> picture = convert_picture(sample.get(), &failure->message);
  if (!picture) *failure = {WAN_INVALID, failure->message, __FILE__, __LINE__};
  return picture;
}

bool FramePump::hand_over(WanPictureKind kind, WanPicture *picture) const {
  const Picture &found = *pictures_[kind];
  *picture = {found.pixels.data(), found.width, found.height, size_t(found.width) * 3};
  return true;
}

// If its last frames wait in the queue, they say when it is over.
void FramePump::end_clip(const std::shared_ptr<const Clip> &clip, bool skipped) {
  if (!skipped) {
    made_ = true;
    failures_ = 0;
    planner_.end();
  }
  const bool has_frames = !chunks_.empty() && chunks_.back().clip == clip;
  if (has_frames && (!skipped || run_.defaults.endless)) {
    chunks_.back().ends_clip = true;
    chunks_.back().skipped = skipped;
  } else {
    news_.emplace_back(ClipEnded{clip, skipped});
  }
  changed_.notify_all();
}

Failure FramePump::generate(const Clip &clip) {
  const auto start = std::chrono::steady_clock::now();
  WanGenerateOptions options = generate_options(clip.settings);
  options.seed = clip.seed;
  options.used_frames = clip.used_frames;
  if (run_.defaults.endless) options.num_frames = options.used_frames = 0;  // as next_section() says
  options.fade_frames = clip.fade_frames;
  options.on_device = format_.on_device;
  options.layout = format_.layout;
  options.stream = stream_;
  options.continuity = run_.continuity;
  for (int kind = 0; kind < WAN_PICTURE_KINDS; ++kind) options.pictures[kind] = pictures_[kind] != nullptr;
  const WanCallbacks callbacks = this->callbacks();
  WanError error = {};
  const WanStatus status = model_->choice().engine->generate(model_->get(), &options, &callbacks, &error);

  std::lock_guard lock(mutex_);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start - waited_;
  if (run_.defaults.endless) return failure_of(status, error);
  if (status != WAN_CANCELLED || cancelled_) stats_.fps = static_cast<double>(clip_frames_) / seconds.count();
  return failure_of(status, error);
}

// What a clip's failure means for the stream: WAN_OK if it goes on.
Failure FramePump::survive(const std::shared_ptr<const Clip> &clip, const Failure &failure) {
  if (cancelled_) return failure;  // the track is another run's now
  const bool replaced =
      clip->origin == ClipOrigin::Timed && run_.track->replace(clip->settings.prompt, clip->time);
  const bool single = replaced || clip->origin == ClipOrigin::Queued;  // the next one has other settings
  std::unique_lock lock(mutex_);
  failure_ = failure;
  failures_ += !single;
  if (failure.status == WAN_DEVICE || !(single || can_repeat(*clip))) return failure;
  const std::chrono::seconds pause(single || !run_.live ? 0 : 1 << std::min(failures_ - 1, kLongestPause));
  reconfigured_ = false;
  news_.emplace_back(ClipFailed{clip, failure_, pause});
  changed_.notify_all();
  changed_.wait_for(lock, pause, [&] { return cancelled_ || reconfigured_ || !planner_.queue().empty(); });
  return {};
}

// Whether clips of the settings that have failed may be tried again. They are likely to fail again, but time
// may help, and a live stream that never ends has it. Timed prompts have their clips whatever num_clips is.
bool FramePump::can_repeat(const Clip &failed) const {
  if (!planner_.queue().empty()) return true;
  const bool more = failed.origin == ClipOrigin::Timed || planner_.has_configured_clip();
  return more && (failures_ < kMaxFailures || (run_.live && run_.num_clips < 0));
}

// When a frame of the stream is on air, as timed prompts count: ns of running time.
uint64_t FramePump::track_time(uint64_t frame) const {
  const FrameClock &clock = format_.clock;
  return run_.live ? air_time_ + clock.time_of(frame - (passed_frames_ - queued_frames_))
                   : clock.time_of(frame);
}

// Waits until it can be told which clip begins at a frame, unless that is given up.
bool FramePump::await_choice(uint64_t first_frame, const std::function<bool()> &given_up) {
  std::unique_lock lock(mutex_);
  if (run_.live) return true;
  const uint64_t end =
      first_frame + (run_.defaults.endless ? run_.defaults.section_frames : planner_.configured().num_frames);
  lock.unlock();
  const auto look = [&] {
    const std::lock_guard lock(mutex_);
    return !planner_.queue().empty() || given_up();
  };
  const FrameClock &clock = format_.clock;
  return run_.track->wait(clock.time_of(first_frame), clock.time_of(end), look) || !queue().empty();
}

// The next clip: of the queue, of the timed prompts, or as configured, in this order; none if the stream
// ends. `cue`: of the timed prompts, if they were asked already.
std::shared_ptr<Clip> FramePump::choose_clip(uint64_t first_frame, std::optional<PromptTrack::Cue> cue) {
  std::unique_lock lock(mutex_);
  if (cancelled_) return nullptr;
  const uint64_t time = track_time(first_frame);
  if (!cue && planner_.queue().empty()) {
    lock.unlock();
    cue = run_.track->at(time, run_.live);
    lock.lock();
  }
  std::shared_ptr<Clip> clip = cue                        ? planner_.timed_clip(*cue, first_frame, time)
                               : planner_.queue().empty() ? planner_.configured_clip()
                                                          : planner_.queued_clip();
  if (clip) clip->time = time;
  return clip;
}

std::shared_ptr<const Clip> FramePump::next_clip() {
  std::unique_lock lock(mutex_);
  const bool on_demand = run_.live && run_.defaults.endless;
  changed_.wait(lock, [&] {
    const bool is_wanted = on_demand ? queued_frames_ < wanted_frames() : !overfull_ || has_room();
    return cancelled_ || is_wanted;
  });
  overfull_ = false;
  if (video_.is_interrupted && clip_->used_frames == 0) planner_.resume();
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
  planner_.begin();
  clip_first_ = first_frame;
  clip_frames_ = 0;
  waited_ = {};
  clip_cancelled_ = false;
  generating_ = true;
  if (run_.defaults.endless) begin_video(clip);
  stats_.newest = clip;
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
  return upcoming_ && planner_.fade(*clip_, upcoming_.get());
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
  callbacks.picture = [](void *pump, WanPictureKind kind, WanPicture *picture) {
    return static_cast<const FramePump *>(pump)->hand_over(kind, picture);
  };
  if (run_.defaults.endless)
    callbacks.next_section = [](void *pump, WanSection *section) {
      return static_cast<FramePump *>(pump)->next_section(section);
    };
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
  // The worker alone writes model_, and not while the engine makes a clip.
  WanMemory memory = {};
  if (model_->is_loaded()) model_->choice().engine->memory(model_->get(), &memory);

  std::lock_guard lock(mutex_);
  const bool is_denoised = progress.stage == WAN_STAGE_DENOISE && progress.step == progress.steps;
  if (is_denoised && clip_->denoised == std::chrono::steady_clock::time_point())  // not of later sections
    clip_->denoised = std::chrono::steady_clock::now();
  // What is decoded may be of the clip before the one that is denoised.
  const bool is_before = progress.stage == WAN_STAGE_DECODE && !video_.starts.empty();
  news_.emplace_back(Progress{is_before ? video_.starts.front().clip : clip_, progress});
  stats_.progress = progress;
  stats_.seconds[progress.stage] = progress.seconds;
  if (progress.stage == WAN_STAGE_TEXT) stats_.seconds[WAN_STAGE_PICTURES] = 0;  // not every clip has them
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
  const std::shared_ptr<const Clip> clip = take_frames(frames);
  changed_.notify_all();  // also where no frames are left: who waits for demand counts what was handed over
  if (frames->num_frames == 0) return true;
  stats_.chunk = frames->chunk;
  queued_frames_ += frames->num_frames;
  passed_frames_ += frames->num_frames;
  clip_frames_ += frames->num_frames;
  chunks_.push_back({clip, std::move(owned)});
  return true;
}

}  // namespace wan
