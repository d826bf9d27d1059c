// SPDX-License-Identifier: LGPL-2.1-or-later
//
// torch.save()'s files: those that it writes are read, and hostile ones are refused with a sentence.
#include "checkpoint/torch_file.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/input_file.h"
#include "checkpoint/layout.h"
#include "checkpoint/tensor_pickle.h"
#include "checkpoint/weights.h"
#include "common/causal_model.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "common/write_torch_file.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

TensorHeader parse(const std::string &file, const std::string &part = {}) {
  const auto read = [&file](uint64_t offset, size_t size) { return file.substr(offset, size); };
  return parse_torch_file(read, file.size(), "a.pt", part);
}

std::string refusal(const std::string &file, const std::string &part = {}) {
  try {
    parse(file, part);
  } catch (const Error &error) {
    EXPECT_EQ(error.kind(), WAN_INVALID);
    EXPECT_THAT(error.what(), HasSubstr("a.pt"));
    return error.what();
  }
  return "accepted";
}

/// An archive whose pickle does this.
std::string archive_of(const std::string &pickle) {
  return zip_of({{"archive/data.pkl", "\x80\x02" + pickle}, {"archive/data/0", "12345678"}});
}

/// Saved by torch 2.11.
std::string saved(const std::string &name) {
  const InputFile file(source_path("tests/fuzz/corpus/torch_file/" + name));
  return file.read(0, file.size());
}

TEST(TorchFile, FindsTheTensorsThatTorchSaved) {
  const auto [tensors, metadata, data_begin] = parse(saved("flat"));
  EXPECT_EQ(data_begin, 0u);
  EXPECT_EQ(metadata.at("part"), "");
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors.at("a").dtype, "F32");
  EXPECT_EQ(tensors.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors.at("a").end - tensors.at("a").begin, 24u);
  EXPECT_EQ(tensors.at("b").dtype, "BF16");
}

TEST(TorchFile, ItsValuesAreThoseThatWereSaved) {
  const TemporaryDirectory directory;
  const at::Tensor values = at::arange(6, at::kFloat).view({2, 3});
  write_file(directory.path() / "a.pt", torch_file_of("generator", {{"model.a", values}}));
  const TensorFile file(directory.path() / "a.pt");
  EXPECT_TRUE(at::equal(stored_tensor(file, "a"), values));
}

TEST(TorchFile, OfSeveralPartsItTakesTheOneThatIsMeantForUse) {
  // The averages have the names of a wrapper, as LongLive's have.
  const TensorHeader training = parse(saved("training"));
  EXPECT_EQ(training.metadata.at("part"), "generator");
  EXPECT_THAT(training.tensors, testing::ElementsAre(testing::Key("blocks.0.self_attn.q.weight")));
  EXPECT_EQ(parse(saved("training"), "generator_ema").metadata.at("part"), "generator_ema");
  EXPECT_EQ(parse(saved("linear")).metadata.at("part"), "state_dict");
  EXPECT_THAT(refusal(saved("training"), "critics"), HasSubstr("no part 'critics'"));
}

TEST(TorchFile, RefusesWhateverAPickleWouldCall) {
  EXPECT_THAT(refusal(archive_of("cos\nsystem\n(X\x01\0\0\0xtR." + std::string())),
              AllOf(HasSubstr("os.system"), HasSubstr("convert it")));
  EXPECT_THAT(refusal(archive_of("cbuiltins\neval\n.")), HasSubstr("builtins.eval"));
  EXPECT_THAT(
      refusal(archive_of(std::string("X\x02\0\0\0os", 7) + std::string("X\x06\0\0\0system", 11) + "\x93.")),
      HasSubstr("os.system"));
  EXPECT_THAT(refusal(archive_of("ccollections\nOrderedDict\n(K\x01tR.")), HasSubstr("calls"));
  EXPECT_THAT(refusal(archive_of("i os\nsystem\n.")), HasSubstr("operation"));
  EXPECT_THAT(refusal(archive_of("ctorch\nFloatStorage\n)R.")), HasSubstr("torch.FloatStorage"));
}

TEST(TorchFile, RefusesADamagedPickle) {
  for (const std::string pickle :
       {"", "R.", "(t", "h\x07.", "}}s.", "u.", "(u.", "Q.", "X\xff\xff\xff\xff.", "}(Ku."})
    EXPECT_NE(refusal(archive_of(pickle)), "accepted") << pickle;
  const std::string whole = saved("training.pickle");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(read_tensor_pickle(whole.substr(0, size), "a.pt"), Error) << size;
}

