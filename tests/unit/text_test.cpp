// Prompt cleaning and tokenizer against Diffusers and transformers (tests/parity/make_text_reference.py), and
// bad input.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

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

TEST(Tokenizer, EqualsTransformers) {
  expect_equal_ids(tiny_tokenizer, "tiny");
}

TEST(Tokenizer, EqualsTransformersWithByteFallback) {
  expect_equal_ids(fallback_tokenizer, "fallback");
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
