// Which of the memory modes a model runs in, and what a video needs beside the weights.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

#include "checkpoint/config.h"
#include "wan/engine.h"

namespace wan {

/// Bytes of a model's weights on a GPU.
struct WeightBytes {
  uint64_t blocks;        // of both experts
  uint64_t expert;        // the blocks of the larger expert
  uint64_t block;         // one block of it
  uint64_t other;         // the rest of the experts, and the VAE
  uint64_t text_encoder;  // is there only while no video is denoised
  bool two_experts;

  static WeightBytes of(const CheckpointConfig &config, at::ScalarType dtype, WanQuantization quantization);
  /// On the GPU in a mode, without the text encoder.
  uint64_t on_gpu(WanMemoryMode mode) const;
};

/// In stream mode one block is computed with while the next comes.
constexpr size_t kStreamSlots = 2;

/// A rough upper bound of what denoising latents of this size takes beside the weights, without or with a
/// cache of steps. dtype: of the activations.
uint64_t denoise_bytes(const TransformerConfig &config, at::ScalarType dtype, int64_t frames, int64_t height,
                       int64_t width, bool cached);

/// The mode for what is asked for. AUTO: the first that fits the free bytes, with room to denoise 81 frames
/// of 1280x720 and for the text encoder; RESIDENT where none does, which needs no host memory.
WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const WeightBytes &weights, uint64_t room,
                                 uint64_t gpu_free, uint64_t host_free);
/// The same for a device as it is now; the CPU has only RESIDENT.
WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const CheckpointConfig &config, at::ScalarType dtype,
                                 WanQuantization quantization, at::Device device);

/// The modes that take less, to begin an advice with: "memory=stream, ", or nothing.
std::string smaller_memory_modes(WanMemoryMode mode);

}  // namespace wan
