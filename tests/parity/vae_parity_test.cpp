// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Encoder and decoder of both kinds of VAE against Diffusers, in float32: vae.safetensors of
// make_vae_reference.py.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/reference.h"
#include "common/tiny_model.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/tiled_decode.h"
#include "vae/tiled_encode.h"

namespace wan::test {
namespace {

constexpr double kTolerance = 1e-5;

struct Vae {
  std::string name, directory;

  AutoencoderKLWan load(std::optional<at::ScalarType> encoder_dtype = at::kFloat) const {
    const std::string directory = source_path(this->directory);
    CheckpointWeights weights({directory, "diffusion_pytorch_model"}, test_device(), [](uint64_t) {});
    AutoencoderKLWan vae(VaeConfig::parse(JsonFile(directory + "/config.json")), Weights(weights, at::kFloat),
                         encoder_dtype);
    weights.check_all_loaded(encoder_dtype ? std::vector<std::string>() : AutoencoderKLWan::kEncoderTensors);
    return vae;
  }
};

const Vae kVae16 = {"vae16", "models/wan-tiny/vae"}, kVae48 = {"vae48", "tests/parity/vae48"};

class VaeParity : public testing::TestWithParam<Vae> {
 protected:
  at::Tensor reference(const std::string &name) const { return reference_[GetParam().name + "." + name]; }
  at::Tensor input(const std::string &name) const { return reference(name).to(test_device()); }
  /// Each pixel as 16 x 16.
  at::Tensor enlarged(const std::string &name) const {
    return input(name).repeat_interleave(16, 3).repeat_interleave(16, 4);
  }
  static void expect_parity(const at::Tensor &out, const at::Tensor &expected) {
    EXPECT_LE(relative_error(out, expected), kTolerance);
  }

