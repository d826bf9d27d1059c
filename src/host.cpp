// SPDX-License-Identifier: LGPL-2.1-or-later
#include "host.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace wan {

namespace fs = std::filesystem;

namespace {

/// The file's first number; nothing where it has none, as "max" is none.
std::optional<uint64_t> read_number(const fs::path &file) {
  std::ifstream stream(file);
  uint64_t number;
  if (stream >> number) return number;
  return std::nullopt;
}

/// The sum of the lines "KEY NUMBER" of a file with one of these keys.
uint64_t sum_of(const fs::path &file, const std::vector<std::string> &keys) {
  std::ifstream stream(file);
  uint64_t sum = 0, number;
  for (std::string key; stream >> key >> number;)
    if (std::ranges::find(keys, key) != keys.end()) sum += number;
  return sum;
}

uint64_t available_memory(const fs::path &root) {
  std::ifstream meminfo(root / "proc/meminfo");
  for (std::string key, unit; meminfo >> key;) {
    uint64_t kibibytes = 0;
    meminfo >> kibibytes;
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") return kibibytes * 1024;
  }
  return UINT64_MAX;
}

/// How a version of control groups spells what it knows of memory.
struct Spelling {
  std::vector<std::string> limits;
  std::string used;
  std::vector<std::string> reclaimable;  // of memory.stat: given up before anything else is
};

const Spelling kVersion1 = {
    {"memory.limit_in_bytes"}, "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};
const Spelling kVersion2 = {
    {"memory.max", "memory.high"}, "memory.current", {"inactive_file", "active_file", "slab_reclaimable"}};

/// What a group leaves of its limit.
uint64_t memory_left(const fs::path &group, const Spelling &spelling) {
  uint64_t limit = UINT64_MAX;
  for (const std::string &name : spelling.limits)
    limit = std::min(limit, read_number(group / name).value_or(UINT64_MAX));
  if (limit == UINT64_MAX) return limit;
  const uint64_t used = read_number(group / spelling.used).value_or(0);
  const uint64_t kept = used - std::min(used, sum_of(group / "memory.stat", spelling.reclaimable));
  return limit - std::min(limit, kept);
}

/// Where groups are found in the file system.
struct Mount {
  fs::path group;  // the one that the directory shows: "/", or a container's own
  fs::path directory;
  bool version_2;
};

/// Of a line of mountinfo; nothing where it is not of groups that count memory.
std::optional<Mount> parse_mount(const std::string &line) {
  std::istringstream stream(line);
  const std::vector<std::string> fields{std::istream_iterator<std::string>(stream), {}};
  const auto dash = std::ranges::find(fields, "-");
  if (fields.size() < 7 || std::distance(dash, fields.end()) < 4) return std::nullopt;
  const bool version_1 = dash[1] == "cgroup" && ("," + dash[3] + ",").find(",memory,") != std::string::npos;
  if (!version_1 && dash[1] != "cgroup2") return std::nullopt;
  return Mount{fields[3], fields[4], !version_1};
}

/// The process's own group of a version, from "/"; nothing where it is in none that counts memory.
std::optional<fs::path> own_group(const fs::path &root, bool version_2) {
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string id, controllers, path;
       std::getline(groups, id, ':') && std::getline(groups, controllers, ':') && std::getline(groups, path);)
    if (version_2 ? controllers.empty() : ("," + controllers + ",").find(",memory,") != std::string::npos)
      return path;
  return std::nullopt;
}

/// What the process's own group and its parents leave.
uint64_t memory_left(const fs::path &root, const Mount &mount) {
  const std::optional<fs::path> own = own_group(root, mount.version_2);
  if (!own) return UINT64_MAX;
  // A container may see its own group as "/", or by a path that its mount does not show.
  fs::path below = own->lexically_relative(mount.group);
  if (below.empty() || *below.begin() == "..") below = ".";
  const Spelling &spelling = mount.version_2 ? kVersion2 : kVersion1;
  fs::path directory = root / mount.directory.relative_path();
  uint64_t left = memory_left(directory, spelling);
  for (const fs::path &name : below) left = std::min(left, memory_left(directory /= name, spelling));
  return left;
}

/// The NVIDIA GPUs among PCI devices: the vendor, and the class of all that draws.
bool is_nvidia_gpu(const fs::path &device) {
  const auto read = [&device](const char *name) {
    std::ifstream stream(device / name);
    uint32_t number = 0;
    stream >> std::hex >> number;
    return number;
  };
  return read("vendor") == 0x10de && read("class") >> 16 == 0x03;
}

}  // namespace

uint64_t free_host_memory(const fs::path &root) {
  uint64_t left = available_memory(root);
  std::ifstream mounts(root / "proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);)
    if (const auto mount = parse_mount(line)) left = std::min(left, memory_left(root, *mount));
  return left;
}

bool has_nvidia_gpu(const fs::path &root) {
  std::error_code failure;
  if (fs::exists(root / "dev/nvidiactl", failure)) return true;
  for (fs::directory_iterator device(root / "sys/bus/pci/devices", failure), end; !failure && device != end;
       device.increment(failure))
    if (is_nvidia_gpu(device->path())) return true;
  return false;
}

}  // namespace wan
