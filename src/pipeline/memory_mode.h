// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which of the memory modes a model runs in, and what a video needs beside the weights.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "run_context.h"
#include "wan/engine.h"

namespace wan {

/// Bytes of a model's weights on its device.
struct WeightBytes {
  uint64_t blocks;        // of both experts
  uint64_t expert;        // the blocks of the larger expert
  uint64_t block;         // one block of it
  uint64_t other;         // the rest of the experts, and the VAE
  uint64_t text_encoder;  // and that of pictures: are there only while no video is denoised
  bool two_experts;
  bool splits = false;  // whether each expert can have half of the devices

  /// Without the VAE and the encoders, which are elsewhere.
  static WeightBytes of_experts(const CheckpointConfig &config, at::ScalarType dtype,
                                WanQuantization quantization);
  /// vae_dtype: that of the VAE, if it is another.
  static WeightBytes of(const CheckpointConfig &config, at::ScalarType dtype, WanQuantization quantization,
                        std::optional<at::ScalarType> vae_dtype = {});
  /// On the GPU in a mode, without the text encoder.
  uint64_t on_gpu(WanMemoryMode mode) const;
};

/// Whether the experts are in host memory, too.
bool keeps_on_host(WanMemoryMode mode);
/// Whether SPLIT is possible.
bool can_split(const CheckpointConfig &config, const std::vector<at::Device> &devices);

/// In stream mode one block is computed with while the next comes.
constexpr size_t kStreamSlots = 2;

/// What the VAE and the encoders take on a device of their own, all loaded.
uint64_t companion_bytes(const CheckpointConfig &config, at::ScalarType dtype, at::ScalarType vae_dtype);

/// What denoising latents of this size takes beside the weights, without or with a cache of steps. dtype: of
/// the activations; for float32 it is a rough upper bound. ranks: that share the tokens; it is what one
/// takes.
uint64_t denoise_bytes(const TransformerConfig &config, at::ScalarType dtype, int64_t frames, int64_t height,
                       int64_t width, bool cached, int64_t ranks = 1);

/// The most frames of a video of so many pixels for which denoise_bytes() are no more than `bytes`, and that
/// the model takes; 0 where not one does.
int64_t most_frames(const CheckpointConfig &config, at::ScalarType dtype, int64_t height, int64_t width,
                    bool cached, uint64_t bytes, int64_t ranks = 1);

/// The mode for what is asked for. AUTO: the first that fits the free bytes, with room to denoise 81 frames
/// of 1280x720 and for the text encoder. SPLIT, in which half of the devices wait, is for hosts whose memory
/// the experts do not fit; RESIDENT where nothing fits.
WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const WeightBytes &weights, uint64_t room,
                                 uint64_t gpu_free, uint64_t host_free);
/// The same for devices as they are now, each of which gets all weights, but with SPLIT; the CPU has one copy
/// in every mode. experts_alone: whether the VAE and the encoders are elsewhere. Throws wan::Error:
/// WAN_OUT_OF_MEMORY where the weights do not fit, before any is read; WAN_INVALID where there is nothing to
/// split.
WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const CheckpointConfig &config, at::ScalarType dtype,
                                 WanQuantization quantization, const std::vector<at::Device> &devices,
                                 bool experts_alone = false);

/// Throws wan::Error (WAN_OUT_OF_MEMORY) where a model in this mode does not fit the free bytes. The advice
/// has the modes that fit, and `smaller`: as "dtype=bfloat16, ", or empty.
void require_memory_for_weights(WanMemoryMode mode, const WeightBytes &weights, at::Device device,
                                uint64_t device_free, uint64_t host_free, const std::string &smaller);

/// One model at a time is loaded, so that each finds the memory as it is without the other: devices share
/// that of the host. Holds the turn. Throws as RunContext::check() does while it waits.
std::unique_lock<std::timed_mutex> wait_for_turn(const RunContext &context);

/// The dtype of the VAE: convolutions in bfloat16 are no faster on most CPUs.
at::ScalarType vae_dtype(at::ScalarType dtype, at::Device device);
/// What its encoder computes in; none where no pictures are encoded. As exactly as Diffusers' examples do
/// it, since what is encoded once takes part in every step.
std::optional<at::ScalarType> encoder_dtype(const CheckpointConfig &config);

/// As the element's property spells it.
std::string memory_mode_name(WanMemoryMode mode);
/// The way back. Throws wan::Error (WAN_INVALID).
WanMemoryMode parse_memory_mode(const std::string &name);

/// The modes that take less of the GPU, to begin an advice with: "memory=stream, ", or nothing.
std::string smaller_memory_modes(WanMemoryMode mode, bool two_experts = true);

}  // namespace wan
