// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures through the engine's C interface: which model takes which, what is refused before weights are
// read, and clips that begin with the last frame of the one before.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "checkpoint/config.h"
#include "checkpoint/names.h"
#include "common/allocated_bytes.h"
#include "common/conditioned_models.h"
#include "common/engine.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/write_safetensors.h"
#include "output/colours.h"

namespace wan::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

WanDefaults describe(const fs::path &model) {
  WanDefaults defaults;
  WanError error;
  if (api().describe(model.c_str(), &defaults, &error) != WAN_OK) throw Failure{WAN_INVALID, error.message};
  return defaults;
}

/// A small clip as the checkpoint suggests it, without pictures.
WanGenerateOptions clip_of(const fs::path &model) {
  const WanDefaults defaults = describe(model);
  WanGenerateOptions options = tiny_options();
  options.num_frames = 5;
  options.steps = 2;
  options.guidance_scale = options.guidance_scale_2 = 1;
  options.flow_shift = defaults.flow_shift;
  options.layout = packed_layout(WAN_PIXEL_RGB, 64, 32);
  return options;
}

/// What check() says of it: empty if nothing.
std::string refusal(const fs::path &model, const WanGenerateOptions &options) {
  WanError error;
  return api().check(model.c_str(), &options, &error) == WAN_OK ? "" : error.message;
}

at::Tensor picture(int64_t height, int64_t width) {
  return at::arange(height * width * 3).remainder(251).to(at::kByte).view({height, width, 3});
}

class Pictures : public testing::Test {
 protected:
  fs::path model(const std::string &name) const {
    const fs::path directory = directory_.path() / name;
    if (!fs::exists(directory)) ConditionedModel(name, directory);
    return directory;
  }

  const c10::InferenceMode inference_;
  const TemporaryDirectory directory_;
};

TEST_F(Pictures, EachModelSaysWhatItIsAndWhatItTakes) {
  const std::tuple<fs::path, std::string, WanPictureUse, WanPictureUse, int32_t> models[] = {
      {tiny_model(), "T2V-A14B", WAN_PICTURE_REFUSED, WAN_PICTURE_REFUSED, 16},
      {model("i2v-a14b"), "I2V-A14B", WAN_PICTURE_REQUIRED, WAN_PICTURE_OPTIONAL, 16},
      {model("ti2v-5b"), "TI2V-5B", WAN_PICTURE_OPTIONAL, WAN_PICTURE_REFUSED, 32},
      {model("i2v-21"), "Wan2.1-I2V", WAN_PICTURE_REQUIRED, WAN_PICTURE_REFUSED, 16},
      {model("flf2v-21"), "Wan2.1-FLF2V", WAN_PICTURE_REQUIRED, WAN_PICTURE_REQUIRED, 16}};
  for (const auto &[directory, variant, first, last, multiple] : models) {
    const WanDefaults defaults = describe(directory);
    EXPECT_EQ(defaults.variant, variant);
    EXPECT_EQ(defaults.pictures[WAN_PICTURE_FIRST], first) << variant;
    EXPECT_EQ(defaults.pictures[WAN_PICTURE_LAST], last) << variant;
    EXPECT_EQ(defaults.size_multiple, multiple) << variant;
  }
  const WanDefaults small = describe(model("ti2v-5b"));
  EXPECT_EQ(small.width, 1280);
  EXPECT_EQ(small.height, 704);
  EXPECT_EQ(small.num_frames, 121);
  EXPECT_EQ(small.fps_n, 24);
}

