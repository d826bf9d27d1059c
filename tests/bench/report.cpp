// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench report: what a machine is and what it does, to be pasted into an issue. Each figure comes from a
// process of its own, so that one that fails, for want of memory or by a fault of the GPU, leaves the others.
#include <ATen/Version.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common.h"
#include "device.h"
#include "error.h"
#include "ops/kernel_set.h"
#include "survey.h"

namespace wan::bench {
namespace {

namespace fs = std::filesystem;

/// A file's first line that begins so, without that; or nothing.
std::string line_of(const char *file, const std::string &start) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(start)) return line.substr(start.size());
  return "";
}

std::string processor() {
  const std::string name = line_of("/proc/cpuinfo", "model name\t: ");
  return (name.empty() ? "unknown" : name) + ", " + at::get_cpu_capability();
}

void add_machine(Report &report, at::Device device) {
  const auto machine = nlohmann::json::parse(wan_survey(nullptr));
  report["gst-wan"] = machine.value("version", "");
  report["libtorch"] = machine.value("libtorch", "");
  report["processor"] = processor();
  report["device"] = describe_device(device);
  report["kernels"] = describe_kernels(device);
  if (device.is_cpu()) return;
  const auto &gpu = machine["gpus"][static_cast<size_t>(device.index())];
  report["compute_capability"] = gpu["compute_capability"];
  report["gpu_memory_gb"] = gpu["total"].get<double>() / 1e9;
  report["cuda"] = machine.value("cuda", "");
  report["driver"] = line_of("/proc/driver/nvidia/version", "NVRM version: ");
}

/// What wan-bench prints for such arguments. Throws wan::Error (WAN_INTERNAL) with its own message.
nlohmann::json run_alone(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), fs::read_symlink("/proc/self/exe").string());
  arguments.push_back("--json");
  std::vector<char *> argv;
  for (std::string &argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  char *out = nullptr, *errors = nullptr;
  int status = 0;
  const bool started = g_spawn_sync(nullptr, argv.data(), nullptr, G_SPAWN_DEFAULT, nullptr, nullptr, &out,
                                    &errors, &status, nullptr);
  const std::string printed = out ? out : "", said = errors ? errors : "";
  g_free(out);
  g_free(errors);
  if (!started || status != 0)
    throw Error(WAN_INTERNAL, said.empty() ? "it ended with status " + std::to_string(status) : said);
  return nlohmann::json::parse(printed);
}

/// Adds what `figure` returns, or why there is none.
template <typename Figure>
void add(Report &report, const std::string &name, Figure figure) {
  try {
    report[name] = figure();
  } catch (const std::exception &failure) {
    report[name] = std::string("failed: ") + failure.what();
  }
}

/// The named values of a subcommand's report.
Report some_of(const nlohmann::json &all, const std::vector<std::string> &names) {
  Report some;
  for (const std::string &name : names)
    if (all.contains(name)) some[name] = all[name];
  return some;
}

std::vector<uint8_t> read_bytes(const fs::path &file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Of two clips, in dB, or "equal".
Report psnr(const std::vector<uint8_t> &a, const std::vector<uint8_t> &b) {
  if (a.empty() || a.size() != b.size()) throw Error(WAN_INTERNAL, "the clips have different sizes");
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  if (sum == 0) return "equal";
  return 10 * std::log10(255.0 * 255 * static_cast<double>(a.size()) / sum);
}

/// A short clip of the embedded model: its times, and how it differs from the CPU's in float32.
Report embedded_clip(const std::string &model, at::Device device) {
  char *name = g_dir_make_tmp("wan-bench-XXXXXX", nullptr);
  if (!name) throw Error(WAN_INTERNAL, "no temporary directory can be made");
  const fs::path directory = name;
  g_free(name);
  const auto clip = [&](const std::string &on, const char *dtype) {
    return run_alone({"generate", "--model", model, "--frames", "17", "--steps", "8", "--clips", "2",
                      "--new-prompts", "--device", on, "--dtype", dtype, "--out", directory / on});
  };
  Report report = some_of(clip(device.str(), device.is_cpu() ? "fp32" : "bf16"),
                          {"size", "frames", "steps", "text_s", "denoise_s", "decode_s", "peak_gpu_gb"});
  if (!device.is_cpu()) {
    clip("cpu", "fp32");
    report["psnr_db"] = psnr(read_bytes(directory / device.str()), read_bytes(directory / "cpu"));
  }
  fs::remove_all(directory);
  return report;
}

Report run(const std::string &model) {
  const at::Device device = parse_device("auto");
  Report report = {{"what", "report"}};
  add_machine(report, device);
  add(report, "embedded model", [&] { return embedded_clip(model, device); });
  if (device.is_cpu()) return report;
  add(report, "decode", [] {
    return some_of(run_alone({"decode", "--size", "832x480", "--latent-frames", "5", "--repeat", "3"}),
                   {"size", "seconds_p50", "tflop_per_s", "peak_allocated_gb"});
  });
  for (const char *dtype : {"bf16", "fp8"})
    add(report, std::string("transformer ") + dtype, [dtype] {
      return some_of(run_alone({"transformer", "--layers", "2", "--size", "832x480", "--frames", "33",
                                "--dtype", dtype}),
                     {"model", "layers", "size", "frames", "seconds_p50", "tflop_per_s", "peak_gpu_gb"});
    });
  return report;
}

}  // namespace

void report(int argc, char **argv) {
  char *model = nullptr;
  gboolean json = FALSE;
  const GOptionEntry entries[] = {
      {"model", 0, 0, G_OPTION_ARG_STRING, &model, "the embedded model (the source tree's)", "DIR"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &json, "print JSON", nullptr},
      {}};
  parse_options("A machine and its figures, for an issue", entries, argc, argv);
  print(run(model ? model : WAN_SOURCE_DIR "/models/wan-tiny"), json);
}

}  // namespace wan::bench
