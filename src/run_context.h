// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a running load or generation asks and tells the outside: cancellation, progress, log.
#pragma once

#include <chrono>

#include "error.h"

namespace wan {

class RunContext {
 public:
  explicit RunContext(const WanCallbacks &callbacks) : callbacks_(callbacks) {}

  /// Throws wan::Error (WAN_CANCELLED) if the caller asked to stop. Called between layers and chunks.
  void check() const {
    if (callbacks_.cancelled && callbacks_.cancelled(callbacks_.user))
      throw Error(WAN_CANCELLED, "The generation was cancelled");
  }
  bool is_followed() const { return callbacks_.followed && callbacks_.followed(callbacks_.user); }
  /// Throws wan::Error: WAN_CANCELLED, or WAN_INVALID where nobody has pictures.
  WanPicture picture(WanPictureKind kind) const {
    WanPicture picture{};
    if (!callbacks_.picture) throw invalid("A picture is announced, and there is no callback for it");
    if (!callbacks_.picture(callbacks_.user, kind, &picture))
      throw Error(WAN_CANCELLED, "The sender of the picture asked to stop");
    return picture;
  }
  /// What is asked for the next section of an endless video; false: it ends.
  bool next_section(WanSection &section) const {
    return !callbacks_.next_section || callbacks_.next_section(callbacks_.user, &section);
  }
  /// The message is made printable.
  void log(WanLogLevel level, const std::string &message) const {
    if (callbacks_.log) callbacks_.log(callbacks_.user, level, printable(message, message.npos).c_str());
  }
  const WanCallbacks &callbacks() const { return callbacks_; }

 private:
  WanCallbacks callbacks_;
};

/// Reports the steps of one stage and measures its time.
class StageProgress {
 public:
  StageProgress(const RunContext &context, WanStage stage, int32_t steps)
      : context_(context), stage_(stage), steps_(steps) {
    report(0);
  }

  void report(int32_t step, int32_t cached = 0) const {
    const WanCallbacks &callbacks = context_.callbacks();
    if (!callbacks.progress) return;
    const std::chrono::duration<double> elapsed = Clock::now() - start_;
    const WanProgress progress = {stage_, step, steps_, elapsed.count(), cached};
    callbacks.progress(callbacks.user, &progress);
  }

 private:
  using Clock = std::chrono::steady_clock;

  const RunContext &context_;
  WanStage stage_;
  int32_t steps_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace wan
