// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/wan_pipeline.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/ScopeExit.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "device.h"
#include "pipeline/check_options.h"
#include "transformer/block_store.h"
#include "vae/tiled_decode.h"

namespace wan {

namespace {

// Streams that take turns each keep theirs; one that was stopped leaves its own behind, which must not add
// up.
constexpr size_t kMaxTails = 4;
constexpr int64_t kTextTokens = 512;  // the transformer attends to all of them, padding too

class CheckpointComponents : public ComponentSource {
 public:
  CheckpointComponents(const CheckpointConfig &config, std::vector<Lora> loras, at::Device device,
                       const RunContext &context, std::function<void(uint64_t, uint64_t)> progress)
      : files_(config.files), loras_(std::move(loras)), device_(device), progress_(std::move(progress)) {
    std::vector<std::string> components = {"text_encoder", "transformer", "vae"};
    if (config.transformer_2) components.push_back("transformer_2");
    for (const Lora &lora : loras_)
      if (!config.transformer_2 && lora.strength == 0 && lora.strength_2 != 0)
        throw invalid("The LoRA " + lora.file.path() + " is for transformer_2 alone, which " +
                      config.directory.string() + " has not");
    // Opening all files first finds a missing or broken one before the first byte is copied.
    for (const std::string &component : components) {
      bytes_ += open_files(component)->bytes();
      open(component);
    }
    for (const std::string &warning : warnings_) context.log(WAN_LOG_WARNING, warning);
  }

  std::unique_ptr<WeightSource> open(const std::string &component) override {
    std::unique_ptr<CheckpointWeights> weights = open_files(component);
    const auto changes = [&component](const Lora &lora) { return lora.strength_for(component) != 0; };
    if (std::none_of(loras_.begin(), loras_.end(), changes)) return weights;
    const TensorShapes shapes = weights->shapes();
    auto merged = std::make_unique<LoraWeights>(std::move(weights), shapes, loras_, component);
    warnings_.insert(merged->warnings().begin(), merged->warnings().end());
    return merged;
  }

  void close(const std::string &component, const WeightSource &source) override {
    // The text encoder's embedding may be stored under a second name as well, a file of the whole UMT5 has
    // its decoder too, and ComfyUI's holds the tokenizer's model.
    static const std::map<std::string, std::vector<std::string>> ignored = {
        {"vae", AutoencoderKLWan::kEncoderTensors},
        {"text_encoder", {kTiedEmbedding, "decoder.", "lm_head.", "spiece_model"}}};
    const auto found = ignored.find(component);
    source.check_all_loaded(found == ignored.end() ? std::vector<std::string>() : found->second);
  }

 private:
  std::unique_ptr<CheckpointWeights> open_files(const std::string &component) {
    return std::make_unique<CheckpointWeights>(files_.at(component), device_, [this](uint64_t bytes) {
      bytes_read_ += bytes;
      progress_(bytes_read_, bytes_);
    });
  }

  const std::map<std::string, ComponentFiles> files_;
  const std::vector<Lora> loras_;
  const at::Device device_;
  const std::function<void(uint64_t, uint64_t)> progress_;
  uint64_t bytes_ = 0, bytes_read_ = 0;
  std::set<std::string> warnings_;  // both experts have the same of a LoRA
};

/// Whether all values are finite, and none so large that the models' arithmetic would overflow.
bool is_usable(const at::Tensor &values) {
  constexpr double kGreatest = 1e6;
  return values.abs().max().item<double>() <= kGreatest;  // false of NaN
}

/// Refuses values that no picture can come of. For the VAE, whose frames leave as they are made.
class UsableWeights : public WeightSource {
 public:
  UsableWeights(WeightSource &source, const CheckpointConfig &config, std::string component)
      : source_(source), config_(config), component_(std::move(component)) {}
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override {
    at::Tensor tensor = source_.load(name, shape, dtype);
    if (!is_usable(tensor))
      throw invalid(config_.files.at(component_).path() + ": tensor '" + printable(name) +
                    "' is not finite or is beyond 1e6");
    return tensor;
  }

