// SPDX-License-Identifier: LGPL-2.1-or-later
#include "threads.h"

#include <ATen/Parallel.h>
#include <c10/util/ScopeExit.h>

#include <latch>
#include <utility>
#include <vector>

namespace wan {

namespace {

/// Whether so many threads may run at once.
void require_threads(int count) {
  std::latch tried(1);
  std::vector<std::jthread> threads;
  const auto end_all = c10::make_scope_exit([&tried] { tried.count_down(); });
  for (int i = 0; i < count; ++i)
    threads.push_back(start_thread([&tried](const std::stop_token &) { tried.wait(); }));
}

}  // namespace

Error refused_thread(const std::system_error &failure) {
  return {WAN_OUT_OF_MEMORY, "The system lets this process start no more threads (" +
                                 failure.code().message() +
                                 "): raise its limit of processes (ulimit -u, or pids.max of its cgroup)"};
}

std::jthread start_thread(std::function<void(std::stop_token)> run) {
  try {
    return std::jthread(std::move(run));
  } catch (const std::system_error &failure) {
    throw refused_thread(failure);
  }
}

void require_compute_threads() {
  thread_local bool tried = false;
  if (tried) return;
  require_threads(at::get_num_threads() - 1);
  tried = true;
}

}  // namespace wan
