// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Weights of one component, looked up by their checkpoint names.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/names.h"
#include "checkpoint/staged_reader.h"
#include "checkpoint/tensor_file.h"
#include "ops/ggml_types.h"

namespace wan {

/// A tensor that a component asks for.
struct WeightRequest {
  std::string name;
  std::vector<int64_t> shape;
  at::ScalarType dtype;

  uint64_t bytes() const;
};

/// "[2, 3]", for error messages.
std::string to_string(at::IntArrayRef shape);

/// A tensor of a file, read into host memory as it is stored there, or converted to `dtype` while it is read.
/// Quantized blocks become float32, or are rounded to `dtype` from that.
/// Throws wan::Error (WAN_INVALID), naming file and tensor, where LibTorch has not its dtype, or where the
/// file can no longer be read.
at::Tensor stored_tensor(const TensorFile &file, const std::string &name,
                         std::optional<at::ScalarType> dtype = std::nullopt);
/// Its dtype alone.
at::ScalarType stored_dtype(const TensorFile &file, const std::string &name);
/// Of a tensor that is no weight by its dtype.
Error wrong_dtype(const TensorFile &file, const std::string &name);

/// A matrix in FP8 as a checkpoint stores it: it stands for weight * scale.
struct ScaledFp8 {
  at::Tensor weight;  // float8_e4m3fn, [out, in]
  at::Tensor scale;   // float32, [1, 1] (of the whole matrix) or [out, 1] (of each output channel)
};

/// A matrix in quantized blocks as a checkpoint stores it, see ops/dequantize.h.
struct BlockMatrix {
  at::Tensor blocks;  // uint8, [out, bytes of a row]
  const BlockFormat *format = nullptr;
};

/// Where a component's tensors come from. Each is asked for once, by name, shape and dtype.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// Says what load() will be asked for, and in which order, so that it may be read ahead. Not needed.
  virtual void expect(const std::vector<WeightRequest> &) {}
  /// A tensor of the caller's own. Throws wan::Error (WAN_INVALID) naming file and tensor.
  virtual at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) = 0;
  /// For those who can compute with FP8: a matrix that is stored so, on the device, as it is stored. Nothing
  /// where it is stored in another dtype; then it must be loaded by load(). Throws as load() does.
  virtual std::optional<ScaledFp8> load_fp8(const std::string & /*name*/, at::IntArrayRef /*shape*/) {
    return std::nullopt;
  }
  /// The same for those who can compute with quantized blocks.
  virtual std::optional<BlockMatrix> load_blocks(const std::string & /*name*/, at::IntArrayRef /*shape*/) {
    return std::nullopt;
  }
  /// Strictness: throws WAN_INVALID if there is a tensor that was not loaded and whose name does not begin
  /// with one of `ignored`, unless it holds no weights (counters, what training leaves behind).
  virtual void check_all_loaded(const std::vector<std::string> & /*ignored*/) const {}
};

/// Types of quantized tensors, by Diffusers' names.
using BlockFormats = std::map<std::string, const BlockFormat *>;

/// Takes down what a component asks for, and gives it tensors without memory (device Meta).
class WeightInventory : public WeightSource {
 public:
  /// formats: of what load_blocks() gives.
  explicit WeightInventory(BlockFormats formats = {}) : formats_(std::move(formats)) {}

  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override;
  std::optional<BlockMatrix> load_blocks(const std::string &name, at::IntArrayRef shape) override;
  const std::vector<WeightRequest> &requests() const { return requests_; }

 private:
  const BlockFormats formats_;
  std::vector<WeightRequest> requests_;
};

/// The files of a component. A tensor goes from the file to the device and is converted there, so
/// that host memory never holds a second copy of the model: on the CPU one tensor at a time, to a GPU by a
/// StagedReader. FP8 is multiplied by its scale, a tensor MODULE.scale_weight or MODULE.weight_scale of one
/// number or one a row; without one it counts as it is.
class CheckpointWeights : public WeightSource {
 public:
  /// `loaded` hears the bytes read by each tensor; it may throw to stop.
  CheckpointWeights(ComponentFiles component, at::Device device, std::function<void(uint64_t)> loaded);

  void expect(const std::vector<WeightRequest> &requests) override;
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override;
  std::optional<ScaledFp8> load_fp8(const std::string &name, at::IntArrayRef shape) override;
  std::optional<BlockMatrix> load_blocks(const std::string &name, at::IntArrayRef shape) override;

  void check_all_loaded(const std::vector<std::string> &ignored) const override;
  /// Of all tensors, by Diffusers' names.
  TensorShapes shapes() const;
  /// Of those that load_blocks() gives.
  BlockFormats block_formats() const;
  /// Bytes of all tensors of the files.
  uint64_t bytes() const;

 private:
  const TensorFile *find(const std::string &stored) const;
  std::string stored_name(const std::string &name) const;
  std::string diffusers_name(const std::string &stored) const;
  const TensorFile &require(const std::string &stored, at::IntArrayRef shape) const;
  at::Tensor take(const std::string &stored, at::IntArrayRef shape,
                  std::optional<at::ScalarType> dtype = std::nullopt);
  at::Tensor scale(const std::string &stored, at::IntArrayRef shape) const;
  bool is_fp8(const std::string &stored) const;
  bool is_of_fp8(const std::string &stored) const;

  ComponentFiles component_;
  std::vector<TensorFile> files_;
  at::Device device_;
  std::function<void(uint64_t)> loaded_;
  std::set<std::string> names_loaded_;    // as they are stored
  std::unique_ptr<StagedReader> reader_;  // last: it uses files_
};

/// A point in the tree of names: `weights / "blocks" / 0 / "norm2"` stands for "blocks.0.norm2.".
class Weights {
 public:
  /// Tensors get `dtype`, but float32 where a component of their name stands in `keep_in_fp32`
  /// (Diffusers' _keep_in_fp32_modules).
  Weights(WeightSource &source, at::ScalarType dtype, std::set<std::string> keep_in_fp32 = {});

  Weights operator/(const std::string &name) const;
  Weights operator/(int64_t index) const { return *this / std::to_string(index); }
  at::Tensor operator()(const std::string &name, at::IntArrayRef shape) const;
  /// WeightSource::load_fp8 of a tensor.
  std::optional<ScaledFp8> fp8(const std::string &name, at::IntArrayRef shape) const {
    return source_->load_fp8(prefix_ + name, shape);
  }
  /// WeightSource::load_blocks of a tensor.
  std::optional<BlockMatrix> blocks(const std::string &name, at::IntArrayRef shape) const {
    return source_->load_blocks(prefix_ + name, shape);
  }
  /// The same point, for tensors of another dtype.
  Weights as(at::ScalarType dtype) const;
  /// The dtype of tensors outside keep_in_fp32.
  at::ScalarType dtype() const { return dtype_; }

 private:
  WeightSource *source_;
  at::ScalarType dtype_;
  std::set<std::string> keep_in_fp32_;
  std::string prefix_;
};

}  // namespace wan