 private:
  WeightSource &source_;
  const CheckpointConfig &config_;
  const std::string component_;
};

/// Asks before each tensor whether to go on.
class CancellableWeights : public WeightSource {
 public:
  CancellableWeights(WeightSource &source, const RunContext &context) : source_(source), context_(context) {}
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override {
    context_.check();
    return source_.load(name, shape, dtype);
  }
  std::optional<ScaledFp8> load_fp8(const std::string &name, at::IntArrayRef shape) override {
    context_.check();
    return source_.load_fp8(name, shape);
  }

 private:
  WeightSource &source_;
  const RunContext &context_;
};

/// As Diffusers decides it: by the first scale, for both experts.
bool is_guided(const WanGenerateOptions &options) {
  return options.guidance_scale > 1;
}

std::string describe_size(const WanGenerateOptions &options) {
  return std::to_string(options.layout.width) + "x" + std::to_string(options.layout.height) + " with " +
         std::to_string(options.num_frames) + " frames";
}

/// An expert, and what it keeps of one prompt from step to step.
class Predictor {
 public:
  Predictor(const WanTransformer3DModel &expert, const at::Tensor &prompt, const WanGenerateOptions &options)
      : expert_(expert), text_(expert.encode_text(prompt)) {
    if (options.cache == WAN_CACHE_FIRST_BLOCK) cache_ = std::make_unique<StepCache>(options.cache_threshold);
  }
  at::Tensor operator()(const at::Tensor &latents, double timestep, const RotaryEmbedding &rotary,
                        const RunContext &context) {
    return expert_(latents, timestep, text_, rotary, context, cache_.get());
  }
  /// Whether the last prediction was made with the cache.
  bool skipped() const { return cache_ && cache_->skipped(); }

