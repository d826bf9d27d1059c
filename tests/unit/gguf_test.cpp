// SPDX-License-Identifier: LGPL-2.1-or-later
//
// GGUF files: blocks stand for the values that the gguf package gives, bit for bit, files that others write
// are read, and hostile ones are refused with a sentence.
#include "checkpoint/gguf.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/layout.h"
#include "checkpoint/weights.h"
#include "common/causal_model.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "common/write_gguf.h"
#include "ops/dequantize.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr const char *kTypes[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",   "Q2_K",
                                  "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"};

TensorHeader parse(const std::string &file) {
  const auto read = [&file](uint64_t offset, size_t size) {
    EXPECT_LE(offset + size, file.size());
    return file.substr(offset, size);
  };
  return parse_gguf(read, file.size(), "a.gguf");
}

std::string refusal(const std::string &file) {
  try {
    parse(file);
  } catch (const Error &error) {
    EXPECT_EQ(error.kind(), WAN_INVALID);
    EXPECT_THAT(error.what(), HasSubstr("a.gguf"));
    return error.what();
  }
  return "accepted";
}

/// By the gguf package.
std::string written() {
  const InputFile file(source_path("tests/fuzz/corpus/gguf/written"));
  return file.read(0, file.size());
}

/// Equal also where they are zeros of different signs.
bool same_bits(const at::Tensor &a, const at::Tensor &b) {
  return at::equal(a.cpu().contiguous().view(at::kInt), b.contiguous().view(at::kInt));
}

TEST(Gguf, BlocksStandForTheValuesThatTheGgufPackageGives) {
  const Reference reference("tests/parity/gguf.safetensors");
  for (const std::string type : kTypes) {
    const BlockFormat &format = *find_block_format(type);
    const at::Tensor blocks = reference[type + ".blocks"].to(test_device()),
                     values = reference[type + ".values"];
    EXPECT_TRUE(same_bits(dequantize(blocks, format, at::kFloat), values)) << type;
    EXPECT_TRUE(at::equal(dequantize(blocks, format, at::kBFloat16).cpu(), values.to(at::kBFloat16))) << type;
    const at::Tensor last = blocks.narrow(0, format.bytes, blocks.numel() - format.bytes);
    EXPECT_TRUE(same_bits(dequantize(last, format, at::kFloat), values.slice(0, format.elements))) << type;
  }
}

