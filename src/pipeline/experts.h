// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The networks that denoise, on the devices of all ranks.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "parallel/rank_threads.h"
#include "pipeline/component_source.h"
#include "pipeline/memory_mode.h"
#include "pipeline/replicas.h"

namespace wan {

/// Where the parts are and in which numbers they compute.
struct Placement {
  std::vector<at::Device> devices;  // a rank on each
  at::ScalarType dtype;             // but on the CPU the VAE's is float32
  WanQuantization quantization = WAN_QUANTIZATION_NONE;
  std::optional<at::Device> vae_device = {};  // none: the first of devices

  /// Of the VAE and of the encoders of text and of pictures.
  at::Device of_vae() const { return vae_device.value_or(devices.front()); }
  /// Whether nothing is denoised there.
  bool has_vae_apart() const { return std::ranges::find(devices, of_vae()) == devices.end(); }
  /// Each device once.
  std::vector<at::Device> all() const;
};

class Experts {
 public:
  /// config must outlive it. alone: whether the VAE and the encoders are elsewhere. Throws wan::Error.
  Experts(const CheckpointConfig &config, ComponentSource &source, const Placement &placement,
          WanMemoryMode memory, bool alone);

  const CheckpointConfig &config() const { return config_; }
  const Placement &placement() const { return placement_; }
  /// RESIDENT, ONE_EXPERT, STREAM or SPLIT.
  WanMemoryMode memory_mode() const { return memory_mode_; }
  /// The modes in which the model would take less of the GPU and fit the host, to begin an advice with:
  /// "memory=stream, ", or nothing.
  std::string smaller_memory_modes() const;

  /// The one that denoises, or that for high noise and that for low noise.
  const std::vector<Replicas> &all() const { return experts_; }
  /// The first expert of the first rank.
  const WanTransformer3DModel &transformer() const { return experts_.front().front(); }

 private:
  using Slots = std::vector<std::shared_ptr<BlockSlots>>;

  void start_ranks();
  /// Of each rank; none where all blocks stay on the device.
  Slots make_block_slots() const;
  Replicas load(const std::string &component, const TransformerConfig &config, ComponentSource &source,
                RankThreads &ranks, const Slots &slots) const;

  const CheckpointConfig &config_;
  const Placement placement_;
  const WanMemoryMode memory_mode_;
  std::deque<RankThreads> ranks_;  // with SPLIT of each expert, else of both
  std::vector<Replicas> experts_;
};

}  // namespace wan
