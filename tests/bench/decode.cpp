// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench decode: videos through the VAE decoder to the host; time, work of the GPU, memory.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <sstream>

#include "bench_vae.h"
#include "checkpoint/tensor_file.h"
#include "common.h"
#include "decode_operations.h"
#include "decoder_run.h"
#include "device.h"
#include "matmul_peak.h"

namespace wan::bench {
namespace {

struct Options {
  char *size = nullptr, *dtype = nullptr, *mode = nullptr, *sink = nullptr, *format = nullptr,
       *device = nullptr, *latents = nullptr, *dump = nullptr, *trace = nullptr;
  int latent_frames = 41, repeat = 10, warmup = 1;
  VaeChoice vae;
  gboolean tiled = FALSE, ops = FALSE, checksum = FALSE, json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const GOptionEntry entries[] = {
      {"latent-frames", 0, 0, G_OPTION_ARG_INT, &options.latent_frames, "latent frames of a video (41)", "N"},
      {"size", 0, 0, G_OPTION_ARG_STRING, &options.size, "size of the video (1280x720)", "WxH"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "bf16 or fp32 (bf16)", "T"},
      {"mode", 0, 0, G_OPTION_ARG_STRING, &options.mode, "sync or async (async)", "M"},
      {"repeat", 0, 0, G_OPTION_ARG_INT, &options.repeat, "measured videos (10)", "N"},
      {"warmup", 0, 0, G_OPTION_ARG_INT, &options.warmup, "videos before (1)", "N"},
      {"sink", 0, 0, G_OPTION_ARG_STRING, &options.sink, "null, file or host (null)", "S"},
      {"format", 0, 0, G_OPTION_ARG_STRING, &options.format, "nv12 or rgb (nv12)", "F"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device, "auto, cpu, cuda or cuda:N (auto)", "D"},
      {"base-dim", 0, 0, G_OPTION_ARG_INT, &options.vae.base_dim,
       "width of random weights (the released model's)", "N"},
      {"z48", 0, 0, G_OPTION_ARG_NONE, &options.vae.z48, "TI2V-5B's VAE instead of A14B's", nullptr},
      {"vae", 0, 0, G_OPTION_ARG_STRING, &options.vae.directory,
       "a checkpoint's vae/ instead of random weights", "DIR"},
      {"latents", 0, 0, G_OPTION_ARG_STRING, &options.latents,
       "a safetensors file whose tensor `latents`, [1, z, T, H, W] float32, is decoded", "FILE"},
      {"dump", 0, 0, G_OPTION_ARG_STRING, &options.dump,
       "write the frames, float32 [frames, 3, height, width]", "FILE"},
      {"trace", 0, 0, G_OPTION_ARG_STRING, &options.trace, "write the timeline of three chunks as JSON",
       "FILE"},
      {"tiled", 0, 0, G_OPTION_ARG_NONE, &options.tiled, "decode in tiles, in little memory", nullptr},
      {"ops", 0, 0, G_OPTION_ARG_NONE, &options.ops, "list the GPU's kernels by their time", nullptr},
      {"checksum", 0, 0, G_OPTION_ARG_NONE, &options.checksum, "fail where two videos differ", nullptr},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("Latents to frames on the host", entries, argc, argv);
  if (options.latent_frames < 1 || options.repeat < 1 || options.warmup < 0 || options.vae.base_dim < 0)
    throw invalid("--latent-frames and --repeat must be at least 1, --warmup and --base-dim at least 0");
  return options;
}

Mode parse_mode(const std::string &name) {
  if (name == "sync") return Mode::kSync;
  if (name == "async") return Mode::kAsync;
  throw invalid("--mode must be sync or async");
}

WanPixelFormat parse_format(const std::string &name) {
  if (name == "nv12") return WAN_PIXEL_NV12;
  if (name == "rgb") return WAN_PIXEL_RGB;
  throw invalid("--format must be nv12 or rgb");
}

at::Tensor read_latents(const std::filesystem::path &path, int64_t z_dim) {
  const TensorFile file(path);
  const auto found = file.tensors().find("latents");
  if (found == file.tensors().end() || found->second.dtype != "F32" || found->second.shape.size() != 5 ||
      found->second.shape[0] != 1 || found->second.shape[1] != z_dim)
    throw invalid(path.string() + " has no tensor 'latents' of float32 [1, " + std::to_string(z_dim) +
                  ", T, H, W]");
  return stored_tensor(file, "latents");
}

at::Tensor random_latents(const Options &options, const VaeConfig &config) {
  const Size size = parse_size(options.size ? options.size : "1280x720");
  const int64_t scale = config.spatial_scale();
  if (size.width % scale || size.height % scale)
    throw invalid("--size must be multiples of " + std::to_string(scale));
  return at::randn({1, config.z_dim, options.latent_frames, size.height / scale, size.width / scale});
}

/// The decoder of one run, its input and what was asked.
struct Bench {
  const Options options;
  const at::Device device;
  const at::ScalarType dtype = parse_dtype(options.dtype ? options.dtype : "bf16");
  const Mode mode = parse_mode(options.mode ? options.mode : "async");
  const WanPixelFormat format = parse_format(options.format ? options.format : "nv12");
  const VaeConfig config = options.vae.config();
  const std::unique_ptr<const AutoencoderKLWan> vae = options.vae.load(device, dtype);
  const at::Tensor latents =
      (options.latents ? read_latents(options.latents, config.z_dim) : random_latents(options, config))
          .to(device, dtype);
  const VideoDecoder decoder{*vae, {layout(), mode, options.tiled != FALSE, config.temporal_scale()}, device};

