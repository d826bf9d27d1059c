// wan-bench generate: one clip from prompt to frames, the seconds of each stage.
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>

#include <array>

#include "common.h"
#include "device.h"
#include "frame_sink.h"
#include "pipeline/frame_ring.h"
#include "random_weights.h"

namespace wan::bench {
namespace {

struct Options {
  char *size = nullptr, *model = nullptr, *device = nullptr, *dtype = nullptr, *tokenizer = nullptr,
       *memory = nullptr;
  int frames = 81, steps = 2, layers = 0, clips = 1;
  gboolean checksum = FALSE, json = FALSE;
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
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "fp32 or bf16 (bf16)", "T"},
      {"memory", 0, 0, G_OPTION_ARG_STRING, &options.memory,
       "where the experts' weights are: auto, resident, one-expert or stream (auto)", "M"},
      {"clips", 0, 0, G_OPTION_ARG_INT, &options.clips, "clips to make; the figures are the last one's (1)",
       "N"},
      {"checksum", 0, 0, G_OPTION_ARG_NONE, &options.checksum, "print a checksum of the last clip's frames",
       nullptr},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("A clip from prompt to frames", entries, argc, argv);
  return options;
}

/// Hears a generation: the seconds of each stage and of the first frame.
struct Stopwatch {
  Clock::time_point start = Clock::now();
  std::array<double, 4> stage{};
  double first_frame = 0;
  int64_t frames = 0;
  std::optional<ChecksumSink> checksum;

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
      if (watch->checksum)
        watch->checksum->take(frames->data, frames->frame_size * static_cast<size_t>(frames->num_frames));
      free_frames(frames);
      return true;
    };
    return callbacks;
  }
};

WanGenerateOptions clip(const Options &options, Size size) {
  WanGenerateOptions clip{};
  clip.prompt = "a red circle bouncing on a blue background";
  clip.negative_prompt = "";
  clip.num_frames = options.frames;
  clip.steps = options.steps;
  clip.guidance_scale = 4.0;
  clip.guidance_scale_2 = 3.0;
  clip.flow_shift = 3.0;
  clip.layout = pixel_layout(WAN_PIXEL_NV12, size);
  return clip;
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  const Size size = parse_size(options.size ? options.size : "832x480");
  const at::Device device = parse_device(options.device ? options.device : "auto");
  const at::ScalarType dtype = parse_dtype(options.dtype ? options.dtype : "bf16");
  // So that the checksums of two processes can be compared. After parse_device(): it asks for CUDA.
  at::manual_seed(0);
  const Clock::time_point start = Clock::now();
  const CheckpointConfig config =
      options.model ? CheckpointConfig::read(options.model) : a14b_config(options.layers);
  auto source =
      options.model ? open_checkpoint(config, device, [](uint64_t, uint64_t) {}) : random_components(device);
  const std::filesystem::path tokenizer =
      options.tokenizer ? options.tokenizer : config.directory / "tokenizer";
  WanPipeline pipeline(config, std::move(source), Tokenizer(tokenizer), device, dtype,
                       parse_memory_mode(options.memory ? options.memory : "auto"));
  synchronize(device);
  const double load_seconds = seconds_since(start);

  for (int i = 1; i < options.clips; ++i)
    pipeline.generate(clip(options, size), RunContext(Stopwatch().callbacks()));
  Stopwatch watch;
  if (options.checksum) watch.checksum.emplace(make_sink("null", 0)).rewind();
  pipeline.generate(clip(options, size), RunContext(watch.callbacks()));
  const double total = seconds_since(watch.start);
  const WanMemory memory = memory_in_use(device);
  Report report = {{"what", "generate"},
                   {"device", device.str()},
                   {"memory", memory_mode_name(pipeline.memory_mode())},
                   {"size", std::to_string(size.width) + "x" + std::to_string(size.height)},
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
  if (watch.checksum) report["checksum"] = hex(watch.checksum->value());
  return report;
}

}  // namespace

void generate(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
