// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench transformer: one forward of a released denoiser with random weights, and where its time goes.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "common.h"
#include "device.h"
#include "random_weights.h"
#include "trace.h"
#include "transformer/wan_transformer_3d.h"

namespace wan::bench {
namespace {

struct Options {
  char *model = nullptr, *size = nullptr, *device = nullptr, *dtype = nullptr, *against = nullptr;
  int frames = 0, layers = 0, repeat = 3;
  gboolean ops = FALSE, json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const std::string models = "one of " + released_models() + " (T2V-A14B)";
  const GOptionEntry entries[] = {
      {"random", 0, 0, G_OPTION_ARG_STRING, &options.model, models.c_str(), "MODEL"},
      {"size", 0, 0, G_OPTION_ARG_STRING, &options.size, "size of the video (the model's)", "WxH"},
      {"frames", 0, 0, G_OPTION_ARG_INT, &options.frames, "number of frames (the model's)", "N"},
      {"layers", 0, 0, G_OPTION_ARG_INT, &options.layers, "transformer blocks (the model's)", "N"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device, "auto, cpu, cuda or cuda:N (auto)", "D"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "fp32, bf16 or fp8 (bf16)", "T"},
      {"against", 0, 0, G_OPTION_ARG_STRING, &options.against,
       "report the output's distance to what the same weights give in that dtype", "T"},
      {"repeat", 0, 0, G_OPTION_ARG_INT, &options.repeat, "forwards to time, after one to warm up (3)", "N"},
      {"ops", 0, 0, G_OPTION_ARG_NONE, &options.ops, "list the GPU's kernels by their time", nullptr},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("A forward of a denoiser with random weights", entries, argc, argv);
  return options;
}

/// Of the published architecture: products of matrices and attention.
double forward_operations(const TransformerConfig &config, int64_t tokens, int64_t image_tokens) {
  const auto n = static_cast<double>(tokens), d = static_cast<double>(config.inner_dim());
  const auto seen = static_cast<double>(512 + image_tokens);
  const double self = 8 * n * d * d + 4 * n * n * d, cross = 4 * n * d * d + 4 * n * seen * d;
  const double feed_forward = 4 * n * d * static_cast<double>(config.ffn_dim);
  return static_cast<double>(config.num_layers) * (self + cross + feed_forward);
}

/// What a kernel is for, by its name.
std::string operation_of(const std::string &kernel) {
  static const std::pair<const char *, const char *> names[] = {
      {"nvjet", "matrix products"},
      {"attention_kernel", "attention"},
      {"sdpa", "attention"},
      {"flash", "attention"},
      {"fmha", "attention"},
      {"channel_max", "quantization"},
      {"transpose_kernel", "quantization"},
      {"quantize", "quantization"},
      {"scale_kernel", "quantization"},
      {"layer_norm", "norms, gates, RoPE, GELU"},
      {"rms_norm", "norms, gates, RoPE, GELU"},
      {"RMSNorm", "norms, gates, RoPE, GELU"},
      {"gated_residual", "norms, gates, RoPE, GELU"},
      {"Gelu", "norms, gates, RoPE, GELU"},
      {"gelu", "norms, gates, RoPE, GELU"},
      {"elementwise", "norms, gates, RoPE, GELU"},
      {"gemm", "matrix products"},
      {"cutlass", "matrix products"},
      {"xmma", "matrix products"},
  };
  for (const auto &[part, operation] : names)
    if (kernel.find(part) != std::string::npos) return operation;
  return "other";
}

Report operation_table(const Timeline &timeline) {
  Timeline named = timeline;
  for (Interval &interval : named) interval.name = operation_of(interval.name);
  return kernel_table(named);
}

/// Which numbers the model has, and which its blocks multiply.
struct Precision {
  at::ScalarType dtype;
  WanQuantization quantization;
};

Precision parse_precision(const std::string &name) {
  if (name == "fp8") return {at::kBFloat16, WAN_QUANTIZATION_FP8};
  return {parse_dtype(name), WAN_QUANTIZATION_NONE};
}

/// Its generators start anew: the same numbers come to every denoiser, rounded to its dtype.
std::unique_ptr<ComponentSource> same_components() {
  at::manual_seed(0);
  return random_components();
}

/// A forward's input, made once.
struct Denoiser {
  Denoiser(const Options &options, const std::string &dtype, at::Device device)
      : model(released_config(options.model ? options.model : "T2V-A14B", options.layers)),
        size(options.size ? parse_size(options.size) : Size{model.defaults.width, model.defaults.height}),
        frames(options.frames ? options.frames : model.defaults.num_frames),
        config(model.transformer),
        precision(parse_precision(dtype)),
        weights(same_components()->open("transformer", device)),
        transformer(config, Weights(*weights, precision.dtype, WanTransformer3DModel::kKeepInFp32),
                    precision.quantization),
        latents(at::randn({1, config.in_channels, (frames - 1) / model.vae.temporal_scale() + 1,
                           size.height / model.vae.spatial_scale(), size.width / model.vae.spatial_scale()})
                    .to(device)),
        image(image_tokens(model).to(device)),
        context(transformer.encode(at::randn({1, 512, config.text_dim}).to(device),
                                   image.numel() ? image : at::Tensor())),
        rotary(transformer.rotary(latents.size(2), latents.size(3), latents.size(4))) {}

