// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench generate: one clip from prompt to frames, the seconds of each stage.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/InferenceMode.h>

#include <sys/resource.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

#include "common.h"
#include "device.h"
#include "frame_sink.h"
#include "output/colours.h"
#include "output/frame_ring.h"
#include "pipeline/clip_pipeline.h"
#include "random_weights.h"

namespace wan::bench {
namespace {

struct Options {
  char *size = nullptr, *model = nullptr, *device = nullptr, *dtype = nullptr, *tokenizer = nullptr;
  char *prompt = nullptr, *scheduler = nullptr, *sigmas = nullptr, *cache = nullptr, *memory = nullptr;
  char *quantization = nullptr, *out = nullptr, *latents = nullptr, *random = nullptr, *picture = nullptr;
  int frames = 0, steps = 0, layers = 0, clips = 1;
  gint64 seed = 0;
  double guidance_scale = -1, flow_shift = -1, cache_threshold = 0.05, gpu_memory = 0, correction = 0;
  gboolean new_prompts = FALSE, film = FALSE, checksum = FALSE, json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const std::string models = "one of " + released_models() + " with random weights (T2V-A14B)";
  const GOptionEntry entries[] = {
      {"random", 0, 0, G_OPTION_ARG_STRING, &options.random, models.c_str(), "MODEL"},
      {"picture", 0, 0, G_OPTION_ARG_STRING, &options.picture,
       "begin with a picture of noise of that size (1920x1080 where the model needs one)", "WxH"},
      {"gpu-memory", 0, 0, G_OPTION_ARG_DOUBLE, &options.gpu_memory,
       "as on a GPU of so much memory: the rest is taken first", "GB"},
      {"size", 0, 0, G_OPTION_ARG_STRING, &options.size, "size of the video (the model's)", "WxH"},
      {"frames", 0, 0, G_OPTION_ARG_INT, &options.frames, "number of frames (the model's)", "N"},
      {"steps", 0, 0, G_OPTION_ARG_INT, &options.steps, "denoising steps (the model's; 2)", "N"},
      {"sigmas", 0, 0, G_OPTION_ARG_STRING, &options.sigmas, "noise levels instead of steps", "S,S,..."},
      {"scheduler", 0, 0, G_OPTION_ARG_STRING, &options.scheduler, "auto, unipc or euler (auto)", "S"},
      {"flow-shift", 0, 0, G_OPTION_ARG_DOUBLE, &options.flow_shift, "shift (the model's)", "X"},
      {"guidance-scale", 0, 0, G_OPTION_ARG_DOUBLE, &options.guidance_scale, "of both experts (the model's)",
       "X"},
      {"cache", 0, 0, G_OPTION_ARG_STRING, &options.cache, "none or first-block (none)", "C"},
      {"cache-threshold", 0, 0, G_OPTION_ARG_DOUBLE, &options.cache_threshold, "of first-block (0.05)", "X"},
      {"prompt", 0, 0, G_OPTION_ARG_STRING, &options.prompt, "what the video shows", "TEXT"},
      {"seed", 0, 0, G_OPTION_ARG_INT64, &options.seed, "seed (0)", "N"},
      {"layers", 0, 0, G_OPTION_ARG_INT, &options.layers,
       "transformer blocks of random weights (the model's)", "N"},
      {"model", 0, 0, G_OPTION_ARG_STRING, &options.model, "a checkpoint instead of random weights", "DIR"},
      {"tokenizer", 0, 0, G_OPTION_ARG_STRING, &options.tokenizer, "tokenizer of random weights", "DIR"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device,
       "auto, cpu, cuda or cuda:N, or several as cuda:0,1 (auto)", "D"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "fp32 or bf16 (bf16)", "T"},
      {"quantization", 0, 0, G_OPTION_ARG_STRING, &options.quantization,
       "of the experts' weights: none or fp8 (none)", "Q"},
      {"memory", 0, 0, G_OPTION_ARG_STRING, &options.memory,
       "where the experts' weights are: auto, resident, one-expert or stream (auto)", "M"},
      {"clips", 0, 0, G_OPTION_ARG_INT, &options.clips, "clips to make; the figures are the last one's (1)",
       "N"},
      {"new-prompts", 0, 0, G_OPTION_ARG_NONE, &options.new_prompts,
       "each clip has a prompt of its own, whose text is encoded anew", nullptr},
      {"film", 0, 0, G_OPTION_ARG_NONE, &options.film,
       "each clip begins with the last frame of the one before; the colours of all are reported", nullptr},
      {"continuity-correction", 0, 0, G_OPTION_ARG_DOUBLE, &options.correction, "of a film's colours (0)",
       "X"},
      {"checksum", 0, 0, G_OPTION_ARG_NONE, &options.checksum, "print a checksum of the last clip's frames",
       nullptr},
      {"out", 0, 0, G_OPTION_ARG_STRING, &options.out, "write the frames, as RGB bytes", "FILE"},
      {"latents", 0, 0, G_OPTION_ARG_STRING, &options.latents,
       "write the latents after each step, as float32", "FILE"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("A clip from prompt to frames", entries, argc, argv);
  return options;
}

/// The value that `name` (the first of them where it is null) stands for. Throws wan::Error (WAN_INVALID).
template <typename Value>
Value choose(const char *option, const char *name,
             const std::vector<std::pair<std::string, Value>> &choices) {
  if (!name) return choices.front().second;
  for (const auto &[choice, value] : choices)
    if (choice == name) return value;
  throw invalid(std::string(option) + " does not take '" + name + "'");
}

/// "1,0.75". Throws wan::Error (WAN_INVALID).
std::vector<double> parse_sigmas(const std::string &text) {
  std::vector<double> sigmas;
  std::istringstream items(text);
  for (std::string item; std::getline(items, item, ',');) {
    char *end = nullptr;
    sigmas.push_back(std::strtod(item.c_str(), &end));
    if (item.empty() || *end != '\0') throw invalid("--sigmas must be numbers with commas between them");
  }
  return sigmas;
}

/// Throws wan::Error (WAN_NOT_FOUND) where `name` cannot be written; none for null.
std::ofstream open_output(const char *name) {
  std::ofstream file;
  if (name) file.open(name, std::ios::binary);
  if (name && !file) throw not_found(std::string(name) + " cannot be written");
  return file;
}

/// A photograph's size in numbers, [H, W, 3] uint8.
at::Tensor make_picture(const Options &options) {
  const Size size = parse_size(options.picture ? options.picture : "1920x1080");
  return at::randint(256, {size.height, size.width, 3}, at::kByte);
}

/// Hears a generation: the seconds of each stage and of the first frame.
struct Stopwatch {
  explicit Stopwatch(at::Tensor picture) : picture(std::move(picture)) {}

  Clock::time_point start = Clock::now();
  std::array<double, WAN_STAGE_DECODE + 1> stage{};
  double clip = 0;  // of the stage of pictures: CLIP's part, which comes last, or all
  double denoised = 0, first_frame = 0;
  int64_t frames = 0;
  int32_t steps = 0, cached = 0;
  const at::Tensor picture;
  std::ofstream out;  // of the frames, or closed
  std::optional<ChecksumSink> checksum;
  std::optional<Colours> colours;  // of a film's clip, whose frames are RGB
  Size size{};

  WanCallbacks callbacks() {
    WanCallbacks callbacks{};
    callbacks.user = this;
    callbacks.progress = [](void *user, const WanProgress *progress) {
      auto *watch = static_cast<Stopwatch *>(user);
      if (progress->stage == WAN_STAGE_PICTURES)
        watch->clip = progress->seconds - watch->stage[progress->stage];
      watch->stage[progress->stage] = progress->seconds;
      if (progress->stage != WAN_STAGE_DENOISE) return;
      watch->denoised = seconds_since(watch->start);
      watch->steps = progress->steps;
      watch->cached = progress->cached;
    };
    callbacks.picture = [](void *user, WanPictureKind, WanPicture *asked) {
      const at::Tensor &picture = static_cast<Stopwatch *>(user)->picture;
      *asked = {picture.const_data_ptr<uint8_t>(), static_cast<int32_t>(picture.size(1)),
                static_cast<int32_t>(picture.size(0)), static_cast<size_t>(picture.stride(0))};
      return true;
    };
    callbacks.frames = [](void *user, WanFrames *frames) {
      auto *watch = static_cast<Stopwatch *>(user);
      if (watch->frames == 0) watch->first_frame = seconds_since(watch->start);
      watch->frames += frames->num_frames;
      if (watch->out.is_open())
        watch->out.write(reinterpret_cast<const char *>(frames->data),
                         static_cast<std::streamsize>(frames->frame_size) * frames->num_frames);
      if (watch->checksum)
        watch->checksum->take(frames->data, frames->frame_size * static_cast<size_t>(frames->num_frames));
      if (watch->colours) watch->colours->add(watch->pixels(*frames));
      free_frames(frames);
      return true;
    };
    return callbacks;
  }
  /// [1, 3, T, H, W] float32, from 0 to 255.
  at::Tensor pixels(const WanFrames &frames) const {
    const at::Tensor bytes =
        at::from_blob(frames.data, {frames.num_frames, size.height, size.width, 3}, at::kByte);
    return bytes.permute({3, 0, 1, 2}).unsqueeze(0).to(at::kFloat);
  }
};

/// Of a clip: mean and deviation of red, green and blue.
Report colours_of(const Colours &colours) {
  const at::Tensor values = colours.statistics();
  const auto numbers = [](const at::Tensor &row) {
    return std::vector<double>(row.const_data_ptr<double>(), row.const_data_ptr<double>() + 3);
  };
  return {{"mean", numbers(values[0].contiguous())}, {"deviation", numbers(values[1].contiguous())}};
}

WanGenerateOptions clip(const Options &options, const WanDefaults &defaults,
                        const std::vector<double> &sigmas) {
  WanGenerateOptions clip{};
  clip.prompt = options.prompt ? options.prompt : "a red circle bouncing on a blue background";
  clip.negative_prompt = "";
  clip.seed = static_cast<uint64_t>(options.seed);
  clip.num_frames = options.frames ? options.frames : defaults.num_frames;
  clip.steps = options.steps ? options.steps : defaults.steps;
  const bool own_scale = options.guidance_scale < 0;
  clip.guidance_scale = own_scale ? defaults.guidance_scale : options.guidance_scale;
  clip.guidance_scale_2 = own_scale ? defaults.guidance_scale_2 : options.guidance_scale;
  clip.flow_shift = options.flow_shift < 0 ? defaults.flow_shift : options.flow_shift;
  clip.scheduler = choose<WanScheduler>(
      "--scheduler", options.scheduler,
      {{"auto", WAN_SCHEDULER_AUTO}, {"unipc", WAN_SCHEDULER_UNIPC}, {"euler", WAN_SCHEDULER_EULER}});
  clip.sigmas = options.sigmas ? sigmas.data() : nullptr;
  clip.num_sigmas = sigmas.size();
  clip.cache = choose<WanCache>("--cache", options.cache,
                                {{"none", WAN_CACHE_NONE}, {"first-block", WAN_CACHE_FIRST_BLOCK}});
  clip.cache_threshold = options.cache_threshold;
  const Size size = options.size ? parse_size(options.size) : Size{defaults.width, defaults.height};
  clip.layout = pixel_layout(options.out || options.film ? WAN_PIXEL_RGB : WAN_PIXEL_NV12, size);
  for (int kind = 0; kind < WAN_PICTURE_KINDS; ++kind)
    clip.pictures[kind] = defaults.pictures[kind] == WAN_PICTURE_REQUIRED;
  if (options.picture) clip.pictures[WAN_PICTURE_FIRST] = true;
  if (options.film) clip.continuity = WAN_CONTINUITY_LAST_FRAME;
  clip.continuity_correction = options.correction;
  return clip;
}

/// What this GPU has more than one of --gpu-memory. It is really taken, so that all that asks for
/// free memory finds what there would be, and what needs more fails.
at::Tensor take_memory(const Options &options, at::Device device) {
  if (options.gpu_memory <= 0) return at::empty({0}, at::kByte);
  if (device.is_cpu()) throw invalid("--gpu-memory needs a GPU");
  const auto total =
      static_cast<int64_t>(at::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).second);
  const int64_t rest = total - static_cast<int64_t>(options.gpu_memory * 1e9);
  if (rest < 0) throw invalid("--gpu-memory is more than the GPU has");
  return at::empty({rest}, at::dtype(at::kByte).device(device));
}

double host_peak_gb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e9;
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  const std::vector<at::Device> devices = choose_devices(options.device ? options.device : "auto").devices;
  const at::Device device = devices.front();
  const at::ScalarType dtype = parse_dtype(options.dtype ? options.dtype : "bf16");
  // So that the checksums of two processes can be compared. After choose_devices(): it asks for CUDA.
  at::manual_seed(0);
  const at::Tensor taken = take_memory(options, device), picture = make_picture(options);
  const Clock::time_point start = Clock::now();
  const CheckpointConfig config =
      options.model ? CheckpointConfig::read(options.model)
                    : released_config(options.random ? options.random : "T2V-A14B", options.layers);
  auto source = options.model ? open_checkpoint(config, {}, RunContext({}), [](uint64_t, uint64_t) {})
                              : random_components();
  const std::filesystem::path tokenizer = options.tokenizer ? options.tokenizer : config.tokenizer;
  ClipPipeline pipeline(config, std::move(source), Tokenizer(tokenizer),
                        {devices, dtype,
                         choose<WanQuantization>("--quantization", options.quantization,
                                                 {{"none", WAN_QUANTIZATION_NONE},
                                                  {"fp8", WAN_QUANTIZATION_FP8},
                                                  {"stored", WAN_QUANTIZATION_STORED}})},
                        parse_memory_mode(options.memory ? options.memory : "auto"));
  for (const at::Device each : devices) synchronize(each);
  const double load_seconds = seconds_since(start);

