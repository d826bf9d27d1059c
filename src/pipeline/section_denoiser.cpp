// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/section_denoiser.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "pipeline/rolling_denoiser.h"
#include "pipeline/rolling_forcing_denoiser.h"

namespace wan {

namespace {

/// SplitMix64 (https://prng.di.unimi.it/splitmix64.c): numbers that differ little give seeds that have
/// nothing in common.
uint64_t mixed(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

SectionNoise seeded_noise(uint64_t seed, at::Device device, int64_t origin) {
  return [seed, device, origin](int64_t first_frame, int64_t draw, at::IntArrayRef shape) {
    const uint64_t place = mixed(seed) + static_cast<uint64_t>(first_frame - origin);
    const at::Generator generator =
        at::detail::createCPUGenerator(mixed(mixed(place) + static_cast<uint64_t>(draw)));
    return at::randn(shape, generator, at::dtype(at::kFloat)).to(device);
  };
}

std::unique_ptr<SectionDenoiser> make_section_denoiser(const SectionSetup &setup, const at::Tensor &text,
                                                       SectionNoise noise, int64_t sections) {
  if (setup.causal.memory == CausalMemory::kInFlight)
    return std::make_unique<RollingForcingDenoiser>(setup, text, std::move(noise), sections);
  return std::make_unique<RollingDenoiser>(setup, text, std::move(noise));
}

}  // namespace wan
