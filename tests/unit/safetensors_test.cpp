// The safetensors reader against hostile files: each is refused with a sentence that names file and tensor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "checkpoint/safetensors.h"
#include "common/temporary_directory.h"

namespace wan::test {
namespace {

using testing::HasSubstr;

/// A file's bytes: the header's length, the header, the data.
std::string file_of(const std::string &header, size_t data_size = 0, uint64_t claimed = UINT64_MAX) {
  const uint64_t length = claimed == UINT64_MAX ? header.size() : claimed;
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + std::string(data_size, 'x');
}

SafetensorsHeader parse(const std::string &bytes) {
  return parse_safetensors_header(bytes, bytes.size(), "a.safetensors");
}

/// The sentence with which a file is refused.
std::string refusal(const std::string &bytes) {
  try {
    parse(bytes);
  } catch (const Error &error) {
    EXPECT_EQ(error.kind(), WAN_INVALID);
    EXPECT_THAT(error.what(), HasSubstr("a.safetensors"));
    return error.what();
  }
  return "accepted";
}

TEST(Safetensors, ReadsTensorsScalarsEmptyOnesAndMetadata) {
  const auto [tensors, metadata, data_begin] = parse(file_of(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("s":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"e":{"dtype":"F32","shape":[0,5],"data_offsets":[26,26]}}  )",
      26));
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors.at("s").shape, std::vector<int64_t>{});
  EXPECT_EQ(tensors.at("e").begin, 26u);
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
}

TEST(Safetensors, RefusesBadHeaders) {
  EXPECT_THAT(refusal(""), HasSubstr("too short"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("too short"));
  EXPECT_THAT(refusal(file_of("{}", 0, 100'000'001)), HasSubstr("header is too large"));
  EXPECT_THAT(refusal(file_of("{}", 0, UINT64_MAX - 1)), HasSubstr("header is too large"));
  EXPECT_THAT(refusal(file_of("{}", 0, 3)), HasSubstr("truncated"));
  EXPECT_THAT(refusal(file_of("[]")), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(file_of("")), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(file_of("{\"a\":")), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(file_of("{\"a\":\"\xff\"}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(file_of("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}")),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(refusal(file_of(R"({"__metadata__":{"format":1}})")), HasSubstr("'__metadata__'"));
}

TEST(Safetensors, RefusesBadEntries) {
  const auto entry = [](const std::string &json) { return file_of("{\"w\":" + json + "}", 8); };
  EXPECT_THAT(refusal(entry("3")), HasSubstr("tensor 'w' lacks"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[2]})")), HasSubstr("tensor 'w' lacks"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})")),
              HasSubstr("unknown dtype 'F33'"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})")),
              HasSubstr("not a whole number"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})")),
              HasSubstr("not a whole number"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})")), HasSubstr("do not fit"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})")), HasSubstr("do not fit"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})")), HasSubstr("truncated"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]})")),
              HasSubstr("too large"));
  EXPECT_THAT(refusal(entry(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})")),
              HasSubstr("too large"));
}

TEST(Safetensors, RefusesOverlapsHolesRestsAndDuplicates) {
  const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  EXPECT_THAT(refusal(file_of("{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12)),
              HasSubstr("tensor 'b' overlaps"));
  EXPECT_THAT(refusal(file_of("{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16)),
              HasSubstr("leaves a hole"));
  EXPECT_THAT(refusal(file_of("{" + a + "}", 9)), HasSubstr("bytes after its last tensor"));
  EXPECT_THAT(refusal(file_of("{" + a + "," + a + "}", 8)), HasSubstr("'a' twice"));
}

class Shards : public testing::Test {
 protected:
  void write(const std::string &name, const std::string &bytes) const {
    std::ofstream(directory_.path() / name, std::ios::binary) << bytes;
  }
  std::string opening() const {
    try {
      return std::to_string(open_safetensors(directory_.path(), "m").size()) + " files";
    } catch (const Error &error) {
      return error.what();
    }
  }

  const TemporaryDirectory directory_;
  const std::string one_ = file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4);
};

TEST_F(Shards, OpensOneFileOrTheShardsOfAnIndex) {
  EXPECT_THAT(opening(), HasSubstr("There is no file"));
  write("m.safetensors", one_);
  EXPECT_EQ(opening(), "1 files");
  write("m-1.safetensors", one_);
  write("m-2.safetensors", file_of(R"({"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"));
  write("m.safetensors.index.json", R"({"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  EXPECT_EQ(opening(), "2 files");
}

TEST_F(Shards, RefusesIndexesThatLieOrLeaveTheDirectory) {
  write("m-1.safetensors", one_);
  for (const std::string shard : {"../m-1.safetensors", "/etc/passwd", "..", "", "x/m-1.safetensors"}) {
    write("m.safetensors.index.json", R"({"weight_map":{"a":")" + shard + R"("}})");
    EXPECT_THAT(opening(), HasSubstr("is not a file name")) << shard;
  }
  write("m.safetensors.index.json", R"({"weight_map":{"b":"m-1.safetensors"}})");
  EXPECT_THAT(opening(), HasSubstr("lacks the tensor 'b'"));
  write("m.safetensors.index.json", R"({"weight_map":{"a":"m-3.safetensors"}})");
  EXPECT_THAT(opening(), HasSubstr("There is no file"));
  write("m.safetensors.index.json", R"({"weight_map":[1]})");
  EXPECT_THAT(opening(), HasSubstr("weight_map"));
}

}  // namespace
}  // namespace wan::test
