// An engine without a model, for what the real one cannot be made to do: the prompt says how it behaves. It
// keeps the rules of wan/engine.h, and needs neither LibTorch nor time.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "wan/engine.h"

struct WanModel {
  bool endless;
  std::atomic<bool> busy = false;
};

namespace {

std::atomic<int> models = 0;
// As OpenMP does it.
const char *const wait_policy = std::getenv("OMP_WAIT_POLICY");

using std::chrono::milliseconds;

WanStatus fail(WanError *error, WanStatus status, const char *message) {
  std::snprintf(error->message, sizeof error->message, "%s", message);
  error->file = __FILE__;
  error->line = 7;
  return status;
}

// Of an endless model: a section has 3 latent frames.
constexpr int kSectionChunks = 3, kSectionFrames = 12, kFirstSectionFrames = 9;

// The model's directory says which pictures it takes: "takes-pictures", "needs-picture"; and "endless".
WanStatus describe(const char *model_dir, WanDefaults *defaults, WanError *) {
  *defaults = {64,
               48,
               9,
               25,
               1,
               4,
               5.0,
               3.0,
               2.0,
               WAN_SCHEDULER_EULER,
               16,
               4,
               "stub",
               {},
               false,
               0,
               0,
               0,
               WAN_SWITCH_AUTO};
  if (std::strstr(model_dir, "takes-pictures"))
    std::fill_n(defaults->pictures, WAN_PICTURE_KINDS, WAN_PICTURE_OPTIONAL);
  if (std::strstr(model_dir, "needs-picture")) defaults->pictures[WAN_PICTURE_FIRST] = WAN_PICTURE_REQUIRED;
  if (std::strstr(model_dir, "endless")) {
    defaults->num_frames = 0;
    defaults->guidance_scale = defaults->guidance_scale_2 = 1;
    defaults->scheduler = WAN_SCHEDULER_AUTO;
    defaults->endless = true;
    defaults->section_frames = kSectionFrames;
    defaults->first_section_frames = kFirstSectionFrames;
    defaults->section_latents = kSectionChunks;
    defaults->prompt_switch = WAN_SWITCH_RECACHE;
  }
  return WAN_OK;
}

// "refused" in the prompt stands for whatever a checkpoint cannot make.
WanStatus check(const char *model_dir, const WanGenerateOptions *options, WanError *error) {
  WanDefaults defaults;
  describe(model_dir, &defaults, error);
  const bool continues = options->continuity == WAN_CONTINUITY_LAST_FRAME;
  for (int kind = 0; kind < WAN_PICTURE_KINDS; ++kind) {
    if (options->pictures[kind] && defaults.pictures[kind] == WAN_PICTURE_REFUSED)
      return fail(error, WAN_INVALID, "The stub takes no such picture.");
    if (!options->pictures[kind] && defaults.pictures[kind] == WAN_PICTURE_REQUIRED && !continues)
      return fail(error, WAN_INVALID, "The stub needs a picture.");
  }
  const bool refused = std::strcmp(options->prompt, "refused") == 0;
  return refused ? fail(error, WAN_INVALID, "The stub cannot make this.") : WAN_OK;
}

WanStatus load(const WanLoadOptions *options, const WanCallbacks *callbacks, WanModel **model,
               WanError *error) {
  for (int percent = 0; percent <= 100; percent += 25) {
    const WanProgress progress = {WAN_STAGE_LOAD, percent, 100, percent / 100.0, 0};
    callbacks->progress(callbacks->user, &progress);
    if (callbacks->cancelled(callbacks->user)) return fail(error, WAN_CANCELLED, "cancelled");
  }
  *model = new WanModel{std::strstr(options->model_dir, "endless") != nullptr};
  ++models;
  return WAN_OK;
}

// The number behind "name=" in the prompt, 0 without one.
int hook(const std::string &prompt, const std::string &name) {
  const size_t at = prompt.find(name + "=");
  return at == std::string::npos ? 0 : std::atoi(prompt.c_str() + at + name.size() + 1);
}

// False if it was cancelled meanwhile.
bool wait(int milliseconds_left, const WanCallbacks &callbacks) {
  for (; milliseconds_left > 0; milliseconds_left -= 10) {
    if (callbacks.cancelled(callbacks.user)) return false;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return true;
}

// What a video shows: the red of the upper left pixel of the picture that it begins with, else its seed.
struct Shown {
  uint8_t value;
  bool continues = false;
};

// Of streams, what their last frame has shown.
std::map<uint64_t, uint8_t> kept;
std::mutex kept_mutex;

Shown shown_by(const WanGenerateOptions &options, const WanCallbacks &callbacks) {
  {
    const std::lock_guard lock(kept_mutex);
    const auto frame = kept.find(options.stream);
    if (options.continuity == WAN_CONTINUITY_LAST_FRAME && !options.pictures[WAN_PICTURE_FIRST] &&
        frame != kept.end())
      return {static_cast<uint8_t>(frame->second + 1), true};
  }
  WanPicture picture;
  if (!options.pictures[WAN_PICTURE_FIRST] || !callbacks.picture(callbacks.user, WAN_PICTURE_FIRST, &picture))
    return {static_cast<uint8_t>(options.seed)};
  return {picture.rgb[0]};
}

bool push_frames(const WanGenerateOptions &options, const WanCallbacks &callbacks, const Shown &shown,
                 int chunk, int first, int count, int section = 0) {
  const size_t size = options.layout.size;
  auto *frames = new WanFrames{new uint8_t[size * count], size, count, first, chunk, section};
  std::memset(frames->data, shown.value, size * count);
  return callbacks.frames(callbacks.user, frames);
}

// "fails=N" in the prompt stands for so many failures in this process before a clip is made.
bool fails(const std::string &prompt) {
  static std::mutex mutex;
  static std::map<std::string, int> failures;
  const std::lock_guard lock(mutex);
  return failures[prompt]++ < hook(prompt, "fails");
}

// Failures by the prompt that stands for each.
const std::map<std::string, WanStatus> failures = {
    {"not-found", WAN_NOT_FOUND}, {"invalid", WAN_INVALID},   {"out-of-memory", WAN_OUT_OF_MEMORY},
    {"device", WAN_DEVICE},       {"internal", WAN_INTERNAL},
};

// A section of an endless video. "clip=MS" in its prompt delays it, "chunk=MS" each of its chunks. False
// where it was stopped.
bool push_section(const WanGenerateOptions &options, const WanCallbacks &callbacks, const std::string &prompt,
                  uint8_t value, int section) {
  if (!wait(hook(prompt, "clip"), callbacks)) return false;
  for (int i = 0; i < kSectionChunks; ++i) {
    const int chunk = section * kSectionChunks + i, first = chunk ? 4 * chunk - 3 : 0;
    const int most = options.num_frames ? options.num_frames - first : 4,
              count = std::min(chunk ? 4 : 1, most);
    if (count <= 0) return true;
    if (!wait(hook(prompt, "chunk"), callbacks) ||
        !push_frames(options, callbacks, {value}, chunk, first, count, section))
      return false;
  }
  return true;
}

// An endless video shows the seed of each section, or the picture that its scene began from.
WanStatus make_endless(const WanGenerateOptions *options, const WanCallbacks *callbacks, WanError *error) {
  std::string prompt = options->prompt;
  uint8_t value = shown_by(*options, *callbacks).value;
  WanSection section = {0, 0, nullptr, WAN_SWITCH_AUTO, false, options->seed};
  for (;;) {
    for (int step = 1; step <= options->steps; ++step) {
      const WanProgress progress = {WAN_STAGE_DENOISE, step, options->steps, step * 0.5, 0};
      callbacks->progress(callbacks->user, &progress);
    }
    if (const auto failure = failures.find(prompt); failure != failures.end())
      return fail(error, failure->second, "The stub failed.");
    if (!push_section(*options, *callbacks, prompt, value, section.index))
      return fail(error, WAN_CANCELLED, "cancelled");
    const uint64_t seed = section.seed;
    section = {
        section.index + 1, kSectionFrames * (section.index + 1) - 3, nullptr, WAN_SWITCH_AUTO, false, seed};
    if (options->num_frames && section.first_frame >= options->num_frames) return WAN_OK;
    if (callbacks->cancelled(callbacks->user)) return fail(error, WAN_CANCELLED, "cancelled");
    if (callbacks->next_section && !callbacks->next_section(callbacks->user, &section)) return WAN_OK;
    if (section.prompt) prompt = section.prompt;
    WanPicture picture;
    if (section.picture && callbacks->picture(callbacks->user, WAN_PICTURE_FIRST, &picture))
      value = picture.rgb[0];
    else if (section.seed != seed)
      value = static_cast<uint8_t>(section.seed);
  }
}

WanStatus make(const WanGenerateOptions *options, const WanCallbacks *callbacks, WanError *error) {
  const std::string prompt = options->prompt;
  for (int step = 1; step <= options->steps; ++step) {
    const int cached = options->cache == WAN_CACHE_FIRST_BLOCK ? step : 0;
    const WanProgress progress = {WAN_STAGE_DENOISE, step, options->steps, step * 0.5, cached};
    callbacks->progress(callbacks->user, &progress);
  }
  if (prompt == "stubborn") std::this_thread::sleep_for(milliseconds(2500));  // deaf to cancelling
  if (const auto failure = failures.find(prompt); failure != failures.end())
    return fail(error, failure->second, "The stub failed.");
  if (fails(prompt)) return fail(error, WAN_OUT_OF_MEMORY, "The stub failed for now.");
  if (prompt == "warns") callbacks->log(callbacks->user, WAN_LOG_WARNING, "The stub warns.");

  // "clip=MS" delays each clip by so many milliseconds, "chunk=MS" each chunk.
  const Shown shown = shown_by(*options, *callbacks);
  bool more = wait(hook(prompt, "clip"), *callbacks);
  int frames = options->used_frames ? options->used_frames : options->num_frames;
  int fading = options->fade_frames;  // 0 as soon as it is known what becomes of them
  for (int chunk = shown.continues, frame = shown.continues; more && frame < frames; ++chunk) {
    if (fading > 0 && frame + 4 > frames - fading) {
      if (callbacks->followed(callbacks->user)) frames -= fading;
      fading = 0;
      if (frame >= frames) break;
    }
    const int count = std::min(chunk == 0 ? 1 : 4, frames - frame);
    more = wait(hook(prompt, "chunk"), *callbacks) &&
           push_frames(*options, *callbacks, shown, chunk, frame, count);
    frame += count;
  }
  if (!more) return fail(error, WAN_CANCELLED, "cancelled");
  {
    const std::lock_guard lock(kept_mutex);
    kept[options->stream] = shown.value;
  }
  return prompt == "fails-at-the-end" ? fail(error, WAN_INTERNAL, "The stub failed.") : WAN_OK;
}

WanStatus generate(WanModel *model, const WanGenerateOptions *options, const WanCallbacks *callbacks,
                   WanError *error) {
  if (model->busy.exchange(true)) return fail(error, WAN_INTERNAL, "Two use the model at once.");
  const WanStatus status =
      model->endless ? make_endless(options, callbacks, error) : make(options, callbacks, error);
  model->busy = false;
  return status;
}

void memory(const WanModel *, WanMemory *memory) {
  *memory = {1000, 2000, 3000, 4000, WAN_MEMORY_STREAM, 1, 1, "stub"};
}

void model_free(WanModel *model) {
  if (model) --models;
  delete model;
}

void frames_free(WanFrames *frames) {
  delete[] frames->data;
  delete frames;
}

const WanEngineApi api = {STUB_ABI, "stub", describe, check, load, generate, memory, model_free, frames_free};

}  // namespace

extern "C" __attribute__((visibility("default"))) const WanEngineApi *wan_engine(uint32_t abi) {
  return abi == STUB_ABI ? &api : nullptr;
}

/** Models that are loaded. */
extern "C" __attribute__((visibility("default"))) int stub_models() {
  return models;
}

/** What OpenMP would have read when this library was opened. */
extern "C" __attribute__((visibility("default"))) const char *stub_wait_policy() {
  return wait_policy;
}
