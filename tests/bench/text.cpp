// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench text: UMT5-XXL with random weights encodes 512 tokens.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "common.h"
#include "device.h"
#include "random_weights.h"
#include "text/umt5_encoder.h"

namespace wan::bench {
namespace {

struct Options {
  char *device = nullptr, *dtype = nullptr;
  int layers = 24, repeat = 10;
  gboolean json = FALSE;
};

Options parse(int argc, char **argv) {
  Options options;
  const GOptionEntry entries[] = {
      {"layers", 0, 0, G_OPTION_ARG_INT, &options.layers, "encoder blocks (24)", "N"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &options.device, "auto, cpu, cuda or cuda:N (auto)", "D"},
      {"dtype", 0, 0, G_OPTION_ARG_STRING, &options.dtype, "fp32 or bf16 (bf16)", "T"},
      {"repeat", 0, 0, G_OPTION_ARG_INT, &options.repeat, "prompts to time, after one to warm up (10)", "N"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "print JSON", nullptr},
      {}};
  parse_options("The text encoder, UMT5-XXL's with random weights", entries, argc, argv);
  return options;
}

Report run(const Options &options) {
  const c10::InferenceMode inference;
  if (options.repeat < 1) throw invalid("--repeat must be above 0");
  const at::Device device = parse_device(options.device ? options.device : "auto");
  TextEncoderConfig config = released_config("T2V-A14B").text_encoder;
  config.num_layers = options.layers;
  const auto weights = random_components()->open("text_encoder", device);
  const UMT5EncoderModel encoder(config,
                                 Weights(*weights, parse_dtype(options.dtype ? options.dtype : "bf16")));
  const at::Tensor ids = at::randint(config.vocab_size, {1, 512}, at::kLong).to(device);
  const at::Tensor mask = at::ones_like(ids);
  const auto encode = [&] {
    const Clock::time_point start = Clock::now();
    encoder(ids, mask, RunContext({}));
    synchronize(device);
    return seconds_since(start);
  };
  synchronize(device);
  const double first = encode();
  std::vector<double> seconds;
  for (int i = 0; i < options.repeat; ++i) seconds.push_back(encode());
  std::sort(seconds.begin(), seconds.end());
  return {{"what", "text"},     {"device", device.str()},
          {"first_s", first},   {"seconds_p50", seconds[seconds.size() / 2]},
          {"seconds", seconds}, {"gpu_gb", static_cast<double>(memory_in_use(device).gpu_bytes) / 1e9}};
}

}  // namespace

void text(int argc, char **argv) {
  const Options options = parse(argc, argv);
  print(run(options), options.json);
}

}  // namespace wan::bench