TEST(Gguf, FindsWhatTheGgufPackageWrote) {
  const TensorHeader header = parse(written());
  const auto shape = [&header](const std::string &name) { return header.tensors.at(name).shape; };
  EXPECT_EQ(header.tensors.size(), 13u);
  EXPECT_EQ(header.tensors.at("plain.weight").dtype, "F32");
  EXPECT_EQ(header.tensors.at("half.weight").dtype, "F16");
  EXPECT_EQ(header.tensors.at("BF16.weight").dtype, "BF16");
  EXPECT_EQ(header.tensors.at("Q8_0.weight").dtype, "Q8_0");
  EXPECT_EQ(shape("Q8_0.weight"), (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(header.tensors.at("Q8_0.weight").end - header.tensors.at("Q8_0.weight").begin, 2u * 34);
}

TEST(Gguf, ShapesAreThoseOfTheModel) {
  const TensorHeader header = parse(written());
  const auto shape = [&header](const std::string &name) { return header.tensors.at(name).shape; };
  EXPECT_EQ(shape("head.modulation"), (std::vector<int64_t>{1, 2, 32}));
  EXPECT_EQ(shape("patch_embedding.weight"), (std::vector<int64_t>{8, 2, 1, 2, 2}));
  EXPECT_EQ(shape("reshaped.weight"), (std::vector<int64_t>{16, 4}));
  EXPECT_EQ(shape("merged.weight"), (std::vector<int64_t>{8, 2, 1, 2, 2}));
  // ggml drops a first dimension of 1.
  const TensorHeader bare = parse(gguf_of({{"blocks.0.modulation", gguf_tensor(at::ones({6, 32}))},
                                           {"img_emb.emb_pos", gguf_tensor(at::ones({2, 32}))},
                                           {"conv.weight", gguf_tensor(at::ones({4, 2, 3, 3}))},
                                           {"conv.bias", gguf_tensor(at::ones({4}))}}));
  EXPECT_EQ(bare.tensors.at("blocks.0.modulation").shape, (std::vector<int64_t>{1, 6, 32}));
  EXPECT_EQ(bare.tensors.at("img_emb.emb_pos").shape, (std::vector<int64_t>{1, 2, 32}));
  EXPECT_EQ(bare.tensors.at("conv.weight").shape, (std::vector<int64_t>{4, 2, 3, 3}));
}

TEST(Gguf, ValuesAreThoseThatWereWritten) {
  const TemporaryDirectory directory;
  write_file(directory.path() / "a.GGUF", written());
  const TensorFile file(directory.path() / "a.GGUF");
  const at::Tensor values = at::arange(64, at::kFloat).view({2, 32});
  for (const char *name : {"plain.weight", "half.weight", "BF16.weight"})
    EXPECT_TRUE(at::equal(stored_tensor(file, name, at::kFloat), values)) << name;
  for (const char *name : {"Q4_0.weight", "Q4_1.weight", "Q5_0.weight", "Q5_1.weight", "Q8_0.weight"}) {
    EXPECT_EQ(stored_dtype(file, name), at::kFloat) << name;
    EXPECT_LT(relative_error(stored_tensor(file, name), values), 0.06) << name;
  }
  EXPECT_TRUE(
      at::equal(stored_tensor(file, "reshaped.weight"), stored_tensor(file, "Q8_0.weight").view({16, 4})));
}

TEST(Gguf, ALargeTensorIsExpandedPieceByPiece) {
  Dice dice(1);
  const TemporaryDirectory directory;
  const GgufTensor tensor = random_gguf_tensor(GgmlType::kQ3_K, {4100, 256}, dice);
  write_file(directory.path() / "a.gguf", gguf_of({{"a", tensor}}));
  const TensorFile file(directory.path() / "a.gguf");
  EXPECT_TRUE(same_bits(stored_tensor(file, "a"), dequantized(tensor)));
  EXPECT_TRUE(at::equal(stored_tensor(file, "a", at::kBFloat16), dequantized(tensor).to(at::kBFloat16)));
}

TEST(Gguf, AnyNumberOfBlocksIsExpandedOnTheDevice) {
  const c10::InferenceMode inference;
  Dice dice(4);
  for (const std::string type : kTypes) {
    const BlockFormat &format = *find_block_format(type);
    for (const int64_t count : {0, 1, 7, 1000}) {
      const GgufTensor tensor = random_gguf_tensor(format.type, {count * format.elements}, dice);
      const at::Tensor blocks = at::empty({count * format.bytes}, at::kByte);
      std::ranges::copy(tensor.bytes, static_cast<char *>(blocks.mutable_data_ptr()));
      const at::Tensor on_device = blocks.to(test_device()), values = dequantized(tensor);
      EXPECT_TRUE(same_bits(dequantize(on_device, format, at::kFloat), values)) << type << " " << count;
      EXPECT_TRUE(at::equal(dequantize(on_device, format, at::kBFloat16).cpu(), values.to(at::kBFloat16)))
          << type << " " << count;
      EXPECT_TRUE(at::equal(dequantize(on_device, format, at::kHalf).cpu(), values.to(at::kHalf))) << type;
    }
  }
}

TEST(Gguf, ReadingAheadGivesTheSameTensors) {
  const c10::InferenceMode inference;
  Dice dice(2);
  const TemporaryDirectory directory;
  GgufTensors tensors;
  std::vector<WeightRequest> requests;
  for (const std::string type : kTypes) {
    tensors[type] = random_gguf_tensor(find_block_format(type)->type, {48, 512}, dice);
    requests.push_back({type, tensors[type].shape, at::kBFloat16});
  }
  write_file(directory.path() / "a.gguf", gguf_of(tensors));
  CheckpointWeights weights({directory.path(), "a", Naming::kDiffusers, {}, ".gguf"}, test_device(),
                            [](uint64_t) {});
  weights.expect(requests);
  for (const WeightRequest &request : requests)
    EXPECT_TRUE(at::equal(weights.load(request.name, request.shape, request.dtype).cpu(),
                          dequantized(tensors[request.name]).to(at::kBFloat16)))
        << request.name;
  weights.check_all_loaded({});
}

/// One head of 128 channels, as single files must have them.
TransformerConfig check_transformer(const fs::path &directory, Json json) {
  json.update({{"num_attention_heads", 1}, {"attention_head_dim", 128}});
  Tensors tensors;
  for (const auto &[name, values] : random_transformer(json))
    tensors[stored_name(Naming::kOriginalTransformer, name)] = values;
  GgufTensors stored = gguf_tensors(tensors);
  keep_ggml_dimensions(stored);
  write_file(directory / "a.gguf", gguf_of(stored));
  const ComponentFiles files = {directory, "a", Naming::kDiffusers, {}, ".gguf"};
  const TensorFile file(files.path());
  TensorShapes shapes;
  for (const auto &[name, entry] : file.tensors()) shapes[name] = entry.shape;
  const FoundComponent found = FoundComponent::recognise(files, shapes).value();
  CheckpointWeights weights(found.files, at::kCPU, [](uint64_t) {});
  const WanTransformer3DModel loaded(found.transformer_config(), Weights(weights, at::kFloat));
  weights.check_all_loaded({});
  return found.transformer_config();
}

TEST(Gguf, TransformersOfEveryModelAreKnownByTheirShapes) {
  const TemporaryDirectory directory;
  const Json configs = Json::parse(std::ifstream(source_path("tests/parity/conditioned/configs.json")));
  for (const char *name : {"i2v-a14b", "ti2v-5b", "i2v-21", "flf2v-21"}) {
    const Json json = configs.at(name).at("transformer");
    const TransformerConfig config = check_transformer(directory.path(), json);
    const TransformerConfig expected =
        TransformerConfig::parse(JsonFile(std::string_view(json.dump()), "config.json"));
    EXPECT_EQ(config.in_channels, expected.in_channels) << name;
    EXPECT_EQ(config.out_channels, expected.out_channels) << name;
    EXPECT_EQ(config.image_dim, expected.image_dim) << name;
    EXPECT_EQ(config.pos_embed_seq_len, expected.pos_embed_seq_len) << name;
    EXPECT_EQ(config.num_layers, expected.num_layers) << name;
  }
  // A causal one has the shapes of the model that it was trained from.
  EXPECT_EQ(check_transformer(directory.path(), causal_transformer_json()).num_layers, 2);
}

TEST(Gguf, RefusesAFileThatEndsTooEarly) {
  const std::string whole = written();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(refusal(whole.substr(0, size)), "accepted") << size;
  EXPECT_EQ(refusal(whole), "accepted");
  EXPECT_THAT(refusal(whole + std::string(32, '\0')), HasSubstr("bytes after its last tensor"));
}

TEST(Gguf, RefusesOtherVersionsByteOrdersAndFormats) {
  const auto version = [](uint32_t number) {
    std::string file = gguf_of({});
    std::memcpy(&file[4], &number, sizeof number);
    return refusal(file);
  };
  EXPECT_EQ(version(2), "accepted");
  EXPECT_EQ(version(3), "accepted");
  EXPECT_THAT(version(1), AllOf(HasSubstr("version 1"), HasSubstr("take a newer file")));
  EXPECT_THAT(version(4), HasSubstr("version 4"));
  EXPECT_THAT(version(3 << 24), HasSubstr("big endian"));
  EXPECT_THAT(refusal("<html>not found</html>"),
              AllOf(HasSubstr("is no GGUF file"), HasSubstr("an HTML page")));
  EXPECT_THAT(refusal("{}"), HasSubstr("is no GGUF file"));
}

TEST(Gguf, RefusesHostileMetadata) {
  constexpr uint32_t kUint16 = 2, kUint32 = 4, kString = 8, kArray = 9;
  const auto with = [](const std::vector<std::string> &keys) { return refusal(gguf_of({}, keys)); };
  const std::string key = gguf_key("k", kUint32, uint32_t{1});
  EXPECT_EQ(with({key}), "accepted");
  EXPECT_THAT(with({key, key}), HasSubstr("the key 'k' twice"));
  EXPECT_THAT(with({gguf_key("k", 13, uint32_t{1})}), HasSubstr("unknown type 13"));
  EXPECT_THAT(with({gguf_key("k", kString, UINT64_MAX)}), HasSubstr("truncated"));
  EXPECT_THAT(with({bytes_of(UINT64_MAX)}), HasSubstr("whose name is of"));
  EXPECT_THAT(with({gguf_key(std::string(1001, 'k'), kUint32, uint32_t{1})}), HasSubstr("1001 bytes"));
  EXPECT_THAT(with({gguf_key("k", kArray, kUint32) + bytes_of(UINT64_MAX)}), HasSubstr("truncated"));
  EXPECT_THAT(with({gguf_key("k", kArray, kString) + bytes_of(UINT64_MAX)}), HasSubstr("truncated"));
  std::string nested = gguf_key("k", kArray, kArray);
  for (int i = 0; i < 1000; ++i) nested += bytes_of(uint64_t{1}) + bytes_of(kArray);
  EXPECT_THAT(with({nested}), HasSubstr("arrays within each other"));
  EXPECT_THAT(with({gguf_key("general.alignment", kUint32, uint32_t{0})}), HasSubstr("alignment"));
  EXPECT_THAT(with({gguf_key("general.alignment", kUint32, uint32_t{48})}), HasSubstr("48"));
  EXPECT_EQ(with({gguf_key("general.alignment", kUint32, uint32_t{64})}), "accepted");
  EXPECT_EQ(with({gguf_key("split.count", kUint16, uint16_t{1})}), "accepted");
  EXPECT_THAT(with({gguf_key("split.count", kUint16, uint16_t{3})}), HasSubstr("llama-gguf-split --merge"));
  std::string many = gguf_of({});
  many.replace(16, 8, bytes_of(uint64_t{1} << 40));
  EXPECT_THAT(refusal(many), HasSubstr("keys of metadata"));
}

TEST(Gguf, RefusesTensorsThatAreNotWhatTheySay) {
  const GgufTensor good = {8, {2, 32}, std::string(68, '\1')};
  const auto with = [](const GgufTensor &tensor) { return refusal(gguf_of({{"a", tensor}})); };
  EXPECT_EQ(with(good), "accepted");
  EXPECT_EQ(with({8, {0, 32}, ""}), "accepted");
  EXPECT_THAT(with({8, {2, 33}, good.bytes}), AllOf(HasSubstr("'a'"), HasSubstr("no multiples of 32")));
  EXPECT_THAT(with({16, {2, 256}, good.bytes}), AllOf(HasSubstr("type 16"), HasSubstr("take a file of")));
  EXPECT_THAT(with({8, {1, 1, 1, 1, 1, 32}, good.bytes}), HasSubstr("6 dimensions"));
  EXPECT_THAT(with({8, {int64_t{1} << 40, int64_t{1} << 40, 32}, good.bytes}), HasSubstr("too large"));
  EXPECT_THAT(with({0, {0, int64_t{1} << 62}, ""}), HasSubstr("too large"));
  EXPECT_THAT(with({0, {-1}, ""}), HasSubstr("too large"));
  EXPECT_THAT(with({8, {400, 32}, good.bytes}), HasSubstr("after the end of the file"));
}

TEST(Gguf, RefusesTensorsThatOverlapOrLeaveHoles) {
  const std::string whole = gguf_of({{"a", gguf_tensor(at::ones({8}))}, {"b", gguf_tensor(at::ones({8}))}});
  const size_t offset = whole.find(bytes_of(uint64_t{32}), whole.find('b'));
  for (const uint64_t other : {uint64_t{0}, uint64_t{16}, uint64_t{64}, UINT64_MAX - 31, uint64_t{1} << 63}) {
    std::string changed = whole;
    changed.replace(offset, sizeof other, bytes_of(other));
    EXPECT_NE(refusal(changed), "accepted") << other;
  }
  std::string same = whole;
  same[whole.find('b')] = 'a';
  EXPECT_THAT(refusal(same), HasSubstr("the tensor 'a' twice"));
}

TEST(Gguf, RefusesAnOriginalShapeOfOtherSize) {
  const auto shape = [](const std::vector<int32_t> &lengths, int64_t elements = 8) {
    std::string key =
        gguf_key("comfy.gguf.orig_shape.a", 9, uint32_t{5}) + bytes_of(uint64_t{lengths.size()});
    for (const int32_t length : lengths) key += bytes_of(length);
    return refusal(gguf_of({{"a", gguf_tensor(at::ones({elements}))}}, {key}));
  };
  EXPECT_EQ(shape({2, 4}), "accepted");
  EXPECT_THAT(shape({2, 5}), HasSubstr("original shape"));
  EXPECT_THAT(shape({-2, -4}), HasSubstr("original shape"));
  EXPECT_THAT(shape({1, 1, 1, 1, 2, 4}), HasSubstr("at most 5"));
  constexpr int32_t kMost = INT32_MAX;
  EXPECT_THAT(shape({0, kMost, kMost, kMost, kMost}, 0), HasSubstr("original shape"));
}

}  // namespace
}  // namespace wan::test
