// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda_api.h"

#include <gmodule.h>

#include <optional>

namespace wan::cuda {
namespace {

// A library that stays open, and whether all that was looked for was found in it.
class Library {
 public:
  explicit Library(const char *file)
      : module_(g_module_open(file, GModuleFlags(G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL))) {
    if (module_) g_module_make_resident(module_);
  }
  template <typename Function>
  void find(const char *name, Function *&function) {
    gpointer symbol = nullptr;
    complete_ = complete_ && module_ && g_module_symbol(module_, name, &symbol);
    function = reinterpret_cast<Function *>(symbol);
  }
  bool complete() const { return complete_; }

 private:
  GModule *const module_;
  bool complete_ = true;
};

bool open_driver(Api &api) {
  Library driver("libcuda.so.1");
  driver.find("cuInit", api.init);
  driver.find("cuDeviceGetCount", api.device_get_count);
  driver.find("cuDeviceGet", api.device_get);
  driver.find("cuDevicePrimaryCtxRetain", api.primary_context_retain);
  driver.find("cuDevicePrimaryCtxRelease_v2", api.primary_context_release);
  driver.find("cuCtxPushCurrent_v2", api.context_push);
  driver.find("cuCtxPopCurrent_v2", api.context_pop);
  driver.find("cuStreamCreate", api.stream_create);
  driver.find("cuStreamDestroy_v2", api.stream_destroy);
  driver.find("cuStreamSynchronize", api.stream_synchronize);
  driver.find("cuMemcpy2DAsync_v2", api.copy_2d_async);
  return driver.complete() && api.init(0) == 0 && api.device_get_count(&api.devices) == 0 && api.devices > 0;
}

bool open_gst_cuda(Api &api) {
  Library library("libgstcuda-1.0.so.0");
  library.find("gst_cuda_load_library", api.gst_load_library);
  library.find("gst_cuda_memory_init_once", api.gst_memory_init_once);
  library.find("gst_cuda_context_new_wrapped", api.gst_context_new_wrapped);
  library.find("gst_cuda_context_get_handle", api.gst_context_get_handle);
  library.find("gst_cuda_buffer_pool_new", api.gst_buffer_pool_new);
  library.find("gst_cuda_handle_context_query", api.gst_handle_context_query);
  library.find("gst_cuda_handle_set_context", api.gst_handle_set_context);
  if (!library.complete() || !api.gst_load_library()) return false;
  api.gst_memory_init_once();  // the pools of 1.22 look for the allocator that this registers
  return true;
}

std::optional<Api> open() {
  Api api = {};
  // The driver first: without one, libgstcuda warns.
  if (!open_driver(api) || !open_gst_cuda(api)) return std::nullopt;
  return api;
}

}  // namespace

const Api *api() {
  static const std::optional<Api> opened = open();
  return opened ? &*opened : nullptr;
}

}  // namespace wan::cuda
