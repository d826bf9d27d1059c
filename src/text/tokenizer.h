// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tokenizer of the UMT5 text encoder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "run_context.h"

namespace wan {

/**
 * From prompt to ids, equal to transformers' T5TokenizerFast as WanPipeline calls it.
 *
 * It follows the checkpoint's tokenizer.json, the file that T5TokenizerFast reads: added tokens, then the
 * normalizers (Precompiled, Strip, Replace), then added tokens of normalized text, then words
 * (WhitespaceSplit, Metaspace), then a unigram model, then the end token. SentencePiece's own encoder is not
 * used: it adds scores in single precision, so that runs as "........" come out cut in other places.
 *
 * Const and without state: any number of threads may call it.
 */
class Tokenizer {
 public:
  /**
   * @param directory the checkpoint's tokenizer/
   * @throws Error WAN_NOT_FOUND if there is no tokenizer.json, WAN_INVALID if it is corrupt or of another
   * kind.
   */
  explicit Tokenizer(const std::filesystem::path &directory);
  ~Tokenizer();
  Tokenizer(Tokenizer &&) noexcept;

  /**
   * @param cleaned_prompt the result of prompt_clean, UTF-8
   * @param max_length in ids, the end token included; at least 1
   * @return at most `max_length` ids without padding; the last one is the end token
   * @throws Error WAN_INVALID if the prompt is not valid UTF-8 or the checkpoint's normalizers make too much
   * of it, WAN_CANCELLED
   */
  std::vector<int32_t> operator()(std::string_view cleaned_prompt, size_t max_length,
                                  const RunContext &context = RunContext({})) const;

  /** What T5TokenizerFast fills up with. */
  int32_t pad_id() const;

 private:
  struct Definition;
  std::unique_ptr<const Definition> definition_;
};

}  // namespace wan
