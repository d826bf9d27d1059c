// SPDX-License-Identifier: LGPL-2.1-or-later
#include "downstream_pool.h"

namespace wan {
namespace {

bool is_ordinary(GstAllocator *allocator) {
  return !allocator || g_strcmp0(allocator->mem_type, GST_ALLOCATOR_SYSMEM) == 0;
}

// Whether buffers of the pool are nothing but memory of the usual layout, as a converter offers them.
bool is_ordinary(GstBufferPool *pool) {
  const GType type = G_OBJECT_TYPE(pool);
  if (type != GST_TYPE_BUFFER_POOL && type != GST_TYPE_VIDEO_BUFFER_POOL) return false;
  GstStructure *config = gst_buffer_pool_get_config(pool);
  GstAllocator *allocator = nullptr;
  gst_buffer_pool_config_get_allocator(config, &allocator, nullptr);
  const bool ordinary = is_ordinary(allocator) &&
                        !gst_buffer_pool_config_has_option(config, GST_BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
  gst_structure_free(config);
  return ordinary;
}

// The pool that downstream offers, or one of the allocator that it offers; none where both are ordinary.
GstBufferPool *offered_pool(GstQuery *query, guint *size, guint *min, guint *max) {
  if (gst_query_get_n_allocation_pools(query) > 0) {
    GstBufferPool *pool = nullptr;
    gst_query_parse_nth_allocation_pool(query, 0, &pool, size, min, max);
    if (pool && !is_ordinary(pool)) return pool;
    gst_clear_object(&pool);
  }
  GstAllocator *allocator = nullptr;
  if (gst_query_get_n_allocation_params(query) > 0)
    gst_query_parse_nth_allocation_param(query, 0, &allocator, nullptr);
  const bool ordinary = is_ordinary(allocator);
  gst_clear_object(&allocator);
  return ordinary ? nullptr : gst_video_buffer_pool_new();
}

void enable_video_meta(GstBufferPool *pool) {
  GstStructure *config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  gst_buffer_pool_set_config(pool, config);
}

}  // namespace

void choose_pool(GstQuery *query) {
  GstCaps *caps = nullptr;
  GstVideoInfo info;
  gst_query_parse_allocation(query, &caps, nullptr);
  gst_video_info_from_caps(&info, caps);
  guint size = 0, min = 0, max = 0;
  GstBufferPool *pool = offered_pool(query, &size, &min, &max);
  while (gst_query_get_n_allocation_pools(query) > 0) gst_query_remove_nth_allocation_pool(query, 0);
  if (!pool) return;
  if (gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, nullptr)) enable_video_meta(pool);
  gst_query_add_allocation_pool(query, pool, MAX(size, info.size), min, max);
  gst_object_unref(pool);
}

bool copy_frame(const GstVideoInfo &info, GstBuffer *from, GstBuffer *to) {
  GstVideoFrame source, target;
  if (!gst_video_frame_map(&source, &info, from, GST_MAP_READ)) return false;
  const bool mapped = gst_video_frame_map(&target, &info, to, GST_MAP_WRITE);
  const bool copied = mapped && gst_video_frame_copy(&target, &source);
  if (mapped) gst_video_frame_unmap(&target);
  gst_video_frame_unmap(&source);
  return copied;
}

}  // namespace wan
