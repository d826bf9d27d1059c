// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Devices: which one is used and what is said of it, how much memory is free, and what is reported.
#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>

#include "common/engine.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "error.h"
#include "host.h"
#include "ops/kernel_set.h"
#include "pipeline/memory_mode.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Pair;
using testing::StartsWith;
namespace fs = std::filesystem;

TEST(KernelSet, IsTheBestOrTheGeneralOne) {
  EXPECT_EQ(parse_kernel_set(nullptr), KernelSet::kBest);
  EXPECT_EQ(parse_kernel_set(""), KernelSet::kBest);
  EXPECT_EQ(parse_kernel_set("general"), KernelSet::kGeneral);
}

TEST(KernelSet, AnUnknownNameIsAnErrorThatSaysWhatToDo) {
  try {
    parse_kernel_set("hopper");
    FAIL() << "nothing was thrown";
  } catch (const Error &error) {
    EXPECT_EQ(error.kind(), WAN_INVALID);
    EXPECT_STREQ(
        error.what(),
        "The environment variable GST_WAN_KERNELS is 'hopper': set it to general, or unset it for the "
        "best kernels of the GPU");
  }
}

TEST(KernelSetDeathTest, AnUnknownNameInTheEnvironmentKeepsEveryDeviceFromBeingChosen) {
  EXPECT_EXIT(
      {
        setenv("GST_WAN_KERNELS", "hopper", 1);
        try {
          choose_device("cpu");
        } catch (const Error &error) {
          std::exit(error.kind() == WAN_INVALID ? 7 : 1);
        }
        std::exit(0);
      },
      testing::ExitedWithCode(7), "");
}

/// A made-up /proc, /sys and /dev.
class Host : public testing::Test {
 protected:
  Host() {
    write("proc/meminfo", "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n");
  }

  void write(const fs::path &file, const std::string &text) const {
    fs::create_directories((root() / file).parent_path());
    std::ofstream(root() / file) << text;
  }
  fs::path root() const { return directory_.path(); }
  uint64_t free_bytes() const { return free_host_memory(root()); }

