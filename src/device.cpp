#include "device.h"

#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "error.h"

namespace wan {

namespace {

constexpr const char *kCudaModule = "libwan-engine-cuda.so";

std::filesystem::path own_directory() {
  Dl_info info;
  dladdr(reinterpret_cast<const void *>(&own_directory), &info);
  return std::filesystem::path(info.dli_fname).parent_path();
}

/// Loads LibTorch's CUDA half together with our kernels, once in the process. It is kept apart so that the
/// engine also runs where there is no CUDA. It must come before anything asks LibTorch about CUDA, since
/// LibTorch remembers the answer. Returns why there is no CUDA, or nothing.
const std::string &load_cuda_module() {
  static const std::string failure = []() -> std::string {
    if (!dlopen("libcuda.so.1", RTLD_NOW)) return "there is no NVIDIA driver (libcuda.so.1)";
    const std::string module = (own_directory() / kCudaModule).string();
    if (!std::filesystem::exists(module)) return "this engine was built without CUDA";
    if (!dlopen(module.c_str(), RTLD_NOW)) return dlerror();
    if (c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount() == 0) return "the NVIDIA driver sees no GPU";
    // The decoder's buffers come in several large sizes; without expandable segments, a third of the memory
    // lies between them. Memory that several threads touch and then lock is page-locked four times as fast as
    // what the driver allocates.
    if (!std::getenv("PYTORCH_ALLOC_CONF") && !std::getenv("PYTORCH_CUDA_ALLOC_CONF"))
      c10::CachingAllocator::setAllocatorSettings(
          "expandable_segments:True,pinned_use_cuda_host_register:True,pinned_num_register_threads:8");
    return "";
  }();
  return failure;
}

constexpr auto kAllPools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

c10::CachingDeviceAllocator::DeviceStats allocator_stats(at::Device device) {
  return at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
}

}  // namespace

at::Device parse_device(const std::string &name) {
  const std::string &failure = load_cuda_module();
  if (name == "cpu") return at::kCPU;
  if (name == "auto") return parse_device(failure.empty() ? "cuda" : "cpu");
  int index = 0;
  if (name.starts_with("cuda:")) {
    const char *begin = name.c_str() + 5, *end = name.c_str() + name.size();
    const auto [rest, status] = std::from_chars(begin, end, index);
    if (status != std::errc() || rest != end || index < 0 || begin == end) index = -1;
  }
  if ((name != "cuda" && !name.starts_with("cuda:")) || index < 0)
    throw invalid("Device '" + name + "' is not one of auto, cpu, cuda and cuda:N");
  if (!failure.empty()) throw Error(WAN_DEVICE, "Device '" + name + "' cannot be used: " + failure);
  const int count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
  if (index >= count)
    throw Error(WAN_DEVICE,
                "Device '" + name + "' cannot be used: the last GPU is cuda:" + std::to_string(count - 1));
  at::globalContext().lazyInitDevice(at::kCUDA);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

int compute_capability(at::Device device) {
  if (!device.is_cuda()) return 0;
  static const auto operation =
      c10::Dispatcher::singleton().findSchemaOrThrow("wan::compute_capability", "").typed<int64_t(int64_t)>();
  return static_cast<int>(operation.call(device.index()));
}

uint64_t free_memory(at::Device device) {
  if (!device.is_cpu()) {
    const auto stats = allocator_stats(device);
    const int64_t cached = stats.reserved_bytes[kAllPools].current - stats.allocated_bytes[kAllPools].current;
    return at::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first +
           static_cast<uint64_t>(cached);
  }
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key, unit; meminfo >> key;) {
    uint64_t kibibytes = 0;
    meminfo >> kibibytes;
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") return kibibytes * 1024;
  }
  return UINT64_MAX;
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
