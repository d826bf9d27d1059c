// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "ops/dequantize.h"

namespace wan {

namespace {

// What ComfyUI and LightX2V store beside a weight in FP8: its scale, and what else the product may need.
constexpr std::string_view kScaleSuffixes[] = {".scale_weight", ".weight_scale"};
constexpr std::string_view kFp8Suffixes[] = {".scale_weight", ".weight_scale", ".scale_input", ".input_scale",
                                             ".comfy_quant"};

/// The name of a weight without ".weight".
std::string module_of(const std::string &weight) {
  return weight.ends_with(".weight") ? weight.substr(0, weight.rfind('.')) : weight;
}

/// What training leaves behind in a file: counters, averages and losses, by the first part of their names.
constexpr std::string_view kRemains[] = {"global_step", "step",      "epoch", "model_ema",
                                         "ema",         "ema_model", "loss"};

bool holds_no_weights(const std::string &name, const TensorEntry &entry) {
  const int64_t values = c10::multiply_integers(entry.shape);
  const bool is_counter = values == 1 && (entry.dtype.starts_with('I') || entry.dtype.starts_with('U'));
  return values == 0 || is_counter ||
         std::ranges::find(kRemains, name.substr(0, name.find('.'))) != std::end(kRemains);
}

}  // namespace

std::string to_string(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

uint64_t WeightRequest::bytes() const {
  return static_cast<uint64_t>(c10::multiply_integers(shape)) * c10::elementSize(dtype);
}

at::Tensor WeightInventory::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  requests_.push_back({name, shape.vec(), dtype});
  return at::empty(shape, at::dtype(dtype).device(at::kMeta));
}

std::optional<BlockMatrix> WeightInventory::load_blocks(const std::string &name, at::IntArrayRef shape) {
  const auto format = formats_.find(name);
  if (format == formats_.end()) return std::nullopt;
  const int64_t row = shape[1] / format->second->elements * format->second->bytes;
  return BlockMatrix{load(name, {shape[0], row}, at::kByte), format->second};
}

Error wrong_dtype(const TensorFile &file, const std::string &name) {
  return invalid(file.path() + ": tensor '" + name + "' has dtype " + file.tensors().at(name).dtype +
                 ", but weights must be F32, BF16, F16, F64, F8_E4M3 or F8_E5M2");
}

at::ScalarType stored_dtype(const TensorFile &file, const std::string &name) {
  static const std::map<std::string, at::ScalarType> types = {{"F32", at::kFloat},
                                                              {"BF16", at::kBFloat16},
                                                              {"F16", at::kHalf},
                                                              {"F64", at::kDouble},
                                                              {"BOOL", at::kBool},
                                                              {"U8", at::kByte},
                                                              {"I8", at::kChar},
                                                              {"I16", at::kShort},
                                                              {"I32", at::kInt},
                                                              {"I64", at::kLong},
                                                              {"U16", at::kUInt16},
                                                              {"U32", at::kUInt32},
                                                              {"U64", at::kUInt64},
                                                              {"F8_E4M3", at::kFloat8_e4m3fn},
                                                              {"F8_E5M2", at::kFloat8_e5m2}};
  const std::string &dtype = file.tensors().at(name).dtype;
  if (find_block_format(dtype)) return at::kFloat;
  const auto found = types.find(dtype);
  if (found == types.end()) throw wrong_dtype(file, name);
  return found->second;
}

namespace {

/// How the values of a tensor of a file are stored.
struct StoredValues {
  at::ScalarType dtype;       // float32 where they are quantized
  const BlockFormat *blocks;  // null where they are not

  StoredValues(const TensorFile &file, const std::string &name)
      : dtype(stored_dtype(file, name)), blocks(find_block_format(file.tensors().at(name).dtype)) {}