  /// The process is in `group`, of which the mount shows what is below `shown`.
  void in_version_2(const std::string &group, const std::string &shown = "/") const {
    write("proc/self/cgroup", "0::" + group + "\n");
    write("proc/self/mountinfo",
          "22 1 8:1 / / rw - ext4 /dev/root rw\n"
          "30 22 0:26 " +
              shown + " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void in_version_1(const std::string &group, const std::string &shown = "/") const {
    write("proc/self/cgroup", "8:pids:/\n4:memory:" + group + "\n0::/\n");
    write("proc/self/mountinfo",
          "31 22 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
          "35 22 0:31 " +
              shown + " /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n");
  }
  void group_of_version_2(const fs::path &group, const std::string &max, const std::string &high,
                          const std::string &current, const std::string &stat = "") const {
    const fs::path directory = "sys/fs/cgroup" / group;
    write(directory / "memory.max", max + "\n");
    write(directory / "memory.high", high + "\n");
    write(directory / "memory.current", current + "\n");
    write(directory / "memory.stat", stat);
  }

 private:
  const TemporaryDirectory directory_;
};

TEST_F(Host, FreeMemoryIsWhatTheMachineHasWhereNoGroupLimitsIt) {
  EXPECT_EQ(free_bytes(), 8000u * 1024);
  in_version_2("/");
  EXPECT_EQ(free_bytes(), 8000u * 1024) << "the root group has no files about memory";
  in_version_2("/app");
  group_of_version_2("app", "max", "max", "5000000");
  EXPECT_EQ(free_bytes(), 8000u * 1024);
  group_of_version_2("app", "100000000", "max", "5000000");
  EXPECT_EQ(free_bytes(), 8000u * 1024) << "the group may use more than there is";
}

TEST_F(Host, FreeMemoryIsWhatTheGroupsLimitLeaves) {
  in_version_2("/app");
  group_of_version_2("app", "3000000", "max", "1000000");
  EXPECT_EQ(free_bytes(), 2000000u);
  group_of_version_2("app", "3000000", "2500000", "1000000");
  EXPECT_EQ(free_bytes(), 1500000u) << "beyond memory.high a group is held up";
  group_of_version_2("app", "3000000", "max", "4000000");
  EXPECT_EQ(free_bytes(), 0u);
}

TEST_F(Host, FreeMemoryHasWhatCachedFilesTake) {
  in_version_2("/app");
  group_of_version_2("app", "3000000", "max", "2900000",
                     "anon 500000\nfile 2300000\ninactive_file 1500000\nactive_file 600000\nshmem 200000\n"
                     "slab_reclaimable 100000\n");
  EXPECT_EQ(free_bytes(), 2300000u);
}

TEST_F(Host, FreeMemoryIsLimitedByParentsToo) {
  in_version_2("/user.slice/app");
  group_of_version_2("user.slice", "2000000", "max", "500000");
  group_of_version_2("user.slice/app", "max", "max", "100000");
  EXPECT_EQ(free_bytes(), 1500000u);
  group_of_version_2("user.slice/app", "1000000", "max", "100000");
  EXPECT_EQ(free_bytes(), 900000u);
}

TEST_F(Host, FreeMemoryInAContainerIsWhatItsGroupLeaves) {
  // With a namespace of its own the container sees its group as "/"; without one, by the host's path.
  for (const auto &[group, shown] : {std::pair("/", "/"), std::pair("/docker/1f", "/docker/1f"),
                                     std::pair("/../sidecar", "/"), std::pair("/elsewhere", "/docker/1f")}) {
    in_version_2(group, shown);
    group_of_version_2("", "1000000", "max", "400000");
    EXPECT_EQ(free_bytes(), 600000u) << group;
  }
  in_version_2("/docker/1f/worker", "/docker/1f");
  group_of_version_2("worker", "500000", "max", "0");
  EXPECT_EQ(free_bytes(), 500000u);
}

TEST_F(Host, FreeMemoryIsWhatTheLimitOfAGroupOfVersion1Leaves) {
  in_version_1("/docker/1f");
  const auto group = [this](const fs::path &name, const std::string &limit, const std::string &usage) {
    write("sys/fs/cgroup/memory" / name / "memory.limit_in_bytes", limit);
    write("sys/fs/cgroup/memory" / name / "memory.usage_in_bytes", usage);
    write("sys/fs/cgroup/memory" / name / "memory.stat",
          "inactive_file 7\ntotal_inactive_file 50000\ntotal_active_file 50000\n");
  };
  group("", "9223372036854771712", "6000000");
  group("docker", "9223372036854771712", "3000000");
  group("docker/1f", "3000000", "1000000");
  EXPECT_EQ(free_bytes(), 2100000u);
  group("docker", "2000000", "1500000");
  EXPECT_EQ(free_bytes(), 600000u);
}

TEST_F(Host, AnNvidiaGpuIsSeenWithItsDriverAndWithout) {
  const auto device = [this](const std::string &name, const std::string &vendor, const std::string &type) {
    write("sys/bus/pci/devices/" + name + "/vendor", vendor + "\n");
    write("sys/bus/pci/devices/" + name + "/class", type + "\n");
  };
  EXPECT_FALSE(has_nvidia_gpu(root()));
  device("0000:00:02.0", "0x8086", "0x030000");
  device("0000:01:00.1", "0x10de", "0x040300");
  EXPECT_FALSE(has_nvidia_gpu(root())) << "another's GPU, and the sound of an NVIDIA card";
  device("0000:01:00.0", "0x10de", "0x030200");
  EXPECT_TRUE(has_nvidia_gpu(root()));
  fs::remove_all(root() / "sys");
  EXPECT_FALSE(has_nvidia_gpu(root()));
  write("dev/nvidiactl", "");
  EXPECT_TRUE(has_nvidia_gpu(root())) << "as in a container that does not see the bus";
}

TEST(Devices, TheFirstGpuWithKernelsIsTakenAndTheOthersArePassedOverWithAReason) {
  std::vector<std::string> passed_over;
  const Gpu old = {"cuda:0 (Tesla T4)", 75}, fit = {"cuda:1 (NVIDIA A10)", 86};
  EXPECT_EQ(first_usable({fit, old}, passed_over), 0u);
  EXPECT_TRUE(passed_over.empty());
  EXPECT_EQ(first_usable({old, fit}, passed_over), 1u);
  ASSERT_EQ(passed_over.size(), 1u);
  EXPECT_THAT(passed_over[0], AllOf(HasSubstr("cuda:0 (Tesla T4)"), HasSubstr("7.5"), HasSubstr("8.0")));
  EXPECT_EQ(first_usable({old}, passed_over), std::nullopt);
  EXPECT_EQ(first_usable({}, passed_over), std::nullopt);
}

TEST(Devices, AGpuThatHasFailedIsPassedOverWhereAnotherWorks) {
  std::vector<std::string> passed_over;
  const Gpu failed = {"cuda:0 (NVIDIA A10)", 86, [] { return true; }}, fit = {"cuda:1 (NVIDIA A10)", 86};
  EXPECT_EQ(first_usable({failed, fit}, passed_over), 1u);
  ASSERT_EQ(passed_over.size(), 1u);
  EXPECT_THAT(passed_over[0], AllOf(HasSubstr("cuda:0"), HasSubstr("has failed"), HasSubstr("restart")));
  EXPECT_EQ(first_usable({failed}, passed_over), std::nullopt);
}

TEST(Devices, MemoryThatCannotBeFreedIsLeft) {
  int freed = 0;
  const auto memory = [&freed](c10::DeleterFnPtr deleter) {
    return c10::DataPtr(&freed, &freed, deleter, at::kCPU);
  };
  {
    const at::Tensor held = hold(memory([](void *counter) { ++*static_cast<int *>(counter); }), sizeof freed);
    EXPECT_EQ(held.data_ptr(), &freed);
    EXPECT_EQ(held.numel(), static_cast<int64_t>(sizeof freed));
    EXPECT_EQ(freed, 0);
  }
  EXPECT_EQ(freed, 1);
  // As LibTorch does where page-locked memory was copied to a GPU that has failed since.
  hold(memory([](void *) { TORCH_CHECK(false, "CUDA error: device-side assert triggered"); }), sizeof freed);
}

/// What a load says.
struct Loading {
  std::vector<std::pair<WanLogLevel, std::string>> log;
  std::function<bool()> cancelled = [] { return false; };

