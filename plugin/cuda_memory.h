// Frames in GPU memory, as GStreamer's CUDA elements take them: video/x-raw(memory:CUDAMemory).
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <cstdint>
#include <mutex>
#include <string>

typedef struct _GstCudaContext GstCudaContext;
struct CUstream_st;

namespace wan {

/** Of the properties `device` and `decoder-device`, the one device that frames are decoded on. */
std::string frames_device(const std::string &device, const std::string &decoder_device);
/** Number of the GPU that it stands for, -1 for none: 0 for "auto" and "cuda", N for "cuda:N". */
int cuda_ordinal(const std::string &device);

/** Whether there is such a GPU, and what GStreamer needs to use it. The first call starts the driver. */
bool cuda_memory_available(int ordinal);

/** kVideoCaps, and before them, with `cuda`, the same in CUDA memory, which knows all of their formats. */
GstCaps *video_caps(bool cuda);

/** Whether frames of the (fixed) caps lie in CUDA memory. */
bool is_cuda_memory(const GstCaps *caps);

/** Leaves the CUDA alternatives in `caps` only if the peer of `pad` names CUDA memory: one that takes
 * anything, as fakesink and a passing-through converter do, gets system memory where that is possible. Takes
 * the caps. */
GstCaps *choose_memory(GstPad *pad, GstCaps *caps);

/** A GPU as GStreamer's CUDA elements see it. LibTorch works in the primary context of a GPU and GStreamer by
 * itself does not; CUDA elements copy what comes from another context through the host. So all here is in the
 * primary context, which neighbours are told of before they make one of their own.
 *
 * Its methods may be called from any thread. Without a GPU (cuda_memory_available()) they do nothing and
 * return false. */
class CudaMemory {
 public:
  /** Cheap: the context is made when it is first needed. */
  explicit CudaMemory(int ordinal) : ordinal_(ordinal) {}
  ~CudaMemory();
  CudaMemory(const CudaMemory &) = delete;
  CudaMemory &operator=(const CudaMemory &) = delete;

  /** Answers a CONTEXT query that asks for a CUDA context, in any state of the element: encoders ask when
   * they open, which is before a source does. */
  bool answer(GstElement *element, GstQuery *query);

  /** Leaves in an answered ALLOCATION query a pool of CUDA memory, whatever downstream offers. */
  bool choose_pool(GstElement *element, GstQuery *query);

  /** Copies a frame of the engine, which lies in GPU memory as `info` says, into a buffer of such a pool, and
   * waits for the copy. A frame in system memory is copied by mapping the buffer, as any other. */
  bool copy_frame(const uint8_t *frame, const GstVideoInfo &info, GstBuffer *to);

 private:
  /** Made at the first call: of what the application gave the element, if that is of the primary context. */
  GstCudaContext *context(GstElement *element);
  bool copy_planes(const uint8_t *frame, const GstVideoInfo &info, const GstVideoFrame &to);

  const int ordinal_;
  std::mutex mutex_;  // guards all that follows
  GstCudaContext *context_ = nullptr;
  CUstream_st *stream_ = nullptr;
};

}  // namespace wan
