// SPDX-License-Identifier: LGPL-2.1-or-later
#include "engine_loader.h"

#include <dlfcn.h>
#include <glib.h>
#include <gmodule.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <string_view>
#include <system_error>
#include <vector>

namespace wan {
namespace {

// A path of the installed tree. The tree may have been moved, so its root is taken from where the plugin lies
// now. GStreamer may have come there by a link to a part of the tree, such as Debian's /lib, beside which the
// rest is not.
std::string installed(std::string_view path) {
  constexpr std::string_view prefix = WAN_PREFIX;
  const std::string_view place = std::string_view(WAN_PLUGIN_FILE).substr(prefix.size());
  Dl_info plugin;
  if (!path.starts_with(prefix) || !dladdr(reinterpret_cast<void *>(&installed), &plugin))
    return std::string(path);
  std::error_code failure;
  const std::string file = std::filesystem::canonical(plugin.dli_fname, failure).string();
  if (!file.ends_with(place)) return std::string(path);
  return file.substr(0, file.size() - place.size()).append(path.substr(prefix.size()));
}

// An environment variable, empty where it is not set.
std::string variable(const char *name) {
  const char *value = g_getenv(name);
  return value ? value : "";
}

// The first that is not empty.
std::string choose(const std::string &chosen, const std::string &other, std::string_view installed_path) {
  if (!chosen.empty()) return chosen;
  return other.empty() ? installed(installed_path) : other;
}

// LibTorch's threads spin while they wait for each other. Where an encoder needs the cores too, that is
// ruinous: 88 s instead of 11 s were seen for a clip on two busy cores. OpenMP reads its policy once, when
// the engine brings it in, and from the environment only. To set a variable there is not safe beside other
// threads, which may be reading it, and children would inherit it: so the process looks at a copy of the
// environment for that moment, which is left to those who still read it then.
GModule *open_patient(const std::string &file) {
  static char policy[] = "OMP_WAIT_POLICY=passive";
  void *loaded = dlopen(file.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (loaded) dlclose(loaded);
  if (loaded || g_getenv("OMP_WAIT_POLICY")) return g_module_open(file.c_str(), G_MODULE_BIND_LOCAL);
  auto *copy = new std::vector<char *>;
  for (char **variable = environ; variable && *variable; ++variable) copy->push_back(*variable);
  copy->insert(copy->end(), {policy, nullptr});
  std::atomic_ref<char **> environment(environ);
  char **own = environment.exchange(copy->data());
  GModule *module = g_module_open(file.c_str(), G_MODULE_BIND_LOCAL);
  char **seen = copy->data();
  environment.compare_exchange_strong(seen, own);  // unless somebody has changed it meanwhile
  return module;
}

}  // namespace

std::string engine_file(const std::string &chosen) {
  return choose(chosen, variable("GST_WAN_ENGINE"), WAN_ENGINE_FILE);
}

std::string model_directory(const std::string &chosen, bool live) {
  const std::string model = chosen.empty() ? variable("GST_WAN_MODEL") : chosen;
  if (!model.empty()) return model;
  return choose("", variable("GST_WAN_MODELS"), WAN_MODELS_DIR) + (live ? "/wan-tiny-causal" : "/wan-tiny");
}

const WanEngineApi *open_engine(const std::string &file, std::string *reason) {
  static std::mutex opening;
  const std::lock_guard lock(opening);
  GModule *module = open_patient(file);
  if (!module) {
    *reason = "The engine library \"" + file + "\" cannot be opened: " + g_module_error();
    return nullptr;
  }
  g_module_make_resident(module);
  gpointer entry = nullptr;
  const WanEngineApi *api = nullptr;
  if (!g_module_symbol(module, WAN_ENGINE_ENTRY, &entry)) {
    *reason = "The library \"" + file + "\" is not an engine of gst-wan.";
  } else if (api = reinterpret_cast<WanEngineEntry>(entry)(WAN_ENGINE_ABI);
             !api || api->abi != WAN_ENGINE_ABI) {
    *reason = "The engine library \"" + file +
              "\" belongs to another version of gst-wan: it does not serve interface " +
              std::to_string(WAN_ENGINE_ABI) + ".";
    api = nullptr;
  }
  return api;
}

}  // namespace wan