  const std::vector<double> sigmas = parse_sigmas(options.sigmas ? options.sigmas : "");
  WanGenerateOptions clip = bench::clip(options, config.defaults, sigmas);
  const std::string prompt = clip.prompt;
  Report colours = Report::array();
  const auto make = [&](Stopwatch &watch, const ClipPipeline::StepListener &listener) {
    watch.size = {clip.layout.width, clip.layout.height};
    if (options.film) watch.colours.emplace();
    watch.start = Clock::now();
    pipeline.generate(clip, RunContext(watch.callbacks()), listener);
    if (!options.film) return;
    colours.push_back(colours_of(*watch.colours));
    clip.pictures[WAN_PICTURE_FIRST] = false;
    ++clip.seed;
  };
  for (int i = 1; i < options.clips; ++i) {
    const std::string own = prompt + ", " + std::to_string(i);
    if (options.new_prompts) clip.prompt = own.c_str();
    Stopwatch watch(picture);
    make(watch, {});
  }
  clip.prompt = prompt.c_str();
  Stopwatch watch(picture);
  if (options.checksum) watch.checksum.emplace(make_sink("null", 0)).rewind();
  watch.out = open_output(options.out);
  std::ofstream latents_file = open_output(options.latents);
  ClipPipeline::StepListener write_latents;
  if (options.latents)
    write_latents = [&latents_file](const at::Tensor &latents) {
      const at::Tensor values = latents.to(at::kCPU, at::kFloat).contiguous();
      latents_file.write(reinterpret_cast<const char *>(values.const_data_ptr()),
                         static_cast<std::streamsize>(values.nbytes()));
    };
  make(watch, write_latents);
  const double total = seconds_since(watch.start);
  const WanMemory memory = memory_in_use(device);
  Report report = {{"what", "generate"},
                   {"model", options.model ? options.model : config.defaults.variant},
                   {"device", describe_devices(devices)},
                   {"memory", memory_mode_name(pipeline.components().experts().memory_mode())},
                   {"quantization", options.quantization ? options.quantization : "none"},
                   {"size", std::to_string(clip.layout.width) + "x" + std::to_string(clip.layout.height)},
                   {"frames", watch.frames},
                   {"steps", watch.steps},
                   {"forwards", watch.steps * (clip.guidance_scale > 1 ? 2 : 1)},
                   {"cached_forwards", watch.cached},
                   {"load_s", load_seconds},
                   {"text_s", watch.stage[WAN_STAGE_TEXT]},
                   {"pictures_s", watch.stage[WAN_STAGE_PICTURES]},
                   {"clip_s", config.image_encoder ? watch.clip : 0},
                   {"denoise_s", watch.stage[WAN_STAGE_DENOISE]},
                   {"decode_s", watch.stage[WAN_STAGE_DECODE]},
                   {"first_chunk_s", watch.first_frame - watch.denoised},
                   {"first_frame_s", watch.first_frame},
                   {"total_s", total},
                   {"peak_gpu_gb", static_cast<double>(memory.gpu_peak_bytes - taken.nbytes()) / 1e9},
                   {"host_peak_gb", host_peak_gb()},
                   {"pinned_gb", static_cast<double>(memory.pinned_bytes) / 1e9}};
  if (options.film) report["colours"] = colours;
  if (watch.checksum) report["checksum"] = hex(watch.checksum->value());
  return report;
}

}  // namespace

void generate(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
