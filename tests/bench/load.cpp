// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench load: an expert's weights from files to the GPU, beside what the bus and the files give at best.
#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "checkpoint/safetensors.h"
#include "common.h"
#include "device.h"
#include "pipeline/memory_mode.h"
#include "random_weights.h"
#include "transformer/block_store.h"
#include "transformer/wan_transformer_3d.h"

namespace wan::bench {
namespace {

namespace fs = std::filesystem;

constexpr const char *kStem = "diffusion_pytorch_model";
constexpr uint64_t kShardBytes = 10'000'000'000;

struct Options {
  char *directory = nullptr, *device = nullptr, *memory = nullptr;
  int layers = 40, repeat = 2;
  gboolean make = FALSE, json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const GOptionEntry entries[] = {
      {"directory", 0, 0, G_OPTION_ARG_STRING, &options.directory, "where the expert's files are", "DIR"},
      {"make", 0, 0, G_OPTION_ARG_NONE, &options.make, "write them first: A14B's shapes in bfloat16",
       nullptr},
      {"layers", 0, 0, G_OPTION_ARG_INT, &options.layers, "transformer blocks (40)", "N"},
      {"repeat", 0, 0, G_OPTION_ARG_INT, &options.repeat, "loads (2)", "N"},
      {"memory", 0, 0, G_OPTION_ARG_STRING, &options.memory, "resident, one-expert or stream (resident)",
       "M"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device, "cuda or cuda:N (cuda)", "D"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("An expert's weights from files to the GPU", entries, argc, argv);
  if (!options.directory) throw invalid("--directory is missing");
  return options;
}

std::vector<WeightRequest> requests(const TransformerConfig &config) {
  WeightInventory inventory;
  const WanTransformer3DModel model(config,
                                    Weights(inventory, at::kBFloat16, WanTransformer3DModel::kKeepInFp32));
  return inventory.requests();
}

/// Small numbers, the same over and over: a load does not look at them.
void write_shard(const fs::path &path, const nlohmann::json &header, uint64_t bytes) {
  static const at::Tensor numbers = (at::randn({1 << 24}) * 0.02).to(at::kBFloat16);
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char *>(&length), sizeof(length));
  file << text;
  for (uint64_t done = 0; done < bytes; done += numbers.nbytes())
    file.write(static_cast<const char *>(numbers.const_data_ptr()),
               static_cast<std::streamsize>(std::min<uint64_t>(numbers.nbytes(), bytes - done)));
  if (!file) throw invalid(path.string() + " cannot be written");
}

void write_expert(const fs::path &directory, const TransformerConfig &config) {
  fs::create_directories(directory);
  nlohmann::json header, weight_map;
  uint64_t position = 0;
  size_t shard = 0;
  const auto name = [&] { return std::string(kStem) + "-" + std::to_string(shard) + ".safetensors"; };
  const auto finish = [&] {
    write_shard(directory / name(), header, position);
    header.clear();
    position = 0;
    ++shard;
  };
  for (const WeightRequest &request : requests(config)) {
    const auto bytes = static_cast<uint64_t>(c10::multiply_integers(request.shape)) * 2;
    if (position + bytes > kShardBytes) finish();
    header[request.name] = {
        {"dtype", "BF16"}, {"shape", request.shape}, {"data_offsets", {position, position + bytes}}};
    weight_map[request.name] = name();
    position += bytes;
  }
  finish();
  std::ofstream(directory / (std::string(kStem) + ".safetensors.index.json"))
      << nlohmann::json{{"weight_map", weight_map}};
}

/// From page-locked memory, GB/s.
double bus_rate(at::Device device) {
  const at::Tensor host = at::empty({256 << 20}, at::dtype(at::kByte).pinned_memory(true));
  const at::Tensor out = at::empty_like(host, at::dtype(at::kByte).device(device));
  constexpr int kCopies = 20;
  out.copy_(host);
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < kCopies; ++i) out.copy_(host, /*non_blocking=*/true);
  synchronize(device);
  return kCopies * static_cast<double>(host.nbytes()) / seconds_since(start) / 1e9;
}

/// Of all files by so many threads into memory that is there already, GB/s.
double read_rate(const std::vector<TensorFile> &files, size_t num_threads) {
  constexpr uint64_t kPiece = 8 << 20;
  struct Piece {
    const TensorFile *file;
    uint64_t begin, size;
  };
  std::vector<Piece> pieces;
  uint64_t bytes = 0;
  for (const TensorFile &file : files) {
    uint64_t end = 0;
    for (const auto &[name, entry] : file.tensors()) end = std::max(end, entry.end);
    for (uint64_t begin = 0; begin < end; begin += kPiece)
      pieces.push_back({&file, begin, std::min(kPiece, end - begin)});
    bytes += end;
  }
  const at::Tensor memory = at::ones({static_cast<int64_t>(num_threads), kPiece}, at::kByte);
  std::atomic<size_t> next = 0;
  std::vector<std::thread> threads;
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < num_threads; ++i)
    threads.emplace_back([&, out = memory.mutable_data_ptr<uint8_t>() + i * kPiece] {
      for (size_t piece; (piece = next++) < pieces.size();)
        pieces[piece].file->read(pieces[piece].begin, pieces[piece].size, reinterpret_cast<std::byte *>(out));
    });
  for (std::thread &thread : threads) thread.join();
  return static_cast<double>(bytes) / seconds_since(start) / 1e9;
}

std::shared_ptr<BlockSlots> slots(WanMemoryMode mode, const TransformerConfig &config, at::Device device) {
  if (mode == WAN_MEMORY_STREAM) return std::make_shared<BlockSlots>(device, kStreamSlots);
  if (mode != WAN_MEMORY_ONE_EXPERT) return nullptr;
  return std::make_shared<BlockSlots>(device, static_cast<size_t>(config.num_layers));
}

/// Seconds until the weights are where the mode has them.
double load_seconds(const fs::path &directory, const TransformerConfig &config, WanMemoryMode mode,
                    at::Device device) {
  const Clock::time_point start = Clock::now();
  CheckpointWeights source({directory, kStem}, device, [](uint64_t) {});
  source.expect(requests(config));
  const WanTransformer3DModel model(config,
                                    Weights(source, at::kBFloat16, WanTransformer3DModel::kKeepInFp32),
                                    WAN_QUANTIZATION_NONE, slots(mode, config, device));
  synchronize(device);
  return seconds_since(start);
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  const fs::path directory = options.directory;
  const at::Device device = parse_device(options.device ? options.device : "cuda");
  const WanMemoryMode mode = parse_memory_mode(options.memory ? options.memory : "resident");
  const TransformerConfig config = released_config("T2V-A14B", options.layers).transformer;
  if (options.make) write_expert(directory, config);

  const double bus = bus_rate(device);  // first: it creates the GPU's context, too
  Report read = Report::array(), loads = Report::array();
  const auto gigabytes =
      static_cast<double>(CheckpointWeights({directory, kStem}, device, [](uint64_t) {}).bytes()) / 1e9;
  for (int i = 0; i < options.repeat; ++i) {
    const double seconds = load_seconds(directory, config, mode, device);
    loads.push_back({{"seconds", seconds}, {"gb_per_s", gigabytes / seconds}});
  }
  // Last, for it leaves the files in the page cache.
  const std::vector<TensorFile> files = open_safetensors(directory, kStem);
  for (const size_t threads : {1, 4, 8, 16})
    read.push_back({{"threads", threads}, {"gb_per_s", read_rate(files, threads)}});
  return {
      {"what", "load"},  {"device", device.str()}, {"memory", options.memory ? options.memory : "resident"},
      {"gb", gigabytes}, {"bus_gb_per_s", bus},    {"read", read},
      {"load", loads}};
}

}  // namespace

void load(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