TEST_F(Pictures, WhatIsMissingOrNotTakenIsSaidBeforeWeightsAreRead) {
  WanGenerateOptions options = clip_of(tiny_model());
  EXPECT_EQ(refusal(tiny_model(), options), "");
  options.pictures[WAN_PICTURE_FIRST] = true;
  EXPECT_THAT(refusal(tiny_model(), options), HasSubstr("T2V-A14B, which takes no image"));

  const fs::path i2v = model("i2v-a14b"), ti2v = model("ti2v-5b"), flf2v = model("flf2v-21");
  options = clip_of(i2v);
  EXPECT_THAT(refusal(i2v, options), HasSubstr("I2V-A14B, which makes videos from pictures: set image"));
  options.pictures[WAN_PICTURE_FIRST] = true;
  EXPECT_EQ(refusal(i2v, options), "");
  EXPECT_EQ(refusal(ti2v, options), "");
  EXPECT_THAT(refusal(flf2v, options), HasSubstr("set last-image"));
  options.pictures[WAN_PICTURE_LAST] = true;
  EXPECT_EQ(refusal(i2v, options), "");
  EXPECT_EQ(refusal(flf2v, options), "");
  EXPECT_THAT(refusal(ti2v, options), HasSubstr("TI2V-5B, which takes no last-image"));
  options.num_frames = 1;
  EXPECT_THAT(refusal(i2v, options), HasSubstr("no room for a last-image"));
}

TEST_F(Pictures, EncodingThemIsAStageOfItsOwn) {
  for (const auto &[name, encodings] :
       {std::pair{"i2v-a14b", 1}, std::pair{"ti2v-5b", 1}, std::pair{"i2v-21", 2}}) {
    const Model loaded = load_model(model(name).string(), test_device_name(), WAN_DTYPE_FLOAT32);
    WanGenerateOptions options = clip_of(model(name));
    std::vector<WanStage> stages;
    std::vector<std::pair<int32_t, int32_t>> steps;
    Listener listener;
    listener.picture = [](WanPictureKind) { return picture(32, 64); };
    listener.progress = [&](const WanProgress &progress) {
      if (stages.empty() || stages.back() != progress.stage) stages.push_back(progress.stage);
      if (progress.stage == WAN_STAGE_PICTURES) steps.emplace_back(progress.step, progress.steps);
    };
    options.pictures[WAN_PICTURE_FIRST] = true;
    generate(loaded, options, listener);
    EXPECT_THAT(stages, ElementsAre(WAN_STAGE_TEXT, WAN_STAGE_PICTURES, WAN_STAGE_DENOISE, WAN_STAGE_DECODE));
    ASSERT_EQ(steps.size(), static_cast<size_t>(encodings) + 1) << name;
    EXPECT_EQ(steps.front(), std::pair(0, encodings));
    EXPECT_EQ(steps.back(), std::pair(encodings, encodings));
  }
}

TEST_F(Pictures, ClipsThatContinueNeedAModelThatTakesAPictureAndNoCrossfade) {
  WanGenerateOptions options = clip_of(tiny_model());
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  EXPECT_THAT(refusal(tiny_model(), options), HasSubstr("takes no image, so its clips cannot begin with"));
  EXPECT_EQ(refusal(model("ti2v-5b"), options), "");
  EXPECT_EQ(refusal(model("i2v-a14b"), options), "") << "a clip may come before";
  options.fade_frames = 2;
  EXPECT_THAT(refusal(model("ti2v-5b"), options), HasSubstr("cannot be crossfaded"));
}

TEST_F(Pictures, ClipsOfAStreamBeginWithTheLastFrameOfTheOneBefore) {
  const Model loaded = load_model(model("ti2v-5b").string(), test_device_name(), WAN_DTYPE_FLOAT32);
  WanGenerateOptions options = clip_of(model("ti2v-5b"));
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  options.stream = 7;
  options.pictures[WAN_PICTURE_FIRST] = true;
  at::Tensor first_picture = picture(50, 40);
  Listener listener;
  listener.picture = [&](WanPictureKind) { return first_picture; };
  const at::Tensor first = generate_clip(loaded, options, listener);
  EXPECT_EQ(first.size(0), 5);
  options.pictures[WAN_PICTURE_FIRST] = false;
  const at::Tensor second = generate_clip(loaded, options, listener);
  EXPECT_EQ(second.size(0), 4) << "without the repeated frame";

  // What a picture of that frame gives, but for its 8 bits.
  options.continuity = WAN_CONTINUITY_NONE;
  options.pictures[WAN_PICTURE_FIRST] = true;
  first_picture = first[4].view({32, 64, 3});
  const at::Tensor by_picture = generate_clip(loaded, options, listener);
  EXPECT_GE(psnr(second, by_picture.narrow(0, 1, 4)), 40.0);

  // Another stream begins anew.
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  options.stream = 8;
  EXPECT_EQ(generate_clip(loaded, options, listener).size(0), 5);
}

