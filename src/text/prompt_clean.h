// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Prompt cleaning, as Diffusers does it before it tokenizes.
#pragma once

#include <string>
#include <string_view>

#include "run_context.h"

namespace wan {

/**
 * Diffusers' `prompt_clean`: ftfy.fix_text, html.unescape twice, whitespace runs to one space, strip.
 *
 * Of ftfy 6.3 (default settings) all steps are here but one: text that was once decoded with a wrong encoding
 * ("sÃ³" for "só") is left as it is, where ftfy guesses what it was. The result is UTF-8 in NFC.
 *
 * Source: diffusers/pipelines/wan/pipeline_wan.py; ftfy; Python's html module.
 *
 * The time is in proportion to the length.
 *
 * @throws Error WAN_INVALID if `utf8` is not valid UTF-8, when the message has the offset of the first bad
 * byte, or longer than `longest_prompt`; WAN_CANCELLED
 */
std::string prompt_clean(std::string_view utf8, const RunContext &context = RunContext({}));

/** In bytes. The text encoder sees 512 tokens, some 2 KiB. */
constexpr size_t longest_prompt = 64 << 10;

/** Throws what prompt_clean() throws for a text that cannot be a prompt. `name` is for the message. */
void require_prompt(std::string_view utf8, const std::string &name = "prompt");

}  // namespace wan
