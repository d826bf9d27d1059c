// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench encode: videos through the VAE encoder; time and memory.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "bench_vae.h"
#include "common.h"
#include "decode_operations.h"
#include "device.h"
#include "matmul_peak.h"
#include "vae/tiled_encode.h"

namespace wan::bench {
namespace {

struct Options {
  char *size = nullptr, *dtype = nullptr, *device = nullptr, *against = nullptr;
  VaeChoice vae;
  int frames = 81, repeat = 5, warmup = 1;
  gboolean tiled = FALSE, grey = FALSE, json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const GOptionEntry entries[] = {
      {"frames", 0, 0, G_OPTION_ARG_INT, &options.frames, "frames of a video (81)", "N"},
      {"size", 0, 0, G_OPTION_ARG_STRING, &options.size, "size of the video (832x480)", "WxH"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "bf16 or fp32 (bf16)", "T"},
      {"repeat", 0, 0, G_OPTION_ARG_INT, &options.repeat, "measured videos (5)", "N"},
      {"warmup", 0, 0, G_OPTION_ARG_INT, &options.warmup, "videos before (1)", "N"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device, "auto, cpu, cuda or cuda:N (auto)", "D"},
      {"base-dim", 0, 0, G_OPTION_ARG_INT, &options.vae.base_dim,
       "width of random weights (the released model's)", "N"},
      {"z48", 0, 0, G_OPTION_ARG_NONE, &options.vae.z48, "TI2V-5B's VAE instead of A14B's", nullptr},
      {"vae", 0, 0, G_OPTION_ARG_STRING, &options.vae.directory,
       "a checkpoint's vae/ instead of random weights", "DIR"},
      {"tiled", 0, 0, G_OPTION_ARG_NONE, &options.tiled, "encode in tiles, in little memory", nullptr},
      {"grey", 0, 0, G_OPTION_ARG_NONE, &options.grey,
       "only the first frame is a picture, as image to video has it", nullptr},
      {"against", 0, 0, G_OPTION_ARG_STRING, &options.against,
       "report the latents' distance to what the same weights give in that dtype", "T"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("Frames to latents", entries, argc, argv);
  if (options.frames < 1 || options.repeat < 1 || options.warmup < 0 || options.vae.base_dim < 0)
    throw invalid("--frames and --repeat must be at least 1, --warmup and --base-dim at least 0");
  return options;
}

at::Tensor random_video(const Options &options, const VaeConfig &config, at::Device device) {
  const Size size = parse_size(options.size ? options.size : "832x480");
  const int64_t scale = config.spatial_scale();
  if (size.width % scale || size.height % scale)
    throw invalid("--size must be multiples of " + std::to_string(scale));
  return at::rand({1, 3, options.frames, size.height, size.width}).mul_(2).sub_(1).to(device);
}

at::Tensor latents_of(const Options &options, const AutoencoderKLWan &vae, const at::Tensor &frames) {
  const RunContext context({});
  const Video video = options.grey ? Video(frames.narrow(2, 0, 1), {}, frames.size(2)) : Video(frames);
  return options.tiled ? tiled_encode(vae, video, context, [] {}) : vae.encode(video, context);
}

/// Seconds of one video.
double encode_once(const Options &options, const AutoencoderKLWan &vae, const at::Tensor &video) {
  const auto start = Clock::now();
  latents_of(options, vae, video);
  synchronize(video.device());
  return seconds_since(start);
}

/// Its generators start anew, so that the weights are the same, rounded to the dtype.
std::unique_ptr<const AutoencoderKLWan> same_vae(const Options &options, at::Device device,
                                                 const std::string &dtype) {
  at::manual_seed(0);
  const at::ScalarType type = parse_dtype(dtype);
  return options.vae.load(device, type, type);
}

/// ||latents - reference|| / ||reference||.
double relative_error(const Options &options, at::Device device, const std::string &dtype,
                      const at::Tensor &video) {
  const at::Tensor latents = latents_of(options, *same_vae(options, device, dtype), video).to(at::kDouble);
  const at::Tensor reference =
      latents_of(options, *same_vae(options, device, options.against), video).to(at::kDouble);
  return ((latents - reference).norm() / reference.norm()).item<double>();
}

/// What the engine expects it to need, beside the weights and the video.
uint64_t foreseen_bytes(const Options &options, const AutoencoderKLWan &vae, const at::Tensor &video) {
  const int64_t height = video.size(3) / vae.spatial_scale(), width = video.size(4) / vae.spatial_scale();
  return options.tiled ? tiled_encode_bytes(vae, height, width) : vae.encode_bytes(height, width);
}

double operations(const VaeConfig &config, const at::Tensor &video) {
  const int64_t height = video.size(3) / config.spatial_scale(),
                width = video.size(4) / config.spatial_scale();
  const auto later_chunks = static_cast<double>((video.size(2) - 1) / config.temporal_scale());
  return encode_operations(config, height, width, /*first=*/true) +
         later_chunks * encode_operations(config, height, width, /*first=*/false);
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  const at::Device device = parse_device(options.device ? options.device : "auto");
  const c10::DeviceGuard guard(device);
  const std::string dtype = options.dtype ? options.dtype : "bf16";
  const VaeConfig config = options.vae.config();
  const auto vae = same_vae(options, device, dtype);
  const at::Tensor video = random_video(options, config, device);
  for (int i = 0; i < options.warmup; ++i) encode_once(options, *vae, video);
  std::vector<double> seconds;
  for (int i = 0; i < options.repeat; ++i) seconds.push_back(encode_once(options, *vae, video));
  const double best = *std::ranges::min_element(seconds), tflop = operations(config, video) / 1e12;
  const double peak = matmul_tflop_per_s(device);
  Report report = {{"what", "encode"},
                   {"device", device.str()},
                   {"tiled", options.tiled != FALSE},
                   {"dtype", dtype},
                   {"size", std::to_string(video.size(4)) + "x" + std::to_string(video.size(3))},
                   {"frames", options.frames},
                   {"seconds", seconds},
                   {"seconds_min", best},
                   {"tflop", tflop},
                   {"tflop_per_s", tflop / best},
                   {"matmul_tflop_per_s", peak},
                   {"share_of_matmul", tflop / best / peak},
                   {"foreseen_gb", static_cast<double>(foreseen_bytes(options, *vae, video)) / 1e9},
                   {"peak_allocated_gb", static_cast<double>(memory_in_use(device).gpu_peak_bytes) / 1e9}};
  if (options.against) {  // afterwards: the peak above is that of one encoder
    report["against"] = options.against;
    report["relative_error"] = relative_error(options, device, dtype, video);
  }
  return report;
}

}  // namespace

void encode(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
