// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/clip_plan.h"

#include <string>
#include <vector>

#include "device.h"
#include "pipeline/check_options.h"
#include "pipeline/prompt_encoder.h"
#include "pipeline/replicas.h"
#include "vae/tiled_decode.h"
#include "vae/tiled_encode.h"

namespace wan {

namespace {

std::string describe_size(const WanGenerateOptions &options) {
  return std::to_string(options.layout.width) + "x" + std::to_string(options.layout.height) + " with " +
         std::to_string(options.num_frames) + " frames";
}

/// smaller: what to choose besides another memory mode.
void require_clip_memory(const Components &components, const WanGenerateOptions &options, uint64_t needed,
                         const std::vector<at::Device> &devices,
                         const std::string &smaller = "a smaller width, height or number of frames") {
  const uint64_t free = least_free_memory(devices);
  if (needed <= free) return;
  const std::string modes = devices.front().is_cpu() ? "" : components.experts().smaller_memory_modes();
  throw Error(WAN_OUT_OF_MEMORY, "A video of " + describe_size(options) + " needs about " +
                                     std::to_string(needed >> 20) + " MiB of memory, and " +
                                     std::to_string(free >> 20) + " MiB are free: choose " + modes + smaller);
}

void require_clip_options(const Components &components, const WanGenerateOptions &options) {
  check_options(components.config(), options);
  check_size(components.config(), options.layout.width, options.layout.height);
  if (!options.prompt || !options.negative_prompt) throw invalid("A prompt is missing");
  if (options.on_device && !components.device().is_cuda())
    throw invalid("Frames can only stay on a GPU where the model is on one, and this model is on the CPU");
}

/// How many share what a prediction needs, each with memory of its own.
int64_t sharing_ranks(const Components &components, const WanGenerateOptions &options, const ClipPlan &plan) {
  if (components.device().is_cpu()) return 1;
  const TransformerConfig &transformer = components.config().transformer;
  const int64_t tokens =
      plan.frames * (plan.height / transformer.patch_height) * (plan.width / transformer.patch_width);
  return share_step(components.experts().all().front().threads().count(), is_guided(options),
                    transformer.num_attention_heads, tokens)
      .ranks;
}

void require_denoising_memory(const Components &components, const WanGenerateOptions &options,
                              const ClipPlan &plan) {
  const at::Device device = components.device();
  // The reference operations, which the CPU has, compute in float32.
  const at::ScalarType activations = device.is_cpu() ? at::kFloat : components.placement().dtype;
  const bool cached = options.cache != WAN_CACHE_NONE;
  const int64_t ranks = sharing_ranks(components, options, plan);
  const std::vector<at::Device> &devices = components.placement().devices;
  const int64_t frames = most_frames(components.config(), activations, options.layout.height,
                                     options.layout.width, cached, least_free_memory(devices), ranks);
  require_clip_memory(
      components, options,
      denoise_bytes(components.config().transformer, activations, plan.frames, plan.height, plan.width,
                    cached, ranks),
      devices,
      (frames > 1 ? "at most " + std::to_string(frames) + " frames, or " : "") + "a smaller width or height");
}

/// Of the decoded frames in float32, in host memory.
void require_video_memory(const Components &components, const WanGenerateOptions &options) {
  const auto frames = static_cast<uint64_t>(decoded_frames(options));
  const auto pixels =
      static_cast<uint64_t>(options.layout.width) * static_cast<uint64_t>(options.layout.height);
  require_clip_memory(components, options, pixels * 3 * frames * sizeof(float), {at::kCPU});
}

/// Decoded in tiles, which the VAE alone does, the whole clip waits in host memory.
bool plan_decoding(const Components &components, const WanGenerateOptions &options, const ClipPlan &plan) {
  const AutoencoderKLWan &vae = components.vae();
  if (components.decoder().decode_bytes(plan.height, plan.width) <= free_memory(components.vae_device()))
    return false;
  require_clip_memory(components, options, tiled_decode_bytes(vae, plan.height, plan.width),
                      {components.vae_device()});
  require_video_memory(components, options);
  return true;
}

bool plan_encoding(const Components &components, const WanGenerateOptions &options, const ClipPlan &plan) {
  const AutoencoderKLWan &vae = components.vae();
  if (components.config().variant->first_picture == WAN_PICTURE_REFUSED) return false;
  const uint64_t for_encoders = plan.keeps_encoders ? components.encoder_bytes() : 0;
  if (vae.encode_bytes(plan.height, plan.width) + for_encoders <= free_memory(components.vae_device()))
    return false;
  require_clip_memory(components, options, tiled_encode_bytes(vae, plan.height, plan.width),
                      {components.vae_device()});
  return true;
}

bool plan_encoders(const Components &components, const ClipPlan &plan) {
  return components.placement().has_vae_apart() &&
         components.decoder().decode_bytes(plan.height, plan.width) + components.encoder_bytes() <=
             free_memory(components.vae_device());
}

}  // namespace

ClipPlan latents_size(const CheckpointConfig &config, const WanGenerateOptions &options) {
  const VaeConfig &vae = config.vae;
  return {.frames = (options.num_frames - 1) / vae.temporal_scale() + 1,
          .height = options.layout.height / vae.spatial_scale(),
          .width = options.layout.width / vae.spatial_scale()};
}

ClipPlan plan_clip(Components &components, const WanGenerateOptions &options) {
  require_clip_options(components, options);
  ClipPlan plan = latents_size(components.config(), options);
  plan.keeps_encoders = plan_encoders(components, plan);
  if (!plan.keeps_encoders) components.release_encoders();
  require_denoising_memory(components, options, plan);
  plan.tiled = plan_decoding(components, options, plan);
  plan.encodes_in_tiles = plan_encoding(components, options, plan);
  return plan;
}

}  // namespace wan
