// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Operations with kernels of their own for a device, which LibTorch's dispatcher finds by the tensors'.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/StringUtil.h>
#include <torch/library.h>

#include <algorithm>
#include <cstddef>
#include <optional>

namespace wan {

/// As the dispatcher takes a tensor that may be undefined.
inline std::optional<at::Tensor> optional(const at::Tensor &tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

/// A string as a template's argument.
template <size_t size>
struct OperationName {
  constexpr OperationName(const char (&name)[size]) { std::copy_n(name, size, text); }  // implicit: a literal
  char text[size];
};

/// The operation wan::NAME. Its signature, from which LibTorch's schema is made, stands in ops/kernels.h
/// alone.
template <OperationName name, typename Signature>
class Operation;

template <OperationName name, typename Result, typename... Arguments>
class Operation<name, Result(Arguments...)> {
 public:
  /// Makes it known, once in the process. library: wan's.
  static void define(torch::Library &library) {
    library.def(
        c10::inferFunctionSchemaFlattenedReturns<Result(Arguments...)>().cloneWithName(name.text, ""));
  }
  /// The same with the one kernel that it has.
  static void define(torch::Library &library, Result (*kernel)(Arguments...)) {
    library.def(name.text, kernel);
  }
  /// library: of the device that the kernel is for.
  static void implement(torch::Library &library, Result (*kernel)(Arguments...)) {
    library.impl(name.text, kernel);
  }
  /// Throws c10::Error where no kernel takes such tensors.
  static Result call(Arguments... arguments) {
    static const auto operation = c10::Dispatcher::singleton()
                                      .findSchemaOrThrow(c10::str("wan::", name.text).c_str(), "")
                                      .template typed<Result(Arguments...)>();
    return operation.call(arguments...);
  }
};

}  // namespace wan
