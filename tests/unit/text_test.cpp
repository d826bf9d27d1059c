// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Prompt cleaning and tokenizer against Diffusers and transformers (tests/parity/make_text_reference.py), and
// bad input.
#include <glib.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "error.h"
#include "text/prompt_clean.h"
#include "text/tokenizer.h"

namespace wan {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;

constexpr size_t max_length = 512;

const fs::path source_root = WAN_SOURCE_DIR;
const fs::path tiny_tokenizer = source_root / "models/wan-tiny/tokenizer";
const fs::path fallback_tokenizer = source_root / "tests/parity/tokenizer-2000";

json read_json(const fs::path &path) {
  return json::parse(std::ifstream(path));
}

json reference() {
  return read_json(source_root / "tests/parity/text.json");
}

/** A tokenizer directory that is removed with the test. */
class TokenizerDirectory : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "wan-text-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  void TearDown() override { fs::remove_all(path_); }

  void write(const std::string &text, const char *file = "tokenizer.json") {
    std::ofstream(path_ / file) << text;
  }

  /** Loads it with `change` made to a good tokenizer.json. */
  template <typename Change>
  void load_changed(Change change) {
    json file = read_json(fallback_tokenizer / "tokenizer.json");
    change(file);
    write(file.dump());
    Tokenizer{path_};
  }

  fs::path path_;
};

template <typename Call>
void expect_error(WanStatus kind, const std::string &part_of_message, Call call) {
  try {
    call();
    FAIL() << "no error";
  } catch (const Error &error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_NE(std::string(error.what()).find(part_of_message), std::string::npos) << error.what();
  }
}

void expect_equal_ids(const fs::path &directory, const char *column) {
  const Tokenizer tokenizer(directory);
  for (const json &row : reference())
    EXPECT_EQ(tokenizer(row["cleaned"].get<std::string>(), max_length),
              row[column].get<std::vector<int32_t>>())
        << row["text"];
}

TEST(PromptClean, EqualsDiffusers) {
  const json rows = reference();
  EXPECT_GE(rows.size(), 220);
  for (const json &row : rows)
    EXPECT_EQ(prompt_clean(row["text"].get<std::string>()), row["cleaned"].get<std::string>()) << row["text"];
}

TEST(PromptClean, NamesTheFirstBadByte) {
  for (const char *bad :
       {"abc\xff", "abc\xc3", "abc\xed\xa0\x80", "abc\xc0\x80", "abc\xf4\x90\x80\x80", "abc\x80z"})
    expect_error(WAN_INVALID, "offset 3", [bad] { prompt_clean(bad); });
}

TEST(PromptClean, ReferencesThatMakeReferencesEqualFtfy) {
  const std::pair<const char *, const char *> examples[] = {
      {"&amp;amp;amp;amp;lt;b&amp;gt;", "<b>"},
      {"&am&#112;;lt;", "<"},
      {"\033[&amp;#49;m", "[1m"},
      {"\033[&#49;mx", "x"},
      {"&#5&#5&#57;;;x", ";;x"},
      {"&amp&semi;amp&semi;quot;", "\""},
      {"e&amp;#769;", "é"},
      {"&am&#65279;p;amp;", "&"},
      {"a&#13;&amp;#10;b", "a b"},
      {"&amp;；lt；", "&;lt;"},
      {"&#x26;#x26;#60;i", "<i"},
  };
  for (const auto &[text, cleaned] : examples) EXPECT_EQ(prompt_clean(text), cleaned) << text;
}

/** How often a call asks whether to go on. */
template <typename Call>
int times_asked(Call call) {
  int asked = 0;
  WanCallbacks callbacks{};
  callbacks.user = &asked;
  callbacks.cancelled = [](void *user) { return ++*static_cast<int *>(user) < 0; };
  call(RunContext(callbacks));
  return asked;
}

/** Cancels at once. */
RunContext cancelled() {
  WanCallbacks callbacks{};
  callbacks.cancelled = [](void *) { return true; };
  return RunContext(callbacks);
}

std::string repeated(const std::string &part, size_t times) {
  std::string whole;
  while (times-- > 0) whole += part;
  return whole;
}

