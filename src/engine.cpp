// The C interface of wan/engine.h: exceptions become a status and a sentence here, and nowhere else.
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "checkpoint/config.h"
#include "device.h"
#include "pipeline/check_options.h"
#include "pipeline/frame_ring.h"
#include "pipeline/wan_pipeline.h"
#include "wan/engine.h"

struct WanModel {
  wan::WanPipeline pipeline;
};

namespace wan {

namespace {

/// Makes a sentence of the message.
WanStatus report(WanError *error, WanStatus status, std::string message) {
  if (!message.ends_with('.')) message += '.';
  std::strncpy(error->message, message.c_str(), sizeof(error->message) - 1);
  error->message[sizeof(error->message) - 1] = '\0';
  return status;
}

/// LibTorch's messages carry a C++ backtrace; the first line is the sentence.
std::string first_line(const char *text) {
  return std::string(text).substr(0, std::string(text).find('\n'));
}

/// LibTorch's CPU allocator has no exception type of its own, nor have the driver and CUDA's libraries where
/// they have no memory for themselves.
bool is_host_out_of_memory(const c10::Error &failure) {
  return std::strstr(failure.what(), "DefaultCPUAllocator") != nullptr;
}
bool is_gpu_out_of_memory(const c10::Error &failure) {
  if (dynamic_cast<const c10::OutOfMemoryError *>(&failure)) return true;
  for (const char *text :
       {"CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"})
    if (std::strstr(failure.what(), text)) return true;
  return false;
}

/// `advice` says what to change where the GPU has too little memory.
template <typename Function>
WanStatus guarded(WanError *error, const std::string &advice, Function function) {
  try {
    const c10::InferenceMode inference;
    function();
    return WAN_OK;
  } catch (const Error &failure) {
    return report(error, failure.kind(), failure.what());
  } catch (const c10::Error &failure) {
    if (is_gpu_out_of_memory(failure))
      return report(error, WAN_OUT_OF_MEMORY,
                    "The GPU has too little memory: " + advice + " (" +
                        first_line(failure.what_without_backtrace()) + ")");
    const bool memory = is_host_out_of_memory(failure);
    return report(error, memory ? WAN_OUT_OF_MEMORY : WAN_INTERNAL,
                  first_line(failure.what_without_backtrace()));
  } catch (const std::bad_alloc &) {
    return report(error, WAN_OUT_OF_MEMORY, "This machine has too little memory");
  } catch (const std::exception &failure) {
    return report(error, WAN_INTERNAL, first_line(failure.what()));
  }
}

at::ScalarType scalar_type(WanDtype dtype, at::Device device) {
  if (dtype == WAN_DTYPE_AUTO) return device.is_cpu() ? at::kFloat : at::kBFloat16;
  return dtype == WAN_DTYPE_BFLOAT16 ? at::kBFloat16 : at::kFloat;
}

WanStatus describe(const char *model_dir, WanDefaults *defaults, WanError *error) {
  return guarded(error, "", [&] { *defaults = CheckpointConfig::read(model_dir).defaults; });
}

WanStatus check(const char *model_dir, const WanGenerateOptions *options, WanError *error) {
  return guarded(error, "", [&] {
    // Which device that would be is not among the options: the one that is chosen by itself stands for it.
    if (options->on_device && parse_device("auto").is_cpu())
      throw Error(WAN_DEVICE, "Frames cannot stay on the GPU: the model would run on the CPU");
    check_options(CheckpointConfig::read(model_dir), *options);
  });
}

WanStatus load(const WanLoadOptions *options, const WanCallbacks *callbacks, WanModel **model,
               WanError *error) {
  const std::string advice =
      "choose " + smaller_memory_modes(options->memory) + "a smaller model, dtype=bfloat16 or device=cpu";
  return guarded(error, advice, [&] {
    const RunContext context(*callbacks);
    const at::Device device = parse_device(options->device);
    const CheckpointConfig config = CheckpointConfig::read(options->model_dir);
    Tokenizer tokenizer(config.tokenizer);
    // The source outlives this call (the text encoder comes back through it), the callbacks do not.
    auto loading =
        std::make_shared<std::optional<StageProgress>>(std::in_place, context, WAN_STAGE_LOAD, 100);
    std::vector<Lora> loras;
    for (size_t i = 0; i < options->num_loras; ++i) {
      const WanLora &lora = options->loras[i];
      loras.emplace_back(lora.path, lora.strength, lora.strength_2);
    }
    auto source = open_checkpoint(config, std::move(loras), device,
                                  [loading, context, last = 0](uint64_t bytes, uint64_t all) mutable {
                                    if (!*loading) return;
                                    context.check();
                                    const auto percent = static_cast<int32_t>(bytes * 10 / all * 10);
                                    if (percent != std::exchange(last, percent)) (*loading)->report(percent);
                                  });
    *model = new WanModel{{config, std::move(source), std::move(tokenizer), device,
                           scalar_type(options->dtype, device), options->quantization, options->memory}};
    (*loading)->report(100);
    loading->reset();
  });
}

WanStatus generate(WanModel *model, const WanGenerateOptions *options, const WanCallbacks *callbacks,
                   WanError *error) {
  const std::string advice = "choose " + smaller_memory_modes(model->pipeline.memory_mode()) +
                             "a smaller width, height or number of frames";
  const WanStatus status =
      guarded(error, advice, [&] { model->pipeline.generate(*options, RunContext(*callbacks)); });
  // What was queued before a cancel or an error must be done before the next call.
  if (status != WAN_OK) {
    WanError ignored;
    guarded(&ignored, "", [&] { synchronize(model->pipeline.device()); });
  }
  return status;
}

void memory(const WanModel *model, WanMemory *memory) {
  *memory = memory_in_use(model->pipeline.device());
  memory->pool_bytes = model->pipeline.pool_bytes();
  memory->mode = model->pipeline.memory_mode();
  const std::string device = model->pipeline.device().str();
  std::strncpy(memory->device, device.c_str(), sizeof memory->device - 1);
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