  WanStatus operator()(const std::string &device, WanModel **model, WanError *error) {
    const std::string directory = tiny_model();
    WanLoadOptions options{};
    options.model_dir = directory.c_str();
    options.device = device.c_str();
    WanCallbacks callbacks{};
    callbacks.user = this;
    callbacks.log = [](void *user, WanLogLevel level, const char *message) {
      static_cast<Loading *>(user)->log.emplace_back(level, message);
    };
    callbacks.cancelled = [](void *user) { return static_cast<Loading *>(user)->cancelled(); };
    return api().load(&options, &callbacks, model, error);
  }
};

TEST(Devices, TheOneUsedIsLoggedAndToldByTheMemory) {
  Loading load;
  WanModel *loaded = nullptr;
  WanError error;
  ASSERT_EQ(load(test_device_name(), &loaded, &error), WAN_OK) << error.message;
  const Model model(loaded, api().model_free);
  WanMemory memory;
  api().memory(model.get(), &memory);
  const std::string device = memory.device;
  EXPECT_EQ(device, describe_device(test_device()));
  if (test_device().is_cuda()) {
    EXPECT_THAT(device, AllOf(StartsWith("cuda:0 ("), testing::EndsWith(")")));
  }
  const std::string dtype = test_device().is_cuda() ? "bfloat16" : "float32";
  EXPECT_THAT(load.log,
              Contains(Pair(WAN_LOG_INFO, AllOf(HasSubstr(device), HasSubstr(dtype), HasSubstr("MiB")))));
  EXPECT_THAT(load.log, Contains(Pair(WAN_LOG_INFO, HasSubstr("memory=resident"))));
}

TEST(Loading, TakesTurnsAndMayBeCancelledWhileItWaits) {
  auto turn = wait_for_turn(quiet());
  const auto is_waiting = [](const Loading &load) {
    return !load.log.empty() && load.log.back().second.find("waits") != std::string::npos;
  };
  WanModel *loaded = nullptr;
  WanError error;
  Loading load;
  load.cancelled = [&] { return is_waiting(load); };
  EXPECT_EQ(std::async(std::launch::async, [&] { return load(test_device_name(), &loaded, &error); }).get(),
            WAN_CANCELLED);
  std::promise<void> waits;
  Loading patient;
  patient.cancelled = [&, told = false]() mutable {
    if (!told && is_waiting(patient)) {
      told = true;
      waits.set_value();
    }
    return false;
  };
  auto status = std::async(std::launch::async, [&] { return patient(test_device_name(), &loaded, &error); });
  waits.get_future().wait();
  turn.unlock();
  EXPECT_EQ(status.get(), WAN_OK) << error.message;
  api().model_free(loaded);
}

TEST(Errors, AreValidUtf8HoweverLongAndWhateverTheyName) {
  WanDefaults defaults;
  WanError error;
  // Each by one byte longer, so that the end comes in the middle of a character.
  for (size_t shift = 0; shift < 4; ++shift) {
    std::string directory = "/" + std::string(shift, 'x');
    for (int i = 0; i < 400; ++i) directory += "\u7535";
    EXPECT_NE(api().describe(directory.c_str(), &defaults, &error), WAN_OK);
    EXPECT_EQ(printable(error.message, sizeof error.message), error.message) << shift;
    EXPECT_GT(std::string(error.message).size(), sizeof error.message - 5);
  }
  EXPECT_NE(api().describe("/caf\xe9", &defaults, &error), WAN_OK);
  EXPECT_EQ(printable(error.message, sizeof error.message), error.message);
  EXPECT_THAT(error.message, HasSubstr("/caf"));
}

}  // namespace
}  // namespace wan::test