  at::Tensor forward() {
    const RunContext unasked({});
    return transformer(latents, {.rotary = rotary, .times = times(), .context = context, .run = unasked});
  }
  double forward_seconds() {
    synchronize(latents.device());
    const Clock::time_point start = Clock::now();
    forward();
    synchronize(latents.device());
    return seconds_since(start);
  }
  double operations() const {
    return forward_operations(config, rotary.cos.size(0), image.size(0) * image.size(1));
  }

  const CheckpointConfig model;
  const Size size;
  const int frames;
  const TransformerConfig &config;
  const Precision precision;
  const std::unique_ptr<WeightSource> weights;
  const WanTransformer3DModel transformer;
  const at::Tensor latents, image;
  EncodedContext context;
  const RotaryEmbedding rotary;

 private:
  /// What CLIP makes of the pictures, [pictures, tokens, image_dim]; of no picture where they come otherwise.
  static at::Tensor image_tokens(const CheckpointConfig &model) {
    if (!model.image_encoder) return at::empty({0, 0, 0});
    const int64_t pictures = model.transformer.pos_embed_seq_len ? 2 : 1;
    return at::randn({pictures, 1 + model.image_encoder->num_patches(), model.image_encoder->hidden_size});
  }
  /// With a picture in the first latent frame, where the model takes it so.
  std::vector<TimeSegment> times() const {
    if (!model.expand_timesteps) return {{0, 900}};
    return {{0, 0}, {rotary.cos.size(0) / latents.size(2), 900}};
  }
};

/// ||out - reference|| / ||reference||; each is made alone, for both might not fit the GPU.
double relative_error(const Options &options, const std::string &dtype, const std::string &against,
                      at::Device device) {
  const at::Tensor out = Denoiser(options, dtype, device).forward().to(at::kDouble);
  const at::Tensor reference = Denoiser(options, against, device).forward().to(at::kDouble);
  return ((out - reference).norm() / reference.norm()).item<double>();
}

Report measure(const Options &options, const std::string &dtype, at::Device device) {
  Denoiser denoiser(options, dtype, device);
  const double first = denoiser.forward_seconds();
  std::vector<double> seconds;
  for (int i = 0; i < options.repeat; ++i) seconds.push_back(denoiser.forward_seconds());
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[sorted.size() / 2];
  Report report = {{"what", "transformer"},
                   {"model", options.model ? options.model : "T2V-A14B"},
                   {"device", device.str()},
                   {"size", std::to_string(denoiser.size.width) + "x" + std::to_string(denoiser.size.height)},
                   {"frames", denoiser.frames},
                   {"layers", denoiser.config.num_layers},
                   {"dtype", dtype},
                   {"first_s", first},
                   {"seconds", seconds},
                   {"seconds_p50", median},
                   {"tflop", denoiser.operations() / 1e12},
                   {"tflop_per_s", denoiser.operations() / 1e12 / median},
                   {"peak_gpu_gb", static_cast<double>(memory_in_use(device).gpu_peak_bytes) / 1e9}};
  if (options.ops) {
    Trace trace(device, /*chunks=*/false);
    denoiser.forward_seconds();
    const Timeline timeline = trace.finish();
    const Coverage busy = coverage(timeline, {Lane::kKernel});
    report["busy"] = busy.share;
    report["longest_gap_us"] = busy.longest_gap_us;
    report["operations"] = operation_table(timeline);
    report["kernels"] = kernel_table(timeline);
  }
  return report;
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  if (options.repeat < 1) throw invalid("--repeat must be above 0");
  const at::Device device = parse_device(options.device ? options.device : "auto");
  const std::string dtype = options.dtype ? options.dtype : "bf16";
  Report report = measure(options, dtype, device);
  if (options.against) {  // afterwards: the first forward above is a process's first, and the peak its own
    report["against"] = options.against;
    report["relative_error"] = relative_error(options, dtype, options.against, device);
  }
  return report;
}

}  // namespace

void transformer(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
