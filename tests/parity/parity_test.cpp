// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every component against Diffusers and Transformers, in float32 (bfloat16 where the name says so).
// reference.safetensors and golden.safetensors come from make_reference.py and models/make_golden.py.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "common/largest_error.h"
#include "common/reference.h"
#include "common/tiny_model.h"
#include "scheduler/scheduler.h"
#include "text/umt5_encoder.h"
#include "transformer/wan_transformer_3d.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/tiled_decode.h"

namespace wan::test {
namespace {

constexpr double kComponentTolerance = 1e-5;
constexpr double kLoopTolerance = 1e-4;

class Parity : public testing::Test, protected LargestError {
 protected:
  static WanTransformer3DModel transformer(const std::string &name, at::ScalarType dtype = at::kFloat) {
    return load_tiny<WanTransformer3DModel>(name, tiny_config().transformer, dtype,
                                            WanTransformer3DModel::kKeepInFp32);
  }
  static at::Tensor predict(const WanTransformer3DModel &model, const at::Tensor &latents, double timestep,
                            const at::Tensor &embedding, StepCache *cache = nullptr) {
    const auto rotary = model.rotary(latents.size(2), latents.size(3), latents.size(4));
    EncodedContext context = model.encode(embedding.to(test_device()));
    return model(latents.to(test_device()), {rotary, {{0, timestep}}, context, quiet(), cache});
  }

  void expect_scheduler_parity(const WanGenerateOptions &options, const std::string &key) {
    const auto scheduler = make_scheduler(tiny_config().scheduler, options);
    expect_parity(at::tensor(scheduler->sigmas()), reference_[key + ".sigmas"], key, 1e-7);
    expect_parity(at::tensor(scheduler->timesteps()), reference_[key + ".timesteps"], key, 1e-7);
    at::Tensor sample = reference_["scheduler.start"];
    for (size_t step = 0; step < scheduler->timesteps().size(); ++step) {
      const auto row = static_cast<int64_t>(step);
      sample = scheduler->step(reference_["scheduler.velocity"][row], sample);
      expect_parity(sample[0], reference_[key + ".samples"][row], key + " step " + std::to_string(step),
                    kComponentTolerance);
    }
  }

