// SPDX-License-Identifier: LGPL-2.1-or-later
#include "remote/message_header.h"

#include <utility>

namespace wan {

namespace {

uint64_t bytes_of(const std::string &dtype, const JsonFile &file) {
  if (dtype == "F32") return 4;
  if (dtype == "BF16") return 2;
  throw file.error("dtype", "must be F32 or BF16");
}

/// Takes the tensor's bytes from what is left of the limit.
std::optional<TensorDescription> parse_description(const Json &description, uint64_t &left,
                                                   const std::string &source) {
  if (description.is_null()) return std::nullopt;
  const JsonFile file(std::string_view(description.dump()), source);
  TensorDescription tensor = {file.get<std::string>("dtype", ""), file.get<std::vector<int64_t>>("shape", {}),
                              0};
  tensor.bytes = bytes_of(tensor.dtype, file);
  bool fits = tensor.shape.size() <= kMaxDimensions && tensor.bytes <= left;
  for (const int64_t size : tensor.shape) {
    fits = fits && size > 0 && static_cast<uint64_t>(size) <= left / tensor.bytes;
    if (!fits) break;
    tensor.bytes *= static_cast<uint64_t>(size);
  }
  if (!fits) throw file.error("shape", "is not that of a tensor that may be sent");
  left -= tensor.bytes;
  return tensor;
}

}  // namespace

MessageHeader parse_message_header(std::string_view text, uint64_t tensor_bytes, const std::string &source) {
  const JsonFile file(text, source);
  const auto descriptions = file.get<Json>("tensors", Json::array());
  if (!descriptions.is_array() || descriptions.size() > kMaxTensors)
    throw file.error("tensors", "must be an array of at most " + std::to_string(kMaxTensors));
  MessageHeader header = {file.get<std::string>("type", ""), file.get<Json>("values", Json::object()), {}};
  if (!header.values.is_object()) throw file.error("values", "must be an object");
  for (const Json &description : descriptions)
    header.tensors.push_back(parse_description(description, tensor_bytes, source));
  return header;
}

}  // namespace wan
