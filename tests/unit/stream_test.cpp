// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The streaming decoder: it equals itself however it is called, and its memory does not grow.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "common/tiny_model.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/tiled_decode.h"

namespace wan::test {
namespace {

class Stream : public testing::Test {
 protected:
  std::vector<at::Tensor> decode(const at::Tensor &latents) const {
    StreamState state;
    std::vector<at::Tensor> chunks;
    for (int64_t t = 0; t < latents.size(2); ++t)
      chunks.push_back(vae_.decode(latents.narrow(2, t, 1), state, quiet()));
    return chunks;
  }

  const c10::InferenceMode inference_;
  const AutoencoderKLWan vae_ = load_tiny<AutoencoderKLWan>("vae", tiny_config().vae);
  const at::Tensor latents_ = at::randn({1, 16, 5, 4, 6}).to(test_device());
};

TEST_F(Stream, GivesOneFrameAndThenFour) {
  const auto chunks = decode(latents_);
  EXPECT_EQ(chunks[0].sizes(), (std::vector<int64_t>{1, 3, 1, 32, 48}));
  for (size_t chunk = 1; chunk < chunks.size(); ++chunk)
    EXPECT_EQ(chunks[chunk].sizes(), (std::vector<int64_t>{1, 3, 4, 32, 48}));
}

TEST_F(Stream, IsCausal) {
  at::Tensor other = latents_.clone();
  other.narrow(2, 3, 2).normal_();
  const auto chunks = decode(latents_), changed = decode(other);
  for (size_t chunk = 0; chunk < 3; ++chunk) EXPECT_TRUE(at::equal(chunks[chunk], changed[chunk])) << chunk;
  EXPECT_FALSE(at::equal(chunks[3], changed[3]));
}

TEST_F(Stream, TwoInterleavedStreamsEqualWholeDecodesBitForBit) {
  const at::Tensor other = at::randn_like(latents_);
  const auto whole = decode(latents_), other_whole = decode(other);
  StreamState state, other_state;
  for (int64_t t = 0; t < latents_.size(2); ++t) {
    EXPECT_TRUE(
        at::equal(vae_.decode(latents_.narrow(2, t, 1), state, quiet()), whole[static_cast<size_t>(t)]))
        << t;
    EXPECT_TRUE(at::equal(vae_.decode(other.narrow(2, t, 1), other_state, quiet()),
                          other_whole[static_cast<size_t>(t)]))
        << t;
  }
}

TEST_F(Stream, CachesKeepTheirSize) {
  StreamState state;
  std::vector<int64_t> bytes;
  for (int64_t t = 0; t < latents_.size(2); ++t) {
    vae_.decode(latents_.narrow(2, t, 1), state, quiet());
    bytes.push_back(state.bytes());
  }
  // Two frames of every convolution's input, of which the first temporal one had its first in the second
  // chunk.
  const int64_t values_a_latent_pixel = (151'328 - 2 * 16) * tiny_config().vae.base_dim / 96 + 2 * 16;
  EXPECT_EQ(bytes[2], int64_t{sizeof(float)} * values_a_latent_pixel * 4 * 6);
  EXPECT_EQ(bytes[2], bytes.back());
  EXPECT_LE(static_cast<uint64_t>(bytes.back()), vae_.decode_bytes(4, 6));
}

TEST_F(Stream, InTilesEqualsWholeWhereOneTileIsAll) {
  int64_t chunks = 0;
  const at::Tensor video = tiled_decode(vae_, latents_, quiet(), [&] { ++chunks; });
  EXPECT_EQ(chunks, latents_.size(2));
  EXPECT_TRUE(at::equal(video, at::cat(decode(latents_), 2).cpu()));
}

TEST_F(Stream, InTilesTakesAsManyChunksAsAnnouncedAndLessMemory) {
  const at::Tensor latents = at::randn({1, 16, 2, 34, 50}).to(test_device());
  int64_t chunks = 0;
  const at::Tensor video = tiled_decode(vae_, latents, quiet(), [&] { ++chunks; });
  EXPECT_EQ(chunks, 2 * Tiling(vae_).count(34, 50));
  EXPECT_EQ(video.sizes(), (std::vector<int64_t>{1, 3, 5, 272, 400}));
  EXPECT_LT(tiled_decode_bytes(vae_, 34, 50), vae_.decode_bytes(34, 50));
}

}  // namespace
}  // namespace wan::test
