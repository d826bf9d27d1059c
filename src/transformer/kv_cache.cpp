// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/kv_cache.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>

#include "ops/rotary_norm.h"

namespace wan {

namespace {

constexpr double kNowhere = std::numeric_limits<double>::infinity();

RotaryEmbedding narrow(const RotaryEmbedding &tables, int64_t first, int64_t tokens) {
  return {tables.cos.narrow(0, first, tokens), tables.sin.narrow(0, first, tokens)};
}

}  // namespace

KeyValueCache::KeyValueCache(const TransformerConfig &config, int64_t slots, int64_t rows, int64_t columns,
                             bool keeps_unrotated, at::ScalarType dtype, at::Device device)
    : tokens_(rows * columns),
      tables_(config.attention_head_dim, rows, columns, device),
      rotated_(static_cast<size_t>(slots), kNowhere) {
  const auto allocate = [&] {
    return at::empty({1, slots * tokens_, config.num_attention_heads, config.attention_head_dim},
                     at::dtype(dtype).device(device));
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    keys_.push_back(allocate());
    values_.push_back(allocate());
    if (keeps_unrotated) unrotated_.push_back(allocate());
  }
}

uint64_t KeyValueCache::bytes(const TransformerConfig &config, int64_t slots, int64_t rows, int64_t columns,
                              bool keeps_unrotated, at::ScalarType dtype) {
  const int64_t values = config.num_layers * slots * rows * columns * config.inner_dim();
  return static_cast<uint64_t>(values) * (keeps_unrotated ? 3 : 2) * c10::elementSize(dtype);
}

void KeyValueCache::begin(KeyPlan plan) {
  if (plan.positions != positions_) rotary_ = tables_(positions_ = plan.positions);
  plan_writes(plan);
  plan_moves(plan);
  plan_reads(plan);
}

void KeyValueCache::plan_writes(const KeyPlan &plan) {
  writes_.clear();
  for (size_t i = 0; i < plan.writes.size(); ++i) {
    const int64_t slot = plan.writes[i];
    if (slot == KeyPlan::kNoSlot) continue;
    rotated_[static_cast<size_t>(slot)] = plan.positions[i];
    const auto frame = static_cast<int64_t>(i);
    if (!writes_.empty() && writes_.back().slot + writes_.back().frames == slot &&
        writes_.back().first + writes_.back().frames == frame)
      ++writes_.back().frames;
    else
      writes_.push_back({slot, frame, 1});
  }
}

/// What stands elsewhere than the last pass has seen it, but what this one writes.
void KeyValueCache::plan_moves(const KeyPlan &plan) {
  std::vector<KeyPlan::Key> moved;
  for (const KeyPlan::Key &key : plan.keys)
    if (rotated_[static_cast<size_t>(key.slot)] != key.position) moved.push_back(key);
  std::ranges::sort(moved, {}, &KeyPlan::Key::slot);
  moves_.clear();
  std::vector<double> positions;
  for (const KeyPlan::Key &key : moved) {
    const auto table = static_cast<int64_t>(positions.size());
    positions.push_back(rotated_[static_cast<size_t>(key.slot)] = key.position);
    if (!moves_.empty() && moves_.back().slot + moves_.back().frames == key.slot)
      ++moves_.back().frames;
    else
      moves_.push_back({key.slot, table, 1});
  }
  if (!positions.empty()) moved_ = tables_(positions);
}

void KeyValueCache::plan_reads(const KeyPlan &plan) {
  std::vector<int64_t> seen;
  for (const KeyPlan::Key &key : plan.keys) seen.push_back(key.slot);
  seen_slots_ = static_cast<int64_t>(seen.size());
  seen_indices_.reset();
  if (*std::ranges::max_element(seen) + 1 != seen_slots_)
    seen_indices_ = at::tensor(seen).to(keys_.front().device());
}

at::Tensor KeyValueCache::slots(const at::Tensor &storage, const Run &run) const {
  return storage.narrow(1, run.slot * tokens_, run.frames * tokens_);
}

void KeyValueCache::write(const at::Tensor &storage, const at::Tensor &own) const {
  for (const Run &run : writes_)
    slots(storage, run).copy_(own.narrow(1, run.first * tokens_, run.frames * tokens_));
}

void KeyValueCache::rotate_moved(size_t layer) const {
  for (const Run &run : moves_) {
    const RotaryEmbedding tables = narrow(moved_, run.first * tokens_, run.frames * tokens_);
    rotate_heads_out(slots(keys_[layer], run), slots(unrotated_[layer], run), tables.cos, tables.sin);
  }
}

at::Tensor KeyValueCache::seen(const at::Tensor &storage) const {
  if (!seen_indices_.defined()) return storage.narrow(1, 0, seen_slots_ * tokens_);
  return storage.unflatten(1, {-1, tokens_}).index_select(1, seen_indices_).flatten(1, 2);
}

KeyValue KeyValueCache::extend(size_t layer, const KeyValue &own, const at::Tensor &unrotated) {
  write(keys_[layer], own.key);
  write(values_[layer], own.value);
  if (keeps_unrotated()) {
    write(unrotated_[layer], unrotated);
    rotate_moved(layer);
  }
  return {seen(keys_[layer]), seen(values_[layer])};
}

}  // namespace wan
