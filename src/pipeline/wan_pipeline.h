// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Text to video: diffusers.pipelines.wan.pipeline_wan.WanPipeline, with the decoder as a stream.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/lora.h"
#include "checkpoint/weights.h"
#include "pipeline/crossfade.h"
#include "pipeline/frame_ring.h"
#include "pipeline/memory_mode.h"
#include "run_context.h"
#include "scheduler/scheduler.h"
#include "text/prompt_clean.h"
#include "text/tokenizer.h"
#include "text/umt5_encoder.h"
#include "transformer/wan_transformer_3d.h"
#include "vae/autoencoder_kl_wan.h"

namespace wan {

/// Where the weights of the four components come from: a checkpoint, or random numbers in a benchmark.
class ComponentSource {
 public:
  virtual ~ComponentSource() = default;
  /// component: "text_encoder", "transformer", "transformer_2" or "vae".
  virtual std::unique_ptr<WeightSource> open(const std::string &component) = 0;
  /// Called when a component has taken all it needs; throws where that was not all there is.
  virtual void close(const std::string &component, const WeightSource &source) = 0;
};

class WanPipeline {
 public:
  /// Loads all components but, on CUDA, the text encoder: it is as large as an expert, works for a moment and
  /// would take the memory of the denoiser, so it comes and goes with each new prompt. `dtype` is that of all
  /// components, but on the CPU the VAE's is float32.
  WanPipeline(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source, Tokenizer tokenizer,
              at::Device device, at::ScalarType dtype, WanQuantization quantization, WanMemoryMode memory);

  /// Hears the latents after each denoising step, [1, z_dim, T, H, W].
  using StepListener = std::function<void(const at::Tensor &latents)>;

  /// Throws wan::Error.
  void generate(const WanGenerateOptions &options, const RunContext &context,
                const StepListener &step_done = {});

  at::Device device() const { return device_; }
  /// RESIDENT, ONE_EXPERT or STREAM.
  WanMemoryMode memory_mode() const { return memory_mode_; }
  /// The modes in which the model would take less of the GPU and fit the host, to begin an advice with:
  /// "memory=stream, ", or nothing.
  std::string smaller_memory_modes() const;
  /// Of the pool that decoded frames lie in. Callable from any thread.
  uint64_t pool_bytes() const { return frame_pool_->bytes(); }

 private:
  struct PromptEmbedding {
    std::string prompt;
    at::Tensor embedding;  // [1, 512, d_model], zero beyond the prompt
  };

  /// What the last clip of a stream kept for a crossfade with the next.
  struct Tail {
    uint64_t stream;
    at::Tensor frames;
  };

  template <typename Model, typename Config, typename... Arguments>
  std::unique_ptr<const Model> load(const std::string &component, const Config &config, at::ScalarType dtype,
                                    const RunContext &context, const std::set<std::string> &keep_in_fp32 = {},
                                    Arguments &&...arguments) const;
  /// None where all blocks stay on the device.
  std::shared_ptr<BlockSlots> make_block_slots() const;

  /// Of the latents of a clip, [1, z_dim, frames, height, width].
  struct LatentSize {
    int64_t frames, height, width;
  };
  LatentSize latent_size(const WanGenerateOptions &options) const;
  /// Whether the clip must be decoded in tiles, since it does not fit the free memory else: asked once, since
  /// free memory may change while the clip is made. Throws wan::Error where it cannot be made.
  bool check(const WanGenerateOptions &options) const;
  void require_memory(const WanGenerateOptions &options, uint64_t needed, at::Device device) const;
  /// Of the prompt and, where there is guidance, of the negative prompt.
  std::pair<at::Tensor, at::Tensor> embed(const WanGenerateOptions &options, const RunContext &context);
  at::Tensor embed(PromptEmbedding &cached, const std::string &prompt, const RunContext &context);
  at::Tensor denoise(const WanGenerateOptions &options, Scheduler &scheduler, const at::Tensor &prompt,
                     const at::Tensor &negative, const RunContext &context,
                     const StepListener &step_done) const;
  void require_usable(const at::Tensor &latents, const WanGenerateOptions &options) const;
  /// The first so many frames of a clip. latents: [1, z_dim, T, H, W]. In tiles, the first frame comes when
  /// all are decoded.
  void decode(const at::Tensor &latents, int64_t frames, bool tiled, Crossfade &fade, FrameRing &ring,
              const RunContext &context) const;

  /// Undefined where the stream has none. It is gone then.
  at::Tensor take_tail(uint64_t stream);
  void keep_tail(uint64_t stream, at::Tensor frames);

  const CheckpointConfig config_;
  const std::unique_ptr<ComponentSource> source_;
  const Tokenizer tokenizer_;
  const at::Device device_;
  const at::ScalarType dtype_;
  const WanMemoryMode memory_mode_;
  std::unique_ptr<const UMT5EncoderModel> text_encoder_;  // none while it is off the GPU
  std::unique_ptr<const WanTransformer3DModel> transformer_, transformer_2_;
  std::unique_ptr<const AutoencoderKLWan> vae_;
  PromptEmbedding prompt_, negative_prompt_;  // of the last clip
  std::deque<Tail> tails_;                    // of streams, the newest last
  const std::shared_ptr<FramePool> frame_pool_;
};

/// The components of a checkpoint directory, with LoRAs merged into the experts. `context` gets warnings of
/// what is left out of these, now. `progress` hears the bytes read and the bytes in all; it may throw.
std::unique_ptr<ComponentSource> open_checkpoint(const CheckpointConfig &config, std::vector<Lora> loras,
                                                 at::Device device, const RunContext &context,
                                                 std::function<void(uint64_t, uint64_t)> progress);

}  // namespace wan