  const c10::InferenceMode inference_;
  const Reference golden_{"tests/parity/golden.safetensors"};
  const Reference reference_{"tests/parity/reference.safetensors"};
};

TEST_F(Parity, TextEncoderOfGolden) {
  const auto encoder = load_tiny<UMT5EncoderModel>("text_encoder", tiny_config().text_encoder);
  for (const auto &[kind, embedding] :
       {std::pair{"", "prompt_embeds"}, std::pair{"negative_", "negative_prompt_embeds"}}) {
    const at::Tensor ids = golden_[std::string(kind) + "ids"].to(at::kLong).to(test_device());
    const at::Tensor mask = golden_[std::string(kind) + "attention_mask"].to(at::kLong).to(test_device());
    const at::Tensor out = encoder(ids, mask, quiet()) * mask.unsqueeze(-1);
    expect_parity(out, golden_[embedding], embedding, kComponentTolerance);
  }
}

TEST_F(Parity, TextEncoderOfShortAndTruncatedPrompts) {
  const auto encoder = load_tiny<UMT5EncoderModel>("text_encoder", tiny_config().text_encoder);
  for (const std::string k : {"0", "1", "2"}) {
    const at::Tensor ids = reference_["text." + k + ".ids"].to(test_device());
    const at::Tensor expected = reference_["text." + k + ".embedding"];
    const at::Tensor out = encoder(ids, reference_["text." + k + ".mask"].to(test_device()), quiet());
    expect_parity(out[0].narrow(0, 0, expected.size(0)), expected, k, kComponentTolerance);
  }
}

TEST_F(Parity, RotaryEmbedding) {
  for (const auto &[t, h, w] : {std::tuple{3, 4, 5}, {1, 1, 1}, {21, 2, 7}}) {
    const auto key = "rope." + std::to_string(t) + "." + std::to_string(h) + "." + std::to_string(w);
    const RotaryEmbedding out = rotary_embedding(128, {0, t, h, w}, at::kCPU);
    EXPECT_TRUE(at::equal(out.cos.squeeze(1), reference_[key + ".cos"])) << key;
    EXPECT_TRUE(at::equal(out.sin.squeeze(1), reference_[key + ".sin"])) << key;
  }
  const RotaryEmbedding golden = rotary_embedding(128, {0, 9, 6, 10}, at::kCPU);
  EXPECT_TRUE(at::equal(golden.cos, golden_["rope_cos"][0].slice(-1, 0, 128, 2)));
  EXPECT_TRUE(at::equal(golden.sin, golden_["rope_sin"][0].slice(-1, 1, 128, 2)));
}

TEST_F(Parity, TransformerBlock) {
  CheckpointWeights source({tiny_config().directory / "transformer", "diffusion_pytorch_model"},
                           test_device(), [](uint64_t) {});
  const Weights weights(source, at::kFloat);
  const WanTransformerBlock block(tiny_config().transformer, weights / "blocks" / 0, WAN_QUANTIZATION_NONE);
  const CrossContext text =
      block.cross_attention().cross_context(reference_["block.text"].to(test_device()), {});
  const Modulation modulation = {reference_["block.timestep"].unsqueeze(1).to(test_device()), {0}};
  const at::Tensor out = block(reference_["block.x"].to(test_device()), text, modulation,
                               rotary_embedding(128, {0, 3, 4, 5}, test_device()));
  expect_parity(out, reference_["block.out"], "block", kComponentTolerance);
}

TEST_F(Parity, BothExpertsAtSeveralSizesAndTimesteps) {
  const at::Tensor embedding = reference_["expert.embedding"];
  for (const std::string name : {"transformer", "transformer_2"}) {
    const auto model = transformer(name);
    for (const std::string k : {"0", "1", "2"}) {
      const double timestep = reference_["expert." + k + ".timestep"].item<double>();
      const at::Tensor out = predict(model, reference_["expert." + k + ".latents"], timestep, embedding);
      expect_parity(out, reference_["expert." + k + "." + name], name + " " + k, kComponentTolerance);
    }
  }
}

// Kernels round bfloat16 in different places, so both sides are held against the float32 prediction.
TEST_F(Parity, ExpertInBfloat16IsAsExactAsDiffusers) {
  const auto model = transformer("transformer", at::kBFloat16);
  for (const std::string k : {"0", "1", "2"}) {
    const at::Tensor exact = reference_["expert." + k + ".transformer"];
    const double timestep = reference_["expert." + k + ".timestep"].item<double>();
    const at::Tensor out =
        predict(model, reference_["expert." + k + ".latents"], timestep, reference_["expert.embedding"]);
    EXPECT_EQ(out.scalar_type(), at::kBFloat16);
    expect_parity(out, exact, k,
                  1.25 * relative_error(reference_["expert." + k + ".transformer_bf16"], exact));
  }
}

TEST_F(Parity, BothExpertsOfGolden) {
  const double timestep = golden_["probe_t"].item<double>();
  for (const std::string name : {"transformer", "transformer_2"}) {
    const at::Tensor out =
        predict(transformer(name), golden_["latents_init"], timestep, golden_["prompt_embeds"]);
    expect_parity(out, golden_["noise_pred_" + name], name, kComponentTolerance);
  }
}

TEST_F(Parity, EverySchedulerStep) {
  const std::pair<const char *, WanScheduler> kinds[] = {{"unipc", WAN_SCHEDULER_UNIPC},
                                                         {"euler", WAN_SCHEDULER_EULER}};
  for (const auto &[name, kind] : kinds)
    for (const int steps : {1, 2, 4, 8, 16, 20, 40, 50})
      for (const int shift : {1, 3, 5, 12}) {
        const std::string key =
            "scheduler." + std::string(name) + "." + std::to_string(steps) + "." + std::to_string(shift);
        WanGenerateOptions options{};
        options.scheduler = kind;
        options.steps = steps;
        options.flow_shift = shift;
        expect_scheduler_parity(options, key);
      }
}

TEST_F(Parity, EverySchedulerStepOfExplicitSigmas) {
  // What the 4-step distilled models are published with, as timesteps / 1000, and a list without a shift.
  const std::tuple<const char *, std::vector<double>, double> lists[] = {
      {"distilled", {1.0, 0.75, 0.5, 0.25}, 5.0}, {"plain", {0.9, 0.62, 0.31, 0.3, 0.01}, 1.0}};
  for (const auto &[name, kind] : {std::pair{"unipc", WAN_SCHEDULER_UNIPC}, {"euler", WAN_SCHEDULER_EULER}})
    for (const auto &[list, sigmas, shift] : lists) {
      WanGenerateOptions options{};
      options.scheduler = kind;
      options.flow_shift = shift;
      options.sigmas = sigmas.data();
      options.num_sigmas = sigmas.size();
      expect_scheduler_parity(options, "scheduler." + std::string(name) + "." + list);
    }
}

TEST_F(Parity, DenoisingLoopOfGolden) {
  const auto high = transformer("transformer"), low = transformer("transformer_2");
  const int steps = 8;
  WanGenerateOptions options{};
  options.steps = steps;
  options.flow_shift = tiny_config().scheduler.flow_shift;
  const auto scheduler = make_scheduler(tiny_config().scheduler, options);
  at::Tensor latents = golden_["latents_init"].to(test_device());
  for (int step = 0; step < steps; ++step) {
    const double timestep = scheduler->timesteps()[static_cast<size_t>(step)];
    EXPECT_EQ(timestep, golden_["timesteps"][step].item<double>());
    const auto &expert = timestep >= 875 ? high : low;
    const at::Tensor conditional = predict(expert, latents, timestep, golden_["prompt_embeds"]);
    const at::Tensor unconditional = predict(expert, latents, timestep, golden_["negative_prompt_embeds"]);
    latents = scheduler->step(unconditional + (conditional - unconditional) * 4.0, latents);
    expect_parity(latents, golden_["latents." + std::to_string(step)], "step " + std::to_string(step),
                  kLoopTolerance);
  }
}

// Decisions compare a change with the threshold, and the reference's changes are at least 1 % from it.
TEST_F(Parity, FirstBlockCacheSkipsWhereDiffusersDoes) {
  const auto high = transformer("transformer"), low = transformer("transformer_2");
  const at::Tensor changes = reference_["cache.changes"];
  const double threshold = reference_["cache.threshold"].item<double>();
  WanGenerateOptions options{};
  options.steps = static_cast<int32_t>(changes.size(0));
  options.flow_shift = tiny_config().scheduler.flow_shift;
  const auto scheduler = make_scheduler(tiny_config().scheduler, options);
  at::Tensor latents = reference_["cache.latents"].to(test_device());
  const WanTransformer3DModel *last = nullptr;
  std::vector<StepCache> caches;
  int skipped = 0;
  for (int step = 0; step < options.steps; ++step) {
    const double timestep = scheduler->timesteps()[static_cast<size_t>(step)];
    const auto &expert = timestep >= 875 ? high : low;
    if (std::exchange(last, &expert) != &expert) caches.assign(2, StepCache(threshold));
    const auto predicted = [&](int which, const at::Tensor &embedding) {
      StepCache &cache = caches[static_cast<size_t>(which)];
      const at::Tensor out = predict(expert, latents, timestep, embedding, &cache);
      const double change = changes[step][which].item<double>();
      EXPECT_EQ(cache.skipped(), change >= 0 && change <= threshold) << "step " << step << ", " << which;
      skipped += cache.skipped();
      return out;
    };
    const at::Tensor conditional = predicted(0, reference_["expert.embedding"]);
    const at::Tensor unconditional = predicted(1, golden_["negative_prompt_embeds"]);
    latents = scheduler->step(unconditional + (conditional - unconditional) * 2.5, latents);
  }
  EXPECT_GT(skipped, 0);
  expect_parity(latents, reference_["cache.out"], "latents", kLoopTolerance);
}

TEST_F(Parity, VaeDecodesChunkByChunk) {
  const auto vae = load_tiny<AutoencoderKLWan>("vae", tiny_config().vae);
  const at::Tensor latents = reference_["vae.latents"].to(test_device());
  StreamState state;
  for (int chunk = 0; chunk < 4; ++chunk) {
    const at::Tensor frames = vae.decode(latents.narrow(2, chunk, 1), state, quiet());
    expect_parity(frames, reference_["vae.chunk." + std::to_string(chunk)], "chunk " + std::to_string(chunk),
                  kComponentTolerance);
  }
}

TEST_F(Parity, VaeDecodesInTiles) {
  const auto vae = load_tiny<AutoencoderKLWan>("vae", tiny_config().vae);
  const at::Tensor latents = reference_["vae.tiled.latents"].to(test_device());
  const at::Tensor video = tiled_decode(vae, latents, quiet(), [] {});
  expect_parity(video.slice(3, 5, {}, 8).slice(4, 5, {}, 8), reference_["vae.tiled.video"], "tiled",
                kComponentTolerance);
}

TEST_F(Parity, VaeOfGolden) {
  const auto vae = load_tiny<AutoencoderKLWan>("vae", tiny_config().vae);
  const at::Tensor latents = vae.denormalize(golden_["latents.7"].to(test_device()));
  StreamState state;
  std::vector<at::Tensor> frames;
  for (int64_t t = 0; t < latents.size(2); ++t)
    frames.push_back(vae.decode(latents.narrow(2, t, 1), state, quiet()));
  // The golden video is stored as float16.
  expect_parity(at::cat(frames, 2), golden_["video"], "video", 5e-4);
}

}  // namespace
}  // namespace wan::test
