// From other threads into the main loop's, for what may be gone by then.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <glib-object.h>

#include <functional>
#include <memory>
#include <utility>

namespace studio {

/** Runs it in the main loop, if `target` is still there then. */
template <typename T>
void run_in_main_loop(const std::weak_ptr<T> &target, std::function<void(T &)> run) {
  struct Task {
    std::weak_ptr<T> target;
    std::function<void(T &)> run;
  };
  const auto call = [](gpointer data) -> gboolean {
    auto *task = static_cast<Task *>(data);
    if (const std::shared_ptr<T> target = task->target.lock()) task->run(*target);
    return G_SOURCE_REMOVE;
  };
  g_idle_add_full(G_PRIORITY_DEFAULT, call, new Task{target, std::move(run)},
                  [](gpointer task) { delete static_cast<Task *>(task); });
}

/** The callback's last argument is a std::weak_ptr<T> *. */
template <typename T, typename Callback>
void connect(gpointer object, const char *signal, Callback callback, const std::weak_ptr<T> &target) {
  using Handle = std::weak_ptr<T>;
  g_signal_connect_data(
      object, signal, G_CALLBACK(callback), new Handle(target),
      [](gpointer handle, GClosure *) { delete static_cast<Handle *>(handle); }, GConnectFlags(0));
}

}  // namespace studio