TEST_F(Pictures, AClipWithAPictureOfItsOwnBeginsWithItAndIsContinued) {
  const Model loaded = load_model(model("ti2v-5b").string(), test_device_name(), WAN_DTYPE_FLOAT32);
  WanGenerateOptions options = clip_of(model("ti2v-5b"));
  Listener listener;
  listener.picture = [](WanPictureKind) { return picture(32, 64); };
  const auto with_picture = [&] {
    options.pictures[WAN_PICTURE_FIRST] = true;
    return generate_clip(loaded, options, listener);
  };
  const auto without_picture = [&] {
    options.pictures[WAN_PICTURE_FIRST] = false;
    return generate_clip(loaded, options);
  };
  const at::Tensor alone = with_picture();
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  const at::Tensor first = without_picture(), second = without_picture();
  EXPECT_TRUE(at::equal(with_picture(), alone)) << "as if nothing came before it";
  const at::Tensor third = without_picture();
  EXPECT_EQ(third.size(0), 4);
  EXPECT_FALSE(at::equal(third, second)) << "what came last is continued";
}

TEST_F(Pictures, TheColoursOfAFilmAreMovedBackToItsFirstClips) {
  const Model loaded = load_model(model("ti2v-5b").string(), test_device_name(), WAN_DTYPE_FLOAT32);
  const auto film = [&](double correction, uint64_t stream) {
    WanGenerateOptions options = clip_of(model("ti2v-5b"));
    options.continuity = WAN_CONTINUITY_LAST_FRAME;
    options.continuity_correction = correction;
    options.stream = stream;
    std::vector<at::Tensor> clips;
    for (int clip = 0; clip < 3; ++clip, ++options.seed) clips.push_back(generate_clip(loaded, options));
    return clips;
  };
  const std::vector<at::Tensor> drifting = film(0, 1), half = film(0.5, 2), corrected = film(1, 3);
  EXPECT_TRUE(at::equal(drifting[0], corrected[0])) << "nothing comes before it";
  EXPECT_FALSE(at::equal(drifting[1], corrected[1]));
  EXPECT_FALSE(at::equal(half[1], corrected[1]));

  WanGenerateOptions options = clip_of(model("ti2v-5b"));
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  options.continuity_correction = 1.5;
  EXPECT_THAT(refusal(model("ti2v-5b"), options), HasSubstr("continuity-correction=1.5 is not in 0 to 1"));
}

TEST(ColoursOfAFilm, AreMeanAndDeviationOfAllItsFrames) {
  const c10::InferenceMode inference;
  const at::Tensor frames =
      at::rand({1, 3, 9, 6, 8}) * at::tensor({0.2, 0.5, 1.0}).view({1, 3, 1, 1, 1}) - 0.3;
  Colours colours;
  for (const at::Tensor &chunk : frames.split_with_sizes({1, 4, 4}, 2)) colours.add(chunk);
  const at::Tensor pixels = frames[0].flatten(1).to(at::kDouble), found = colours.statistics();
  EXPECT_TRUE(at::allclose(found[0], pixels.mean(1), 1e-9, 1e-9));
  EXPECT_TRUE(at::allclose(found[1], pixels.std(1, /*unbiased=*/false), 1e-7, 1e-7));
}

