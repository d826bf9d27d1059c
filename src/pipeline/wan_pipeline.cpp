#include "pipeline/wan_pipeline.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cmath>

#include "device.h"
#include "scheduler/scheduler.h"

namespace wan {

namespace {

constexpr int64_t kTextTokens = 512;  // the transformer attends to all of them, padding too

class CheckpointComponents : public ComponentSource {
 public:
  CheckpointComponents(const CheckpointConfig &config, at::Device device,
                       std::function<void(uint64_t, uint64_t)> progress)
      : directory_(config.directory), device_(device), progress_(std::move(progress)) {
    // Opening all files first finds a missing or broken one before the first byte is copied.
    std::vector<std::string> components = {"text_encoder", "transformer", "vae"};
    if (config.transformer_2) components.push_back("transformer_2");
    for (const std::string &component : components) bytes_ += open_files(component)->bytes();
  }

  std::unique_ptr<WeightSource> open(const std::string &component) override { return open_files(component); }

  void close(const std::string &component, const WeightSource &source) override {
    // The text encoder's embedding may be stored under a second name as well.
    static const std::map<std::string, std::vector<std::string>> ignored = {
        {"vae", AutoencoderKLWan::kEncoderTensors}, {"text_encoder", {"encoder.embed_tokens.weight"}}};
    const auto found = ignored.find(component);
    dynamic_cast<const CheckpointWeights &>(source).check_all_loaded(
        found == ignored.end() ? std::vector<std::string>() : found->second);
  }

 private:
  std::unique_ptr<CheckpointWeights> open_files(const std::string &component) {
    const std::string stem = component == "text_encoder" ? "model" : "diffusion_pytorch_model";
    return std::make_unique<CheckpointWeights>(directory_ / component, stem, device_, [this](uint64_t bytes) {
      bytes_read_ += bytes;
      progress_(bytes_read_, bytes_);
    });
  }

