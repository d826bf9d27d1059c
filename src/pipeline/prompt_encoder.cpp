// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/prompt_encoder.h"

#include <ATen/ATen.h>
#include <c10/util/ScopeExit.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "text/prompt_clean.h"

namespace wan {

namespace {

constexpr int64_t kTextTokens = 512;  // the transformer attends to all of them, padding too
/// Of 8 MB each: those of two streams that take turns, with their negative prompts.
constexpr size_t kMaxRecent = 4;

}  // namespace

bool is_guided(const WanGenerateOptions &options) {
  return options.guidance_scale > 1;
}

at::Tensor PromptEncoder::encode(const std::string &prompt, const RunContext &context) {
  const CheckpointConfig &config = components_.config();
  const Tokenizer &tokenizer = components_.tokenizer();
  const at::Device device = components_.vae_device();
  const std::vector<int32_t> tokens = tokenizer(prompt_clean(prompt, context), kTextTokens, context);
  // On CUDA an index beyond the embedding would take the whole context down.
  if (std::max(tokenizer.pad_id(), *std::max_element(tokens.begin(), tokens.end())) >=
      config.text_encoder.vocab_size)
    throw invalid(config.tokenizer.string() + " gives ids beyond the text encoder's vocab_size");
  const auto length = static_cast<int64_t>(tokens.size());
  at::Tensor ids = at::full({1, kTextTokens}, tokenizer.pad_id(), at::kLong);
  ids[0].narrow(0, 0, length).copy_(at::tensor(tokens));
  const at::Tensor mask = (at::arange(kTextTokens) < length).to(at::kLong).unsqueeze(0);
  const at::Tensor encoded = components_.text_encoder(context)(ids.to(device), mask.to(device), context);
  if (!is_usable(encoded.narrow(1, 0, length)))
    throw invalid(config.files.at("text_encoder").path() +
                  ": what it makes of the prompt is not finite or is beyond 1e6: its weights are damaged");
  // Padding is zero to the transformer, not what the encoder makes of it.
  return encoded.masked_fill((mask == 0).unsqueeze(-1).to(device), 0);
}

at::Tensor PromptEncoder::embed(const std::string &prompt, const RunContext &context) {
  Embedding embedding = {prompt, {}};
  const auto known = std::ranges::find(recent_, prompt, &Embedding::prompt);
  if (known != recent_.end()) {
    embedding.values = known->values;
    recent_.erase(known);
  } else {
    embedding.values = encode(prompt, context);
    if (recent_.size() == kMaxRecent) recent_.pop_front();
  }
  recent_.push_back(std::move(embedding));
  return recent_.back().values;
}

at::Tensor PromptEncoder::operator()(const std::string &prompt, bool keeps_encoder,
                                     const RunContext &context) {
  const auto release = c10::make_scope_exit([&] {
    if (!keeps_encoder) components_.release_encoders();
  });
  if (std::ranges::find(recent_, prompt, &Embedding::prompt) != recent_.end()) return embed(prompt, context);
  const StageProgress progress(context, WAN_STAGE_TEXT, 1);
  const at::Tensor values = embed(prompt, context);
  progress.report(1);
  return values;
}

PromptEmbeddings PromptEncoder::operator()(const WanGenerateOptions &options, bool keeps_encoder,
                                           const RunContext &context) {
  // However this ends: the text encoder would take the denoiser's memory.
  const auto release = c10::make_scope_exit([&] {
    if (!keeps_encoder) components_.release_encoders();
  });
  const StageProgress progress(context, WAN_STAGE_TEXT, is_guided(options) ? 2 : 1);
  PromptEmbeddings embeddings = {embed(options.prompt, context), {}};
  progress.report(1);
  if (!is_guided(options)) return embeddings;
  embeddings.negative = embed(options.negative_prompt, context);
  progress.report(2);
  return embeddings;
}

}  // namespace wan
