// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A Denoiser in another process.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "pipeline/experts.h"
#include "pipeline/negative_denoiser.h"
#include "remote/channel.h"
#include "run_context.h"

namespace wan {

/// A gst-wan-worker with the same checkpoint. Where anything fails, on our side too, the connection ends,
/// which stops what the worker computes, and the next clip begins with another one.
class RemoteDenoiser : public NegativeDenoiser {
 public:
  /// address: HOST or HOST:PORT. Lets the worker begin to load. Throws wan::Error: WAN_LOST where there is
  /// none, WAN_INVALID where it is not one for us.
  RemoteDenoiser(std::string address, const CheckpointConfig &config, const Placement &placement,
                 const RunContext &context);

  void wait_until_loaded(const RunContext &context) override;
  std::string description() const override { return "worker " + address_ + ": " + devices_; }
  void begin_clip(const WanGenerateOptions &options, const ModelInputs &inputs,
                  const std::vector<double> &timesteps, const RunContext &context) override;
  void begin_step(size_t step, const at::Tensor &latents, const RunContext &context) override;
  at::Tensor finish_step(const RunContext &context) override;
  int32_t cached() const override { return cached_; }
  void end_clip() override;

 private:
  /// Runs a part of the conversation.
  template <typename Function>
  void converse(Function function);
  void connect(const RunContext &context);

  const std::string address_;
  const Message load_;
  std::unique_ptr<Channel> channel_;  // none: the connection has ended
  std::string devices_;               // as the worker describes them
  bool answer_is_due_ = false;        // to a step
  int32_t cached_ = 0;
};

}  // namespace wan
