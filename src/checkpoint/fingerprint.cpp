// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/fingerprint.h"

#include <glib.h>

#include <memory>
#include <vector>

#include "checkpoint/tensor_file.h"

namespace wan {

namespace {

constexpr uint64_t kSmallBytes = 16 << 10;

class Sha256 {
 public:
  void add(const void *data, size_t bytes) {
    g_checksum_update(checksum_.get(), static_cast<const guchar *>(data), static_cast<gssize>(bytes));
  }
  /// With its end, so that two texts are not another two of the same letters.
  void add(const std::string &text) { add(text.c_str(), text.size() + 1); }
  std::string hex() const { return g_checksum_get_string(checksum_.get()); }

 private:
  const std::unique_ptr<GChecksum, void (*)(GChecksum *)> checksum_{g_checksum_new(G_CHECKSUM_SHA256),
                                                                    g_checksum_free};
};

void add_tensors(Sha256 &sum, const TensorFile &file) {
  for (const auto &[name, entry] : file.tensors()) {
    sum.add(name);
    sum.add(entry.dtype);
    for (const int64_t size : entry.shape) sum.add(std::to_string(size));
    if (entry.end - entry.begin > kSmallBytes) continue;
    std::vector<std::byte> values(entry.end - entry.begin);
    file.read(entry.begin, values.size(), values.data());
    sum.add(values.data(), values.size());
  }
}

}  // namespace

std::string fingerprint_experts(const CheckpointConfig &config) {
  Sha256 sum;
  sum.add(config.variant->name);
  sum.add(number_text(config.boundary_ratio.value_or(0)));
  sum.add(std::to_string(config.scheduler.num_train_timesteps));
  const auto add_files = [&](const char *component) {
    for (const TensorFile &file : open_files(config.files.at(component))) add_tensors(sum, file);
  };
  add_files("transformer");
  if (config.transformer_2) add_files("transformer_2");
  return sum.hex();
}

}  // namespace wan