  const std::filesystem::path directory_;
  const at::Device device_;
  const std::function<void(uint64_t, uint64_t)> progress_;
  uint64_t bytes_ = 0, bytes_read_ = 0;
};

std::string describe_size(const WanGenerateOptions &options) {
  return std::to_string(options.layout.width) + "x" + std::to_string(options.layout.height) + " with " +
         std::to_string(options.num_frames) + " frames";
}

}  // namespace

std::unique_ptr<ComponentSource> open_checkpoint(const CheckpointConfig &config, at::Device device,
                                                 std::function<void(uint64_t, uint64_t)> progress) {
  return std::make_unique<CheckpointComponents>(config, device, std::move(progress));
}

WanPipeline::WanPipeline(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source,
                         Tokenizer tokenizer, at::Device device, at::ScalarType dtype)
    : config_(config),
      source_(std::move(source)),
      tokenizer_(std::move(tokenizer)),
      device_(device),
      dtype_(dtype),
      frame_pool_(std::make_shared<FramePool>(device)) {
  const c10::DeviceGuard guard(device);
  transformer_ = load<WanTransformer3DModel>("transformer", config.transformer, dtype,
                                             WanTransformer3DModel::kKeepInFp32);
  if (config.transformer_2)
    transformer_2_ = load<WanTransformer3DModel>("transformer_2", *config.transformer_2, dtype,
                                                 WanTransformer3DModel::kKeepInFp32);
  vae_ = load<AutoencoderKLWan>("vae", config.vae, at::kFloat);
  if (device.is_cpu()) text_encoder_ = load<UMT5EncoderModel>("text_encoder", config.text_encoder, dtype);
}

template <typename Model, typename Config>
std::unique_ptr<const Model> WanPipeline::load(const std::string &component, const Config &config,
                                               at::ScalarType dtype,
                                               std::set<std::string> keep_in_fp32) const {
  const std::unique_ptr<WeightSource> weights = source_->open(component);
  auto model = std::make_unique<const Model>(config, Weights(*weights, dtype, std::move(keep_in_fp32)));
  source_->close(component, *weights);
  return model;
}

WanPipeline::LatentSize WanPipeline::latent_size(const WanGenerateOptions &options) const {
  const VaeConfig &vae = config_.vae;
  return {(options.num_frames - 1) / vae.temporal_scale() + 1, options.layout.height / vae.spatial_scale(),
          options.layout.width / vae.spatial_scale()};
}

void WanPipeline::check(const WanGenerateOptions &options) const {
  const WanPixelLayout &layout = options.layout;
  const WanDefaults &defaults = config_.defaults;
  const auto require = [](bool condition, const std::string &message) {
    if (!condition) throw invalid(message);
  };
  for (const auto &[value, name] : {std::pair{layout.width, "width"}, {layout.height, "height"}})
    require(value > 0 && value % defaults.size_multiple == 0,
            "The " + std::string(name) + " " + std::to_string(value) + " is not a multiple of " +
                std::to_string(defaults.size_multiple));
  require(options.num_frames > 0 && (options.num_frames - 1) % defaults.frames_multiple == 0,
          "The number of frames, " + std::to_string(options.num_frames) +
              ", is not 1 more than a multiple of " + std::to_string(defaults.frames_multiple));
  require(options.steps > 0 && options.steps <= config_.scheduler.num_train_timesteps,
          "steps=" + std::to_string(options.steps) + " is not in 1 to " +
              std::to_string(config_.scheduler.num_train_timesteps));
  require(options.flow_shift > 0 && std::isfinite(options.flow_shift), "flow-shift must be above 0");
  require(std::isfinite(options.guidance_scale) && std::isfinite(options.guidance_scale_2),
          "guidance-scale must be a number");

  const auto [frames, height, width] = latent_size(options);
  transformer_->check_size(frames, height, width);
  const TransformerConfig &transformer = config_.transformer;
  const uint64_t tokens = static_cast<uint64_t>(frames * (height / transformer.patch_height)) *
                          static_cast<uint64_t>(width / transformer.patch_width);
  // The residual stream and what a block makes of it: about ten tensors of float32, and the feed-forward's
  // inside.
  const uint64_t per_token =
      static_cast<uint64_t>(10 * transformer.inner_dim() + 2 * transformer.ffn_dim) * 4;
  const uint64_t needed = std::max(tokens * per_token, vae_->decode_bytes(height, width));
  if (needed > free_memory(device_))
    throw Error(WAN_OUT_OF_MEMORY, "A video of " + describe_size(options) + " needs about " +
                                       std::to_string(needed >> 20) + " MiB of memory, and " +
                                       std::to_string(free_memory(device_) >> 20) +
                                       " MiB are free: choose a smaller width, height or number of frames");
}

at::Tensor WanPipeline::embed(PromptEmbedding &cached, const std::string &prompt, const RunContext &context) {
  if (cached.embedding.defined() && cached.prompt == prompt) return cached.embedding;
  if (!text_encoder_) text_encoder_ = load<UMT5EncoderModel>("text_encoder", config_.text_encoder, dtype_);
  const std::vector<int32_t> tokens = tokenizer_(prompt_clean(prompt), kTextTokens);
  // On CUDA an index beyond the embedding would take the whole context down.
  if (std::max(tokenizer_.pad_id(), *std::max_element(tokens.begin(), tokens.end())) >=
      config_.text_encoder.vocab_size)
    throw invalid((config_.directory / "tokenizer").string() +
                  " gives ids beyond the text encoder's vocab_size");
  const auto length = static_cast<int64_t>(tokens.size());
  at::Tensor ids = at::full({1, kTextTokens}, tokenizer_.pad_id(), at::kLong);
  ids[0].narrow(0, 0, length).copy_(at::tensor(tokens));
  const at::Tensor mask = (at::arange(kTextTokens) < length).to(at::kLong).unsqueeze(0);
  const at::Tensor encoded = (*text_encoder_)(ids.to(device_), mask.to(device_), context);
  // Padding is zero to the transformer, not what the encoder makes of it.
  cached = {prompt, encoded * mask.unsqueeze(-1).to(encoded.options())};
  return cached.embedding;
}

at::Tensor WanPipeline::denoise(const WanGenerateOptions &options, const at::Tensor &prompt,
                                const at::Tensor &negative, const RunContext &context) const {
  const auto [frames, height, width] = latent_size(options);
  // From a CPU generator, so that a seed gives the same video on every device.
  const at::Generator generator = at::detail::createCPUGenerator(options.seed);
  at::Tensor latents =
      at::randn({1, config_.vae.z_dim, frames, height, width}, generator, at::dtype(at::kFloat)).to(device_);

  const auto scheduler =
      make_scheduler(config_.scheduler, options.scheduler, options.steps, options.flow_shift);
  const double boundary =
      config_.boundary_ratio.value_or(0) * static_cast<double>(config_.scheduler.num_train_timesteps);
  const StageProgress progress(context, WAN_STAGE_DENOISE, options.steps);
  const RotaryEmbedding rotary = transformer_->rotary(frames, height, width);
  const bool guided = options.guidance_scale > 1;  // decided by the first scale for the whole run

  const WanTransformer3DModel *expert = nullptr;
  WanTransformer3DModel::TextContext text, negative_text;
  for (int32_t step = 0; step < options.steps; ++step) {
    const double timestep = scheduler->timesteps()[static_cast<size_t>(step)];
    const bool high_noise = !transformer_2_ || timestep >= boundary;
    const WanTransformer3DModel *wanted = high_noise ? transformer_.get() : transformer_2_.get();
    if (wanted != expert) {
      expert = wanted;
      text = expert->encode_text(prompt);
      if (guided) negative_text = expert->encode_text(negative);
    }
    at::Tensor velocity = (*expert)(latents, timestep, text, rotary, context);
    if (guided) {
      const at::Tensor unconditional = (*expert)(latents, timestep, negative_text, rotary, context);
      const double scale = high_noise ? options.guidance_scale : options.guidance_scale_2;
      velocity = unconditional + (velocity - unconditional) * scale;
    }
    latents = scheduler->step(velocity, latents);
    synchronize(device_);
    progress.report(step + 1);
  }
  return latents;
}

void WanPipeline::decode(const at::Tensor &latents, FrameRing &ring, const RunContext &context) const {
  const at::Tensor normalized = vae_->denormalize(latents);
  const auto chunks = static_cast<int32_t>(latents.size(2));
  const StageProgress progress(context, WAN_STAGE_DECODE, chunks);
  StreamState state;
  for (int32_t chunk = 0; chunk < chunks; ++chunk) {
    context.check();
    ring.push(vae_->decode(normalized.narrow(2, chunk, 1), state, context));
    if (chunk + 1 < chunks) progress.report(chunk + 1);
  }
  ring.finish();
  progress.report(chunks);  // not before: its seconds are those of the whole decode
}

void WanPipeline::generate(const WanGenerateOptions &options, const RunContext &context) {
  const c10::DeviceGuard guard(device_);
  check(options);
  const bool guided = options.guidance_scale > 1;
  const StageProgress progress(context, WAN_STAGE_TEXT, guided ? 2 : 1);
  const at::Tensor prompt = embed(prompt_, options.prompt, context);
  progress.report(1);
  at::Tensor negative;
  if (guided) {
    negative = embed(negative_prompt_, options.negative_prompt, context);
    progress.report(2);
  }
  if (!device_.is_cpu()) text_encoder_.reset();
  // Made before denoising, so that the first chunk waits for no allocation.
  FrameRing ring(options.layout, config_.vae.temporal_scale(), frame_pool_, context);
  decode(denoise(options, prompt, negative, context), ring, context);
}

}  // namespace wan
