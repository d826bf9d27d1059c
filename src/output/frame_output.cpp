// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/frame_output.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "vae/tiled_decode.h"

namespace wan {

FrameOutput::FrameOutput(const AutoencoderKLWan &vae, const LatentDecoder &decoder,
                         const WanGenerateOptions &options, std::shared_ptr<FramePool> pool,
                         const RunContext &context)
    : vae_(vae),
      decoder_(decoder),
      context_(context),
      ring_(options.layout, vae.temporal_scale(),
            options.on_device ? FrameMemory::kDevice : FrameMemory::kHost, std::move(pool), context) {}

void FrameOutput::decode(const at::Tensor &latents, const Push &push,
                         const std::function<void()> &chunk_done) const {
  StreamState state;
  for (const at::Tensor &latent : latents.split(1, 2)) {
    context_.check();
    push(decoder_.decode_next(latent, state, context_));
    chunk_done();
  }
}

void FrameOutput::decode_in_tiles(const at::Tensor &latents, const Push &push,
                                  const std::function<void()> &chunk_done) const {
  const int64_t scale = vae_.temporal_scale();
  const at::Tensor video = tiled_decode(vae_, vae_.denormalize(latents), context_, chunk_done);
  for (int64_t first = 0; first < video.size(2); first += first ? scale : 1)
    push(video.narrow(2, first, first ? scale : 1).to(latents.device()));
}

int64_t FrameOutput::append(const at::Tensor &latents, int32_t section, bool begins, int64_t most) {
  if (begins) state_ = {};
  const auto steps = static_cast<int32_t>(latents.size(2));
  const StageProgress progress(context_, WAN_STAGE_DECODE, steps);
  int64_t frames = 0;
  for (int32_t step = 0; step < steps && frames < most; ++step) {
    context_.check();
    const at::Tensor decoded = decoder_.decode_next(latents.narrow(2, step, 1), state_, context_);
    if (kept_before_ && step + 1 + *kept_before_ == steps)
      kept_frame_ = decoded.narrow(2, decoded.size(2) - 1, 1).clone();
    const int64_t leaving = std::min(most - frames, decoded.size(2));
    ring_.push(decoded.narrow(2, 0, leaving), section);
    frames += leaving;
    progress.report(step + 1);
  }
  return frames;
}

at::Tensor FrameOutput::operator()(const at::Tensor &latents, const FrameRange &range, bool tiled,
                                   Crossfade &fade, Colours *colours) {
  const int64_t scale = vae_.temporal_scale();
  const int64_t chunks = 1 + (range.end - 1 + scale - 1) / scale;  // the first gives one frame
  const at::Tensor used = latents.narrow(2, 0, chunks);
  const int64_t passes = tiled ? Tiling(vae_).count(latents.size(3), latents.size(4)) : 1;
  const auto steps = static_cast<int32_t>(passes * chunks);
  const StageProgress progress(context_, WAN_STAGE_DECODE, steps);
  int32_t done = 0;
  const auto chunk_done = [&] {
    if (++done < steps) progress.report(done);
  };
  int64_t decoded = 0;
  at::Tensor last;
  const auto push = [&](const at::Tensor &chunk) {
    const int64_t first = decoded;
    decoded = std::min(range.end, first + chunk.size(2));  // the last chunk may be used in part
    if (decoded == range.end) last = chunk.narrow(2, decoded - first - 1, 1).clone();
    if (colours) colours->add(chunk.narrow(2, 0, decoded - first));
    if (first == 0 && range.without_first && range.end > 1) return;
    const at::Tensor leaving = fade(chunk.narrow(2, 0, decoded - first));
    if (leaving.defined()) ring_.push(leaving);
  };
  tiled ? decode_in_tiles(used, push, chunk_done) : decode(used, push, chunk_done);
  ring_.finish();
  progress.report(steps);  // not before: its seconds are those of the whole decode
  return last;
}

}  // namespace wan