TEST(TorchFile, AListThatHoldsItselfCostsNothing) {
  EXPECT_THAT(refusal(archive_of("]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a.")),
              HasSubstr("no dictionary"));
  EXPECT_NE(refusal(archive_of("(" + std::string(100'000, ')') + "t" + std::string(100'000, '\x85') + ".")),
            "accepted");
}

TEST(TorchFile, RefusesTensorsBeyondTheirStorage) {
  const auto file = [](int64_t offset, at::IntArrayRef shape, at::IntArrayRef strides) {
    return archive_of("}(" + pickled_text("a") + "ctorch._utils\n_rebuild_tensor_v2\n((" +
                      pickled_text("storage") + "ctorch\nFloatStorage\n" + pickled_text("0") +
                      pickled_text("cpu") + pickled_number(2) + "tQ" + pickled_number(offset) +
                      pickled_numbers(shape) + pickled_numbers(strides) + "\x89" +
                      "ccollections\nOrderedDict\n)RtRu.");
  };
  EXPECT_EQ(refusal(file(0, {2}, {1})), "accepted");
  EXPECT_EQ(refusal(file(0, {1, 2}, {7, 1})), "accepted");
  EXPECT_THAT(refusal(file(1, {2}, {1})), HasSubstr("not wholly in the file"));
  EXPECT_THAT(refusal(file(0, {3}, {1})), HasSubstr("not wholly in the file"));
  EXPECT_THAT(refusal(file(0, {2}, {0})), HasSubstr("row by row"));
  EXPECT_NE(refusal(file(-1, {2}, {1})), "accepted");
  EXPECT_NE(refusal(file(0, {-2}, {1})), "accepted");
  EXPECT_NE(refusal(file(0, {1 << 30, 1 << 30, 1 << 30}, {1 << 30, 1 << 30, 1})), "accepted");
}

TEST(TorchFile, RefusesADamagedArchive) {
  const std::string whole = saved("flat");
  for (size_t size = 0; size < whole.size(); size += 7)
    EXPECT_NE(refusal(whole.substr(0, size)), "accepted") << size;
  std::string compressed = whole;
  for (size_t at = 0; (at = compressed.find("PK\x01\x02", at)) != std::string::npos; at += 4)
    compressed[at + 10] = 8;
  EXPECT_THAT(refusal(compressed), HasSubstr("compressed"));
  EXPECT_THAT(refusal(zip_of({{"a.txt", "text"}})), HasSubstr("none of torch.save()"));
  EXPECT_THAT(refusal(zip_of({{"a/data.pkl", "\x80\x02}."}, {"a/byteorder", "big"}})),
              HasSubstr("little endian"));
}

TEST(TorchFile, APublishedCausalFileIsAModelWithTheComponentsOfAnother) {
  const TemporaryDirectory directory;
  const CausalModel model(directory.path());
  const fs::path bare = directory.path() / "bare";
  fs::create_directory(bare);
  const CheckpointConfig diffusers = CheckpointConfig::read(model.directory());
  Json transformer = causal_transformer_json();
  transformer.update({{"num_attention_heads", 1}, {"attention_head_dim", 128}});
  Tensors tensors;
  for (const auto &[name, values] : random_transformer(transformer))
    tensors["model." + stored_name(Naming::kOriginalTransformer, name)] = values;
  write_file(bare / "self_forcing_dmd.pt", torch_file_of("generator_ema", tensors));
  std::ofstream(bare / "gst-wan.json") << R"({"causal": "longlive", "components": "../wan-tiny"})";
  const CheckpointConfig config = CheckpointConfig::read(bare);
  EXPECT_EQ(config.transformer.num_layers, 2);
  EXPECT_EQ(config.transformer.ffn_dim, 32);
  EXPECT_EQ(config.causal->sink_size, 3);
  EXPECT_EQ(config.vae.z_dim, diffusers.vae.z_dim);
  CheckpointWeights weights(config.files.at("transformer"), at::kCPU, [](uint64_t) {});
  const WanTransformer3DModel loaded(config.transformer, Weights(weights, at::kFloat));
  EXPECT_NO_THROW(weights.check_all_loaded({}));
}

TEST(TorchFile, AFileOfAnOlderTorchIsRefusedAsAPickle) {
  const TemporaryDirectory directory;
  write_file(directory.path() / "old.pt", "\x80\x02\x8a\x0al\xfc\x9c");
  try {
    TensorFile file(directory.path() / "old.pt");
    FAIL() << "accepted";
  } catch (const Error &error) {
    EXPECT_THAT(error.what(), HasSubstr("are not read"));
  }
}

}  // namespace
}  // namespace wan::test