  /// Of so many values, of whole blocks.
  int64_t bytes(int64_t values) const {
    if (blocks) return values / blocks->elements * blocks->bytes;
    return values * static_cast<int64_t>(c10::elementSize(dtype));
  }
  /// From bytes, [bytes] uint8, on their device: as they are stored, or of blocks in `dequantized`.
  at::Tensor operator()(const at::Tensor &bytes, at::ScalarType dequantized) const {
    return blocks ? dequantize(bytes, *blocks, dequantized) : bytes.view(dtype);
  }
};

}  // namespace

at::Tensor stored_tensor(const TensorFile &file, const std::string &name,
                         std::optional<at::ScalarType> dtype) {
  constexpr int64_t kPiece = int64_t{1} << 20;  // values, of whole blocks, which are then still in the cache
  const TensorEntry &entry = file.tensors().at(name);
  const StoredValues stored(file, name);
  const auto read = [&](int64_t first, const at::Tensor &out) {
    file.read(entry.begin + static_cast<uint64_t>(stored.bytes(first)), out.nbytes(),
              static_cast<std::byte *>(out.mutable_data_ptr()));
  };
  at::Tensor tensor = at::empty(entry.shape, dtype.value_or(stored.dtype));
  if (!stored.blocks && tensor.scalar_type() == stored.dtype) {
    read(0, tensor);
    return tensor;
  }
  const at::Tensor values = tensor.view(-1);
  const at::Tensor piece = at::empty(stored.bytes(std::min(kPiece, values.numel())), at::kByte);
  for (int64_t done = 0; done < values.numel(); done += kPiece) {
    const int64_t count = std::min(kPiece, values.numel() - done);
    const at::Tensor bytes = piece.narrow(0, 0, stored.bytes(count));
    read(done, bytes);
    values.narrow(0, done, count).copy_(stored(bytes, at::kFloat));
  }
  return tensor;
}

CheckpointWeights::CheckpointWeights(ComponentFiles component, at::Device device,
                                     std::function<void(uint64_t)> loaded)
    : component_(std::move(component)),
      files_(open_files(component_)),
      device_(device),
      loaded_(std::move(loaded)) {}

const TensorFile *CheckpointWeights::find(const std::string &stored) const {
  for (const TensorFile &file : files_)
    if (file.tensors().contains(stored)) return &file;
  return nullptr;
}

/// The name in the files of a tensor of Diffusers.
std::string CheckpointWeights::stored_name(const std::string &name) const {
  const std::string stored = component_.stored_name(name), tied = component_.stored_name(kTiedEmbedding);
  return name == kEmbedding && !find(stored) && find(tied) ? tied : stored;
}

/// The reverse, of a name with the prefix.
std::string CheckpointWeights::diffusers_name(const std::string &stored) const {
  return wan::diffusers_name(component_.naming, stored.substr(component_.prefix.size()));
}

TensorShapes CheckpointWeights::shapes() const {
  TensorShapes shapes;
  for (const TensorFile &file : files_)
    for (const auto &[name, entry] : file.tensors())
      if (name.starts_with(component_.prefix)) shapes[diffusers_name(name)] = entry.shape;
  return shapes;
}

namespace {

/// Of a matrix whose rows are quantized blocks; else null.
const BlockFormat *row_format(const TensorEntry &entry) {
  const BlockFormat *format = find_block_format(entry.dtype);
  return format && entry.shape.size() == 2 && entry.shape[1] % format->elements == 0 ? format : nullptr;
}

}  // namespace

BlockFormats CheckpointWeights::block_formats() const {
  BlockFormats formats;
  for (const TensorFile &file : files_)
    for (const auto &[name, entry] : file.tensors())
      if (const BlockFormat *format = row_format(entry); format && name.starts_with(component_.prefix))
        formats[diffusers_name(name)] = format;
  return formats;
}

uint64_t CheckpointWeights::bytes() const {
  uint64_t sum = 0;
  for (const TensorFile &file : files_)
    for (const auto &[name, entry] : file.tensors()) sum += entry.end - entry.begin;
  return sum;
}

void CheckpointWeights::expect(const std::vector<WeightRequest> &requests) {
  if (device_.is_cpu()) return;
  std::vector<StagedReader::Range> ranges;
  for (const WeightRequest &request : requests) {
    const std::string stored = stored_name(request.name);
    if (const TensorFile *file = find(stored))  // take() complains if there is none
      ranges.push_back({file, &file->tensors().at(stored)});
  }
  reader_ = std::make_unique<StagedReader>(device_, ranges);
}

/// The file of a tensor of this shape.
const TensorFile &CheckpointWeights::require(const std::string &stored, at::IntArrayRef shape) const {
  const TensorFile *file = find(stored);
  if (!file)
    throw invalid((files_.size() == 1 ? files_[0].path() : component_.directory.string()) +
                  " lacks the tensor '" + stored + "'");
  const std::vector<int64_t> &stored_shape = file->tensors().at(stored).shape;
  if (at::IntArrayRef(stored_shape) != shape)
    throw invalid(file->path() + ": tensor '" + stored + "' has the shape " + to_string(stored_shape) +
                  ", not " + to_string(shape));
  return *file;
}

/// A tensor on the device: as it is stored, or already in `dtype` where something converts it on the way
/// there.
at::Tensor CheckpointWeights::take(const std::string &stored, at::IntArrayRef shape,
                                   std::optional<at::ScalarType> dtype) {
  const TensorFile &file = require(stored, shape);
  const TensorEntry &entry = file.tensors().at(stored);
  const StoredValues values(file, stored);
  if (!at::isFloatingType(values.dtype)) throw wrong_dtype(file, stored);
  const at::ScalarType wanted = dtype.value_or(values.dtype);
  const at::Tensor tensor =
      reader_ && reader_->is_next(entry)
          ? values(reader_->read(), wanted).view(shape)
          : stored_tensor(file, stored, device_.is_cpu() ? wanted : values.dtype).to(device_);
  names_loaded_.insert(stored);
  loaded_(entry.end - entry.begin);
  return tensor;
}

/// What a tensor in FP8 of this shape is to be multiplied by; undefined if nothing.
at::Tensor CheckpointWeights::scale(const std::string &stored, at::IntArrayRef shape) const {
  for (const std::string_view suffix : kScaleSuffixes) {
    const std::string name = module_of(stored).append(suffix);
    const TensorFile *file = find(name);
    if (!file) continue;
    const at::Tensor scale = stored_tensor(*file, name);
    const bool by_row =
        scale.dim() > 0 && !shape.empty() && scale.numel() == shape[0] && scale.size(0) == shape[0];
    if (!scale.is_floating_point() || (scale.numel() != 1 && !by_row))
      throw invalid(file->path() + ": tensor '" + name + "' has the shape " + to_string(scale.sizes()) +
                    ", which is no scale of '" + stored + "'");
    std::vector<int64_t> rows(shape.size(), 1);
    if (scale.numel() != 1) rows[0] = shape[0];
    return scale.to(device_).to(at::kFloat).view(rows);
  }
  return {};
}

at::Tensor CheckpointWeights::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  const std::string stored = stored_name(name);
  // Converted on the device: a GPU is faster, and half of the bytes cross the bus if they are bf16.
  if (!is_fp8(stored)) return take(stored, shape, dtype).to(dtype);
  const at::Tensor wide = take(stored, shape, at::kFloat).to(at::kFloat), scale = this->scale(stored, shape);
  return (scale.defined() ? wide * scale : wide).to(dtype);
}

