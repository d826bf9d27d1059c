#include "checkpoint/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <sstream>

namespace wan {

namespace {

at::ScalarType scalar_type(const std::string &dtype, const std::string &tensor, const std::string &file) {
  static const std::map<std::string, at::ScalarType> floating = {
      {"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf}, {"F64", at::kDouble}};
  const auto found = floating.find(dtype);
  if (found == floating.end())
    throw invalid(file + ": tensor '" + tensor + "' has dtype " + dtype +
                  ", but weights must be F32, BF16, F16 or F64");
  return found->second;
}

std::string to_string(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

}  // namespace

uint64_t WeightRequest::bytes() const {
  return static_cast<uint64_t>(c10::multiply_integers(shape)) * c10::elementSize(dtype);
}

at::Tensor WeightInventory::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  requests_.push_back({name, shape.vec(), dtype});
  return at::empty(shape, at::dtype(dtype).device(at::kMeta));
}

CheckpointWeights::CheckpointWeights(const std::filesystem::path &directory, const std::string &stem,
                                     at::Device device, std::function<void(uint64_t)> loaded)
    : files_(open_safetensors(directory, stem)),
      directory_(directory.string()),
      device_(device),
      loaded_(std::move(loaded)) {}

const SafetensorsFile *CheckpointWeights::find(const std::string &name) const {
  for (const SafetensorsFile &file : files_)
    if (file.tensors().contains(name)) return &file;
  return nullptr;
}

bool CheckpointWeights::contains(const std::string &name) const {
  return find(name) != nullptr;
}

uint64_t CheckpointWeights::bytes() const {
  uint64_t sum = 0;
  for (const SafetensorsFile &file : files_)
    for (const auto &[name, entry] : file.tensors()) sum += entry.end - entry.begin;
  return sum;
}

void CheckpointWeights::expect(const std::vector<WeightRequest> &requests) {
  if (device_.is_cpu()) return;
  std::vector<StagedReader::Range> ranges;
  for (const WeightRequest &request : requests)
    if (const SafetensorsFile *file = find(request.name))  // load() complains if there is none
      ranges.push_back({file, &file->tensors().at(request.name)});
  reader_ = std::make_unique<StagedReader>(device_, ranges);
}

at::Tensor CheckpointWeights::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  const SafetensorsFile *file = find(name);
  if (!file)
    throw invalid((files_.size() == 1 ? files_[0].path() : directory_) + " lacks the tensor '" + name + "'");
  const TensorEntry &entry = file->tensors().at(name);
  if (at::IntArrayRef(entry.shape) != shape)
    throw invalid(file->path() + ": tensor '" + name + "' has the shape " + to_string(entry.shape) +
                  ", not " + to_string(shape));
  const auto stored = scalar_type(entry.dtype, name, file->path());
  at::Tensor tensor;
  if (reader_ && reader_->is_next(entry)) {
    // A GPU converts faster, and half of the bytes cross the bus if they are bf16.
    tensor = reader_->read().view(stored).view(shape).to(dtype);
  } else {
    const at::Tensor mapped =
        at::from_blob(const_cast<std::byte *>(file->data(entry)), shape, at::dtype(stored));
    tensor = mapped.to(device_).to(dtype);
    if (tensor.is_alias_of(mapped)) tensor = mapped.clone();
  }
  names_loaded_.insert(name);
  loaded_(entry.end - entry.begin);
  return tensor;
}

void CheckpointWeights::check_all_loaded(const std::vector<std::string> &ignored) const {
  for (const SafetensorsFile &file : files_)
    for (const auto &[name, entry] : file.tensors()) {
      const auto begins_name = [&name = name](const std::string &prefix) { return name.starts_with(prefix); };
      if (!names_loaded_.contains(name) && std::none_of(ignored.begin(), ignored.end(), begins_name))
        throw invalid(file.path() + " has the unexpected tensor '" + name + "'");
    }
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