 private:
  const WanTransformer3DModel &expert_;
  WanTransformer3DModel::TextContext text_;
  std::unique_ptr<StepCache> cache_;
};

}  // namespace

std::unique_ptr<ComponentSource> open_checkpoint(const CheckpointConfig &config, std::vector<Lora> loras,
                                                 at::Device device, const RunContext &context,
                                                 std::function<void(uint64_t, uint64_t)> progress) {
  return std::make_unique<CheckpointComponents>(config, std::move(loras), device, context,
                                                std::move(progress));
}

WanPipeline::WanPipeline(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source,
                         Tokenizer tokenizer, at::Device device, at::ScalarType dtype,
                         WanQuantization quantization, WanMemoryMode memory)
    : config_(config),
      source_(std::move(source)),
      tokenizer_(std::move(tokenizer)),
      device_(device),
      dtype_(dtype),
      memory_mode_(choose_memory_mode(memory, config, dtype, quantization, device)),
      frame_pool_(std::make_shared<FramePool>(device)) {
  if (quantization == WAN_QUANTIZATION_FP8 && !device.is_cpu() &&
      (dtype != at::kBFloat16 || compute_capability(device) < kLeastFp8Capability))
    throw invalid(
        "quantization=fp8 needs dtype=bfloat16 and a GPU with FP8 tensor cores (compute capability 8.9 or "
        "above)");
  const c10::DeviceGuard guard(device);
  // The source itself asks whether to go on.
  const RunContext unasked({});
  const std::shared_ptr<BlockSlots> slots = make_block_slots();
  transformer_ = load<WanTransformer3DModel>("transformer", config.transformer, dtype, unasked,
                                             WanTransformer3DModel::kKeepInFp32, quantization, slots);
  if (config.transformer_2)
    transformer_2_ = load<WanTransformer3DModel>("transformer_2", *config.transformer_2, dtype, unasked,
                                                 WanTransformer3DModel::kKeepInFp32, quantization, slots);
  vae_ = load<AutoencoderKLWan>("vae", config.vae, vae_dtype(dtype, device), unasked);
  if (device.is_cpu())
    text_encoder_ = load<UMT5EncoderModel>("text_encoder", config.text_encoder, dtype, unasked);
}

template <typename Model, typename Config, typename... Arguments>
std::unique_ptr<const Model> WanPipeline::load(const std::string &component, const Config &config,
                                               at::ScalarType dtype, const RunContext &context,
                                               const std::set<std::string> &keep_in_fp32,
                                               Arguments &&...arguments) const {
  const std::unique_ptr<WeightSource> weights = source_->open(component);
  WeightInventory inventory;
  const Model without_weights(config, Weights(inventory, dtype, keep_in_fp32));
  weights->expect(inventory.requests());
  CancellableWeights cancellable(*weights, context);
  UsableWeights usable(cancellable, config_, component);
  WeightSource &checked = component == "vae" ? static_cast<WeightSource &>(usable) : cancellable;
  auto model = std::make_unique<const Model>(config, Weights(checked, dtype, keep_in_fp32),
                                             std::forward<Arguments>(arguments)...);
  source_->close(component, *weights);
  return model;
}

std::shared_ptr<BlockSlots> WanPipeline::make_block_slots() const {
  if (memory_mode_ == WAN_MEMORY_STREAM) return std::make_shared<BlockSlots>(device_, kStreamSlots);
  if (memory_mode_ != WAN_MEMORY_ONE_EXPERT) return nullptr;
  const int64_t blocks = std::max(config_.transformer.num_layers, config_.transformer_2->num_layers);
  return std::make_shared<BlockSlots>(device_, static_cast<size_t>(blocks));
}

WanPipeline::LatentSize WanPipeline::latent_size(const WanGenerateOptions &options) const {
  const VaeConfig &vae = config_.vae;
  return {(options.num_frames - 1) / vae.temporal_scale() + 1, options.layout.height / vae.spatial_scale(),
          options.layout.width / vae.spatial_scale()};
}

std::string WanPipeline::smaller_memory_modes() const {
  const uint64_t blocks = transformer_->block_bytes() + (transformer_2_ ? transformer_2_->block_bytes() : 0);
  // In the other modes they are there already.
  if (memory_mode_ == WAN_MEMORY_RESIDENT && blocks + kHostReserve > free_memory(at::kCPU)) return "";
  return wan::smaller_memory_modes(memory_mode_, transformer_2_ != nullptr);
}

void WanPipeline::require_memory(const WanGenerateOptions &options, uint64_t needed,
                                 at::Device device) const {
  const uint64_t free = free_memory(device);
  if (needed <= free) return;
  const std::string modes = device.is_cpu() ? "" : smaller_memory_modes();
  throw Error(WAN_OUT_OF_MEMORY, "A video of " + describe_size(options) + " needs about " +
                                     std::to_string(needed >> 20) + " MiB of memory, and " +
                                     std::to_string(free >> 20) + " MiB are free: choose " + modes +
                                     "a smaller width, height or number of frames");
}

bool WanPipeline::check(const WanGenerateOptions &options) const {
  check_options(config_, options);
  check_size(config_, options.layout.width, options.layout.height);
  if (!options.prompt || !options.negative_prompt) throw invalid("A prompt is missing");
  if (options.on_device && !device_.is_cuda())
    throw invalid(
        "Frames can only stay on a GPU where the model is on one, and this model is on the CPU");
  const WanPixelLayout &layout = options.layout;
  const auto [frames, height, width] = latent_size(options);
  // The reference operations, which the CPU has, compute in float32.
  const at::ScalarType activations = device_.is_cpu() ? at::kFloat : dtype_;
  const bool cached = options.cache != WAN_CACHE_NONE;
  require_memory(options, denoise_bytes(config_.transformer, activations, frames, height, width, cached),
                 device_);
  if (vae_->decode_bytes(height, width) <= free_memory(device_)) return false;
  require_memory(options, tiled_decode_bytes(*vae_, height, width), device_);
  // Decoded in tiles, the whole clip waits in host memory, in float32.
  const auto pixels = static_cast<uint64_t>(layout.width) * static_cast<uint64_t>(layout.height);
  const uint64_t values = pixels * 3 * static_cast<uint64_t>(decoded_frames(options));
  require_memory(options, values * sizeof(float), at::kCPU);
  return true;
}

at::Tensor WanPipeline::embed(PromptEmbedding &cached, const std::string &prompt, const RunContext &context) {
  if (cached.embedding.defined() && cached.prompt == prompt) return cached.embedding;
  const std::vector<int32_t> tokens = tokenizer_(prompt_clean(prompt, context), kTextTokens, context);
  // On CUDA an index beyond the embedding would take the whole context down.
  if (std::max(tokenizer_.pad_id(), *std::max_element(tokens.begin(), tokens.end())) >=
      config_.text_encoder.vocab_size)
    throw invalid(config_.tokenizer.string() + " gives ids beyond the text encoder's vocab_size");
  if (!text_encoder_)
    text_encoder_ = load<UMT5EncoderModel>("text_encoder", config_.text_encoder, dtype_, context);
  const auto length = static_cast<int64_t>(tokens.size());
  at::Tensor ids = at::full({1, kTextTokens}, tokenizer_.pad_id(), at::kLong);
  ids[0].narrow(0, 0, length).copy_(at::tensor(tokens));
  const at::Tensor mask = (at::arange(kTextTokens) < length).to(at::kLong).unsqueeze(0);
  const at::Tensor encoded = (*text_encoder_)(ids.to(device_), mask.to(device_), context);
  if (!is_usable(encoded.narrow(1, 0, length)))
    throw invalid(config_.files.at("text_encoder").path() +
                  ": what it makes of the prompt is not finite or is beyond 1e6: its weights are damaged");
  // Padding is zero to the transformer, not what the encoder makes of it.
  cached = {prompt, encoded.masked_fill((mask == 0).unsqueeze(-1).to(device_), 0)};
  return cached.embedding;
}

std::pair<at::Tensor, at::Tensor> WanPipeline::embed(const WanGenerateOptions &options,
                                                     const RunContext &context) {
  // However this ends: the text encoder would take the denoiser's memory.
  const auto unload = c10::make_scope_exit([this] {
    if (!device_.is_cpu()) text_encoder_.reset();
  });
  const StageProgress progress(context, WAN_STAGE_TEXT, is_guided(options) ? 2 : 1);
  const at::Tensor prompt = embed(prompt_, options.prompt, context);
  progress.report(1);
  if (!is_guided(options)) return {prompt, {}};
  const at::Tensor negative = embed(negative_prompt_, options.negative_prompt, context);
  progress.report(2);
  return {prompt, negative};
}

at::Tensor WanPipeline::denoise(const WanGenerateOptions &options, Scheduler &scheduler,
                                const at::Tensor &prompt, const at::Tensor &negative,
                                const RunContext &context, const StepListener &step_done) const {
  const auto [frames, height, width] = latent_size(options);
  // From a CPU generator, so that a seed gives the same video on every device.
  const at::Generator generator = at::detail::createCPUGenerator(options.seed);
  at::Tensor latents =
      at::randn({1, config_.vae.z_dim, frames, height, width}, generator, at::dtype(at::kFloat)).to(device_);

  const double boundary =
      config_.boundary_ratio.value_or(0) * static_cast<double>(config_.scheduler.num_train_timesteps);
  const auto steps = static_cast<int32_t>(scheduler.timesteps().size());
  const StageProgress progress(context, WAN_STAGE_DENOISE, steps);
  const RotaryEmbedding rotary = transformer_->rotary(frames, height, width);

  const auto is_high_noise = [&](int32_t step) {
    return !transformer_2_ || scheduler.timesteps()[static_cast<size_t>(step)] >= boundary;
  };
  const auto expert_of = [&](int32_t step) {
    return is_high_noise(step) ? transformer_.get() : transformer_2_.get();
  };
  const WanTransformer3DModel *expert = nullptr;
  std::unique_ptr<Predictor> predict, predict_negative;
  int32_t cached = 0;
  for (int32_t step = 0; step < steps; ++step) {
    const double timestep = scheduler.timesteps()[static_cast<size_t>(step)];
    // With a scale of 1 the unguided prediction would cancel out.
    const double scale = is_high_noise(step) ? options.guidance_scale : options.guidance_scale_2;
    const bool guided = is_guided(options) && scale != 1;
    if (expert_of(step) != expert) {
      expert = expert_of(step);
      predict.reset();  // both, so that the new ones find their memory
      predict_negative.reset();
      predict = std::make_unique<Predictor>(*expert, prompt, options);
      if (guided) predict_negative = std::make_unique<Predictor>(*expert, negative, options);
    }
    // After the last step comes the first one of the next clip.
    const WanTransformer3DModel &next = *expert_of((step + 1) % steps);
    expert->followed_by(guided ? *expert : next);
    at::Tensor velocity = (*predict)(latents, timestep, rotary, context);
    cached += predict->skipped();
    if (guided) {
      expert->followed_by(next);
      const at::Tensor unconditional = (*predict_negative)(latents, timestep, rotary, context);
      cached += predict_negative->skipped();
      velocity = unconditional + (velocity - unconditional) * scale;
    }
    latents = scheduler.step(velocity, latents);
    synchronize(device_);
    progress.report(step + 1, cached);
    if (step_done) step_done(latents);
  }
  require_usable(latents, options);
  return latents;
}

/// Once, after the last step: what is not finite stays so from step to step.
void WanPipeline::require_usable(const at::Tensor &latents, const WanGenerateOptions &options) const {
  if (is_usable(latents)) return;
  std::string weights = config_.files.at("transformer").path();
  if (transformer_2_) weights += " or " + config_.files.at("transformer_2").path();
  throw invalid("The denoised latents are not finite or are beyond 1e6: the weights of " + weights +
                " or of a LoRA are damaged, or guidance-scale=" + number_text(options.guidance_scale) +
                ", guidance-scale-2=" + number_text(options.guidance_scale_2) +
                " or flow-shift=" + number_text(options.flow_shift) + " is too large");
}

void WanPipeline::decode(const at::Tensor &latents, int64_t frames, bool tiled, Crossfade &fade,
                         FrameRing &ring, const RunContext &context) const {
  const int64_t scale = config_.vae.temporal_scale();
  const int64_t chunks = 1 + (frames - 1 + scale - 1) / scale;  // the first gives one frame
  const at::Tensor normalized = vae_->denormalize(latents.narrow(2, 0, chunks));
  const int64_t height = latents.size(3), width = latents.size(4);
  const int64_t passes = tiled ? Tiling(*vae_).count(height, width) : 1;
  const auto steps = static_cast<int32_t>(passes * chunks);
  const StageProgress progress(context, WAN_STAGE_DECODE, steps);
  int32_t done = 0;
  const auto chunk_done = [&] {
    if (++done < steps) progress.report(done);
  };
  int64_t left = frames;
  const auto push = [&](const at::Tensor &chunk) {
    const int64_t count = std::min(left, chunk.size(2));  // the last chunk may be used in part
    left -= count;
    const at::Tensor leaving = fade(chunk.narrow(2, 0, count));
    if (leaving.defined()) ring.push(leaving);
  };
  if (tiled) {
    const at::Tensor video = tiled_decode(*vae_, normalized, context, chunk_done);
    for (int64_t first = 0; first < video.size(2); first += first ? scale : 1)
      push(video.narrow(2, first, first ? scale : 1).to(device_));
  } else {
    StreamState state;
    for (const at::Tensor &latent : normalized.split(1, 2)) {
      context.check();
      push(vae_->decode(latent, state, context));
      chunk_done();
    }
  }
  ring.finish();
  progress.report(steps);  // not before: its seconds are those of the whole decode
}

at::Tensor WanPipeline::take_tail(uint64_t stream) {
  const auto tail = std::ranges::find(tails_, stream, &Tail::stream);
  if (tail == tails_.end()) return {};
  at::Tensor frames = std::move(tail->frames);
  tails_.erase(tail);
  return frames;
}

void WanPipeline::keep_tail(uint64_t stream, at::Tensor frames) {
  if (!frames.defined()) return;
  if (tails_.size() == kMaxTails) tails_.pop_front();
  tails_.push_back({stream, std::move(frames)});
}

void WanPipeline::generate(const WanGenerateOptions &options, const RunContext &context,
                           const StepListener &step_done) {
  const c10::DeviceGuard guard(device_);
  // Gone unless this clip ends well and is followed by another.
  Crossfade fade(options.fade_frames, decoded_frames(options), take_tail(options.stream),
                 [&context] { return context.is_followed(); });
  const bool tiled = check(options);
  const auto scheduler = make_scheduler(config_.scheduler, options);
  const auto [prompt, negative] = embed(options, context);
  // Made before denoising, so that the first chunk waits for no allocation.
  FrameRing ring(options.layout, config_.vae.temporal_scale(),
                 options.on_device ? FrameMemory::kDevice : FrameMemory::kHost, frame_pool_, context);
  const at::Tensor latents = denoise(options, *scheduler, prompt, negative, context, step_done);
  decode(latents, decoded_frames(options), tiled, fade, ring, context);
  keep_tail(options.stream, fade.tail());
}

}  // namespace wan
