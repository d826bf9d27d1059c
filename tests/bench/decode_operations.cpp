// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decode_operations.h"

namespace wan::bench {

namespace {

/// Adds up layer after layer, over the size that the video has by then.
class Count {
 public:
  Count(int64_t frames, int64_t height, int64_t width)
      : pixels_(static_cast<double>(frames * height * width)) {}

  double sum() const { return sum_; }
  void conv(int64_t taps, int64_t in, int64_t out) {
    sum_ += 2.0 * static_cast<double>(taps * in * out) * pixels_;
  }
  void residual_block(int64_t in, int64_t out) {
    conv(27, in, out);
    conv(27, out, out);
    if (in != out) conv(1, in, out);
  }
  /// Only where there is one frame, so that its tokens are all the pixels.
  void attention_block(int64_t dim) {
    conv(1, dim, 3 * dim);
    sum_ += 4.0 * pixels_ * pixels_ * static_cast<double>(dim);
    conv(1, dim, dim);
  }
  void mid_block(int64_t dim) {
    residual_block(dim, dim);
    attention_block(dim);
    residual_block(dim, dim);
  }
  void upsample(int64_t dim, int64_t out, bool double_frames) {
    if (double_frames) {
      conv(3, dim, 2 * dim);
      pixels_ *= 2;
    }
    pixels_ *= 4;
    conv(9, dim, out);
  }
  void downsample(int64_t dim, bool halve_frames) {
    pixels_ /= 4;
    conv(9, dim, dim);
    if (!halve_frames) return;
    pixels_ /= 2;
    conv(3, dim, dim);
  }

 private:
  double pixels_, sum_ = 0;
};

}  // namespace

double decode_operations(const VaeConfig &config, int64_t height, int64_t width, bool first) {
  const std::vector<int64_t> dims = config.decoder_dims();
  Count count(1, height, width);
  count.conv(1, config.z_dim, config.z_dim);
  count.conv(27, config.z_dim, dims.front());
  count.mid_block(dims.front());
  int64_t in = dims.front();
  for (size_t i = 0; i < dims.size(); ++i) {
    for (int64_t j = 0; j <= config.num_res_blocks; ++j, in = dims[i]) count.residual_block(in, dims[i]);
    if (i + 1 == dims.size()) break;
    const int64_t out = config.is_residual ? in : in / 2;
    count.upsample(in, out, config.temporal_upsample[i] && !first);
    in = out;
  }
  count.conv(27, in, config.picture_channels());
  return count.sum();
}

double encode_operations(const VaeConfig &config, int64_t height, int64_t width, bool first) {
  const std::vector<int64_t> dims = config.encoder_dims();
  const int64_t scale = config.patches_scale();
  Count count(first ? 1 : config.temporal_scale(), scale * height, scale * width);
  int64_t in = config.base_dim;
  count.conv(27, config.picture_channels(), in);
  for (size_t i = 0; i < dims.size(); ++i) {
    for (int64_t j = 0; j < config.num_res_blocks; ++j, in = dims[i]) count.residual_block(in, dims[i]);
    if (i + 1 < dims.size())
      count.downsample(in, *(config.temporal_upsample.rbegin() + static_cast<int64_t>(i)) && !first);
  }
  count.mid_block(in);
  count.conv(27, in, 2 * config.z_dim);
  count.conv(1, 2 * config.z_dim, 2 * config.z_dim);
  return count.sum();
}

}  // namespace wan::bench