std::optional<ScaledFp8> CheckpointWeights::load_fp8(const std::string &name, at::IntArrayRef shape) {
  const std::string stored = stored_name(name);
  const TensorFile *file = find(stored);
  if (!file || shape.size() != 2 || file->tensors().at(stored).dtype != "F8_E4M3") return std::nullopt;
  ScaledFp8 matrix = {take(stored, shape), scale(stored, shape)};
  if (!matrix.scale.defined()) matrix.scale = at::ones({1, 1}, at::dtype(at::kFloat).device(device_));
  return matrix;
}

std::optional<BlockMatrix> CheckpointWeights::load_blocks(const std::string &name, at::IntArrayRef shape) {
  const std::string stored = stored_name(name);
  const TensorFile *file = find(stored);
  const BlockFormat *format = file ? row_format(file->tensors().at(stored)) : nullptr;
  if (!format) return std::nullopt;
  const TensorEntry &entry = require(stored, shape).tensors().at(stored);
  at::Tensor blocks;
  if (reader_ && reader_->is_next(entry)) {
    blocks = reader_->read();
  } else {
    const at::Tensor bytes = at::empty({static_cast<int64_t>(entry.end - entry.begin)}, at::kByte);
    file->read(entry.begin, bytes.nbytes(), static_cast<std::byte *>(bytes.mutable_data_ptr()));
    blocks = bytes.to(device_);
  }
  names_loaded_.insert(stored);
  loaded_(entry.end - entry.begin);
  return BlockMatrix{blocks.view({shape[0], -1}), format};
}

void CheckpointWeights::check_all_loaded(const std::vector<std::string> &ignored) const {
  for (const TensorFile &file : files_)
    for (const auto &[name, entry] : file.tensors()) {
      const auto is_ignored = [&](const std::string &prefix) {
        return name.starts_with(component_.stored_name(prefix));
      };
      if (!names_loaded_.contains(name) && !is_of_fp8(name) && !holds_no_weights(name, entry) &&
          std::ranges::none_of(ignored, is_ignored))
        throw invalid(file.path() + " has the unexpected tensor '" + name + "'");
    }
}

bool CheckpointWeights::is_fp8(const std::string &stored) const {
  const TensorFile *file = find(stored);
  return file && at::isFloat8Type(stored_dtype(*file, stored));
}

/// Whether it belongs to a weight in FP8 that was loaded, or marks the file as one of such weights.
bool CheckpointWeights::is_of_fp8(const std::string &stored) const {
  if (stored == component_.prefix + "scaled_fp8") return true;
  for (const std::string_view suffix : kFp8Suffixes) {
    if (!stored.ends_with(suffix)) continue;
    const std::string weight = stored.substr(0, stored.size() - suffix.size()) + ".weight";
    return names_loaded_.contains(weight) && is_fp8(weight);
  }
  return false;
}

Weights::Weights(WeightSource &source, at::ScalarType dtype, std::set<std::string> keep_in_fp32)
    : source_(&source), dtype_(dtype), keep_in_fp32_(std::move(keep_in_fp32)) {}

Weights Weights::operator/(const std::string &name) const {
  Weights child = *this;
  child.prefix_ += name + ".";
  return child;
}

Weights Weights::as(at::ScalarType dtype) const {
  Weights other = *this;
  other.dtype_ = dtype;
  return other;
}

at::Tensor Weights::operator()(const std::string &name, at::IntArrayRef shape) const {
  const std::string full_name = prefix_ + name;
  std::istringstream components(full_name);
  at::ScalarType dtype = dtype_;
  for (std::string component; std::getline(components, component, '.');)
    if (keep_in_fp32_.contains(component)) dtype = at::kFloat;
  return source_->load(full_name, shape, dtype);
}

}  // namespace wan
