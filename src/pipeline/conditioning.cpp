// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/conditioning.h"

#include <ATen/ATen.h>
#include <c10/util/ScopeExit.h>

#include <vector>

#include "device.h"
#include "image/image_processor.h"
#include "vae/tiled_encode.h"

namespace wan {

namespace {

/// [1, C, T, h, w] float32: of the C frames that a latent frame stands for, those that are known. The first
/// one stands for the first frame alone, C times.
at::Tensor known_frames_mask(int64_t channels, const ClipPlan &plan, bool last, at::Device device) {
  const at::Tensor mask =
      at::zeros({1, channels, plan.frames, plan.height, plan.width}, at::dtype(at::kFloat).device(device));
  mask.select(2, 0).fill_(1);
  if (last) mask.select(2, plan.frames - 1).select(1, channels - 1).fill_(1);
  return mask;
}

}  // namespace

/// Counts what is encoded of a clip's pictures.
class Conditioning::Progress {
 public:
  Progress(const Components &components, const ClipPlan &plan, const RunContext &context)
      : device_(components.vae_device()), stage_(context, WAN_STAGE_PICTURES, encodings(components, plan)) {}

  void advance() {
    synchronize(device_);
    stage_.report(++done_);
  }

 private:
  static int32_t encodings(const Components &components, const ClipPlan &plan) {
    const int64_t parts =
        plan.encodes_in_tiles ? Tiling::encoding(components.vae()).count(plan.height, plan.width) : 1;
    return static_cast<int32_t>(parts) + (components.config().image_encoder ? 1 : 0);
  }

  const at::Device device_;
  const StageProgress stage_;
  int32_t done_ = 0;
};

at::Tensor Conditioning::encode(const Video &video, const ClipPlan &plan, const RunContext &context,
                                Progress &progress) const {
  const AutoencoderKLWan &vae = components_.vae();
  if (plan.encodes_in_tiles)
    return vae.normalize(tiled_encode(vae, video, context, [&progress] { progress.advance(); }));
  const at::Tensor latents = vae.normalize(vae.encode(video, context));
  progress.advance();
  return latents;
}

/// What lies between the ends is grey.
at::Tensor Conditioning::channels(const Frames &frames, const WanGenerateOptions &options,
                                  const ClipPlan &plan, const RunContext &context, Progress &progress) const {
  const at::Tensor latents =
      encode(Video(frames.first, frames.last, options.num_frames), plan, context, progress);
  return at::cat(
      {known_frames_mask(components_.vae().temporal_scale(), plan, frames.last.defined(), latents.device()),
       latents},
      1);
}

at::Tensor Conditioning::clip_tokens(const ClipEnds &ends, const ClipPlan &plan, const RunContext &context) {
  const auto release = c10::make_scope_exit([&] {
    if (!plan.keeps_encoders) components_.release_encoders();
  });
  const CLIPVisionModel &encoder = components_.image_encoder(context);
  const int64_t size = components_.config().image_encoder->image_size;
  std::vector<at::Tensor> pixels = {
      clip_pixels(ends.kept_frame.defined() ? picture_of(ends.kept_frame) : ends.pictures.first, size)};
  if (ends.pictures.last.defined()) pixels.push_back(clip_pixels(ends.pictures.last, size));
  return encoder(at::cat(pixels).to(components_.vae_device()), context);
}

Conditioning::Frames Conditioning::frames_of(const ClipEnds &ends, const WanGenerateOptions &options) const {
  const int64_t height = options.layout.height, width = options.layout.width;
  const auto resized = [&](const at::Tensor &picture) {
    return picture.defined() ? vae_pixels(picture, height, width).to(components_.vae_device()) : at::Tensor();
  };
  const at::Tensor &kept = ends.kept_frame;
  if (!kept.defined()) return {resized(ends.pictures.first), resized(ends.pictures.last)};
  const bool fits = kept.size(3) == height && kept.size(4) == width;
  return {fits ? kept : resized(picture_of(kept)), resized(ends.pictures.last)};
}

void Conditioning::operator()(const ClipEnds &ends, const WanGenerateOptions &options, const ClipPlan &plan,
                              const RunContext &context, ModelInputs &inputs) {
  if (!ends.kept_frame.defined() && !ends.pictures.first.defined()) return;
  Progress progress(components_, plan, context);
  const Frames frames = frames_of(ends, options);
  switch (components_.config().variant->traits.picture_input) {
    case PictureInput::kChannels:
      inputs.channels = channels(frames, options, plan, context, progress).to(components_.device());
      break;
    case PictureInput::kCleanFrame:
      inputs.clean_frame = encode(frames.first, plan, context, progress).to(components_.device());
      break;
    case PictureInput::kNone:
      break;
  }
  if (!components_.config().image_encoder) return;
  inputs.image = clip_tokens(ends, plan, context);
  progress.advance();
}

}  // namespace wan
