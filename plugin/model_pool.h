// The models of the process: elements of the same choice use the same one, in turns, so that its weights are
// in memory once.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "wan/engine.h"

namespace wan {

/** A WanLora. */
struct LoraChoice {
  std::string path;
  double strength = 1, strength_2 = 1;
  bool operator==(const LoraChoice &) const = default;
};

/** What makes a model another one: the same choice gives the same model. */
struct ModelChoice {
  const WanEngineApi *engine = nullptr;
  std::string directory, device, decoder_device, worker;
  WanDtype dtype = WAN_DTYPE_AUTO;
  WanQuantization quantization = WAN_QUANTIZATION_NONE;
  WanMemoryMode memory = WAN_MEMORY_AUTO;
  std::vector<LoraChoice> loras;
  std::string decoder = "full";
  bool operator==(const ModelChoice &) const = default;
};

/** What only one thread at a time may use, in the order in which they ask for it. */
class Turns {
 public:
  /** Somebody's turn; over when it is destroyed, which must be before its Turns are. */
  class Turn {
   public:
    Turn(Turn &&other) noexcept;
    Turn &operator=(Turn &&) = delete;
    ~Turn();

   private:
    friend class Turns;
    struct Place {
      std::function<void()> wanted;
    };
    Turn(Turns *turns, std::list<Place>::iterator place) : turns_(turns), place_(place) {}
    Turns *turns_;
    std::list<Place>::iterator place_;
  };

  Turns() = default;
  Turns(const Turns &) = delete;
  Turns &operator=(const Turns &) = delete;

  /** Waits until everybody who asked before is done; none once `cancelled`, which is asked again after
   * wake(). `wanted` is called, on any thread, when another one begins to wait during this turn. */
  std::optional<Turn> take(const std::function<bool()> &cancelled, std::function<void()> wanted);
  void wake();
  /** Whether somebody waits. */
  bool is_wanted() const { return waiting_ > 0; }

 private:
  void leave(std::list<Turn::Place>::iterator place);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Turn::Place> line_;  // the first one has its turn
  std::atomic<int> waiting_ = 0;
};

/** A model of the process, which lives as long as somebody holds it. It is loaded by the first one who needs
 * it. */
class SharedModel {
 public:
  /** The one of this choice, whoever holds it, or a new one that is not loaded. */
  static std::shared_ptr<SharedModel> of(const ModelChoice &choice);
  ~SharedModel();
  SharedModel(const SharedModel &) = delete;
  SharedModel &operator=(const SharedModel &) = delete;

  const ModelChoice &choice() const { return choice_; }
  bool is_loaded() const { return get() != nullptr; }
  /** None until it is loaded. */
  WanModel *get() const { return model_; }

  /** Of all that uses it, load() too. */
  Turns &turns() { return turns_; }
  /** For whom it is the turn; does nothing where it is loaded. */
  WanStatus load(const WanCallbacks &callbacks, WanError *error);

 private:
  explicit SharedModel(const ModelChoice &choice) : choice_(choice) {}

  const ModelChoice choice_;
  Turns turns_;
  std::atomic<WanModel *> model_ = nullptr;
};

}  // namespace wan