  int64_t chunks() const { return latents.size(2); }
  int64_t frames() const { return 1 + (chunks() - 1) * config.temporal_scale(); }
  Size size() const {
    return {static_cast<int>(latents.size(4) * config.spatial_scale()),
            static_cast<int>(latents.size(3) * config.spatial_scale())};
  }
  WanPixelLayout layout() const { return pixel_layout(format, size()); }
  double operations() const {
    const auto of_chunk = [&](bool first) {
      return decode_operations(config, latents.size(3), latents.size(4), first);
    };
    return of_chunk(true) + static_cast<double>(chunks() - 1) * of_chunk(false);
  }
};

struct Timings {
  std::vector<VideoTime> videos;
  uint64_t checksum = 0;
};

Timings measure(const Bench &bench, FrameSink &sink, const ChecksumSink *checksum) {
  for (int i = 0; i < bench.options.warmup; ++i) bench.decoder.decode(bench.latents, sink, nullptr);
  Timings timings;
  for (int i = 0; i < bench.options.repeat; ++i) {
    timings.videos.push_back(bench.decoder.decode(bench.latents, sink, nullptr));
    if (!checksum) continue;
    if (i > 0 && checksum->value() != timings.checksum)
      throw Error(WAN_INTERNAL, "Video " + std::to_string(i) + " has the checksum " + hex(checksum->value()) +
                                    ", but the first had " + hex(timings.checksum));
    timings.checksum = checksum->value();
  }
  return timings;
}

double mean(const std::vector<double> &values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Interpolated between the two nearest, so that 0.5 gives the median.
double percentile(const std::vector<double> &sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

Report report_times(const Bench &bench, const Timings &timings) {
  std::vector<double> seconds, first_frames;
  for (const VideoTime &video : timings.videos) {
    seconds.push_back(video.seconds);
    first_frames.push_back(video.first_frame);
  }
  Report report = {{"seconds", seconds}};
  std::sort(seconds.begin(), seconds.end());
  const double median = percentile(seconds, 0.5);
  const auto frames = static_cast<double>(timings.videos.front().frames);
  report.update({{"seconds_min", seconds.front()},
                 {"seconds_mean", mean(seconds)},
                 {"seconds_p50", median},
                 {"seconds_p99", percentile(seconds, 0.99)},
                 {"first_frame_s", mean(first_frames)},
                 {"first_frame_max_s", *std::max_element(first_frames.begin(), first_frames.end())},
                 {"frames_per_s", frames / median},
                 {"realtime_at_24_fps", frames / 24 / median},
                 {"tflop", bench.operations() / 1e12},
                 {"tflop_per_s", bench.operations() / 1e12 / median}});
  if (bench.options.checksum) report["checksum"] = hex(timings.checksum);
  return report;
}

Report report_memory(at::Device device) {
  constexpr auto kAllPools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  int64_t reserved = 0;
  if (!device.is_cpu())
    reserved =
        at::getDeviceAllocator(device.type())->getDeviceStats(device.index()).reserved_bytes[kAllPools].peak;
  const WanMemory memory = memory_in_use(device);
  return {{"peak_allocated_gb", static_cast<double>(memory.gpu_peak_bytes) / 1e9},
          {"peak_reserved_gb", static_cast<double>(reserved) / 1e9},
          {"pinned_gb", static_cast<double>(memory.pinned_bytes) / 1e9}};
}

Timeline trace_video(const Bench &bench, const at::Tensor &latents, FrameSink &sink) {
  Trace trace(bench.device, /*chunks=*/bench.options.trace != nullptr);
  bench.decoder.decode(latents, sink, &trace);
  synchronize(bench.device);
  return trace.finish();
}

void write_trace(const Bench &bench, const Timeline &timeline) {
  const int64_t middle = bench.chunks() / 2;
  Report report = {{"mode", bench.mode == Mode::kSync ? "sync" : "async"}};
  report.update(timeline_report(timeline, std::max(middle - 1, int64_t{0}), middle + 1));
  std::ofstream out(bench.options.trace);
  if (!(out << report.dump() << std::flush))
    throw Error(WAN_INTERNAL, std::string("'") + bench.options.trace + "' cannot be written");
}

/// One more video under CUPTI, apart from the measured ones, which it would slow down.
Report report_gpu(const Bench &bench, FrameSink &sink) {
  // The first kernels after CUPTI's start are slow.
  if (!bench.device.is_cpu()) trace_video(bench, bench.latents.narrow(2, 0, 1), sink);
  const Timeline timeline = trace_video(bench, bench.latents, sink);
  if (bench.options.trace) write_trace(bench, timeline);
  if (bench.device.is_cpu()) return Report::object();
  const Coverage kernels = coverage(timeline, {Lane::kKernel});
  const Coverage all = coverage(timeline, {Lane::kKernel, Lane::kCopy});
  Report report = {{"gpu_busy", kernels.share},         {"kernel_gaps", kernels.gaps},
                   {"kernel_gaps_us", kernels.gap_us},  {"longest_kernel_gap_us", kernels.longest_gap_us},
                   {"gpu_busy_with_copies", all.share}, {"host_gaps", all.gaps},
                   {"host_gaps_us", all.gap_us},        {"longest_host_gap_us", all.longest_gap_us}};
  if (bench.options.ops) report["ops"] = kernel_table(timeline);
  return report;
}

Report traced_or_why_not(const Bench &bench, FrameSink &sink) {
  try {
    return report_gpu(bench, sink);
  } catch (const Error &failure) {
    if (failure.kind() != WAN_DEVICE) throw;
    return {{"gpu_busy", nullptr}, {"trace_error", failure.what()}};
  }
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  const at::Device device = parse_device(options.device ? options.device : "auto");
  // So that the checksums of two processes can be compared. After parse_device(): it asks for CUDA.
  at::manual_seed(0);
  const Bench bench{options, device};
  const c10::DeviceGuard guard(bench.device);
  const size_t video_bytes = bench.layout().size * static_cast<size_t>(bench.frames());
  const std::string sink_name = options.sink ? options.sink : "null";
  std::unique_ptr<FrameSink> sink = make_sink(sink_name, video_bytes);
  const ChecksumSink *checksum = nullptr;
  if (options.checksum) {
    auto summing = std::make_unique<ChecksumSink>(std::move(sink));
    checksum = summing.get();
    sink = std::move(summing);
  }

  Report report = {{"what", "decode"},
                   {"device", bench.device.str()},
                   {"mode", bench.mode == Mode::kSync ? "sync" : "async"},
                   {"tiled", options.tiled != FALSE},
                   {"dtype", bench.dtype == at::kFloat ? "fp32" : "bf16"},
                   {"size", std::to_string(bench.size().width) + "x" + std::to_string(bench.size().height)},
                   {"format", bench.format == WAN_PIXEL_RGB ? "rgb" : "nv12"},
                   {"sink", sink_name},
                   {"base_dim", bench.config.decoder_base_dim.value_or(bench.config.base_dim)},
                   {"latent_frames", bench.chunks()},
                   {"frames", bench.frames()}};
  report.update(report_times(bench, measure(bench, *sink, checksum)));
  report.update(report_memory(bench.device));
  report.update(traced_or_why_not(bench, *sink));
  const double peak = matmul_tflop_per_s(bench.device);
  report["matmul_tflop_per_s"] = peak;
  report["share_of_matmul"] = report["tflop_per_s"].get<double>() / peak;
  if (options.dump) bench.decoder.dump(bench.latents, options.dump);
  return report;
}

}  // namespace

void decode(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
