// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The C interface of wan/engine.h: exceptions become a status and a sentence here, and nowhere else.
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>

#include <memory>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/input_file.h"
#include "device.h"
#include "ops/kernel_set.h"
#include "output/frame_ring.h"
#include "pipeline/check_options.h"
#include "pipeline/clip_pipeline.h"
#include "remote/remote_denoiser.h"
#include "threads.h"
#include "torch_error.h"
#include "wan/engine.h"

struct WanModel {
  wan::ClipPipeline pipeline;
  std::string device;  // as describe_devices() gives it
};

namespace wan {

namespace {

template <size_t size>
void write_text(char (&out)[size], std::string_view text) {
  out[whole_characters(text, size - 1).copy(out, size - 1)] = '\0';
}

/// Makes a sentence of the message, which may be of LibTorch or the system.
WanStatus report(WanError *error, WanStatus status, std::string message, const char *file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
  if (!message.ends_with('.')) message += '.';
  write_text(error->message, printable(message, message.npos));
  error->file = file;
  error->line = line;
  return status;
}

/// `advice` says what to change where the GPU has too little memory.
template <typename Advice, typename Function>
WanStatus guarded(WanError *error, Advice advice, Function function) {
  try {
    try {
      const c10::InferenceMode inference;
      function();
      return WAN_OK;
    } catch (...) {
      const Error failure = current_error(advice);
      return report(error, failure.kind(), failure.what(), failure.file(), failure.line());
    }
  } catch (const std::bad_alloc &) {  // also where there is no memory to report another with
    write_text(error->message, "This machine has too little memory.");
    error->file = nullptr;
    return WAN_OUT_OF_MEMORY;
  }
}

/// Where no more is known than that others use the GPU.
std::string wait_for_others() {
  return "end other programs that use it, or wait for them";
}

at::ScalarType scalar_type(WanDtype dtype, at::Device device) {
  if (dtype == WAN_DTYPE_AUTO) return device.is_cpu() ? at::kFloat : at::kBFloat16;
  return dtype == WAN_DTYPE_BFLOAT16 ? at::kBFloat16 : at::kFloat;
}

/// A clip as the checkpoint itself suggests it.
WanGenerateOptions suggested_options(const WanDefaults &defaults) {
  WanGenerateOptions options{};
  options.num_frames = defaults.num_frames;
  options.steps = defaults.steps;
  options.guidance_scale = defaults.guidance_scale;
  options.guidance_scale_2 = defaults.guidance_scale_2;
  options.flow_shift = defaults.flow_shift;
  options.scheduler = defaults.scheduler;
  for (int kind = 0; kind < WAN_PICTURE_KINDS; ++kind)
    options.pictures[kind] = defaults.pictures[kind] == WAN_PICTURE_REQUIRED;
  return options;
}

/// Of a checkpoint that can make what it suggests.
CheckpointConfig read_config(const char *model_dir) {
  CheckpointConfig config = CheckpointConfig::read(local_path(model_dir));
  try {
    check_options(config, suggested_options(config.defaults));
    check_size(config, config.defaults.width, config.defaults.height);
  } catch (const Error &failure) {
    throw invalid("The checkpoint " + config.directory.string() +
                  " suggests what it cannot make: " + failure.what());
  }
  return config;
}

WanStatus describe(const char *model_dir, WanDefaults *defaults, WanError *error) {
  return guarded(error, wait_for_others, [&] { *defaults = read_config(model_dir).defaults; });
}

void require_first_gpu(at::Device device) {
  if (device.is_cuda() && device.index() == 0) return;
  throw Error(WAN_DEVICE, "Frames cannot stay on the GPU: the model would run on " +
                              (device.is_cpu() ? "the CPU" : describe_device(device)));
}

WanStatus check(const char *model_dir, const WanGenerateOptions *options, WanError *error) {
  return guarded(error, wait_for_others, [&] {
    // Which device that would be is not among the options: the one that is chosen by itself stands for it,
    // and the caller takes it for the first.
    if (options->on_device) require_first_gpu(parse_device("auto"));
    check_options(read_config(model_dir), *options);
  });
}

/// With what there is to say about GPUs that are not used.
std::vector<at::Device> find_devices(const std::string &name, const RunContext &context) {
  const DeviceChoice choice = choose_devices(name);
  for (const std::string &sentence : choice.passed_over)
    context.log(choice.devices.front().is_cpu() ? WAN_LOG_WARNING : WAN_LOG_INFO, sentence);
  return choice.devices;
}

void log_choice(const RunContext &context, const Placement &placement) {
  const std::vector<at::Device> &devices = placement.devices;
  const auto text = [](uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  const std::string of_each = devices.size() > 1 ? " of each" : "";
  context.log(WAN_LOG_INFO, "The model is loaded on " + describe_devices(devices) + " in " +
                                (placement.dtype == at::kFloat ? "float32" : "bfloat16") + " by " +
                                describe_kernels(devices.front()) + ", where " +
                                (devices.front().is_cpu() ? ""
                                                          : text(least_free_memory(devices)) + of_each +
                                                                " are free, and on the host ") +
                                text(free_memory(at::kCPU)) + " are free");
  if (placement.vae_device)
    context.log(WAN_LOG_INFO, "Prompts and pictures are encoded, and frames decoded, on " +
                                  describe_device(*placement.vae_device));
}

/// The one that is asked for, which begins to load.
std::unique_ptr<NegativeDenoiser> find_worker(const WanLoadOptions &options, const CheckpointConfig &config,
                                              const Placement &placement, const RunContext &context) {
  if (!options.worker) return nullptr;
  if (config.causal)
    throw invalid(
        "A worker is of no use to an endless model, which has no guidance: unset the property worker");
  if (options.num_loras > 0)
    throw invalid(
        "A worker has no LoRAs, so its experts would be others: unset the property worker, or loras");
  return std::make_unique<RemoteDenoiser>(options.worker, config, placement, context);
}

/// After a failure: what was queued before it must be done before the next call. A GPU that cannot do it has
/// failed, whatever was reported; what else keeps it from that passes.
WanStatus settle(const std::vector<at::Device> &devices, WanStatus status, WanError *error) {
  for (const at::Device device : devices) {
    WanError ignored;
    guarded(&ignored, wait_for_others, [&] { synchronize(device); });
    if (guarded(&ignored, wait_for_others, [&] { require_working(device); }) != WAN_DEVICE) continue;
    *error = ignored;
    status = WAN_DEVICE;
  }
  return status;
}

WanStatus load(const WanLoadOptions *options, const WanCallbacks *callbacks, WanModel **model,
               WanError *error) {
  const auto advice = [options] {
    return "choose " + smaller_memory_modes(options->memory) +
           "a smaller model, dtype=bfloat16 or device=cpu";
  };
  std::vector<at::Device> devices;
  const WanStatus status = guarded(error, advice, [&] {
    require_compute_threads();
    const RunContext context(*callbacks);
    devices = find_devices(options->device, context);
    const at::Device device = devices.front();
    Placement placement = {devices, scalar_type(options->dtype, device), options->quantization};
    if (options->decoder_device)
      placement.vae_device = choose_device_beside(options->decoder_device, devices);
    CheckpointConfig config = read_config(options->model_dir);
    choose_decoder(config, options->decoder ? options->decoder : "full");
    auto worker = find_worker(*options, config, placement, context);
    Tokenizer tokenizer(config.tokenizer);
    // The source outlives this call (the text encoder comes back through it), the callbacks do not.
    auto loading =
        std::make_shared<std::optional<StageProgress>>(std::in_place, context, WAN_STAGE_LOAD, 100);
    std::vector<Lora> loras;
    for (size_t i = 0; i < options->num_loras; ++i) {
      const WanLora &lora = options->loras[i];
      loras.emplace_back(local_path(lora.path), lora.strength, lora.strength_2);
    }
    auto source = open_checkpoint(config, std::move(loras), context,
                                  [loading, context, last = 0](uint64_t bytes, uint64_t all) mutable {
                                    if (!*loading) return;
                                    context.check();
                                    const auto percent = static_cast<int32_t>(bytes * 10 / all * 10);
                                    if (percent != std::exchange(last, percent)) (*loading)->report(percent);
                                  });
    const auto turn = wait_for_turn(context);
    log_choice(context, placement);
    NegativeDenoiser *const negative = worker.get();
    std::unique_ptr<WanModel> loaded(new WanModel{
        {config, std::move(source), std::move(tokenizer), placement, options->memory, std::move(worker)},
        describe_devices(devices)});
    if (negative) {
      negative->wait_until_loaded(context);
      loaded->device += "; " + negative->description();
    }
    context.log(WAN_LOG_INFO, "The model is loaded with memory=" +
                                  memory_mode_name(loaded->pipeline.components().experts().memory_mode()));
    *model = loaded.release();
    (*loading)->report(100);
    loading->reset();
  });
  return status == WAN_OK ? status : settle(devices, status, error);
}

WanStatus generate(WanModel *model, const WanGenerateOptions *options, const WanCallbacks *callbacks,
                   WanError *error) {
  const auto advice = [model] {
    return "choose " + model->pipeline.components().experts().smaller_memory_modes() +
           "a smaller width, height or number of frames";
  };
  const std::vector<at::Device> devices = model->pipeline.components().placement().all();
  const WanStatus status = guarded(error, advice, [&] {
    for (const at::Device device : devices) require_working(device);
    require_compute_threads();
    model->pipeline.generate(*options, RunContext(*callbacks));
  });
  return status == WAN_OK ? status : settle(devices, status, error);
}

void memory(const WanModel *model, WanMemory *memory) {
  *memory = {};
  for (const at::Device device : model->pipeline.components().placement().all()) {
    const WanMemory own = memory_in_use(device);
    memory->gpu_bytes += own.gpu_bytes;
    memory->gpu_peak_bytes += own.gpu_peak_bytes;
    memory->pinned_bytes = own.pinned_bytes;  // of the host, the same for all
  }
  memory->pool_bytes = model->pipeline.pool_bytes();
  const RankSharing sharing = model->pipeline.sharing();
  memory->guidance_devices = sharing.predictions;
  memory->sequence_devices = sharing.ranks;
  memory->mode = model->pipeline.components().experts().memory_mode();
  write_text(memory->device, model->device);
}

void model_free(WanModel *model) {
  delete model;
}

const WanEngineApi kApi = {WAN_ENGINE_ABI, WAN_VERSION, describe,   check,      load,
                           generate,       memory,      model_free, free_frames};

}  // namespace

}  // namespace wan

extern "C" const WanEngineApi *wan_engine(uint32_t abi) {
  return abi == WAN_ENGINE_ABI ? &wan::kApi : nullptr;
}