TEST(PromptClean, PassesOverATextAreFewHoweverDeepItsReferencesAre) {
  for (const std::string &deep : {"&" + repeated("amp;", 15000), "&" + repeated("#38;", 15000),
                                  repeated("&#5", 15000) + "7" + repeated(";", 15000),
                                  // What a later step makes "&", ";" or nothing of.
                                  "&" + repeated("#65286;", 9000), repeated("&#894", 13000) + ";",
                                  repeated("&#8", 9000) + repeated("298;", 9000)})
    EXPECT_LT(times_asked([&deep](const RunContext &context) { prompt_clean(deep, context); }), 6);
}

TEST(PromptClean, StopsWhereItIsCancelled) {
  expect_error(WAN_CANCELLED, "cancelled", [] { prompt_clean("a red circle", cancelled()); });
}

TEST(PromptClean, NamesTheLongestPrompt) {
  const std::string longest(longest_prompt, 'a');
  EXPECT_EQ(prompt_clean(longest), longest);
  expect_error(WAN_INVALID, "it has 65537 bytes, and may have 65536", [&] { prompt_clean(longest + "a"); });
}

TEST(Printable, EscapesWhatATerminalWouldObeyOrNotShow) {
  EXPECT_EQ(printable("tête 中 </s>"), "tête 中 </s>");
  EXPECT_EQ(printable("\033[2J\n\x7f"), "\\x1B[2J\\x0A\\x7F");
  EXPECT_EQ(printable(std::string("\0a", 2)), "\\x00a");
  EXPECT_EQ(printable("\xff\xc3"), "\\xFF\\xC3");
  EXPECT_EQ(printable("\u202E\u200B"), "\\xE2\\x80\\xAE\\xE2\\x80\\x8B") << "turns or hides what follows";
  EXPECT_EQ(printable("ééé", 3), "éé…") << "whole characters";
  EXPECT_STREQ(invalid("bad\033[31m").what(), "bad\\x1B[31m");
}

TEST(WholeCharacters, AreCutBetweenTwo) {
  EXPECT_EQ(whole_characters("café", 5), "café");
  EXPECT_EQ(whole_characters("café", 4), "caf");
  EXPECT_EQ(whole_characters("", 100), "");
  EXPECT_EQ(whole_characters("abc", 0), "");
}

TEST(Tokenizer, EqualsTransformers) {
  expect_equal_ids(tiny_tokenizer, "tiny");
}

TEST(Tokenizer, EqualsTransformersWithByteFallback) {
  expect_equal_ids(fallback_tokenizer, "fallback");
}

TEST_F(TokenizerDirectory, AddedTokensWithFlagsEqualTransformers) {
  for (const json &example : read_json(source_root / "tests/parity/added_tokens.json")) {
    load_changed([&example](json &file) {
      for (const json &token : example["added_tokens"]) file["added_tokens"].push_back(token);
    });
    const Tokenizer tokenizer(path_);
    for (const auto &[text, ids] : example["ids"].items())
      EXPECT_EQ(tokenizer(text, max_length), ids.get<std::vector<int32_t>>())
          << example["name"] << ": " << text;
  }
}

TEST(Tokenizer, TruncatesAndEndsWithEos) {
  const Tokenizer tokenizer(tiny_tokenizer);
  const std::vector<int32_t> whole = tokenizer("a red circle", max_length);
  ASSERT_GT(whole.size(), 2);
  EXPECT_EQ(tokenizer("a red circle", 2), (std::vector<int32_t>{whole[0], 1}));
  EXPECT_EQ(tokenizer("a red circle", 1), std::vector<int32_t>{1});
  EXPECT_EQ(tokenizer("", max_length), std::vector<int32_t>{1});
  expect_error(WAN_INVALID, "max_length", [&] { tokenizer("a", 0); });
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  const Tokenizer tokenizer(tiny_tokenizer);
  expect_error(WAN_INVALID, "UTF-8", [&] { tokenizer("a\xff", max_length); });
}

TEST(Tokenizer, NamesAMissingFile) {
  expect_error(WAN_NOT_FOUND, "/nowhere/tokenizer.json", [] { Tokenizer{"/nowhere"}; });
}

