// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/clip_pipeline.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/ScopeExit.h>

#include <string>
#include <utility>

#include "device.h"
#include "output/colours.h"
#include "output/crossfade.h"
#include "output/frame_output.h"
#include "pipeline/check_options.h"
#include "pipeline/denoiser.h"

namespace wan {

ClipPipeline::ClipPipeline(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source,
                           Tokenizer tokenizer, const Placement &placement, WanMemoryMode memory,
                           std::unique_ptr<NegativeDenoiser> negative)
    : components_(config, std::move(source), std::move(tokenizer), placement, memory),
      encode_prompts_(components_),
      condition_(components_),
      causal_(components_, encode_prompts_),
      frame_pool_(std::make_shared<FramePool>(placement.of_vae())),
      negative_(std::move(negative)) {}

at::Tensor ClipPipeline::denoise(const WanGenerateOptions &options, const ClipPlan &plan,
                                 const ModelInputs &inputs, const RunContext &context,
                                 const StepListener &step_done) {
  const CheckpointConfig &config = components_.config();
  const auto scheduler = make_scheduler(config.scheduler, options);
  // From a CPU generator, so that a seed gives the same video on every device.
  const at::Generator generator = at::detail::createCPUGenerator(options.seed);
  at::Tensor latents =
      at::randn({1, config.vae.z_dim, plan.frames, plan.height, plan.width}, generator, at::dtype(at::kFloat))
          .to(components_.device());
  const size_t steps = scheduler->timesteps().size();
  const StageProgress progress(context, WAN_STAGE_DENOISE, static_cast<int32_t>(steps));
  NegativeDenoiser *const negative = is_guided(options) ? negative_.get() : nullptr;
  const auto end_clip = c10::make_scope_exit([negative] {
    if (negative) negative->end_clip();
  });
  if (negative) negative->begin_clip(options, inputs, scheduler->timesteps(), context);
  Denoiser denoiser(components_.experts(), options, plan, inputs, scheduler->timesteps(), negative);
  for (size_t step = 0; step < steps; ++step) {
    latents = scheduler->step(denoiser(step, latents, context), latents);
    tell_sharing(denoiser.sharing(), context);
    synchronize(components_.device());
    progress.report(static_cast<int32_t>(step) + 1, denoiser.cached());
    if (step_done) step_done(latents);
  }
  latents = inputs.with_clean_frame(latents);
  require_usable(latents, options);
  return latents;
}

void ClipPipeline::tell_sharing(const RankSharing &sharing, const RunContext &context) {
  if (sharing_.exchange(sharing) == sharing) return;
  context.log(WAN_LOG_INFO, "Each step is shared by " + std::to_string(sharing.predictions * sharing.ranks) +
                                " devices: guidance by " + std::to_string(sharing.predictions) +
                                ", and the sequence of each prediction by " + std::to_string(sharing.ranks));
}

/// Once, after the last step: what is not finite stays so from step to step.
void ClipPipeline::require_usable(const at::Tensor &latents, const WanGenerateOptions &options) const {
  if (is_usable(latents)) return;
  const CheckpointConfig &config = components_.config();
  std::string weights = config.files.at("transformer").path();
  if (config.transformer_2) weights += " or " + config.files.at("transformer_2").path();
  throw invalid("The denoised latents are not finite or are beyond 1e6: the weights of " + weights +
                " or of a LoRA are damaged, or guidance-scale=" + number_text(options.guidance_scale) +
                ", guidance-scale-2=" + number_text(options.guidance_scale_2) +
                " or flow-shift=" + number_text(options.flow_shift) + " is too large");
}

at::Tensor ClipPipeline::kept_frame(const WanGenerateOptions &options) const {
  const at::Tensor frame = last_frames_.find(options.stream), colours = colours_.find(options.stream);
  if (!frame.defined() || !colours.defined() || options.continuity_correction == 0) return frame;
  return with_colours(frame, colours, options.continuity_correction);
}

ClipEnds ClipPipeline::find_ends(const WanGenerateOptions &options, const RunContext &context) const {
  ClipEnds ends = {ask_for_pictures(options, context), {}};
  if (options.continuity == WAN_CONTINUITY_LAST_FRAME && !ends.pictures.first.defined())
    ends.kept_frame = kept_frame(options);
  const bool lacks_first = !ends.kept_frame.defined() && !ends.pictures.first.defined();
  if (lacks_first && components_.config().variant->first_picture == WAN_PICTURE_REQUIRED)
    throw invalid("No clip comes before this one that it could begin with the last frame of: set image");
  return ends;
}

void ClipPipeline::generate(const WanGenerateOptions &options, const RunContext &context,
                            const StepListener &step_done) {
  const c10::DeviceGuard guard(components_.device());
  if (components_.config().causal) {
    tell_sharing(causal_.sharing(options), context);
    return causal_.generate(options, frame_pool_, context, step_done);
  }
  // Gone unless this clip ends well and is followed by another.
  Crossfade fade(options.fade_frames, decoded_frames(options), tails_.take(options.stream),
                 [&context] { return context.is_followed(); });
  const ClipPlan plan = plan_clip(components_, options);
  const ClipEnds ends = find_ends(options, context);
  ModelInputs inputs = {encode_prompts_(options, plan.keeps_encoders, context), {}, {}, {}};
  condition_(ends, options, plan, context, inputs);
  // Made before denoising, so that the first chunk waits for no allocation.
  FrameOutput output(components_.vae(), components_.decoder(), options, frame_pool_, context);
  const at::Tensor latents = denoise(options, plan, inputs, context, step_done);
  const FrameRange range = {ends.kept_frame.defined(), decoded_frames(options)};
  const bool begins_film = options.continuity == WAN_CONTINUITY_LAST_FRAME && !ends.kept_frame.defined();
  Colours colours;
  const at::Tensor last_frame =
      output(latents.to(components_.vae_device()), range, plan.tiled, fade, begins_film ? &colours : nullptr);
  tails_.keep(options.stream, fade.tail());
  if (begins_film) colours_.keep(options.stream, colours.statistics());
  if (options.continuity == WAN_CONTINUITY_LAST_FRAME) last_frames_.keep(options.stream, last_frame);
}

}  // namespace wan
