// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures against Pillow, Diffusers and Transformers: image.safetensors of make_image_reference.py. What is
// done to pixels is exact, CLIP is in float32.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <regex>

#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "common/write_safetensors.h"
#include "image/clip_vision.h"
#include "image/image_processor.h"
#include "image/resample.h"

namespace wan::test {
namespace {

const std::string kClip = source_path("tests/parity/clip");

class ImageParity : public testing::Test {
 protected:
  /// Of a directory with a CLIPVisionModel, what it makes of the reference's pixels.
  at::Tensor clip_hidden(const ComponentFiles &files, at::ScalarType dtype = at::kFloat) const {
    const CLIPVisionConfig config = CLIPVisionConfig::parse(JsonFile(kClip + "/config.json"));
    CheckpointWeights weights(files, test_device(), [](uint64_t) {});
    const CLIPVisionModel model(config, Weights(weights, dtype));
    weights.check_all_loaded(CLIPVisionModel::unused_tensors(config));
    return model(reference_["clip.input"].to(test_device()), quiet());
  }

  const c10::InferenceMode inference_;
  const Reference reference_{"tests/parity/image.safetensors"};
};

TEST_F(ImageParity, PicturesAreResizedAsPillowDoesIt) {
  const std::regex pattern(R"((lanczos|bicubic)\.(\d+x\d+)\.(\d+)x(\d+))");
  int pictures = 0;
  for (const auto &[name, expected] : read_safetensors(source_path("tests/parity/image.safetensors"))) {
    std::smatch match;
    if (!std::regex_match(name, match, pattern)) continue;
    const Resampling filter = match[1] == "lanczos" ? Resampling::kLanczos : Resampling::kBicubic;
    const at::Tensor out =
        resize(reference_["picture." + match[2].str()], std::stol(match[3]), std::stol(match[4]), filter);
    EXPECT_TRUE(out.is_contiguous());
    EXPECT_TRUE(at::equal(out, expected)) << name;
    ++pictures;
  }
  EXPECT_EQ(pictures, 32);
}

TEST_F(ImageParity, APictureThatIsNotContiguousIsResizedAsItsCopy) {
  const at::Tensor picture = reference_["picture.37x53"].transpose(0, 1);
  EXPECT_TRUE(at::equal(resize(picture, 20, 30, Resampling::kLanczos),
                        resize(picture.contiguous(), 20, 30, Resampling::kLanczos)));
}

TEST_F(ImageParity, PixelsForTheVae) {
  EXPECT_TRUE(at::equal(vae_pixels(reference_["picture.37x53"], 32, 48), reference_["vae.pixels"]));
}

TEST_F(ImageParity, PixelsForClip) {
  for (const std::string k : {"0", "1", "2", "3"}) {
    const at::Tensor picture =
        reference_["clip.picture." + k].repeat_interleave(4, 0).repeat_interleave(4, 1);
    const auto sample = [](const at::Tensor &x) { return x.slice(2, 1, {}, 3).slice(3, 1, {}, 3); };
    EXPECT_TRUE(at::equal(sample(clip_crop(picture, 224)), reference_["clip.crop." + k])) << k;
    EXPECT_TRUE(at::equal(sample(clip_pixels(picture, 224)), reference_["clip.pixels." + k])) << k;
  }
}

TEST_F(ImageParity, APictureOfOneColumnIsSeenByClipAndALineThatIsTooLongIsRefused) {
  EXPECT_EQ(clip_pixels(at::full({40, 1, 3}, 7, at::kByte), 224).sizes(),
            (std::vector<int64_t>{1, 3, 224, 224}));
  EXPECT_THROW(clip_pixels(at::zeros({1, 1001, 3}, at::kByte), 224), Error);
}

TEST_F(ImageParity, ClipVisionModel) {
  const at::Tensor out = clip_hidden({kClip, "model"});
  EXPECT_LE(relative_error(out, reference_["clip.hidden"]), 1e-5);
}

TEST_F(ImageParity, ClipVisionModelAsTransformers5StoresIt) {
  const TemporaryDirectory directory;
  Tensors bare;
  for (const auto &[name, tensor] : read_safetensors(kClip + "/model.safetensors"))
    if (name.starts_with("vision_model.")) bare[stored_name(Naming::kBareClipVision, name)] = tensor;
  write_safetensors(directory.path() / "model.safetensors", bare);
  const at::Tensor out = clip_hidden({directory.path(), "model", Naming::kBareClipVision});
  EXPECT_TRUE(at::equal(out, clip_hidden({kClip, "model"})));
}

TEST_F(ImageParity, ClipVisionModelInBfloat16) {
  const at::Tensor out = clip_hidden({kClip, "model"}, at::kBFloat16);
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_LE(relative_error(out, reference_["clip.hidden"]), 2e-2);
}

TEST(CLIPVisionModel, OfTheReleasedSizeLoadsAllButTheLastLayer) {
  const std::string_view config = R"({"model_type": "clip_vision_model", "hidden_act": "gelu",
      "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
      "patch_size": 14})";
  WeightInventory inventory;
  const CLIPVisionModel model(CLIPVisionConfig::parse(JsonFile(config, "config.json")),
                              Weights(inventory, at::kFloat));
  int64_t count = 0;
  for (const WeightRequest &request : inventory.requests()) count += c10::multiply_integers(request.shape);
  EXPECT_EQ(inventory.requests().size(), 519 - 16 - 2);
  EXPECT_EQ(count, 630'766'080 - 19'677'440 - 2'560);
}

TEST(CLIPVisionConfig, OfAnotherKindIsRefused) {
  for (const char *text :
       {R"({"model_type": "clip"})", R"({"model_type": "clip_vision_model"})",
        R"({"model_type": "clip_vision_model", "hidden_act": "gelu", "num_channels": 1})",
        R"({"model_type": "clip_vision_model", "hidden_act": "gelu", "hidden_size": 100})"})
    EXPECT_THROW(CLIPVisionConfig::parse(JsonFile(std::string_view(text), "config.json")), Error) << text;
}

}  // namespace
}  // namespace wan::test