TEST_F(TokenizerDirectory, PadTokenComesFromTheConfig) {
  fs::copy(fallback_tokenizer / "tokenizer.json", path_);
  EXPECT_EQ(Tokenizer(path_).pad_id(), 0);
  write(R"({"pad_token": "<extra_id_299>"})", "tokenizer_config.json");
  EXPECT_EQ(Tokenizer(path_).pad_id(), 2000);
  write(R"({"pad_token": {"content": "<s>"}})", "tokenizer_config.json");
  EXPECT_EQ(Tokenizer(path_).pad_id(), 2);
  write(R"({"pad_token": "no such token"})", "tokenizer_config.json");
  expect_error(WAN_INVALID, "tokenizer_config.json", [this] { Tokenizer{path_}; });
}

TEST_F(TokenizerDirectory, RefusesCorruptFiles) {
  for (const char *bad : {"", "{", "[]", "null", "{}", "\xff\xfe", R"({"added_tokens": 1})"}) {
    write(bad);
    expect_error(WAN_INVALID, "tokenizer.json", [this] { Tokenizer{path_}; });
  }
}

TEST_F(TokenizerDirectory, EveryFileIsReadAsStrictly) {
  const std::string deep(200000, '[');
  for (const char *file : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::copy(fallback_tokenizer / "tokenizer.json", path_, fs::copy_options::overwrite_existing);
    const auto refusal_of = [&](const std::string &text, const char *part) {
      write(text, file);
      expect_error(WAN_INVALID, std::string(file) + part, [this] { Tokenizer{path_}; });
    };
    refusal_of(deep, " is nested too deeply");
    refusal_of("{\"pad_token\": " + deep, " is nested too deeply");
    refusal_of(R"({"pad_token": "<pad>", "pad_token": "</s>"})", " has the key 'pad_token' twice");
    refusal_of(std::string("{}\0\0", 4), " is not valid JSON: it has a NUL byte");
    refusal_of("{}{}", " is not valid JSON");
    refusal_of("{\"pad_token\": \"\xff\"}", " is not valid JSON");
    refusal_of("{\"a\": [" + repeated("0,", 5 << 20) + "0]}",
               file == std::string("tokenizer.json") ? " holds too many values" : " is too large");
    fs::remove(path_ / file);
    fs::create_directory(path_ / file);
    expect_error(WAN_INVALID, std::string(file) + " is a directory, but only regular files are read",
                 [this] { Tokenizer{path_}; });
    fs::remove(path_ / file);
  }
}

TEST_F(TokenizerDirectory, TextsOfAFileAreEscapedAndShortened) {
  const auto with_type = [this](const std::string &type) {
    return [this, type] { load_changed([&](json &file) { file["normalizer"]["type"] = type; }); };
  };
  expect_error(WAN_INVALID, "no T5 tokenizer has: \\x1B[2J", with_type("\033[2J"));
  expect_error(WAN_INVALID, "xxx…", with_type(std::string(1 << 20, 'x')));
}

