// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Devices: names, the CUDA module, and memory figures. Everything here works without a CUDA header.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "wan/engine.h"

namespace wan {

/// The compute capability that our CUDA kernels need.
constexpr int kLeastCapability = 80;
/// The one of FP8 tensor cores.
constexpr int kLeastFp8Capability = 89;

struct DeviceChoice {
  at::Device device;
  /// Of the GPUs that device=auto passed over, why each is not used and what to do about it: sentences.
  std::vector<std::string> passed_over;
};

/// "auto", "cpu", "cuda" or "cuda:N" (auto: the first GPU that can be used, else the CPU, unless a GPU has
/// failed). Throws wan::Error:
/// WAN_INVALID for another name, or for another value of GST_WAN_KERNELS than there are; WAN_DEVICE where the
/// device is not there, has no kernels or has failed.
DeviceChoice choose_device(const std::string &name);
inline at::Device parse_device(const std::string &name) {
  return choose_device(name).device;
}

/// What device=auto looks at.
struct Gpu {
  std::string label;  // as describe_device() gives it
  int capability;
  /// Asked only of GPUs that would be used, since it takes some of their memory.
  std::function<bool()> has_failed = [] { return false; };
};
/// The index of the first of the process's GPUs that has kernels and works, or nothing; and why others were
/// passed over.
std::optional<size_t> first_usable(const std::vector<Gpu> &gpus, std::vector<std::string> &passed_over);

/// "cpu", or as "cuda:0 (NVIDIA H100 80GB HBM3)".
std::string describe_device(at::Device device);

/// 10 times the major number plus the minor one, so 90 for Hopper; 0 for the CPU.
int compute_capability(at::Device device);

/// Whether a GPU has failed for good: after a fault in a kernel (an assertion, an illegal address) or of the
/// hardware, CUDA answers everything about this GPU with an error until the process ends. Asks it, and does
/// not wait for it. Throws c10::Error where it cannot be asked now, as other processes take all its memory.
bool has_failed(at::Device device);
/// Throws wan::Error (WAN_DEVICE), with what CUDA said first, where has_failed().
void require_working(at::Device device);

/// uint8 [bytes] in host memory, page-locked for copies to and from a GPU. Freeing LibTorch's own throws in a
/// destructor where a GPU that they were copied to has failed; this is then left to the end of the process.
at::Tensor empty_page_locked(int64_t bytes);
/// The same of any memory of the host.
at::Tensor hold(c10::DataPtr memory, int64_t bytes);

/// Bytes that could still be allocated on the device (for the CPU: free_host_memory()).
uint64_t free_memory(at::Device device);

WanMemory memory_in_use(at::Device device);

/// Waits until everything that was queued on the calling thread's stream of the device is done.
void synchronize(at::Device device);

/// Keeps the host at most two layers ahead of the GPU: enough to keep it busy, and little enough that a
/// cancel takes effect within about a layer's time. Does nothing on the CPU.
class LaunchWindow {
 public:
  explicit LaunchWindow(at::Device device) : device_(device) {}
  /// To be called after each layer; may wait.
  void advance();

 private:
  at::Device device_;
  std::array<std::optional<c10::Event>, 2> layers_;
  size_t next_ = 0;
};

}  // namespace wan