  const c10::InferenceMode inference_;
  const Reference reference_{"tests/parity/vae.safetensors"};
};

TEST_P(VaeParity, EncodesAPictureAndClipsWhoseLastFramesMayBeTooFew) {
  const AutoencoderKLWan vae = GetParam().load();
  for (const int64_t frames : {1, 6, 9})
    expect_parity(vae.encode(input("clip").narrow(2, 0, frames), quiet()),
                  reference("latents." + std::to_string(frames)));
}

TEST_P(VaeParity, EncodesChunkByChunk) {
  const AutoencoderKLWan vae = GetParam().load();
  StreamState state;
  const at::Tensor clip = input("clip"), latents = reference("latents.9");
  const std::vector<at::Tensor> chunks = clip.split_with_sizes({1, 4, 4}, 2);
  for (size_t i = 0; i < chunks.size(); ++i)
    expect_parity(vae.encode_chunk(chunks[i], state, quiet()), latents.narrow(2, static_cast<int64_t>(i), 1));
}

TEST_P(VaeParity, EncodesInTiles) {
  const AutoencoderKLWan vae = GetParam().load();
  const at::Tensor expected = reference("tiled.latents");
  int64_t tiles = 0;
  expect_parity(tiled_encode(vae, enlarged("tiled.small"), quiet(), [&] { ++tiles; }), expected);
  EXPECT_EQ(tiles, Tiling::encoding(vae).count(expected.size(3), expected.size(4)));
}

TEST_P(VaeParity, EncodesInTilesAsWholeWhereOneTileIsAll) {
  const AutoencoderKLWan vae = GetParam().load();
  EXPECT_TRUE(
      at::equal(tiled_encode(vae, input("clip"), quiet(), [] {}), vae.encode(input("clip"), quiet())));
}

TEST_P(VaeParity, EncodesAVideoThatIsGreyBetweenItsEndsAsIfAllOfItWereThere) {
  const AutoencoderKLWan vae = GetParam().load();
  const at::Tensor whole = at::zeros_like(input("clip")), small = enlarged("tiled.small");
  const int64_t last = whole.size(2) - 1;
  whole.narrow(2, 0, 1).copy_(input("clip").narrow(2, 0, 1));
  const auto ends = [&](const at::Tensor &end) { return Video(whole.narrow(2, 0, 1), end, last + 1); };
  EXPECT_TRUE(at::equal(vae.encode(ends({}), quiet()), vae.encode(whole, quiet())));
  const at::Tensor end = input("clip").narrow(2, last, 1);
  whole.narrow(2, last, 1).copy_(end);
  EXPECT_TRUE(at::equal(vae.encode(ends(end), quiet()), vae.encode(whole, quiet())));

  const at::Tensor grey = at::zeros_like(small.narrow(2, 0, 1)).repeat({1, 1, 5, 1, 1});
  grey.narrow(2, 0, 1).copy_(small.narrow(2, 0, 1));
  grey.narrow(2, 4, 1).copy_(small.narrow(2, 0, 1));
  const Video video(small.narrow(2, 0, 1), small.narrow(2, 0, 1), 5);
  EXPECT_TRUE(at::equal(tiled_encode(vae, video, quiet(), [] {}), tiled_encode(vae, grey, quiet(), [] {})));
}

/// Of so much grey that stages have settled, and something behind it that must see the right history.
TEST_P(VaeParity, GreyThatLastsIsEncodedOnceAndChangesNothing) {
  const AutoencoderKLWan vae = GetParam().load();
  const at::Tensor first = input("clip").narrow(2, 0, 1), last = input("clip").narrow(2, 5, 1);
  const int64_t frames = 65;
  const at::Tensor whole = at::zeros_like(first).repeat({1, 1, frames, 1, 1});
  whole.narrow(2, 0, 1).copy_(first);
  EXPECT_LE(relative_error(vae.encode(Video(first, {}, frames), quiet()), vae.encode(whole, quiet())), 1e-6);
  whole.narrow(2, frames - 1, 1).copy_(last);
  EXPECT_LE(relative_error(vae.encode(Video(first, last, frames), quiet()), vae.encode(whole, quiet())),
            1e-6);
}

TEST_P(VaeParity, NormalizesLatents) {
  const AutoencoderKLWan vae = GetParam().load();
  EXPECT_TRUE(at::equal(vae.normalize(reference("latents.9")), reference("normalized")));
  expect_parity(vae.denormalize(reference("normalized")), reference("latents.9"));
}

TEST_P(VaeParity, StreamsThatAreEncodedInTurnsDoNotTouchEachOther) {
  const AutoencoderKLWan vae = GetParam().load();
  const at::Tensor one = input("clip"), other = one.flip(2).contiguous();
  const at::Tensor expected[] = {vae.encode(one, quiet()), vae.encode(other, quiet())};
  StreamState states[2];
  for (int64_t chunk = 0; chunk < 3; ++chunk)
    for (size_t i = 0; i < 2; ++i) {
      const at::Tensor frames =
          (i == 0 ? one : other).narrow(2, chunk == 0 ? 0 : 4 * chunk - 3, chunk == 0 ? 1 : 4);
      EXPECT_TRUE(at::equal(vae.encode_chunk(frames, states[i], quiet()), expected[i].narrow(2, chunk, 1)));
    }
}

TEST_P(VaeParity, HistoryOfTheEncoderKeepsItsSizeAndIsForeseen) {
  const AutoencoderKLWan vae = GetParam().load();
  StreamState state;
  std::vector<int64_t> bytes;
  for (const at::Tensor &chunk : input("clip").split_with_sizes({1, 4, 4}, 2)) {
    vae.encode_chunk(chunk, state, quiet());
    bytes.push_back(state.bytes());
  }
  EXPECT_EQ(bytes[1], bytes[2]);
  const at::Tensor latents = reference("latents.1");
  EXPECT_LE(static_cast<uint64_t>(bytes[2]), vae.encode_bytes(latents.size(3), latents.size(4)));
}

TEST_P(VaeParity, TheEncoderIsLoadedOnlyWhereAskedFor) {
  const std::string directory = source_path(GetParam().directory);
  const VaeConfig config = VaeConfig::parse(JsonFile(directory + "/config.json"));
  const auto encoder_tensors = [&](std::optional<at::ScalarType> encoder_dtype) {
    WeightInventory inventory;
    const AutoencoderKLWan vae(config, Weights(inventory, at::kFloat), encoder_dtype);
    return std::ranges::count_if(inventory.requests(), [](const WeightRequest &request) {
      return request.name.starts_with("encoder.") || request.name.starts_with("quant_conv.");
    });
  };
  EXPECT_EQ(encoder_tensors(std::nullopt), 0);
  EXPECT_GT(encoder_tensors(at::kFloat), 0);
}

// Each layer rounds to eight bits; a wrong one would be off by far more.
TEST_P(VaeParity, EncodesInBfloat16BesideADecoderInFloat32) {
  const AutoencoderKLWan vae = GetParam().load(at::kBFloat16);
  const at::Tensor latents = vae.encode(input("clip"), quiet());
  EXPECT_EQ(latents.scalar_type(), at::kFloat);
  EXPECT_LE(relative_error(latents, reference("latents.9")), 5e-2);
}

TEST(Vae, OfTheReleasedSizesHaveThePublishedTensors) {
  const auto statistics = [](int64_t z_dim) {
    return Json{{"_class_name", "AutoencoderKLWan"},
                {"z_dim", z_dim},
                {"latents_mean", std::vector<double>(static_cast<size_t>(z_dim), 0)},
                {"latents_std", std::vector<double>(static_cast<size_t>(z_dim), 1)}};
  };
  const auto expect_weights = [](const Json &json, size_t tensors, int64_t parameters) {
    WeightInventory inventory;
    const AutoencoderKLWan vae(VaeConfig::parse(JsonFile(std::string_view(json.dump()), "config.json")),
                               Weights(inventory, at::kFloat), at::kFloat);
    int64_t count = 0;
    for (const WeightRequest &request : inventory.requests()) count += c10::multiply_integers(request.shape);
    EXPECT_EQ(inventory.requests().size(), tensors);
    EXPECT_EQ(count, parameters);
  };
  expect_weights(statistics(16), 194, 126'892'531);
  Json patches = statistics(48);
  patches.update({{"base_dim", 160},
                  {"decoder_base_dim", 256},
                  {"is_residual", true},
                  {"patch_size", 2},
                  {"in_channels", 12},
                  {"out_channels", 12}});
  expect_weights(patches, 196, 704'688'668);
}

INSTANTIATE_TEST_SUITE_P(Vae, VaeParity, testing::Values(kVae16, kVae48),
                         [](const auto &info) { return info.param.name; });

class Vae48 : public VaeParity {};

TEST_P(Vae48, DecodesChunkByChunk) {
  const AutoencoderKLWan vae = GetParam().load(std::nullopt);
  StreamState state;
  for (int64_t chunk = 0; chunk < 4; ++chunk)
    expect_parity(vae.decode(input("decoder.latents").narrow(2, chunk, 1), state, quiet()),
                  reference("decoder.chunk." + std::to_string(chunk)));
}

TEST_P(Vae48, DecodesInTiles) {
  const AutoencoderKLWan vae = GetParam().load(std::nullopt);
  const at::Tensor latents = input("decoder.tiled.latents");
  int64_t chunks = 0;
  const at::Tensor video = tiled_decode(vae, latents, quiet(), [&] { ++chunks; });
  expect_parity(video.slice(3, 5, {}, 7).slice(4, 5, {}, 7), reference("decoder.tiled.video"));
  EXPECT_EQ(chunks, 2 * Tiling(vae).count(26, 28));
  EXPECT_LT(tiled_decode_bytes(vae, 26, 28), vae.decode_bytes(26, 28));
}

TEST_P(Vae48, CachesKeepTheirSize) {
  const AutoencoderKLWan vae = GetParam().load(std::nullopt);
  StreamState state;
  std::vector<int64_t> bytes;
  for (const at::Tensor &latent : input("decoder.latents").split(1, 2)) {
    vae.decode(latent, state, quiet());
    bytes.push_back(state.bytes());
  }
  // Of the released one 456,800 values for each latent pixel; of this one's channels a 32nd, but for the
  // latents'.
  const int64_t values = (456'800 - 2 * 48) / 32 + 2 * 48;
  EXPECT_EQ(bytes[2], int64_t{sizeof(float)} * values * 2 * 3);
  EXPECT_EQ(bytes[2], bytes[3]);
  EXPECT_LE(static_cast<uint64_t>(bytes[3]), vae.decode_bytes(2, 3));
}

INSTANTIATE_TEST_SUITE_P(Vae, Vae48, testing::Values(kVae48),
                         [](const auto &info) { return info.param.name; });

}  // namespace
}  // namespace wan::test
