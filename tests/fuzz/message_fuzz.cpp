// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a page may send to the live studio: a message, with everything that is read of one, and what an answer
// and a candidate say of a connection.
#include <gst/gst.h>

#include <cstdlib>
#include <string>

#include "fuzz.h"
#include "json.h"
#include "negotiation.h"

namespace {

// Either a value within its limits, or a refusal that says something.
template <typename Read>
void read(Read &&read) {
  try {
    read();
  } catch (const studio::BadMessage &refusal) {
    if (!g_utf8_validate(refusal.what(), -1, nullptr) || !*refusal.what()) std::abort();
  }
}

void expect(bool holds) {
  if (!holds) std::abort();
}

void read_members(const studio::Message &message) {
  read([&] { expect(message.type().size() <= 32); });
  read([&] { expect(g_utf8_validate(message.text("prompt", 2000).c_str(), -1, nullptr)); });
  read([&] { expect(message.texts("codecs", 16).size() <= 16); });
  read([&] { expect(message.integer("seed", 0, G_MAXINT64) >= 0); });
  read([&] { expect(message.integer("steps", 0, 1000) <= 1000); });
  read([&] {
    const double guidance = message.number("guidance", 0, 100);
    expect(guidance >= 0 && guidance <= 100);
  });
  read([&] { message.truth("picture"); });
  read([&] { studio::check_candidate(message.text("candidate", 500)); });
  read([&] { studio::parse_answer(message.text("sdp", 16 * 1024)); });
}

}  // namespace

void wan::fuzz::run(std::string_view input) {
  static const bool initialised = gst_init_check(nullptr, nullptr, nullptr);
  expect(initialised);
  const std::string text(input);
  read([&] { read_members(studio::Message(text)); });
  read([&] { studio::parse_answer(text); });
}
