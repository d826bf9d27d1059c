// Devices: names, the CUDA module, and memory figures. Everything here works without a CUDA header.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "wan/engine.h"

namespace wan {

/// "auto", "cpu", "cuda" or "cuda:N" (auto: CUDA where there is a usable GPU). Throws wan::Error: WAN_INVALID
/// for another name, WAN_DEVICE where the device is not there.
at::Device parse_device(const std::string &name);

/// 10 times the major number plus the minor one, so 90 for Hopper; 0 for the CPU.
int compute_capability(at::Device device);

/// Bytes that could still be allocated on the device (for the CPU: MemAvailable).
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
