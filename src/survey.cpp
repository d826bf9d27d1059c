// SPDX-License-Identifier: LGPL-2.1-or-later
#include "survey.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/config.h"
#include "checkpoint/input_file.h"
#include "device.h"
#include "error.h"
#include "host.h"
#include "pipeline/component_source.h"
#include "pipeline/memory_mode.h"
#include "transformer/block_store.h"
#include "wan/engine.h"

namespace wan {

namespace {

using nlohmann::json;

json survey_gpu(at::Device device) {
  const auto [free, total] = at::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return {{"name", describe_device(device)},
          {"compute_capability", compute_capability(device) / 10.0},
          {"total", total},
          {"free", free}};
}

void survey_gpus(json &answer) {
  if (!at::hasCUDA()) return;
  const long version = at::detail::getCUDAHooks().versionCUDART();
  answer["cuda"] = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  at::globalContext().lazyInitDevice(at::kCUDA);
  const int count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
  for (int i = 0; i < count; ++i)
    answer["gpus"].push_back(survey_gpu({at::kCUDA, static_cast<c10::DeviceIndex>(i)}));
}

void survey_machine(json &answer) {
  answer.update({{"version", WAN_VERSION}, {"libtorch", TORCH_VERSION}, {"host_free", free_host_memory()}});
  answer["gpus"] = json::array();
  const DeviceChoice choice = choose_devices("auto");
  survey_gpus(answer);
  answer["device"] = describe_devices(choice.devices);
  answer["remarks"] = choice.passed_over;
}

/// A clip of the checkpoint's own size, without a cache of steps.
uint64_t clip_bytes(const CheckpointConfig &config, at::ScalarType dtype) {
  const VaeConfig &vae = config.vae;
  const WanDefaults &clip = config.defaults;
  return denoise_bytes(config.transformer, dtype, (clip.num_frames - 1) / vae.temporal_scale() + 1,
                       clip.height / vae.spatial_scale(), clip.width / vae.spatial_scale(), /*cached=*/false);
}

struct Size {
  int64_t width, height;
  bool operator==(const Size &) const = default;
};

/// The checkpoint's own size, and the two that all released models are asked for, unless they are much
/// larger.
std::vector<Size> usual_sizes(const WanDefaults &clip) {
  std::vector<Size> sizes = {{clip.width, clip.height}};
  for (const Size &usual : {Size{1280, 720}, Size{832, 480}}) {
    const auto whole = [&](int64_t pixels) { return pixels / clip.size_multiple * clip.size_multiple; };
    const Size size = {whole(usual.width), whole(usual.height)};
    const bool is_like_it = size.width * size.height <= int64_t{4} * clip.width * clip.height;
    if (is_like_it && std::find(sizes.begin(), sizes.end(), size) == sizes.end()) sizes.push_back(size);
  }
  return sizes;
}

/// The longest clips of the usual sizes for which `bytes` beside the weights suffice.
json survey_clips(const CheckpointConfig &config, at::ScalarType dtype, uint64_t bytes) {
  json clips = json::array();
  for (const Size &size : usual_sizes(config.defaults))
    clips.push_back(
        {{"width", size.width},
         {"height", size.height},
         {"frames", most_frames(config, dtype, size.height, size.width, /*cached=*/false, bytes)}});
  return clips;
}

/// devices: that the mode uses, each for the same amount of memory.
json survey_mode(WanMemoryMode mode, const CheckpointConfig &config, const WeightBytes &weights,
                 at::ScalarType dtype, const std::vector<at::Device> &devices) {
  const at::Device device = devices.front();
  const uint64_t on_device = weights.on_gpu(mode), free = least_free_memory(devices);
  const uint64_t needed = on_device + std::max(clip_bytes(config, dtype), weights.text_encoder);
  const uint64_t host = keeps_on_host(mode) ? weights.blocks + kHostReserve : 0;
  const bool host_fits = host <= free_memory(at::kCPU);
  json answer = {{"name", memory_mode_name(mode)},
                 {"devices", devices.size()},
                 {"device", needed},
                 {"host", host},
                 {"fits", needed <= free && host_fits}};
  // On the CPU the text encoder stays.
  const uint64_t weights_alone = on_device + (device.is_cpu() ? weights.text_encoder : 0);
  if (host_fits && on_device + weights.text_encoder <= free && !config.causal)
    answer["clips"] = survey_clips(config, dtype, free - weights_alone);
  return answer;
}

std::vector<WanMemoryMode> memory_modes(at::Device device, bool two_experts) {
  if (device.is_cpu()) return {WAN_MEMORY_RESIDENT};
  if (!two_experts) return {WAN_MEMORY_RESIDENT, WAN_MEMORY_STREAM};
  return {WAN_MEMORY_RESIDENT, WAN_MEMORY_ONE_EXPERT, WAN_MEMORY_STREAM};
}

/// The devices of memory=split that device=cuda:0,1 would be, or none.
std::vector<at::Device> two_gpus() {
  try {
    return choose_devices("cuda:0,1").devices;
  } catch (const Error &) {
    return {};
  }
}

void survey_memory(json &answer, const CheckpointConfig &config) {
  const at::Device device = parse_device("auto");
  const at::ScalarType dtype = device.is_cpu() ? at::kFloat : at::kBFloat16;
  const WeightBytes weights = WeightBytes::of(config, dtype, WAN_QUANTIZATION_NONE, vae_dtype(dtype, device));
  for (const WanMemoryMode mode : memory_modes(device, weights.two_experts))
    answer["modes"].push_back(survey_mode(mode, config, weights, dtype, {device}));
  if (const std::vector<at::Device> gpus = two_gpus(); gpus.size() == 2 && can_split(config, gpus))
    answer["modes"].push_back(survey_mode(WAN_MEMORY_SPLIT, config, weights, dtype, gpus));
  answer["mode"] =
      memory_mode_name(choose_memory_mode(WAN_MEMORY_AUTO, config, dtype, WAN_QUANTIZATION_NONE, {device}));
}

/// What the element asks before it loads a checkpoint.
void require_description(const std::string &directory) {
  WanDefaults defaults;
  WanError error;
  const WanStatus status = wan_engine(WAN_ENGINE_ABI)->describe(directory.c_str(), &defaults, &error);
  if (status != WAN_OK) throw Error(status, error.message);
}

void survey_checkpoint(json &answer, const std::string &directory) {
  require_description(directory);
  const CheckpointConfig config = CheckpointConfig::read(local_path(directory));
  const WanDefaults &clip = config.defaults;
  answer.update({{"variant", clip.variant},
                 {"width", clip.width},
                 {"height", clip.height},
                 {"num_frames", clip.num_frames}});
  open_checkpoint(config, {}, RunContext({}), [](uint64_t, uint64_t) {});
  survey_memory(answer, config);
}

std::string sentence(const std::string &message) {
  return printable(message, message.npos) + (message.ends_with('.') ? "" : ".");
}

}  // namespace

}  // namespace wan

extern "C" const char *wan_survey(const char *model_dir) {
  thread_local std::string text;
  nlohmann::json answer;
  try {
    if (model_dir)
      wan::survey_checkpoint(answer, model_dir);
    else
      wan::survey_machine(answer);
  } catch (const c10::Error &failure) {
    answer["error"] = wan::sentence(wan::first_line(failure.what_without_backtrace()));
  } catch (const std::exception &failure) {
    answer["error"] = wan::sentence(failure.what());
  }
  text = answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.c_str();
}
