// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench causal: sections of an endless video with random weights of a family's true shape, once the
// window is full: the steps, the pass over finished latents, the decoder, and all of it up to the frames.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "bench_vae.h"
#include "common.h"
#include "device.h"
#include "output/section_output.h"
#include "pipeline/memory_mode.h"
#include "pipeline/section_denoiser.h"
#include "random_weights.h"
#include "trace.h"
#include "vae/tiny_decoder.h"

namespace wan::bench {
namespace {

struct Options {
  char *family = nullptr, *size = nullptr, *device = nullptr, *decoder_device = nullptr, *dtype = nullptr;
  int sections = 5, layers = 0;
  gboolean decode = FALSE, tiny_decoder = FALSE, ops = FALSE, json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const GOptionEntry entries[] = {
      {"family", 0, 0, G_OPTION_ARG_STRING, &options.family,
       "self-forcing, longlive, longlive2, rolling-forcing, krea, … or tiny (longlive)", "NAME"},
      {"size", 0, 0, G_OPTION_ARG_STRING, &options.size, "size of the video (the family's)", "WxH"},
      {"layers", 0, 0, G_OPTION_ARG_INT, &options.layers, "transformer blocks (the family's)", "N"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device,
       "auto, cpu, cuda or cuda:N, or several as cuda:0,1 (auto)", "D"},
      {"decoder-device", 0, 0, G_OPTION_ARG_STRING, &options.decoder_device,
       "where --decode decodes (the first of --device)", "D"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "fp32, bf16 or fp8 (bf16)", "T"},
      {"sections", 0, 0, G_OPTION_ARG_INT, &options.sections,
       "sections to time, after the window is full (5)", "N"},
      {"decode", 0, 0, G_OPTION_ARG_NONE, &options.decode,
       "also decode them: alone, between the sections' denoising, and beside it", nullptr},
      {"tiny-decoder", 0, 0, G_OPTION_ARG_NONE, &options.tiny_decoder,
       "with TAEHV's decoder instead of the VAE's", nullptr},
      {"ops", 0, 0, G_OPTION_ARG_NONE, &options.ops, "list the GPU's kernels of a section by their time",
       nullptr},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("Sections of an endless video with random weights", entries, argc, argv);
  if (options.sections < 1) throw invalid("--sections must be above 0");
  return options;
}

/// A released network, and the size that its family is made for.
struct Network {
  int64_t heads, ffn_dim, layers, channels;
  const char *size;
  int vae_base_dim = 0;  // 0: the released one
};

Network network_of(const std::string &family) {
  if (family == "longlive2") return {24, 14336, 30, 48, "960x544"};
  if (family == "krea" || family == "fastvideo-a14b") return {40, 13824, 40, 16, "832x480"};
  if (family == "tiny") return {2, 512, 6, 16, "160x96", 8};
  return {12, 8960, 30, 16, "832x480"};
}

CausalConfig causal_of(const std::string &family) {
  const auto causal = CausalConfig::preset(family == "tiny" ? "longlive-infinity" : family);
  if (!causal) throw invalid("--family does not take '" + family + "'");
  return *causal;
}

TransformerConfig transformer_of(const Network &network, int layers) {
  TransformerConfig config = released_config("T2V-A14B", 1).transformer;
  config.num_attention_heads = network.heads;
  config.ffn_dim = network.ffn_dim;
  config.num_layers = layers ? layers : network.layers;
  config.in_channels = config.out_channels = network.channels;
  return config;
}

/// Until now, on the GPU too.
double settled_seconds(Clock::time_point start, at::Device device) {
  synchronize(device);
  return seconds_since(start);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Bench {
  explicit Bench(const Options &options)
      : options(options),
        family(options.family ? options.family : "longlive"),
        network(network_of(family)),
        causal(causal_of(family)),
        devices(choose_devices(options.device ? options.device : "auto").devices),
        device(devices.front()),
        decoder_device(options.decoder_device ? choose_device_beside(options.decoder_device, devices)
                                              : device),
        name(options.dtype ? options.dtype : "bf16"),
        dtype(name == "fp8" ? at::kBFloat16 : parse_dtype(name)),
        size(parse_size(options.size ? options.size : network.size)),
        config(transformer_of(network, options.layers)),
        threads(devices),
        model(load_network()) {
    vae.z48 = network.channels == 48;
    vae.base_dim = network.vae_base_dim;
    const int64_t scale = vae.config().spatial_scale();
    const at::Tensor text = at::randn({1, 512, config.text_dim}).to(device);
    denoiser = make_section_denoiser(
        {causal, config, experts(), network.channels, size.height / scale, size.width / scale}, text,
        seeded_noise(0, device));
  }

  /// One network stands for both of a family that has two.
  std::vector<Replicas> experts() const {
    return std::vector<Replicas>(causal.boundary_ratio ? 2 : 1, model);
  }
  Replicas load_network() {
    const auto weights = random_components()->open("transformer", device);
    return load_replicas(threads, *weights, [this](WeightSource &source, int64_t) {
      return std::make_shared<const WanTransformer3DModel>(
          config, Weights(source, dtype, WanTransformer3DModel::kKeepInFp32),
          name == "fp8" ? WAN_QUANTIZATION_FP8 : WAN_QUANTIZATION_NONE);
    });
  }
  at::Tensor next(const SectionDenoiser::StepDone &step_done = [](int32_t) {}) const {
    return denoiser->next(RunContext({}), step_done);
  }
  /// Seconds of a section, and of its first step with the pass over the finished latents before it.
  std::pair<double, double> time_section() const {
    double first = 0;
    synchronize(device);
    const Clock::time_point start = Clock::now();
    next([&](int32_t step) {
      if (step == 1) first = settled_seconds(start, device);
    });
    return {settled_seconds(start, device), first};
  }
  double time_decoding(const LatentDecoder &decoder, StreamState &state, const at::Tensor &latents) const {
    const Clock::time_point start = Clock::now();
    for (const at::Tensor &latent : latents.split(1, 2)) decoder.decode_next(latent, state, RunContext({}));
    return settled_seconds(start, decoder_device);
  }

  const Options options;
  const std::string family;
  const Network network;
  const CausalConfig causal;
  const std::vector<at::Device> devices;
  const at::Device device, decoder_device;
  const std::string name;
  const at::ScalarType dtype;
  const Size size;
  const TransformerConfig config;
  RankThreads threads;
  const Replicas model;
  VaeChoice vae;
  std::unique_ptr<SectionDenoiser> denoiser;
};

/// The VAE, and what decodes.
struct Decoders {
  explicit Decoders(const Bench &bench) {
    const at::ScalarType dtype = vae_dtype(bench.dtype, bench.decoder_device);
    vae = bench.vae.load(bench.decoder_device, dtype);
    if (!bench.options.tiny_decoder) return;
    const VaeConfig config = bench.vae.config();
    const auto weights = random_components()->open("tiny_decoder", bench.decoder_device);
    tiny.emplace(TinyDecoderConfig{config.z_dim, {256, 128, 64, 64}, config.patch_size},
                 Weights(*weights, dtype));
  }
  const LatentDecoder &decoder() const { return tiny ? static_cast<const LatentDecoder &>(*tiny) : *vae; }

  std::unique_ptr<const AutoencoderKLWan> vae;
  std::optional<TinyDecoder> tiny;
};

double decode_seconds(const Bench &bench, const LatentDecoder &decoder) {
  StreamState state;
  const at::Tensor latents = bench.next().to(bench.decoder_device);
  bench.time_decoding(decoder, state, latents);
  std::vector<double> seconds;
  for (int i = 0; i < bench.options.sections; ++i)
    seconds.push_back(bench.time_decoding(decoder, state, latents));
  return median(seconds);
}

/// Frames are dropped when they are complete.
WanCallbacks frames_nowhere() {
  WanCallbacks callbacks{};
  callbacks.frames = [](void *, WanFrames *frames) {
    free_frames(frames);
    return true;
  };
  return callbacks;
}

/// Of a section from noise to NV12 in host memory, one after the other.
double streaming_seconds(const Bench &bench, const Decoders &decoders, Decoding decoding) {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  const RunContext context(frames_nowhere());
  WanGenerateOptions options{};
  options.layout = pixel_layout(WAN_PIXEL_NV12, bench.size);
  FrameOutput frames(*decoders.vae, decoders.decoder(), options,
                     std::make_shared<FramePool>(bench.decoder_device), context);
  SectionOutput output(frames, bench.decoder_device, decoding);
  int32_t section = 0;
  const auto make_section = [&] { output.append(bench.next().to(bench.decoder_device), section++, kAll); };
  for (int i = 0; i < 2; ++i) make_section();
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < bench.options.sections; ++i) make_section();
  const double seconds = seconds_since(start) / bench.options.sections;
  output.finish();
  return seconds;
}

void report_decoding(const Bench &bench, double frames, Report &report) {
  const Decoders decoders(bench);
  report["decode_s"] = decode_seconds(bench, decoders.decoder());
  report["frames_per_s_between"] = frames / streaming_seconds(bench, decoders, Decoding::kBetween);
  report["frames_per_s_beside"] = frames / streaming_seconds(bench, decoders, Decoding::kBeside);
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  const Bench bench(options);
  const auto frames = static_cast<double>(4 * bench.causal.num_frames_per_block);
  for (int64_t kept = 0; kept <= bench.causal.local_attn_size; kept += bench.causal.num_frames_per_block)
    bench.next();
  std::vector<double> sections, steps, clean_passes;
  for (int i = 0; i < options.sections; ++i) {
    const auto [section, first] = bench.time_section();
    const double step =
        (section - first) / static_cast<double>(std::max<int64_t>(1, bench.causal.steps() - 1));
    sections.push_back(section);
    steps.push_back(step);
    clean_passes.push_back(first - step);
  }
  Report report = {{"what", "causal"},
                   {"family", bench.family},
                   {"device", describe_devices(bench.devices)},
                   {"size", std::to_string(bench.size.width) + "x" + std::to_string(bench.size.height)},
                   {"dtype", bench.name},
                   {"section_s", median(sections)},
                   {"step_s", median(steps)},
                   {"clean_pass_s", median(clean_passes)},
                   {"frames_per_s", frames / median(sections)}};
  if (options.decode) report_decoding(bench, frames, report);
  report["peak_gpu_gb"] = static_cast<double>(memory_in_use(bench.device).gpu_peak_bytes) / 1e9;
  if (!options.ops) return report;
  Trace trace(bench.device, /*chunks=*/false);
  bench.time_section();
  const Timeline timeline = trace.finish();
  const Coverage kernels = coverage(timeline, {Lane::kKernel});
  report["gpu_busy"] = kernels.share;
  report["kernel_gaps_us"] = kernels.gap_us;
  report["longest_kernel_gap_us"] = kernels.longest_gap_us;
  report["kernels"] = kernel_table(timeline);
  return report;
}

}  // namespace

void causal(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
