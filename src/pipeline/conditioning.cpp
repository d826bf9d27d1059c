// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/conditioning.h"

#include <ATen/ATen.h>
#include <c10/util/ScopeExit.h>

#include <vector>

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

at::Tensor Conditioning::encode(const at::Tensor &video, const ClipPlan &plan,
                                const RunContext &context) const {
  const AutoencoderKLWan &vae = components_.vae();
  const at::Tensor latents =
      plan.encodes_in_tiles ? tiled_encode(vae, video, context, [] {}) : vae.encode(video, context);
  return vae.normalize(latents);
}

/// What lies between the ends is grey.
at::Tensor Conditioning::channels(const Frames &frames, const WanGenerateOptions &options,
                                  const ClipPlan &plan, const RunContext &context) const {
  const at::Tensor video = at::zeros({1, 3, options.num_frames, options.layout.height, options.layout.width});
  video.narrow(2, 0, 1).copy_(frames.first);
  if (frames.last.defined()) video.narrow(2, options.num_frames - 1, 1).copy_(frames.last);
  const at::Tensor latents = encode(video, plan, context);
  return at::cat(
      {known_frames_mask(components_.vae().temporal_scale(), plan, frames.last.defined(), latents.device()),
       latents},
      1);
}

at::Tensor Conditioning::clip_tokens(const ClipEnds &ends, const RunContext &context) {
  const auto release = c10::make_scope_exit([this] { components_.release_encoders(); });
  const CLIPVisionModel &encoder = components_.image_encoder(context);
  const int64_t size = components_.config().image_encoder->image_size;
  std::vector<at::Tensor> pixels = {
      clip_pixels(ends.kept_frame.defined() ? picture_of(ends.kept_frame) : ends.pictures.first, size)};
  if (ends.pictures.last.defined()) pixels.push_back(clip_pixels(ends.pictures.last, size));
  return encoder(at::cat(pixels).to(components_.device()), context);
}

void Conditioning::operator()(const ClipEnds &ends, const WanGenerateOptions &options, const ClipPlan &plan,
                              const RunContext &context, ModelInputs &inputs) {
  const int64_t height = options.layout.height, width = options.layout.width;
  const auto resized = [&](const at::Tensor &picture) {
    return picture.defined() ? vae_pixels(picture, height, width) : at::Tensor();
  };
  Frames frames = {ends.kept_frame, resized(ends.pictures.last)};
  if (!frames.first.defined())
    frames.first = resized(ends.pictures.first);
  else if (frames.first.size(3) != height || frames.first.size(4) != width)
    frames.first = resized(picture_of(frames.first));
  if (!frames.first.defined()) return;
  switch (components_.config().variant->traits.picture_input) {
    case PictureInput::kChannels:
      inputs.channels = channels(frames, options, plan, context);
      break;
    case PictureInput::kCleanFrame:
      inputs.clean_frame = encode(frames.first, plan, context);
      break;
    case PictureInput::kNone:
      break;
  }
  if (components_.config().image_encoder) inputs.image = clip_tokens(ends, context);
}

}  // namespace wan
