// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The pickle of a torch.save() archive, read as data: dictionaries, lists, texts and numbers, and tensors by
// the calls that torch writes for them. Whatever else it would call is refused, and nothing is called.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace wan {

/// One value. What it is made of are indices of other values, so that values that hold themselves, and those
/// that are nested deeply, cost nothing but their own memory.
struct PickleValue {
  enum class Kind { kNone, kNumber, kText, kTuple, kList, kDict, kGlobal, kStorage, kTensor };

  Kind kind = Kind::kNone;
  int64_t number = 0;      // kNumber: of a whole one; kStorage: its elements; kTensor: its first element
  std::string text = {};   // kText; kGlobal: "module.name"; kStorage: its file's name
  std::string dtype = {};  // kStorage: as safetensors spells it
  std::vector<size_t> items = {};                 // kDict: keys and values by turns; kTensor: its storage
  std::vector<int64_t> shape = {}, strides = {};  // kTensor
};

/// Of a pickle; the last value is the pickle's own. Throws wan::Error (WAN_INVALID), naming `source`.
std::deque<PickleValue> read_tensor_pickle(std::string_view pickle, const std::string &source);

}  // namespace wan
