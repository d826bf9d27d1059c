// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda_memory.h"

#include <charconv>
#include <map>
#include <memory>
#include <utility>

#include "cuda_api.h"
#include "video_caps.h"

namespace wan {
namespace {

using cuda::Api;

// Makes a context the calling thread's for a while.
class CurrentContext {
 public:
  explicit CurrentContext(GstCudaContext *context)
      : current_(cuda::api()->context_push(
                     static_cast<CUctx_st *>(cuda::api()->gst_context_get_handle(context))) == 0) {}
  ~CurrentContext() {
    CUctx_st *popped = nullptr;
    if (current_) cuda::api()->context_pop(&popped);
  }
  CurrentContext(const CurrentContext &) = delete;
  CurrentContext &operator=(const CurrentContext &) = delete;
  explicit operator bool() const { return current_; }

 private:
  const bool current_;
};

// Wraps the primary context, which lives as long as the wrapper, whoever holds that last.
GstCudaContext *wrap_primary_context(const Api &api, int ordinal) {
  int device = 0;
  CUctx_st *primary = nullptr;
  if (api.device_get(&device, ordinal) != 0 || api.primary_context_retain(&primary, device) != 0)
    return nullptr;
  GstCudaContext *context = api.gst_context_new_wrapped(primary, device);
  if (!context) {
    api.primary_context_release(device);
    return nullptr;
  }
  g_object_set_data_full(G_OBJECT(context), "wan-primary-context", new int(device), [](gpointer data) {
    const std::unique_ptr<int> device(static_cast<int *>(data));
    cuda::api()->primary_context_release(*device);
  });
  return context;
}

// The same wrapper for all elements, since CUDA elements take two wrappers for two contexts. A new reference.
GstCudaContext *primary_context(const Api &api, int ordinal) {
  static std::mutex mutex;
  static std::map<int, GWeakRef> contexts;
  const std::lock_guard lock(mutex);
  const auto [entry, is_new] = contexts.try_emplace(ordinal);
  if (is_new) g_weak_ref_init(&entry->second, nullptr);
  if (gpointer context = g_weak_ref_get(&entry->second)) return static_cast<GstCudaContext *>(context);
  GstCudaContext *context = wrap_primary_context(api, ordinal);
  g_weak_ref_set(&entry->second, context);
  return context;
}

// What the application or a bin gave the element, for this GPU; a new reference.
GstCudaContext *given_context(const Api &api, GstElement *element, int ordinal) {
  GstContext *given = gst_element_get_context(element, cuda::kContextType);
  if (!given) return nullptr;
  GstCudaContext *context = nullptr;
  api.gst_handle_set_context(element, given, ordinal, &context);
  gst_context_unref(given);
  return context;
}

// Tells the size with the rows' padding, which the pool decides. NULL where the GPU has no memory for a
// frame.
GstBufferPool *configured_pool(GstCudaContext *context, GstCaps *caps, guint *size, guint min, guint max) {
  GstBufferPool *pool = cuda::api()->gst_buffer_pool_new(context);
  GstStructure *config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, caps, *size, min, max);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  if (!gst_buffer_pool_set_config(pool, config)) {
    gst_object_unref(pool);
    return nullptr;
  }
  config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_get_params(config, nullptr, size, nullptr, nullptr);
  gst_structure_free(config);
  return pool;
}

bool asks_for_cuda(GstQuery *query) {
  const gchar *type = nullptr;
  return GST_QUERY_TYPE(query) == GST_QUERY_CONTEXT && gst_query_parse_context_type(query, &type) &&
         g_strcmp0(type, cuda::kContextType) == 0;
}

bool names_cuda_memory(const GstCapsFeatures *features) {
  return !gst_caps_features_is_any(features) && gst_caps_features_contains(features, cuda::kMemoryFeature);
}

bool names_cuda_memory(const GstCaps *caps) {
  for (guint i = 0; i < gst_caps_get_size(caps); ++i)
    if (names_cuda_memory(gst_caps_get_features(caps, i))) return true;
  return false;
}

}  // namespace

std::string frames_device(const std::string &device, const std::string &decoder_device) {
  return decoder_device.empty() ? device.substr(0, device.find(',')) : decoder_device;
}

int cuda_ordinal(const std::string &device) {
  if (device == "auto" || device == "cuda") return 0;
  if (!device.starts_with("cuda:")) return -1;
  int ordinal = -1;
  const char *end = device.data() + device.size();
  const auto [rest, status] = std::from_chars(device.data() + 5, end, ordinal);
  return status == std::errc() && rest == end && ordinal >= 0 ? ordinal : -1;
}

bool cuda_memory_available(int ordinal) {
  return ordinal >= 0 && cuda::api() && ordinal < cuda::api()->devices;
}

GstCaps *video_caps(bool cuda) {
  GstCaps *system = gst_caps_from_string(kVideoCaps);
  if (!cuda) return system;
  GstCaps *caps = gst_caps_copy(system);
  gst_caps_set_features_simple(caps, gst_caps_features_new(cuda::kMemoryFeature, nullptr));
  gst_caps_append(caps, system);
  return caps;
}

