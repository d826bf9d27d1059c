// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/torch_file.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_pickle.h"
#include "checkpoint/zip_archive.h"

namespace wan {

namespace {

using Kind = PickleValue::Kind;
using Values = std::deque<PickleValue>;
using Entries = std::map<std::string, ZipEntry>;

constexpr size_t kMaxPickle = size_t{16} << 20;
constexpr std::string_view kPickle = "/data.pkl";
/// What training puts into names, anywhere, and before them.
constexpr std::string_view kWrappers[] = {"_fsdp_wrapped_module.", "_checkpoint_wrapped_module.",
                                          "_orig_mod."};
constexpr std::string_view kLeading[] = {"module.", "model."};
/// A buffer, which a model computes itself.
constexpr std::string_view kFrequencies = "freqs";

/// With the command that makes another format of it.
Error cannot_read(const std::string &source, const std::string &reason) {
  return invalid(
      source + ": " + reason + "; convert it in Python: safetensors.torch.save_file(torch.load('" + source +
      "', map_location='cpu', weights_only=True)['generator_ema'], 'model.safetensors'), where the "
      "part in brackets is the one that holds the weights");
}

std::string clean_name(std::string name) {
  for (const std::string_view wrapper : kWrappers)
    for (size_t at; (at = name.find(wrapper)) != std::string::npos;) name.erase(at, wrapper.size());
  for (const std::string_view leading : kLeading)
    if (name.starts_with(leading)) name.erase(0, leading.size());
  return name;
}

const PickleValue *find(const Values &values, const PickleValue &dict, std::string_view key) {
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const PickleValue &name = values[dict.items[i]];
    if (name.kind == Kind::kText && name.text == key) return &values[dict.items[i + 1]];
  }
  return nullptr;
}

bool holds(const Values &values, const PickleValue &dict, Kind kind) {
  for (size_t i = 1; i < dict.items.size(); i += 2)
    if (values[dict.items[i]].kind == kind) return true;
  return false;
}

/// Averages of LongLive are not meant for use; their names tell them from others'.
bool is_wrapped(const Values &values, const PickleValue &dict) {
  for (size_t i = 0; i < dict.items.size(); i += 2)
    if (values[dict.items[i]].text.find(kWrappers[0]) != std::string::npos) return true;
  return false;
}

struct Part {
  std::string name;
  const PickleValue *dict;
};

Part choose_part(const Values &values, const std::string &wanted, const std::string &source) {
  const PickleValue &whole = values.back();
  if (whole.kind != Kind::kDict) throw cannot_read(source, "it is no dictionary of tensors");
  const auto part = [&](const std::string &name) -> std::optional<Part> {
    const PickleValue *dict = find(values, whole, name);
    if (!dict || dict->kind != Kind::kDict || !holds(values, *dict, Kind::kTensor)) return std::nullopt;
    return Part{name, dict};
  };
  if (!wanted.empty()) {
    if (const auto found = part(wanted)) return *found;
    throw invalid(source + " has no part '" + printable(wanted) + "' with tensors");
  }
  const auto averages = part("generator_ema");
  if (averages && !(is_wrapped(values, *averages->dict) && part("generator"))) return *averages;
  for (const char *name : {"generator", "state_dict", "model", "generator_lora"})
    if (const auto found = part(name)) return *found;
  if (holds(values, whole, Kind::kTensor)) return {"", &whole};
  throw cannot_read(source, "none of its parts is called as those with a model's weights are");
}

/// Elements of the tensor, or nothing where they do not lie row by row without a gap.
std::optional<uint64_t> contiguous_elements(const PickleValue &tensor) {
  uint64_t elements = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && static_cast<uint64_t>(tensor.strides[i]) != elements && elements != 0)
      return std::nullopt;
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(tensor.shape[i]), &elements))
      return std::nullopt;
  }
  return elements;
}

class Reader {
 public:
  Reader(const Entries &entries, std::string folder, const std::string &source)
      : entries_(entries), folder_(std::move(folder)), source_(source) {}

  TensorEntry entry(const Values &values, const std::string &name, const PickleValue &tensor) const {
    const PickleValue &storage = values[tensor.items[0]];
    const auto elements = contiguous_elements(tensor);
    if (!elements) throw cannot_read(source_, "tensor '" + printable(name) + "' does not lie row by row");
    const uint64_t size = safetensors_element_bits(storage.dtype) / 8;
    const auto file = entries_.find(folder_ + "/data/" + storage.text);
    const auto first = static_cast<uint64_t>(tensor.number);
    uint64_t end;
    if (file == entries_.end() || __builtin_add_overflow(first, *elements, &end) ||
        __builtin_mul_overflow(end, size, &end) || end > file->second.end - file->second.begin)
      throw invalid(source_ + ": tensor '" + printable(name) +
                    "' is not wholly in the file; download it again");
    return {storage.dtype, tensor.shape, file->second.begin + first * size, file->second.begin + end};
  }

 private:
  const Entries &entries_;
  const std::string folder_;
  const std::string &source_;
};

/// The archive's one folder: what stands before "/data.pkl".
std::string find_folder(const Entries &entries, const std::string &source) {
  for (const auto &[name, entry] : entries)
    if (name.ends_with(kPickle)) return name.substr(0, name.size() - kPickle.size());
  throw invalid(source + " is a zip archive, but none of torch.save(): unpack it, or take a .safetensors");
}

void require_little_endian(const ReadBytes &read, const Entries &entries, const std::string &folder,
                           const std::string &source) {
  constexpr std::string_view kLittle = "little";
  const auto order = entries.find(folder + "/byteorder");
  if (order == entries.end()) return;
  const uint64_t size = order->second.end - order->second.begin;
  if (size != kLittle.size() || read(order->second.begin, size) != kLittle)
    throw cannot_read(source, "its numbers are not little endian");
}

}  // namespace

bool is_zip(std::string_view head) {
  return head.starts_with("PK\x03\x04");
}

TensorHeader parse_torch_file(const ReadBytes &read, uint64_t file_size, const std::string &source,
                              const std::string &part) {
  const Entries entries = read_zip_directory(read, file_size, source);
  const std::string folder = find_folder(entries, source);
  require_little_endian(read, entries, folder, source);
  const ZipEntry &pickle = entries.at(folder + std::string(kPickle));
  if (pickle.end - pickle.begin > kMaxPickle) throw invalid(source + ": its pickle is too large");
  Values values;
  try {
    values = read_tensor_pickle(read(pickle.begin, pickle.end - pickle.begin), source);
  } catch (const Error &error) {
    throw cannot_read(source, std::string(error.what()).substr(source.size() + 2));
  }
  const Part chosen = choose_part(values, part, source);
  const Reader reader(entries, folder, source);
  TensorHeader header;
  header.metadata["part"] = chosen.name;
  for (size_t i = 0; i + 1 < chosen.dict->items.size(); i += 2) {
    const PickleValue &key = values[chosen.dict->items[i]], &tensor = values[chosen.dict->items[i + 1]];
    const std::string name = clean_name(key.text);
    if (tensor.kind != Kind::kTensor || key.kind != Kind::kText || name == kFrequencies) continue;
    if (!header.tensors.emplace(name, reader.entry(values, name, tensor)).second)
      throw invalid(source + " has the tensor '" + printable(name) + "' twice");
  }
  return header;
}

}  // namespace wan
