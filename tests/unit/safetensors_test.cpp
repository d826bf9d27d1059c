// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The safetensors reader against hostile files: each is refused with a sentence that names file and tensor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "checkpoint/input_file.h"
#include "checkpoint/safetensors.h"
#include "common/temporary_directory.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

/// A file's bytes: the header's length, the header, the data.
std::string file_of(const std::string &header, size_t data_size = 0, uint64_t claimed = UINT64_MAX) {
  const uint64_t length = claimed == UINT64_MAX ? header.size() : claimed;
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + std::string(data_size, 'x');
}

TensorHeader parse(const std::string &bytes) {
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

TEST(Safetensors, RefusesNulBytesBehindTheHeader) {
  EXPECT_THAT(refusal(file_of("{}" + std::string(8, '\0'))), HasSubstr("NUL"));
}

TEST(Safetensors, RefusesProductsThatOverflowBesideALengthOfZero) {
  for (const char *shape : {"[0,4611686018427387904,4]", "[4611686018427387904,4,0]"})
    EXPECT_THAT(refusal(file_of(std::string(R"({"w":{"dtype":"U8","shape":)") + shape +
                                R"(,"data_offsets":[0,0]}})")),
                AllOf(HasSubstr("'w'"), HasSubstr("too large")));
}

TEST(Safetensors, ReadsTheNewerDtypesOfTheFormat) {
  for (const auto &[dtype, length, bytes] : {std::tuple{"F8_E8M0", 4, 4},
                                             {"F4", 8, 4},
                                             {"F6_E2M3", 8, 6},
                                             {"F6_E3M2", 4, 3},
                                             {"F8_E4M3FNUZ", 2, 2},
                                             {"F8_E5M2FNUZ", 2, 2},
                                             {"C64", 1, 8}})
    EXPECT_EQ(refusal(file_of(std::string(R"({"w":{"dtype":")") + dtype + R"(","shape":[)" +
                                  std::to_string(length) + R"(],"data_offsets":[0,)" + std::to_string(bytes) +
                                  "]}}",
                              static_cast<size_t>(bytes))),
              "accepted")
        << dtype;
  EXPECT_THAT(refusal(file_of(R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1)),
              HasSubstr("ends within a byte"));
}

TEST(Safetensors, AHeaderCannotMakeMemoryGrow) {
  const auto repeated = [](const std::string &before, const std::string &each, size_t count,
                           const std::string &after) {
    std::string text = before;
    for (size_t i = 0; i < count; ++i) text.append(i ? "," : "").append(each);
    return file_of(text + after);
  };
  constexpr size_t kMany = 300'000;
  std::string tensors = "{", metadata = R"({"__metadata__":{)", lists = "{";
  for (size_t i = 0; i < kMany; ++i) {
    const std::string name = (i ? ",\"" : "\"") + std::to_string(i) + "\":";
    tensors += name + R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    metadata += name + "\"\"";
    lists += name + "[]";
  }
  EXPECT_THAT(refusal(file_of(tensors + "}")), HasSubstr("more than 100000 tensors"));
  EXPECT_THAT(refusal(file_of(metadata + "}}")), HasSubstr("too many values"));
  EXPECT_THAT(refusal(file_of(lists + "}")), HasSubstr("tensor '0' lacks"));
  EXPECT_THAT(refusal(repeated(R"({"a":{"dtype":"U8","shape":[)", "0", kMany, "]}}")),
              HasSubstr("too many values"));
  EXPECT_THAT(refusal(repeated(R"({"a":[)", "[]", kMany, "]}")), HasSubstr("too many values"));
  EXPECT_THAT(refusal(file_of("{\"" + std::string(2000, 'a') + "\":{}}")),
              HasSubstr("name is of 2000 bytes"));
}

TEST(Safetensors, NamesWhatIsThereInPlaceOfAFile) {
  for (const auto &[bytes, what] :
       {std::pair<std::string, const char *>{"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                                             "Git LFS pointer"},
        {"<!DOCTYPE html><html></html>", "an HTML page"},
        {"\n  <html><body>Sign in</body></html>", "an HTML page"},
        {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "an XML document"},
        {"<Error><Code>AccessDenied</Code></Error>", "an XML document"},
        {std::string("GGUF\3\0\0\0\0\0\0\0", 12), "a GGUF file"},
        {"PK\x03\x04 and so on", "a zip archive"},
        {std::string("\x1f\x8b\x08\0\0\0\0\0\0\0", 10), "a gzip archive"},
        {"Entry not found", "a text that begins with 'Entry not found'"},
        {R"({"error":"Invalid credentials in Authorization header"})", R"('{"error":"Invalid credentials)"},
        {"", "empty"}})
    EXPECT_THAT(refusal(bytes), AllOf(HasSubstr("no safetensors file"), HasSubstr(what)));
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
  write("m.safetensors.index.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
  EXPECT_THAT(opening(), AllOf(HasSubstr("index.json"), HasSubstr("Git LFS pointer")));
}

TEST_F(Shards, NamesTheShardsThatAreMissing) {
  write("m-2.safetensors", one_);
  write("m.safetensors.index.json",
        R"({"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-3.safetensors",)"
        R"("d":"m-1.safetensors"}})");
  EXPECT_THAT(opening(),
              AllOf(HasSubstr("no file m-1.safetensors, m-3.safetensors in"), HasSubstr("index.json")));
}

TEST_F(Shards, OnlyRegularFilesAreOpened) {
  const fs::path path = directory_.path() / "m.safetensors";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(opening(), HasSubstr("m.safetensors is a FIFO"));
  fs::rename(path, directory_.path() / "m.safetensors.index.json");
  EXPECT_THAT(opening(), HasSubstr("index.json is a FIFO"));
  fs::remove(directory_.path() / "m.safetensors.index.json");

  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {AF_UNIX, {}};
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr *>(&address), sizeof address), 0);
  EXPECT_THAT(opening(), HasSubstr("m.safetensors is a socket"));
  close(listener);
  fs::remove(path);

  fs::create_directory(path);
  EXPECT_THAT(opening(), HasSubstr("m.safetensors is a directory"));
  fs::remove(path);
  fs::create_symlink("/dev/zero", path);
  EXPECT_THAT(opening(), HasSubstr("m.safetensors is a device"));
  fs::remove(path);
  fs::create_symlink("m.safetensors", path);
  EXPECT_THAT(opening(), HasSubstr("cannot be looked at: Too many levels of symbolic links"));
}

TEST_F(Shards, LinksAndNamesOfAnyBytesAreFollowed) {
  write("\xff target \xc3\xa9", one_);
  fs::create_symlink("\xff target \xc3\xa9", directory_.path() / "m.safetensors");
  EXPECT_EQ(opening(), "1 files");
}

TEST(Paths, AreThoseOfAShellAndOfFileUris) {
  const std::string home = getenv("HOME") ? getenv("HOME") : "";
  setenv("HOME", "/home/somebody", 1);
  const auto refusal = [](const std::string &spelled) -> std::string {
    try {
      return local_path(spelled).string();
    } catch (const Error &error) {
      return error.what();
    }
  };
  EXPECT_EQ(local_path("~/a b"), "/home/somebody/a b");
  EXPECT_EQ(local_path("~"), "/home/somebody");
  for (const char *same : {"model", "/a/~/b", "~user/model", "100%25", ""}) EXPECT_EQ(local_path(same), same);
  EXPECT_EQ(local_path("file:///a/b%20c/%C3%A9"), "/a/b c/\xc3\xa9");
  EXPECT_EQ(local_path("FILE://localhost/a"), "/a");
  for (const char *wrong : {"file:///a%zz", "file://server/a", "file:///a%00b"})
    EXPECT_THAT(refusal(wrong), HasSubstr("no URI of a file on this machine")) << wrong;
  EXPECT_THAT(refusal("file://model"), HasSubstr("no URI of a file on this machine"));
  setenv("HOME", home.c_str(), 1);
}

TEST(Paths, ThatCannotBeLookedAtAreErrors) {
  EXPECT_FALSE(is_there("/nowhere/at/all"));
  EXPECT_THROW(is_there(std::string(5000, 'x')), Error);
}

}  // namespace
}  // namespace wan::test