TEST(ColoursOfAFilm, AFrameIsGivenThoseOfAnother) {
  const c10::InferenceMode inference;
  const auto statistics = [](const at::Tensor &frame) {
    Colours colours;
    colours.add(frame);
    return colours.statistics();
  };
  const at::Tensor frame = at::rand({1, 3, 1, 40, 40}) * 0.5 - 0.2, own = statistics(frame),
                   wanted = own + at::tensor({-0.1, 0.0, 0.1, 0.02, -0.02, 0.0}, at::kDouble).view({2, 3});
  EXPECT_TRUE(at::allclose(statistics(with_colours(frame, wanted, 1)), wanted, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(statistics(with_colours(frame, wanted, 0.5)), (own + wanted) / 2, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(with_colours(frame, wanted, 0), frame, 1e-5, 1e-6));
  // A picture of one colour has no contrast that could be given back.
  const at::Tensor flat = at::full_like(frame, 0.25), changed = with_colours(flat, wanted, 1);
  EXPECT_TRUE(at::isfinite(changed).all().item<bool>());
  EXPECT_TRUE(at::allclose(statistics(changed)[0], wanted[0], 1e-5, 1e-5));
}

TEST_F(Pictures, AFilmTakesNoMoreMemoryForBeingLong) {
  const Model loaded = load_model(model("i2v-a14b").string(), test_device_name(), WAN_DTYPE_FLOAT32);
  WanGenerateOptions options = clip_of(model("i2v-a14b"));
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  options.continuity_correction = 1;
  options.pictures[WAN_PICTURE_FIRST] = true;
  Listener listener;
  listener.picture = [](WanPictureKind) { return picture(32, 64); };
  WanMemory early{}, late{};
  size_t host = 0;
  int64_t frames = 0;
  for (int clip = 0; clip < 50; ++clip, ++options.seed) {
    frames += generate_clip(loaded, options, listener).size(0);
    options.pictures[WAN_PICTURE_FIRST] = false;
    if (clip == 9) api().memory(loaded.get(), &early);
    if (clip == 9) host = allocated_bytes();
  }
  api().memory(loaded.get(), &late);
  EXPECT_EQ(frames, 5 + 49 * 4);
  EXPECT_EQ(late.gpu_bytes, early.gpu_bytes);
  EXPECT_EQ(late.pinned_bytes, early.pinned_bytes);
  EXPECT_EQ(late.pool_bytes, early.pool_bytes);
  EXPECT_LT(allocated_bytes(), host + (64 << 10)) << "40 clips kept something";
}

TEST_F(Pictures, AFilmGoesOnAfterAClipThatFailed) {
  const Model loaded = load_model(model("i2v-a14b").string(), test_device_name(), WAN_DTYPE_FLOAT32);
  WanGenerateOptions options = clip_of(model("i2v-a14b"));
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  try {
    generate_clip(loaded, options);
    ADD_FAILURE() << "made from nothing";
  } catch (const Failure &failure) {
    EXPECT_THAT(failure.message, HasSubstr("No clip comes before this one"));
  }
  options.pictures[WAN_PICTURE_FIRST] = true;
  Listener listener;
  listener.picture = [](WanPictureKind) { return picture(32, 64); };
  generate_clip(loaded, options, listener);
  options.pictures[WAN_PICTURE_FIRST] = false;
  Listener stops;
  stops.cancelled = [] { return true; };
  EXPECT_THROW(generate_clip(loaded, options, stops), Failure);
  EXPECT_EQ(generate_clip(loaded, options).size(0), 4);
  // A clip of another size begins with the frame as a picture.
  options.layout = packed_layout(WAN_PIXEL_RGB, 32, 32);
  EXPECT_EQ(generate_clip(loaded, options).size(0), 4);
}

TEST_F(Pictures, AnyPictureThatIsOneIsTaken) {
  const Model loaded = load_model(model("ti2v-5b").string(), test_device_name(), WAN_DTYPE_FLOAT32);
  WanGenerateOptions options = clip_of(model("ti2v-5b"));
  options.num_frames = 1;
  options.pictures[WAN_PICTURE_FIRST] = true;
  for (const auto &[height, width] : {std::pair<int64_t, int64_t>{1, 1}, {1, 300}, {500, 2}, {32, 64}}) {
    Listener listener;
    const at::Tensor pixels = picture(height, width);
    listener.picture = [&](WanPictureKind) { return pixels; };
    EXPECT_EQ(generate_clip(loaded, options, listener).size(0), 1) << height << "x" << width;
  }
  Listener none;
  none.picture = [](WanPictureKind) { return at::zeros({0, 5, 3}, at::kByte); };
  EXPECT_THROW(generate_clip(loaded, options, none), Failure);
  none.picture = [](WanPictureKind) { return at::Tensor(); };
  try {
    generate_clip(loaded, options, none);
    ADD_FAILURE() << "made without its picture";
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.status, WAN_CANCELLED);
  }
}

void change_json(const fs::path &file, const std::function<void(nlohmann::json &)> &change) {
  nlohmann::json json;
  std::ifstream(file) >> json;
  change(json);
  std::ofstream(file) << json;
}

Tensors renamed(const Tensors &tensors, Naming naming) {
  Tensors renamed;
  for (const auto &[name, values] : tensors) renamed[stored_name(naming, name)] = values;
  return renamed;
}

/// As ComfyUI has it, of a checkpoint in Diffusers' format.
void write_single_files(const fs::path &from, const fs::path &to, Naming vae) {
  for (const auto &[component, file] :
       {std::pair{"transformer", "high_noise"}, {"transformer_2", "low_noise"}}) {
    if (!fs::exists(from / component)) continue;
    const std::string name = fs::exists(from / "transformer_2") ? file : "wan";
    write_safetensors(to / "diffusion_models" / (name + ".safetensors"),
                      renamed(read_safetensors(from / component / "diffusion_pytorch_model.safetensors"),
                              Naming::kOriginalTransformer));
  }
  write_safetensors(to / "vae/vae.safetensors",
                    renamed(read_safetensors(from / "vae/diffusion_pytorch_model.safetensors"), vae));
  for (const auto &[component, place] :
       {std::pair{"text_encoder", "text_encoders"}, {"image_encoder", "clip_vision"}}) {
    if (!fs::exists(from / component)) continue;
    write_safetensors(to / place / (std::string(component) + ".safetensors"),
                      read_safetensors(from / component / "model.safetensors"));
  }
  fs::create_directory_symlink(from / "tokenizer", to / "tokenizer");
}

/// Of single files, as the original release has them, but for its pickles.
void make_original_release(const fs::path &files, const std::string &type) {
  for (const auto &[file, place] :
       {std::pair{"high_noise", "high_noise_model"}, {"low_noise", "low_noise_model"}, {"wan", ""}}) {
    const fs::path from = files / "diffusion_models" / (std::string(file) + ".safetensors");
    if (!fs::exists(from)) continue;
    fs::create_directories(files / place);
    fs::rename(from, files / place / "diffusion_pytorch_model.safetensors");
    std::ofstream(files / place / "config.json")
        << nlohmann::json{{"_class_name", "WanModel"}, {"model_type", type}, {"num_heads", 1}};
  }
  const fs::path text_encoder = files / "text_encoders/text_encoder.safetensors";
  write_safetensors(files / "models_t5_umt5-xxl-enc-bf16.safetensors",
                    renamed(read_safetensors(text_encoder), Naming::kOriginalTextEncoder));
  fs::remove(text_encoder);
  fs::rename(files / "vae/vae.safetensors", files / "Wan_VAE.safetensors");
}

TEST_F(Pictures, SingleFilesAndTheOriginalReleaseMakeTheVideosOfDiffusersFormat) {
  for (const auto &[name, type] : {std::pair<std::string, std::string>{"i2v-a14b", "i2v"},
                                   {"ti2v-5b", "ti2v"},
                                   {"i2v-21", "i2v"},
                                   {"flf2v-21", "flf2v"}}) {
    const fs::path diffusers = model(name), files = directory_.path() / (name + "-files");
    write_single_files(diffusers, files,
                       name == "ti2v-5b" ? Naming::kOriginalResidualVae : Naming::kOriginalVae);
    const CheckpointConfig config = CheckpointConfig::read(files);
    EXPECT_STREQ(config.defaults.variant, describe(diffusers).variant);
    if (name == "i2v-a14b") {
      EXPECT_EQ(config.boundary_ratio, 0.9);
    }
    for (const char *component : {"transformer", "transformer_2"})
      if (fs::exists(diffusers / component))
        change_json(diffusers / component / "config.json", [](nlohmann::json &json) {
          json["num_attention_heads"] = 1;
          json["attention_head_dim"] = 128;
        });
    change_json(diffusers / "vae/config.json", [&config](nlohmann::json &json) {
      json["latents_mean"] = config.vae.latents_mean;
      json["latents_std"] = config.vae.latents_std;
    });
    if (config.image_encoder)
      change_json(diffusers / "image_encoder/config.json",
                  [](nlohmann::json &json) { json["num_attention_heads"] = 1; });
    WanGenerateOptions options = clip_of(files);
    options.pictures[WAN_PICTURE_FIRST] = true;
    options.pictures[WAN_PICTURE_LAST] = name == "flf2v-21";
    Listener listener;
    listener.picture = [](WanPictureKind kind) { return picture(40 + kind, 70); };
    const auto video = [&](const fs::path &directory) {
      return generate_clip(load_model(directory.string(), "cpu", WAN_DTYPE_FLOAT32), options, listener);
    };
    const at::Tensor expected = video(diffusers);
    EXPECT_TRUE(at::equal(video(files), expected)) << name;
    make_original_release(files, type);
    EXPECT_TRUE(at::equal(video(files), expected)) << name << ", original release";
  }
}

TEST_F(Pictures, ModelsOfSeveralKindsInOneDirectoryAreNotGuessedAt) {
  const fs::path files = directory_.path() / "files";
  write_single_files(model("i2v-a14b"), files, Naming::kOriginalVae);
  write_safetensors(files / "diffusion_models/ti2v.safetensors",
                    read_safetensors(source_path("tests/parity/conditioned/ti2v.safetensors")));
  WanDefaults defaults;
  WanError error;
  EXPECT_EQ(api().describe(files.c_str(), &defaults, &error), WAN_INVALID);
  EXPECT_THAT(error.message, HasSubstr("has transformers of several models"));
}

TEST_F(Pictures, LorasReachWhatOnlyModelsThatSeePicturesHave) {
  const fs::path directory = model("i2v-21");
  const std::string lora = (directory_.path() / "lora.safetensors").string();
  WanGenerateOptions options = clip_of(directory);
  options.pictures[WAN_PICTURE_FIRST] = true;
  Listener listener;
  listener.picture = [](WanPictureKind) { return picture(32, 64); };
  const at::Tensor plain =
      generate_clip(load_model(directory.string(), "cpu", WAN_DTYPE_FLOAT32), options, listener);
  at::manual_seed(3);
  const std::pair<Tensors, const char *> parts[] = {
      {{{"diffusion_model.patch_embedding.diff", at::randn({128, 36, 1, 2, 2}) * 0.1}}, "36 channels"},
      {{{"diffusion_model.patch_embedding.lora_down.weight", at::randn({4, 36, 1, 2, 2}) * 0.1},
        {"diffusion_model.patch_embedding.lora_up.weight", at::randn({128, 4, 1, 1, 1})}},
       "36 channels in two"},
      {{{"diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight", at::randn({4, 128})},
        {"diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight", at::randn({128, 4})}},
       "keys of pictures"},
      {{{"diffusion_model.img_emb.proj.1.diff_b", at::randn({32})}}, "the embedding of pictures"}};
  for (const auto &[tensors, what] : parts) {
    write_safetensors(lora, tensors);
    const Model changed = load_model(directory.string(), "cpu", WAN_DTYPE_FLOAT32, {{lora.c_str(), 1, 1}});
    EXPECT_FALSE(at::equal(generate_clip(changed, options, listener), plain)) << what;
  }
}

}  // namespace
}  // namespace wan::test