TEST_F(TokenizerDirectory, NormalizersMayNotGrowAPromptWithoutBound) {
  // A trie with "a" alone, which it makes "aa".
  uint32_t trie[1024] = {256 << 10};
  trie[256 ^ 'a'] = 512 << 10 | 0x100 | 'a';
  trie[256 ^ 'a' ^ 512] = 0x80000000;
  const uint32_t trie_bytes = sizeof trie;
  std::string blob(reinterpret_cast<const char *>(&trie_bytes), sizeof trie_bytes);
  blob.append(reinterpret_cast<const char *>(trie), sizeof trie).append("aa", 3);
  const std::unique_ptr<gchar, void (*)(gpointer)> encoded(
      g_base64_encode(reinterpret_cast<const guchar *>(blob.data()), blob.size()), g_free);
  const auto with_normalizers = [this](const json &each, size_t count) {
    load_changed([&](json &file) {
      file["normalizer"] = {{"type", "Sequence"}, {"normalizers", json(count, each)}};
    });
  };
  const json doubling = {{"type", "Precompiled"}, {"precompiled_charsmap", encoded.get()}};
  with_normalizers(doubling, 4);
  EXPECT_NO_THROW(Tokenizer{path_}("aaaa", max_length));
  expect_error(WAN_INVALID, "it has more than 16 normalizers", [&] { with_normalizers(doubling, 28); });
  with_normalizers(doubling, 16);
  expect_error(WAN_INVALID, "tokenizer.json cannot be used: its normalizers make more than",
               [this] { Tokenizer{path_}("aaaa", max_length); });
  with_normalizers(
      {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", std::string(5000, 'b')}}, 1);
  expect_error(WAN_INVALID, "its normalizers make more than",
               [this] { Tokenizer{path_}("a  a", max_length); });
}

TEST_F(TokenizerDirectory, PiecesHaveALongestAndCutsAPromptAllTheSame) {
  load_changed([](json &file) {
    for (size_t length = 1; length <= 1024; ++length)
      file["model"]["vocab"].push_back({std::string(length, 'z'), -1e-3});
  });
  const Tokenizer tokenizer(path_);
  EXPECT_EQ(tokenizer(std::string(3000, 'z'), max_length).size(), 1 + 3 + 1);
  EXPECT_GE(times_asked([&](const RunContext &context) { tokenizer("zzzz", max_length, context); }), 4);
  expect_error(WAN_CANCELLED, "cancelled", [&] { tokenizer("a red circle", max_length, cancelled()); });
  expect_error(WAN_INVALID, "a token of more than 1024 bytes: 'zzz", [this] {
    load_changed([](json &file) { file["model"]["vocab"].push_back({std::string(1025, 'z'), -1}); });
  });
}

TEST_F(TokenizerDirectory, OnlyAsMuchOfAPromptIsCutAsIsKept) {
  const Tokenizer tokenizer(fallback_tokenizer);
  const auto asked_of = [&](size_t words) {
    const std::string prompt = repeated("word ", words);
    return times_asked([&](const RunContext &context) { tokenizer(prompt, 16, context); });
  };
  EXPECT_EQ(asked_of(10000), asked_of(100));
}

TEST_F(TokenizerDirectory, AVocabularyOfTheUnknownPieceAlone) {
  load_changed([](json &file) {
    file["model"]["vocab"] = json::array({json::array({"<unk>", 0}), json::array({"", 0})});
    file["model"]["unk_id"] = 0;
    file["model"]["byte_fallback"] = false;
  });
  EXPECT_EQ(Tokenizer{path_}("a red", max_length).size(), 3);
}

TEST_F(TokenizerDirectory, CuttingAndFillingUpOnTheLeftIsRefused) {
  fs::copy(fallback_tokenizer / "tokenizer.json", path_);
  for (const char *key : {"padding_side", "truncation_side"}) {
    write(json{{key, "left"}}.dump(), "tokenizer_config.json");
    expect_error(WAN_INVALID, std::string("its ") + key + " is not \"right\"", [this] { Tokenizer{path_}; });
  }
}

TEST_F(TokenizerDirectory, RefusesWhatIsNotT5) {
  const auto expect_refused = [this](auto change) {
    expect_error(WAN_INVALID, "tokenizer.json", [&] { load_changed(change); });
  };
  EXPECT_NO_THROW(load_changed([](json &) {}));
  expect_refused([](json &file) { file["model"]["type"] = "BPE"; });
  expect_refused([](json &file) { file["model"]["vocab"] = json::array(); });
  expect_refused([](json &file) { file["model"]["vocab"][5] = "a"; });
  expect_refused([](json &file) { file["model"]["unk_id"] = 2000; });
  expect_refused([](json &file) { file["model"]["unk_id"] = -1; });
  expect_refused([](json &file) { file["model"]["unk_id"] = nullptr; });
  expect_refused([](json &file) { file["normalizer"]["normalizers"][0]["type"] = "Lowercase"; });
  expect_refused([](json &file) { file["pre_tokenizer"]["type"] = "ByteLevel"; });
  expect_refused([](json &file) { file["pre_tokenizer"]["prepend_scheme"] = "never"; });
  expect_refused([](json &file) { file["post_processor"]["single"] = json::array(); });
  expect_refused([](json &file) { file["added_tokens"][0]["id"] = 1ll << 40; });
}

TEST_F(TokenizerDirectory, RefusesACorruptCharsmap) {
  const auto with_charsmap = [this](const char *base64) {
    load_changed([base64](json &file) {
      file["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", base64}};
    });
  };
  for (const char *bad : {"", "AA==", "AAAAAA==", "/////w==", "BQAAAAAAAAA="})
    expect_error(WAN_INVALID, "precompiled_charsmap", [&] { with_charsmap(bad); });
  // One unit whose offset leads out of the trie: seen when it is followed.
  with_charsmap("BAAAAAD8//8=");
  expect_error(WAN_INVALID, "precompiled_charsmap", [this] { Tokenizer{path_}("a", max_length); });
}

}  // namespace
}  // namespace wan