bool is_cuda_memory(const GstCaps *caps) {
  return names_cuda_memory(gst_caps_get_features(caps, 0));
}

GstCaps *choose_memory(GstPad *pad, GstCaps *caps) {
  GstCaps *peer = gst_pad_peer_query_caps(pad, nullptr);
  const bool named = names_cuda_memory(peer);
  gst_caps_unref(peer);
  if (named) return caps;
  GstCaps *system = gst_caps_new_empty();
  for (guint i = 0; i < gst_caps_get_size(caps); ++i)
    if (!names_cuda_memory(gst_caps_get_features(caps, i)))
      gst_caps_append(system, gst_caps_copy_nth(caps, i));
  if (gst_caps_is_empty(system)) std::swap(system, caps);
  gst_caps_unref(caps);
  return system;
}

CudaMemory::~CudaMemory() {
  if (stream_)
    if (const CurrentContext current(context_); current) cuda::api()->stream_destroy(stream_);
  gst_clear_object(&context_);
}

GstCudaContext *CudaMemory::context(GstElement *element) {
  if (context_ || !cuda_memory_available(ordinal_)) return context_;
  const Api &api = *cuda::api();
  context_ = primary_context(api, ordinal_);
  GstCudaContext *given = given_context(api, element, ordinal_);
  if (context_ && given && api.gst_context_get_handle(given) == api.gst_context_get_handle(context_))
    std::swap(context_, given);
  gst_clear_object(&given);
  return context_;
}

bool CudaMemory::answer(GstElement *element, GstQuery *query) {
  if (!asks_for_cuda(query)) return false;
  const std::lock_guard lock(mutex_);
  GstCudaContext *context = this->context(element);
  return context && cuda::api()->gst_handle_context_query(element, query, context);
}

bool CudaMemory::choose_pool(GstElement *element, GstQuery *query) {
  const std::lock_guard lock(mutex_);
  GstCudaContext *context = this->context(element);
  GstCaps *caps = nullptr;
  gst_query_parse_allocation(query, &caps, nullptr);
  GstVideoInfo info;
  if (!context || !caps || !gst_video_info_from_caps(&info, caps)) return false;
  // Two buffers for a start, and as many more as downstream holds.
  guint size = GST_VIDEO_INFO_SIZE(&info), min = 2, max = 0;
  GstBufferPool *pool = configured_pool(context, caps, &size, min, max);
  if (!pool) return false;
  while (gst_query_get_n_allocation_pools(query) > 0) gst_query_remove_nth_allocation_pool(query, 0);
  gst_query_add_allocation_pool(query, pool, size, min, max);
  gst_object_unref(pool);
  return true;
}

bool CudaMemory::copy_frame(const uint8_t *frame, const GstVideoInfo &info, GstBuffer *to) {
  const std::lock_guard lock(mutex_);
  if (!context_) return false;
  GstVideoFrame target;
  if (!gst_video_frame_map(&target, &info, to, GstMapFlags(GST_MAP_WRITE | cuda::kMapCuda))) return false;
  const bool copied = copy_planes(frame, info, target);
  gst_video_frame_unmap(&target);
  return copied;
}

bool CudaMemory::copy_planes(const uint8_t *frame, const GstVideoInfo &info, const GstVideoFrame &to) {
  const Api &api = *cuda::api();
  const CurrentContext current(context_);
  // Not the default stream: LibTorch decodes on that one, and the copy would wait for all that is queued
  // there.
  if (!current || (!stream_ && api.stream_create(&stream_, cuda::kNonBlocking) != 0)) return false;
  bool queued = true;
  for (guint plane = 0; queued && plane < GST_VIDEO_INFO_N_PLANES(&info); ++plane) {
    cuda::Copy2d copy = {};
    copy.from.memory_type = copy.to.memory_type = cuda::kDeviceMemory;
    copy.from.device = reinterpret_cast<uintptr_t>(frame) + GST_VIDEO_INFO_PLANE_OFFSET(&info, plane);
    copy.from.pitch = GST_VIDEO_INFO_PLANE_STRIDE(&info, plane);
    copy.to.device = reinterpret_cast<uintptr_t>(GST_VIDEO_FRAME_PLANE_DATA(&to, plane));
    copy.to.pitch = GST_VIDEO_FRAME_PLANE_STRIDE(&to, plane);
    // In our formats, each plane begins with the component of its number.
    copy.width_bytes =
        size_t(GST_VIDEO_INFO_COMP_WIDTH(&info, plane)) * GST_VIDEO_INFO_COMP_PSTRIDE(&info, plane);
    copy.height = GST_VIDEO_INFO_COMP_HEIGHT(&info, plane);
    queued = api.copy_2d_async(&copy, stream_) == 0;
  }
  return api.stream_synchronize(stream_) == 0 && queued;
}

}  // namespace wan
