// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/causal_pipeline.h"

#include <ATen/ATen.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "device.h"
#include "image/image_processor.h"
#include "pipeline/check_options.h"
#include "pipeline/pictures.h"
#include "text/prompt_clean.h"

namespace wan {

namespace {

/// Latent frames that are remembered, and those that one pass has room for beside them.
int64_t slots_of(const CausalConfig &causal) {
  const int64_t in_flight =
      causal.memory == CausalMemory::kInFlight ? causal.steps() * causal.num_frames_per_block : 0;
  return causal.local_attn_size + in_flight;
}

/// Of one of the ranks, each of which remembers the keys and values of its heads.
uint64_t cache_bytes(const CheckpointConfig &config, const CausalConfig &causal, at::ScalarType dtype,
                     int64_t height, int64_t width, int64_t ranks) {
  const TransformerConfig &transformer = config.transformer;
  const bool moves = causal.relative_positions || causal.memory == CausalMemory::kInFlight;
  const uint64_t experts = config.transformer_2 ? 2 : 1;
  const int64_t heads = transformer.num_attention_heads;
  const uint64_t of_all =
      KeyValueCache::bytes(transformer, slots_of(causal), height / transformer.patch_height,
                           width / transformer.patch_width, moves, dtype);
  return experts * of_all / static_cast<uint64_t>(heads) * static_cast<uint64_t>((heads + ranks - 1) / ranks);
}

void require_video_memory(const Components &components, const WanGenerateOptions &options, uint64_t needed,
                          const std::vector<at::Device> &devices) {
  const uint64_t free = least_free_memory(devices);
  if (needed <= free) return;
  throw Error(WAN_OUT_OF_MEMORY,
              "An endless video of " + std::to_string(options.layout.width) + "x" +
                  std::to_string(options.layout.height) + " needs about " + std::to_string(needed >> 20) +
                  " MiB of memory, and " + std::to_string(free >> 20) + " MiB are free: choose " +
                  (devices.front().is_cpu() ? "" : components.experts().smaller_memory_modes()) +
                  "a smaller width or height");
}

/// One GPU is shared by both, and beside the denoiser the decoder would only make a section's frames later.
/// Where a section is made from a frame of the one before, nothing can be beside it.
Decoding decoding_of(const Components &components, const CausalConfig &causal) {
  const bool shares_gpu = components.device().is_cuda() && !components.placement().has_vae_apart();
  return shares_gpu || !causal.keep_first_frame ? Decoding::kBetween : Decoding::kBeside;
}

void require_video_options(const Components &components, const WanGenerateOptions &options) {
  check_options(components.config(), options);
  check_size(components.config(), options.layout.width, options.layout.height);
  if (!options.prompt) throw invalid("A prompt is missing");
  if (options.on_device && !components.device().is_cuda())
    throw invalid("Frames can only stay on a GPU where the model is on one, and this model is on the CPU");
}

}  // namespace

RankSharing CausalPipeline::sharing(const WanGenerateOptions &options) const {
  const TransformerConfig &transformer = components_.config().transformer;
  const int64_t patch = components_.vae().spatial_scale();
  const int64_t rows = options.layout.height / (patch * transformer.patch_height);
  const int64_t columns = options.layout.width / (patch * transformer.patch_width);
  return share_step(std::ssize(components_.placement().devices), /*guided=*/false,
                    transformer.num_attention_heads, rows * columns);
}

/// Throws where the memory does not suffice. A recache is the largest pass.
CausalPipeline::Plan CausalPipeline::plan(const WanGenerateOptions &options) const {
  require_video_options(components_, options);
  const CheckpointConfig &config = components_.config();
  const VaeConfig &vae = config.vae;
  Plan plan = {*config.causal, options.layout.height / vae.spatial_scale(),
               options.layout.width / vae.spatial_scale(), false};
  plan.causal.flow_shift = options.flow_shift;
  const at::ScalarType dtype = components_.placement().dtype;
  const std::vector<at::Device> &devices = components_.placement().devices;
  const uint64_t decoding =
      components_.decoder().decode_bytes(plan.height, plan.width) +
      (plan.causal.keep_first_frame ? 0 : components_.vae().encode_bytes(plan.height, plan.width));
  const bool decodes_apart = components_.placement().has_vae_apart();
  const bool on_cpu = components_.device().is_cpu();  // where all ranks share the memory
  const int64_t ranks = on_cpu ? 1 : sharing(options).ranks;
  const uint64_t needed =
      cache_bytes(config, plan.causal, dtype, plan.height, plan.width, ranks) +
      denoise_bytes(config.transformer, on_cpu ? at::kFloat : dtype, plan.causal.local_attn_size, plan.height,
                    plan.width, /*cached=*/false, ranks) +
      (decodes_apart ? 0 : decoding);
  require_video_memory(components_, options, needed, devices);
  if (decodes_apart) require_video_memory(components_, options, decoding, {components_.vae_device()});
  plan.keeps_text_encoder =
      (decodes_apart ? decoding : needed) + components_.encoder_bytes() <=
      (decodes_apart ? free_memory(components_.vae_device()) : least_free_memory(devices));
  return plan;
}

SectionSetup CausalPipeline::setup(const Plan &plan) const {
  const CheckpointConfig &config = components_.config();
  return {plan.causal,      config.transformer, components_.experts().all(),
          config.vae.z_dim, plan.height,        plan.width};
}

/// frame: [1, 3, 1, H, W] in [-1, 1]. Returns its latent.
at::Tensor CausalPipeline::encode_frame(const at::Tensor &frame, const RunContext &context) const {
  const AutoencoderKLWan &vae = components_.vae();
  return vae.normalize(vae.encode(frame, context)).to(components_.device());
}

at::Tensor CausalPipeline::encode_picture(const WanGenerateOptions &options,
                                          const RunContext &context) const {
  const at::Tensor picture = ask_for_picture(WAN_PICTURE_FIRST, context);
  return encode_frame(vae_pixels(picture, options.layout.height, options.layout.width), context);
}

at::Tensor CausalPipeline::encode_prompt(const char *prompt, const Plan &plan, const RunContext &context) {
  require_prompt(prompt);
  return encode_prompts_(prompt, plan.keeps_text_encoder, context);
}

at::Tensor CausalPipeline::denoise(SectionDenoiser &denoiser, const Plan &plan,
                                   const RunContext &context) const {
  const StageProgress progress(context, WAN_STAGE_DENOISE, static_cast<int32_t>(plan.causal.steps()));
  const at::Tensor latents = denoiser.next(context, [&](int32_t step) { progress.report(step); });
  if (!is_usable(latents))
    throw invalid("The denoised latents are not finite or are beyond 1e6: the weights of " +
                  components_.config().files.at("transformer").path() +
                  " or of a LoRA are damaged, or they are of another family than its gst-wan.json says");
  return latents;
}

/// Returns whether the section begins a scene.
bool CausalPipeline::change(const WanSection &section, const WanGenerateOptions &options, const Plan &plan,
                            SectionDenoiser &denoiser, const RunContext &context) {
  const WanPromptSwitch own = section.prompt ? plan.causal.prompt_switch : WAN_SWITCH_CROSS;
  const WanPromptSwitch how = section.prompt_switch == WAN_SWITCH_AUTO ? own : section.prompt_switch;
  const bool begins_scene = section.picture || how == WAN_SWITCH_CUT;
  if (section.picture && plan.causal.image_start == ImageStart::kNone)
    throw invalid("The model begins from no picture, and one was given in the midst of its video");
  if (section.prompt) denoiser.set_text(encode_prompt(section.prompt, plan, context), how);
  if (begins_scene) denoiser.begin_scene(section.picture ? encode_picture(options, context) : at::Tensor());
  return begins_scene;
}

void CausalPipeline::make_sections(SectionDenoiser &denoiser, const WanGenerateOptions &options,
                                   const Plan &plan, SectionOutput &output, const RunContext &context,
                                   const SectionListener &section_done) {
  int64_t left = options.num_frames ? options.num_frames : std::numeric_limits<int64_t>::max();
  int64_t place = 0, scene = 0;  // latent frames since all was forgotten: of the next section, of its scene
  WanSection section = {0, 0, nullptr, WAN_SWITCH_AUTO, false, options.seed};
  for (;;) {
    const at::Tensor latents = denoise(denoiser, plan, context);
    if (section_done) section_done(latents);
    const int64_t made = output.append(latents.to(components_.vae_device()), section.index, left);
    left -= made;
    place += latents.size(2);
    section = {section.index + 1, section.first_frame + static_cast<int32_t>(made),
               nullptr,           WAN_SWITCH_AUTO,
               /*picture=*/false, section.seed};
    if (left == 0 || !context.next_section(section)) break;
    if (!plan.causal.keep_first_frame) denoiser.set_anchor(encode_frame(output.kept_frame(), context));
    if (change(section, options, plan, denoiser, context)) {
      if (plan.causal.forgets_scenes(section.picture)) {
        output.begin_video();
        place = 0;
      }
      scene = place;
    }
    denoiser.set_noise(seeded_noise(section.seed, components_.device(), scene));
  }
}

void CausalPipeline::generate(const WanGenerateOptions &options, std::shared_ptr<FramePool> pool,
                              const RunContext &context, const SectionListener &section_done) {
  const Plan plan = this->plan(options);
  const at::Device device = components_.device();
  const at::Tensor text = encode_prompt(options.prompt, plan, context);
  FrameOutput frames(components_.vae(), components_.decoder(), options, std::move(pool), context);
  if (!plan.causal.keep_first_frame) frames.keep_frame_before_last(kRebuiltFrames - 1);
  SectionOutput output(frames, components_.vae_device(), decoding_of(components_, plan.causal));
  const int64_t section_frames = plan.causal.num_frames_per_block * components_.vae().temporal_scale();
  const int64_t sections = options.num_frames ? 1 + (options.num_frames - 1) / section_frames : 0;
  const auto denoiser =
      make_section_denoiser(setup(plan), text, seeded_noise(options.seed, device), sections);
  if (options.pictures[WAN_PICTURE_FIRST]) denoiser->begin_scene(encode_picture(options, context));
  try {
    make_sections(*denoiser, options, plan, output, context, section_done);
  } catch (const Error &failure) {
    // What was made before it is shown.
    if (failure.kind() != WAN_CANCELLED) output.finish();
    throw;
  }
  output.finish();
}

}  // namespace wan
