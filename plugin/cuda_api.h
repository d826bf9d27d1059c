// The few functions of libcuda and libgstcuda that frames in GPU memory need.
//
// Both libraries are opened when they are first needed. The plugin neither links nor includes them, so that
// it builds, loads and scans alike on every machine. libgstcuda's interface is unstable: only functions that
// are the same in GStreamer 1.22 to 1.28 are used.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <cstddef>

struct CUctx_st;
struct CUstream_st;
typedef struct _GstCudaContext GstCudaContext;

namespace wan::cuda {

/** CUDA_MEMCPY2D. */
struct Copy2d {
  struct Side {
    size_t x_bytes, y;
    int memory_type;
    void *host;
    unsigned long long device;
    void *array;
    size_t pitch;
  };
  Side from, to;
  size_t width_bytes, height;
};

inline constexpr int kDeviceMemory = 2;                                     // CU_MEMORYTYPE_DEVICE
inline constexpr unsigned kNonBlocking = 1;                                 // CU_STREAM_NON_BLOCKING
inline constexpr auto kMapCuda = GstMapFlags(int(GST_MAP_FLAG_LAST) << 1);  // GST_MAP_CUDA
inline constexpr char kContextType[] = "gst.cuda.context";                  // GST_CUDA_CONTEXT_TYPE
inline constexpr char kMemoryFeature[] = "memory:CUDAMemory";  // GST_CAPS_FEATURE_MEMORY_CUDA_MEMORY

/** The driver's functions return 0 for success, and want a current context where they take none. */
struct Api {
  int (*init)(unsigned flags);
  int (*device_get_count)(int *count);
  int (*device_get)(int *device, int ordinal);
  int (*primary_context_retain)(CUctx_st **context, int device);
  int (*primary_context_release)(int device);
  int (*context_push)(CUctx_st *context);
  int (*context_pop)(CUctx_st **context);
  int (*stream_create)(CUstream_st **stream, unsigned flags);
  int (*stream_destroy)(CUstream_st *stream);
  int (*stream_synchronize)(CUstream_st *stream);
  int (*copy_2d_async)(const Copy2d *copy, CUstream_st *stream);

  gboolean (*gst_load_library)();
  void (*gst_memory_init_once)();
  GstCudaContext *(*gst_context_new_wrapped)(CUctx_st *context, int device);
  gpointer (*gst_context_get_handle)(GstCudaContext *context);
  GstBufferPool *(*gst_buffer_pool_new)(GstCudaContext *context);
  gboolean (*gst_handle_context_query)(GstElement *element, GstQuery *query, GstCudaContext *context);
  gboolean (*gst_handle_set_context)(GstElement *element, GstContext *offered, int ordinal,
                                     GstCudaContext **context);

  int devices;  // GPUs
};

/** Opens both libraries at the first call. NULL where there is no NVIDIA driver, no GPU or no libgstcuda. */
const Api *api();

}  // namespace wan::cuda
