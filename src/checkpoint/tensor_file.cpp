// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/tensor_file.h"

#include <algorithm>

#include "checkpoint/gguf.h"
#include "checkpoint/input_file.h"
#include "checkpoint/names.h"
#include "checkpoint/pickle.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/torch_file.h"

namespace wan {

namespace {

TensorHeader read_pickle_header(const InputFile &file, const ReadBytes &read, const std::string &part) {
  constexpr uint64_t kSignature = 4;
  if (!is_zip(read(0, std::min(file.size(), kSignature)))) throw pickle_error(file.path());
  return parse_torch_file(read, file.size(), file.path(), part);
}

TensorHeader read_header(const InputFile &file, const std::string &part) {
  const ReadBytes read = [&file](uint64_t offset, size_t size) { return file.read(offset, size); };
  if (is_pickle(file.path())) return read_pickle_header(file, read, part);
  if (is_gguf(file.path())) return parse_gguf(read, file.size(), file.path());
  return read_safetensors_header(read, file.size(), file.path());
}

}  // namespace

TensorFile::TensorFile(const std::filesystem::path &path, const std::string &part)
    : file_(std::make_shared<const InputFile>(path)), header_(read_header(*file_, part)) {}

const std::string &TensorFile::path() const {
  return file_->path();
}

void TensorFile::read(uint64_t begin, size_t size, std::byte *out) const {
  file_->read(header_.data_begin + begin, size, out);
}

std::vector<TensorFile> open_files(const ComponentFiles &files) {
  if (is_pickle(files.path()) || is_gguf(files.path())) return {TensorFile(files.path(), files.part)};
  return open_safetensors(files.directory, files.stem);
}

}  // namespace wan
