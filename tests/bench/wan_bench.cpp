// wan-bench: speed and memory of the engine, without a checkpoint.
//   wan-bench generate --size 832x480 --frames 81 --steps 2 [--model DIR] [--layers N] [--device D] [--dtype
//   T] [--json]
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <glib.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "device.h"
#include "pipeline/frame_ring.h"
#include "random_weights.h"

namespace wan::bench {
namespace {

struct Options {
  char *size = nullptr, *model = nullptr, *device = nullptr, *dtype = nullptr, *tokenizer = nullptr;
  int frames = 81, steps = 2, layers = 0, width = 832, height = 480;
  gboolean json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const GOptionEntry entries[] = {
      {"size", 0, 0, G_OPTION_ARG_STRING, &options.size, "size of the video (832x480)", "WxH"},
      {"frames", 0, 0, G_OPTION_ARG_INT, &options.frames, "number of frames (81)", "N"},
      {"steps", 0, 0, G_OPTION_ARG_INT, &options.steps, "denoising steps (2)", "N"},
      {"layers", 0, 0, G_OPTION_ARG_INT, &options.layers, "transformer blocks instead of A14B's 40", "N"},
      {"model", 0, 0, G_OPTION_ARG_STRING, &options.model, "a checkpoint instead of A14B with random weights",
       "DIR"},
      {"tokenizer", 0, 0, G_OPTION_ARG_STRING, &options.tokenizer, "tokenizer of random weights", "DIR"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device, "auto, cpu, cuda or cuda:N (auto)", "D"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "float32 or bfloat16 (bfloat16)", "T"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  GOptionContext *context = g_option_context_new("generate");
  g_option_context_add_main_entries(context, entries, nullptr);
  GError *error = nullptr;
  const bool parsed = g_option_context_parse(context, &argc, &argv, &error);
  g_option_context_free(context);
  if (!parsed) throw invalid(error->message);
  if (argc != 2 || std::string(argv[1]) != "generate") throw invalid("usage: wan-bench generate [options]");
  if (options.size && std::sscanf(options.size, "%dx%d", &options.width, &options.height) != 2)
    throw invalid("--size must be WxH");
  return options;
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Hears a generation: the seconds of each stage and of the first frame.
struct Stopwatch {
  Clock::time_point start = Clock::now();
  std::array<double, 4> stage{};
  double first_frame = 0;
  int64_t frames = 0;

  WanCallbacks callbacks() {
    WanCallbacks callbacks{};
    callbacks.user = this;
    callbacks.progress = [](void *user, const WanProgress *progress) {
      static_cast<Stopwatch *>(user)->stage[progress->stage] = progress->seconds;
    };
    callbacks.frames = [](void *user, WanFrames *frames) {
      auto *watch = static_cast<Stopwatch *>(user);
      if (watch->frames == 0) watch->first_frame = seconds_since(watch->start);
      watch->frames += frames->num_frames;
      free_frames(frames);
      return true;
    };
    return callbacks;
  }
};

WanGenerateOptions clip(const Options &options) {
  WanGenerateOptions clip{};
  clip.prompt = "a red circle bouncing on a blue background";
  clip.negative_prompt = "";
  clip.num_frames = options.frames;
  clip.steps = options.steps;
  clip.guidance_scale = 4.0;
  clip.guidance_scale_2 = 3.0;
  clip.flow_shift = 3.0;
  clip.layout.format = WAN_PIXEL_NV12;
  clip.layout.width = clip.layout.stride[0] = clip.layout.stride[1] = options.width;
  clip.layout.height = options.height;
  clip.layout.offset[1] = static_cast<size_t>(options.width) * static_cast<size_t>(options.height);
  clip.layout.size = clip.layout.offset[1] * 3 / 2;
  return clip;
}

nlohmann::ordered_json run(const Options &options) {
  const c10::InferenceMode inference;
  const at::Device device = parse_device(options.device ? options.device : "auto");
  const auto dtype = options.dtype && std::string(options.dtype) == "float32" ? at::kFloat : at::kBFloat16;
  const Clock::time_point start = Clock::now();
  const CheckpointConfig config =
      options.model ? CheckpointConfig::read(options.model) : a14b_config(options.layers);
  auto source =
      options.model ? open_checkpoint(config, device, [](uint64_t, uint64_t) {}) : random_components(device);
  const std::filesystem::path tokenizer =
      options.tokenizer ? options.tokenizer : config.directory / "tokenizer";
  WanPipeline pipeline(config, std::move(source), Tokenizer(tokenizer), device, dtype);
  synchronize(device);
  const double load_seconds = seconds_since(start);

  Stopwatch watch;
  pipeline.generate(clip(options), RunContext(watch.callbacks()));
  const double total = seconds_since(watch.start);
  const WanMemory memory = memory_in_use(device);
  return {{"what", "generate"},
          {"device", device.str()},
          {"size", std::to_string(options.width) + "x" + std::to_string(options.height)},
          {"frames", watch.frames},
          {"steps", options.steps},
          {"load_s", load_seconds},
          {"text_s", watch.stage[WAN_STAGE_TEXT]},
          {"denoise_s", watch.stage[WAN_STAGE_DENOISE]},
          {"decode_s", watch.stage[WAN_STAGE_DECODE]},
          {"first_frame_s", watch.first_frame},
          {"total_s", total},
          {"peak_gpu_gb", static_cast<double>(memory.gpu_peak_bytes) / 1e9},
          {"pinned_gb", static_cast<double>(memory.pinned_bytes) / 1e9}};
}

}  // namespace
}  // namespace wan::bench

int main(int argc, char **argv) {
  try {
    const auto options = wan::bench::parse(argc, argv);
    const auto result = wan::bench::run(options);
    if (options.json) {
      std::cout << result.dump() << "\n";
    } else {
      for (const auto &[key, value] : result.items()) std::cout << key << ": " << value << "\n";
    }
    return 0;
  } catch (const std::exception &failure) {
    std::cerr << "wan-bench: " << failure.what() << "\n";
    return 1;
  }
}
