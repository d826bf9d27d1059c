// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/kernel_set.h"

#include <cstdlib>
#include <string_view>

#include "device.h"
#include "error.h"

namespace wan {

KernelSet parse_kernel_set(const char *value) {
  const std::string_view name = value ? value : "";
  if (name.empty()) return KernelSet::kBest;
  if (name == "general") return KernelSet::kGeneral;
  throw invalid("The environment variable GST_WAN_KERNELS is '" + printable(name) +
                "': set it to general, or unset it for the best kernels of the GPU");
}

KernelSet kernel_set() {
  static const KernelSet set = parse_kernel_set(std::getenv("GST_WAN_KERNELS"));
  return set;
}

bool has_sm90_kernels(at::Device device) {
  return compute_capability(device) / 10 == 9 && kernel_set() == KernelSet::kBest;
}

std::string describe_kernels(at::Device device) {
  if (device.is_cpu()) return "the CPU's kernels";
  if (has_sm90_kernels(device)) return "the kernels for Hopper GPUs";
  return "the kernels for all GPUs";
}

}  // namespace wan
