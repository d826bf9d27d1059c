// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tiny decoders against TAEHV's own code, in float32: taehv.safetensors of make_taehv_reference.py.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/engine.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "common/write_safetensors.h"
#include "vae/causal_conv.h"
#include "vae/tiny_decoder.h"

namespace wan::test {
namespace {

using testing::HasSubstr;

constexpr double kTolerance = 1e-5;

struct Published {
  std::string name, stem;
  int64_t z_dim, patch_size;
};

/// As a published file has them, with an encoder's that nobody asks for.
Tensors decoder_tensors(const std::string &name) {
  Tensors tensors = {{"encoder.0.weight", at::zeros({4, 3, 3, 3})}};
  const std::string prefix = name + ".";
  for (const auto &[key, tensor] : read_safetensors(source_path("tests/parity/taehv.safetensors")))
    if (key.starts_with(prefix + "decoder.")) tensors[key.substr(prefix.size())] = tensor;
  return tensors;
}

class TaehvParity : public testing::TestWithParam<Published> {
 protected:
  void SetUp() override { write_safetensors(path(), decoder_tensors(GetParam().name)); }
  std::filesystem::path path() const { return directory_.path() / (GetParam().stem + ".safetensors"); }
  TinyDecoder load() const {
    CheckpointWeights weights({directory_.path(), GetParam().stem}, test_device(), [](uint64_t) {});
    TinyDecoder decoder(TinyDecoderConfig::of(TensorFile(path()), GetParam().z_dim, GetParam().patch_size),
                        Weights(weights, at::kFloat));
    weights.check_all_loaded({"encoder."});
    return decoder;
  }
  at::Tensor reference(const std::string &name) const { return reference_[GetParam().name + "." + name]; }

  const c10::InferenceMode inference_;
  const TemporaryDirectory directory_;
  const Reference reference_{"tests/parity/taehv.safetensors"};
};

TEST_P(TaehvParity, DecodesAStreamAsTheWholeClip) {
  const TinyDecoder decoder = load();
  const at::Tensor latents = reference("latents").to(test_device());
  StreamState state;
  std::vector<at::Tensor> frames;
  for (const at::Tensor &latent : latents.split(1, 2))
    frames.push_back(decoder.decode_next(latent, state, quiet()));
  EXPECT_EQ(frames.front().size(2), 1);
  EXPECT_EQ(frames.back().size(2), 4);
  EXPECT_LE(relative_error((at::cat(frames, 2) + 1) / 2, reference("frames")), kTolerance);
}

TEST_P(TaehvParity, CachesKeepTheirSizeAndFitWhatIsToldOfThem) {
  const TinyDecoder decoder = load();
  const at::Tensor latents = reference("latents").to(test_device());
  StreamState state;
  std::vector<int64_t> bytes;
  for (const at::Tensor &latent : latents.split(1, 2)) {
    decoder.decode_next(latent, state, quiet());
    bytes.push_back(state.bytes());
  }
  EXPECT_EQ(bytes.front(), bytes.back());
  EXPECT_LE(static_cast<uint64_t>(bytes.back()), decoder.decode_bytes(latents.size(3), latents.size(4)));
}

TEST_P(TaehvParity, ACancelStopsIt) {
  WanCallbacks callbacks{};
  callbacks.cancelled = [](void *) { return true; };
  StreamState state;
  const at::Tensor latent = reference("latents").narrow(2, 0, 1).to(test_device());
  EXPECT_THROW(load().decode_next(latent, state, RunContext(callbacks)), Error);
}

INSTANTIATE_TEST_SUITE_P(Taehv, TaehvParity,
                         testing::Values(Published{"z16", "taew2_1", 16, 1},
                                         Published{"z48", "taew2_2", 48, 2}),
                         [](const auto &info) { return info.param.name; });

/// The sentence that a choice for the embedded model is refused with.
std::string refusal_of(const std::string &choice) {
  CheckpointConfig config = tiny_config();
  try {
    choose_decoder(config, choice);
  } catch (const Error &error) {
    return error.what();
  }
  return "accepted";
}

TEST(TinyDecoderChoice, AFileThatIsMissingOrNoTinyDecoderIsRefused) {
  EXPECT_EQ(refusal_of("full"), "accepted");
  EXPECT_THAT(refusal_of("tiny"), HasSubstr("taew2_1.safetensors: get it from https://github.com"));
  EXPECT_THAT(refusal_of("/nowhere/taew2_1.safetensors"), HasSubstr("/nowhere/taew2_1.safetensors"));
  const TemporaryDirectory directory;
  const std::string file = (directory.path() / "other.safetensors").string();
  write_safetensors(file, {{"decoder.conv_in.weight", at::zeros({4, 4, 3, 3})}});
  EXPECT_THAT(refusal_of(file), HasSubstr("other.safetensors is no tiny decoder"));
  write_safetensors(file, {{"decoder.1.weight", at::zeros({4})}});
  EXPECT_THAT(refusal_of(file), HasSubstr("'decoder.1.weight' has the shape [4]"));
}

Model load_with_decoder(const std::string &decoder) {
  WanLoadOptions options{};
  const std::string directory = tiny_model(), device = test_device_name();
  options.model_dir = directory.c_str();
  options.device = device.c_str();
  options.dtype = WAN_DTYPE_FLOAT32;
  options.decoder = decoder.c_str();
  return load_model(options);
}

TEST(TinyDecoderChoice, MakesTheFramesOfAClip) {
  const TemporaryDirectory directory;
  const std::string file = (directory.path() / "mine.safetensors").string();
  write_safetensors(file, decoder_tensors("z16"));
  WanGenerateOptions options = tiny_options();
  options.layout = packed_layout(WAN_PIXEL_RGB, 64, 32);
  options.num_frames = 9;
  options.steps = 2;
  const at::Tensor full = generate_clip(load_with_decoder("full"), options),
                   tiny = generate_clip(load_with_decoder(file), options);
  EXPECT_EQ(full.sizes(), tiny.sizes());
  EXPECT_FALSE(at::equal(full, tiny));
}

TEST(TinyDecoderChoice, OneOfOtherLatentsIsRefused) {
  const TemporaryDirectory directory;
  const std::string file = (directory.path() / "taew2_2.safetensors").string();
  write_safetensors(file, decoder_tensors("z48"));
  try {
    load_with_decoder(file);
    FAIL() << "it was loaded";
  } catch (const Failure &failure) {
    EXPECT_THAT(failure.message, HasSubstr("'decoder.1.weight'"));
  }
}

}  // namespace
}  // namespace wan::test
