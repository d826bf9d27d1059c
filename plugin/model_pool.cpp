// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model_pool.h"

#include <utility>

namespace wan {
namespace {

// Held while a model is freed: the next one may need the memory.
std::mutex freeing;

}  // namespace

Turns::Turn::Turn(Turn &&other) noexcept
    : turns_(std::exchange(other.turns_, nullptr)), place_(other.place_) {}

Turns::Turn::~Turn() {
  if (turns_) turns_->leave(place_);
}

std::optional<Turns::Turn> Turns::take(const std::function<bool()> &cancelled, std::function<void()> wanted) {
  std::unique_lock lock(mutex_);
  const auto place = line_.insert(line_.end(), {std::move(wanted)});
  if (place != line_.begin()) {
    ++waiting_;
    const std::function<void()> tell = line_.front().wanted;
    lock.unlock();  // who is told may come back with questions
    if (tell) tell();
    lock.lock();
    changed_.wait(lock, [&] { return place == line_.begin() || cancelled(); });
    --waiting_;
  }
  if (place == line_.begin() && !cancelled()) return Turn(this, place);
  line_.erase(place);
  changed_.notify_all();
  return std::nullopt;
}

void Turns::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void Turns::leave(std::list<Turn::Place>::iterator place) {
  const std::lock_guard lock(mutex_);
  line_.erase(place);
  changed_.notify_all();
}

std::shared_ptr<SharedModel> SharedModel::of(const ModelChoice &choice) {
  static std::mutex mutex;
  static std::list<std::weak_ptr<SharedModel>> models;
  const std::lock_guard lock(mutex);
  models.remove_if([](const auto &model) { return model.expired(); });
  for (const auto &known : models)
    if (auto model = known.lock(); model && model->choice() == choice) return model;
  std::shared_ptr<SharedModel> model(new SharedModel(choice));
  models.push_back(model);
  return model;
}

SharedModel::~SharedModel() {
  const std::lock_guard lock(freeing);
  if (WanModel *model = model_) choice_.engine->model_free(model);
}

WanStatus SharedModel::load(const WanCallbacks &callbacks, WanError *error) {
  if (is_loaded()) return WAN_OK;
  { const std::lock_guard lock(freeing); }
  std::vector<WanLora> loras;
  for (const LoraChoice &lora : choice_.loras)
    loras.push_back({lora.path.c_str(), lora.strength, lora.strength_2});
  WanLoadOptions options = {};
  options.model_dir = choice_.directory.c_str();
  options.device = choice_.device.c_str();
  if (!choice_.decoder_device.empty()) options.decoder_device = choice_.decoder_device.c_str();
  if (!choice_.worker.empty()) options.worker = choice_.worker.c_str();
  options.dtype = choice_.dtype;
  options.quantization = choice_.quantization;
  options.memory = choice_.memory;
  options.loras = loras.data();
  options.num_loras = loras.size();
  options.decoder = choice_.decoder.c_str();
  WanModel *model = nullptr;
  const WanStatus status = choice_.engine->load(&options, &callbacks, &model, error);
  model_ = model;
  return status;
}

}  // namespace wan
