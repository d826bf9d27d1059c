// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/causal.h"

#include <algorithm>
#include <utility>

namespace wan {

namespace {

// Far above the released models', and low enough that a window of the smallest picture stays in int64.
constexpr int64_t kMaxFrames = 1024, kMaxSteps = 100, kLevels = 1000;
/// As many timesteps as one pass may have.
constexpr int64_t kMaxInFlight = 5;
/// What -1 stands for: all that the models were trained on.
constexpr int64_t kWholeWindow = 21;

CausalConfig self_forcing() {
  return {};
}

CausalConfig framewise() {
  CausalConfig config = self_forcing();
  config.num_frames_per_block = config.first_block = 1;
  config.image_start = ImageStart::kAlone;
  return config;
}

CausalConfig longlive() {
  CausalConfig config = self_forcing();
  config.local_attn_size = 12;
  config.sink_size = 3;
  config.prompt_switch = WAN_SWITCH_RECACHE;
  return config;
}

CausalConfig longlive_infinity() {
  CausalConfig config = longlive();
  config.relative_positions = true;
  return config;
}

CausalConfig longlive_2() {
  CausalConfig config = self_forcing();
  config.num_frames_per_block = config.first_block = config.sink_size = config.scene_offset = 8;
  config.local_attn_size = 32;
  config.sampler = SectionSolver::kUniPC;
  config.image_start = ImageStart::kInside;
  return config;
}

CausalConfig rolling_forcing() {
  CausalConfig config = self_forcing();
  config.memory = CausalMemory::kInFlight;
  config.sink_size = 3;
  config.denoising_step_list = {1000, 800, 600, 400, 200};
  return config;
}

CausalConfig krea() {
  CausalConfig config = self_forcing();
  config.memory = CausalMemory::kRebuilt;
  config.local_attn_size = 6;
  config.keep_first_frame = false;
  config.denoising_step_list = {1000, 750, 500, 250, 0};
  return config;
}

CausalConfig causvid() {
  CausalConfig config = self_forcing();
  config.denoising_step_list = {1000, 757, 522};
  config.warp_denoising_step = false;
  config.flow_shift = 8;
  return config;
}

CausalConfig fastvideo_a14b() {
  CausalConfig config = self_forcing();
  config.first_block = 1;
  config.denoising_step_list = {1000, 850, 700, 550, 350, 275, 200, 125};
  config.flow_shift = 12;
  config.boundary_ratio = 0.875;
  config.image_start = ImageStart::kAlone;
  return config;
}

using Preset = std::pair<std::string_view, CausalConfig (*)()>;
constexpr Preset kPresets[] = {{"self-forcing", self_forcing},
                               {"causal-forcing", self_forcing},
                               {"causal-forcing-framewise", framewise},
                               {"longlive", longlive},
                               {"longlive-infinity", longlive_infinity},
                               {"longlive2", longlive_2},
                               {"rolling-forcing", rolling_forcing},
                               {"krea", krea},
                               {"causvid", causvid},
                               {"fastvideo", self_forcing},
                               {"fastvideo-a14b", fastvideo_a14b}};

std::string preset_names() {
  std::string names;
  for (const auto &[name, make] : kPresets) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

/// The value whose name a key has.
template <typename T>
void read_name(const JsonFile &file, const char *key, const std::vector<std::pair<std::string, T>> &values,
               T &value) {
  const auto name = file.find<std::string>(key);
  if (!name) return;
  const auto found = std::ranges::find(values, *name, &std::pair<std::string, T>::first);
  if (found != values.end()) return void(value = found->second);
  std::string names;
  for (const auto &[other, ignored] : values) names += (names.empty() ? "" : ", ") + other;
  throw file.error(key, "is '" + printable(*name) + "', but may be one of " + names);
}

void read_frames(const JsonFile &file, const char *key, int64_t least, int64_t &value) {
  value = file.integer(key, value, least, kMaxFrames);
}

void read_positions(const JsonFile &file, bool &relative) {
  read_name(file, "rope_cache_policy", {{"absolute", false}, {"relativistic", true}}, relative);
}

void read_steps(const JsonFile &file, std::vector<int64_t> &steps) {
  const char *const key = "denoising_step_list";
  const auto list = file.find<std::vector<int64_t>>(key);
  if (!list) return;
  if (list->empty() || std::ssize(*list) > kMaxSteps)
    throw file.error(key, "must have 1 to " + std::to_string(kMaxSteps) + " entries");
  for (size_t i = 0; i < list->size(); ++i)
    if ((*list)[i] < 0 || (*list)[i] > kLevels || (i && (*list)[i] >= (*list)[i - 1]))
      throw file.error(key, "must fall from step to step, from at most 1000 to at least 0");
  steps = *list;
}

}  // namespace

std::optional<CausalConfig> CausalConfig::preset(std::string_view name) {
  const auto *const found = std::ranges::find(kPresets, name, &Preset::first);
  if (found == std::end(kPresets)) return std::nullopt;
  return found->second();
}

void CausalConfig::apply_transformer_config(const JsonFile &file) {
  read_frames(file, "num_frames_per_block", 1, num_frames_per_block);
  if (file.has("num_frames_per_block") && first_block > num_frames_per_block)
    first_block = num_frames_per_block;
  const int64_t window = file.integer("local_attn_size", -1, -1, kMaxFrames);
  if (window == -1)
    local_attn_size = file.integer("sliding_window_num_frames", kWholeWindow, 1, kMaxFrames);
  else
    local_attn_size = window;
  read_frames(file, "sink_size", 0, sink_size);
  bool relative = relative_positions;
  read_positions(file, relative);
  relative_positions = relative && sink_size > 0 && window > 0;  // as FastVideo takes it
}

void CausalConfig::apply(const JsonFile &file, const std::function<void(CausalConfig &)> &behind_preset) {
  const Json &causal = file.json().at("causal");
  if (!causal.is_string() && !causal.is_object())
    throw file.error("causal", "must be a name, one of " + preset_names() + ", or an object");
  const JsonFile object = causal.is_object()
                              ? JsonFile(std::string_view(causal.dump()), file.source() + ": causal")
                              : JsonFile(std::string_view(Json({{"preset", causal}}).dump()), file.source());
  object.allow_only({"preset", "memory", "num_frames_per_block", "first_block", "local_attn_size",
                     "sink_size", "rope_cache_policy", "sampler", "denoising_step_list",
                     "warp_denoising_step", "flow_shift", "boundary_ratio", "prompt_switch",
                     "recache_keeps_sink", "recache_frames", "keep_first_frame", "shared_text_kv",
                     "scene_offset", "image_start"});
  if (const auto name = object.find<std::string>("preset")) {
    const std::optional<CausalConfig> family = preset(*name);
    if (!family)
      throw file.error("causal", "is '" + printable(*name) + "', but may be one of " + preset_names());
    *this = *family;
  }
  behind_preset(*this);
  read_name(object, "memory",
            {{"rolling", CausalMemory::kRolling},
             {"in-flight", CausalMemory::kInFlight},
             {"rebuilt", CausalMemory::kRebuilt}},
            memory);
  read_frames(object, "num_frames_per_block", 1, num_frames_per_block);
  if (object.has("num_frames_per_block")) first_block = num_frames_per_block;
  read_frames(object, "first_block", 1, first_block);
  read_frames(object, "local_attn_size", 1, local_attn_size);
  read_frames(object, "sink_size", 0, sink_size);
  read_positions(object, relative_positions);
  read_name(object, "sampler", {{"renoise", SectionSolver::kRenoise}, {"unipc", SectionSolver::kUniPC}},
            sampler);
  read_steps(object, denoising_step_list);
  warp_denoising_step = object.get<bool>("warp_denoising_step", warp_denoising_step);
  flow_shift = object.number("flow_shift", flow_shift, 1e-3, 100);
  if (object.has("boundary_ratio")) boundary_ratio = object.number("boundary_ratio", 0, 0, 1);
  read_name(object, "prompt_switch",
            {{"recache", WAN_SWITCH_RECACHE}, {"cross", WAN_SWITCH_CROSS}, {"cut", WAN_SWITCH_CUT}},
            prompt_switch);
  recache_keeps_sink = object.get<bool>("recache_keeps_sink", recache_keeps_sink);
  read_frames(object, "recache_frames", 0, recache_frames);
  keep_first_frame = object.get<bool>("keep_first_frame", keep_first_frame);
  shared_text_kv = object.get<bool>("shared_text_kv", shared_text_kv);
  read_frames(object, "scene_offset", 0, scene_offset);
  read_name(object, "image_start",
            {{"none", ImageStart::kNone}, {"alone", ImageStart::kAlone}, {"inside", ImageStart::kInside}},
            image_start);
}

void CausalConfig::check(const std::string &source, bool two_experts) const {
  const auto require = [&source](bool holds, const std::string &what) {
    if (!holds) throw invalid(source + ": " + what);
  };
  const int64_t pinned = scene_offset ? std::min(sink_size, num_frames_per_block) : 0;
  const int64_t beside = memory == CausalMemory::kInFlight ? (steps() - 1) * num_frames_per_block : 0;
  require(first_block <= num_frames_per_block, "first_block is more than num_frames_per_block");
  require(sink_size + pinned + num_frames_per_block + beside <= local_attn_size,
          "a section and the sink do not fit a local_attn_size of " + std::to_string(local_attn_size));
  require(two_experts == boundary_ratio.has_value(),
          two_experts ? "a causal model with two experts needs a boundary_ratio"
                      : "a boundary_ratio is for causal models with two experts, and this one has one");
  require(two_experts || !shared_text_kv, "shared_text_kv is for two experts, and this model has one");
  require(memory == CausalMemory::kRebuilt || keep_first_frame,
          "keep_first_frame=false is for the memory rebuilt");
  require(
      recache_frames == 0 || (memory == CausalMemory::kRolling && recache_keeps_sink && scene_offset == 0),
      "recache_frames is for the memory rolling, without a scene_offset or recache_keeps_sink=false");
  if (memory == CausalMemory::kRolling) return;
  require(sampler == SectionSolver::kRenoise && !two_experts && image_start == ImageStart::kNone,
          "this memory is for one expert, the sampler renoise and no pictures");
  if (memory == CausalMemory::kInFlight)
    require(
        steps() <= kMaxInFlight && first_block == num_frames_per_block && sink_size == num_frames_per_block,
        "the memory in-flight takes up to " + std::to_string(kMaxInFlight) +
            " steps, and sections and a sink of one size");
  else
    require(local_attn_size >= kRebuiltFrames + num_frames_per_block &&
                (keep_first_frame || first_block >= kRebuiltFrames),
            "the memory rebuilt needs a local_attn_size of 3 and a section, and without keep_first_frame "
            "sections of 3 latent frames");
}

}  // namespace wan
