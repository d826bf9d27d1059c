// SPDX-License-Identifier: LGPL-2.1-or-later
#include "device.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <string_view>

#include "error.h"
#include "host.h"
#include "ops/kernel_set.h"
#include "ops/kernels.h"

namespace wan {

namespace {

constexpr const char *kCudaModule = "libwan-engine-cuda.so";

std::filesystem::path own_directory() {
  Dl_info info;
  dladdr(reinterpret_cast<const void *>(&own_directory), &info);
  return std::filesystem::path(info.dli_fname).parent_path();
}

/// What keeps this process from using CUDA, and what to do about it.
struct Obstacle {
  std::string reason, remedy;
};

/// "12.4" of 12040, as CUDA writes its versions.
std::string version_text(long version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// Why LibTorch counts no GPU.
Obstacle no_gpu(void *driver) {
  int version = 0;
  const auto get_version = reinterpret_cast<int (*)(int *)>(dlsym(driver, "cuDriverGetVersion"));
  const long needed = at::detail::getCUDAHooks().versionCUDART();
  if (get_version && get_version(&version) == 0 && version / 1000 < needed / 1000)
    return {"the NVIDIA driver is too old (it is for CUDA " + version_text(version) + ", and CUDA " +
                version_text(needed) + " is needed)",
            "update the driver"};
  if (std::getenv("CUDA_VISIBLE_DEVICES"))
    return {"CUDA_VISIBLE_DEVICES leaves no GPU", "unset it or name the GPU in it"};
  return {"the NVIDIA driver sees no GPU", "see what nvidia-smi says"};
}

/// Loads LibTorch's CUDA half together with our kernels, once in the process. It is kept apart so that the
/// engine also runs where there is no CUDA. It must come before anything asks LibTorch about CUDA, since
/// LibTorch remembers the answer. Returns why there is no CUDA, or nothing.
const std::optional<Obstacle> &load_cuda_module() {
  static const std::optional<Obstacle> obstacle = []() -> std::optional<Obstacle> {
    void *const driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver)
      return Obstacle{"there is no NVIDIA driver (libcuda.so.1)",
                      "install the driver, or start the container with the GPU (--gpus all)"};
    const std::string module = (own_directory() / kCudaModule).string();
    if (!std::filesystem::exists(module))
      return Obstacle{"this engine was built without CUDA", "build it with -Dcuda=enabled"};
    if (!dlopen(module.c_str(), RTLD_NOW))
      return Obstacle{dlerror(), "give the build a LibTorch with all its CUDA libraries"};
    if (c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount() == 0) return no_gpu(driver);
    // The decoder's buffers come in several large sizes; without expandable segments, a third of the memory
    // lies between them. Memory that several threads touch and then lock is page-locked four times as fast as
    // what the driver allocates.
    if (!std::getenv("PYTORCH_ALLOC_CONF") && !std::getenv("PYTORCH_CUDA_ALLOC_CONF"))
      c10::CachingAllocator::setAllocatorSettings(
          "expandable_segments:True,pinned_use_cuda_host_register:True,pinned_num_register_threads:8");
    return std::nullopt;
  }();
  return obstacle;
}

/// The N of "cuda:N", 0 of "cuda", -1 of any other name.
int parse_index(const std::string &name) {
  if (name == "cuda") return 0;
  if (!name.starts_with("cuda:")) return -1;
  const char *begin = name.c_str() + 5, *end = name.c_str() + name.size();
  int index = -1;
  const auto [rest, status] = std::from_chars(begin, end, index);
  return status == std::errc() && rest == end ? index : -1;
}

Error unusable(const std::string &name, const std::string &reason) {
  return {WAN_DEVICE, "Device '" + name + "' cannot be used: " + reason};
}

std::string too_old(int capability) {
  return "its compute capability is " + std::to_string(capability / 10) + "." +
         std::to_string(capability % 10) + ", and " + std::to_string(kLeastCapability / 10) + "." +
         std::to_string(kLeastCapability % 10) + " or above is needed";
}

at::Device gpu(size_t index) {
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

/// LibTorch's part of a GPU. Throws wan::Error (WAN_DEVICE).
void initialize_cuda(const std::string &name) {
  try {
    at::globalContext().lazyInitDevice(at::kCUDA);
  } catch (const c10::Error &failure) {
    throw unusable(name, first_line(failure.what_without_backtrace()));
  }
}

at::Device choose_gpu(const std::string &name, int index) {
  if (const auto &obstacle = load_cuda_module())
    throw unusable(name, obstacle->reason + ": " + obstacle->remedy);
  const int count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
  if (index >= count) throw unusable(name, "the last GPU is cuda:" + std::to_string(count - 1));
  initialize_cuda(name);
  const at::Device device = gpu(static_cast<size_t>(index));
  if (const int capability = compute_capability(device); capability < kLeastCapability)
    throw unusable(name, too_old(capability));
  require_working(device);
  return device;
}

DeviceChoice choose_automatically() {
  DeviceChoice choice = {at::kCPU, {}};
  if (const auto &obstacle = load_cuda_module()) {
    if (has_nvidia_gpu())
      choice.passed_over.push_back("The NVIDIA GPU of this machine is not used: " + obstacle->reason + "; " +
                                   obstacle->remedy + ", or choose device=cpu");
    return choice;
  }
  initialize_cuda("auto");
  std::vector<Gpu> gpus;
  const int count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
  for (int i = 0; i < count; ++i) {
    const at::Device device = gpu(static_cast<size_t>(i));
    gpus.push_back(
        {describe_device(device), compute_capability(device), [device] { return has_failed(device); }});
  }
  if (const auto index = first_usable(gpus, choice.passed_over)) {
    choice.device = gpu(*index);
    return choice;
  }
  // The CPU does not take the place of a GPU that has failed.
  for (size_t i = 0; i < gpus.size(); ++i)
    if (gpus[i].capability >= kLeastCapability) require_working(gpu(i));
  return choice;
}

constexpr auto kAllPools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

/// What CUDA said of the GPUs that have failed.
class Failures {
 public:
  /// Empty where the GPU works. Throws c10::Error where that cannot be known now.
  std::string of(at::Device device) {
    const std::lock_guard lock(mutex_);
    std::string &failure = failures_[device.index()];
    // An error that is not for good is gone when it was told once.
    if (failure.empty() && !ask(device).empty()) failure = ask(device);
    return failure;
  }

 private:
  static std::string ask(at::Device device) {
    try {
      const c10::impl::VirtualGuardImpl guard(device.type());
      guard.queryStream(guard.getStream(device));
      return "";
    } catch (const c10::Error &failure) {
      if (passes(failure)) throw;
      return first_line(failure.what_without_backtrace());
    }
  }
  /// What other processes do to a GPU, which works again when they end.
  static bool passes(const c10::Error &failure) {
    const std::string_view text = failure.what_without_backtrace();
    return text.find("out of memory") != text.npos || text.find("busy or unavailable") != text.npos;
  }

  std::mutex mutex_;
  std::map<c10::DeviceIndex, std::string> failures_;
};

Failures &failures() {
  static Failures *const failures = new Failures;  // also while the process ends
  return *failures;
}

c10::CachingDeviceAllocator::DeviceStats allocator_stats(at::Device device) {
  return at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
}

}  // namespace

DeviceChoice choose_device(const std::string &name) {
  kernel_set();  // an error in the environment is told first
  load_cuda_module();
  if (name == "cpu") return {at::kCPU, {}};
  if (name == "auto") return choose_automatically();
  const int index = parse_index(name);
  if (index < 0) throw invalid("Device '" + name + "' is not one of auto, cpu, cuda and cuda:N");
  return {choose_gpu(name, index), {}};
}

std::optional<size_t> first_usable(const std::vector<Gpu> &gpus, std::vector<std::string> &passed_over) {
  for (size_t i = 0; i < gpus.size(); ++i) {
    const bool is_old = gpus[i].capability < kLeastCapability;
    if (!is_old && !gpus[i].has_failed()) return i;
    passed_over.push_back("The GPU " + gpus[i].label + " is not used: " +
                          (is_old ? too_old(gpus[i].capability) + "; use another GPU, or choose device=cpu"
                                  : "it has failed; restart the application to use it again"));
  }
  return std::nullopt;
}

std::string describe_device(at::Device device) {
  if (!device.is_cuda()) return device.str();
  return device.str() + " (" + kernels::DeviceName::call(device.index()) + ")";
}

int compute_capability(at::Device device) {
  if (!device.is_cuda()) return 0;
  return static_cast<int>(kernels::ComputeCapability::call(device.index()));
}

bool has_failed(at::Device device) {
  return device.is_cuda() && !failures().of(device).empty();
}

void require_working(at::Device device) {
  if (!has_failed(device)) return;
  throw Error(WAN_DEVICE, "Device " + describe_device(device) + " has failed (" + failures().of(device) +
                              ") and cannot be used by this process any more: restart the application");
}

at::Tensor hold(c10::DataPtr memory, int64_t bytes) {
  void *const data = memory.get();
  const c10::DeleterFnPtr free = memory.get_deleter();
  void *const context = memory.release_context();
  const auto free_or_leave = [free, context](void *) {
    try {
      free(context);
    } catch (const c10::Error &) {
      // The device has failed, which a generation has reported.
    }
  };
  return at::from_blob(data, {bytes}, free_or_leave, at::dtype(at::kByte));
}

at::Tensor empty_page_locked(int64_t bytes) {
  return hold(at::getHostAllocator(at::kCUDA)->allocate(static_cast<size_t>(bytes)), bytes);
}

uint64_t free_memory(at::Device device) {
  if (!device.is_cpu()) {
    const auto stats = allocator_stats(device);
    const int64_t cached = stats.reserved_bytes[kAllPools].current - stats.allocated_bytes[kAllPools].current;
    return at::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first +
           static_cast<uint64_t>(cached);
  }
  return free_host_memory();
}

WanMemory memory_in_use(at::Device device) {
  WanMemory memory{};
  if (device.is_cpu()) return memory;
  const auto stats = allocator_stats(device);
  memory.gpu_bytes = static_cast<uint64_t>(stats.allocated_bytes[kAllPools].current);
  memory.gpu_peak_bytes = static_cast<uint64_t>(stats.allocated_bytes[kAllPools].peak);
  memory.pinned_bytes =
      static_cast<uint64_t>(at::getHostAllocator(device.type())->get_stats().allocated_bytes.current);
  return memory;
}

void synchronize(at::Device device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.synchronizeStream(guard.getStream(device));
}

void LaunchWindow::advance() {
  if (device_.is_cpu()) return;
  std::optional<c10::Event> &layer = layers_[next_];
  if (layer) layer->synchronize();
  layer.emplace(device_.type());
  layer->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  next_ = (next_ + 1) % layers_.size();
}

}  // namespace wan
