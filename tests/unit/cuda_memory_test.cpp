// Frames in GPU memory: what GStreamer sees of it where there is no GPU, and, where WAN_TEST_DEVICE says so,
// on one. Any warning fails the test (G_DEBUG).
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gmodule.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "cuda_api.h"
#include "cuda_memory.h"
#include "downstream_pool.h"
#include "video_caps.h"

// What cuda_api.h says of the two libraries, held against their headers where these are installed.
#ifdef WAN_HAVE_CUDA_HEADERS
#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudautils.h>

#include <type_traits>

namespace wan::cuda {
#define WAN_SAME(member, function) static_assert(std::is_same_v<decltype(Api::member), decltype(&function)>)
WAN_SAME(gst_load_library, ::gst_cuda_load_library);
WAN_SAME(gst_memory_init_once, ::gst_cuda_memory_init_once);
WAN_SAME(gst_context_new_wrapped, ::gst_cuda_context_new_wrapped);
WAN_SAME(gst_context_get_handle, ::gst_cuda_context_get_handle);
WAN_SAME(gst_buffer_pool_new, ::gst_cuda_buffer_pool_new);
WAN_SAME(gst_handle_context_query, ::gst_cuda_handle_context_query);
WAN_SAME(gst_handle_set_context, ::gst_cuda_handle_set_context);
static_assert(int(kMapCuda) == int(GST_MAP_CUDA));
static_assert(std::string_view(kContextType) == GST_CUDA_CONTEXT_TYPE);
static_assert(std::string_view(kMemoryFeature) == GST_CAPS_FEATURE_MEMORY_CUDA_MEMORY);
static_assert(kDeviceMemory == CU_MEMORYTYPE_DEVICE && kNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(sizeof(Copy2d) == sizeof(CUDA_MEMCPY2D));
static_assert(offsetof(Copy2d, from.memory_type) == offsetof(CUDA_MEMCPY2D, srcMemoryType));
static_assert(offsetof(Copy2d, from.device) == offsetof(CUDA_MEMCPY2D, srcDevice));
static_assert(offsetof(Copy2d, from.pitch) == offsetof(CUDA_MEMCPY2D, srcPitch));
static_assert(offsetof(Copy2d, to.memory_type) == offsetof(CUDA_MEMCPY2D, dstMemoryType));
static_assert(offsetof(Copy2d, to.device) == offsetof(CUDA_MEMCPY2D, dstDevice));
static_assert(offsetof(Copy2d, to.pitch) == offsetof(CUDA_MEMCPY2D, dstPitch));
static_assert(offsetof(Copy2d, width_bytes) == offsetof(CUDA_MEMCPY2D, WidthInBytes));
static_assert(offsetof(Copy2d, height) == offsetof(CUDA_MEMCPY2D, Height));
}  // namespace wan::cuda
#endif

namespace wan::test {
namespace {

struct Unref {
  void operator()(gpointer object) const { gst_object_unref(object); }
  void operator()(GstCaps *caps) const { gst_caps_unref(caps); }
  void operator()(GstQuery *query) const { gst_query_unref(query); }
  void operator()(GstContext *context) const { gst_context_unref(context); }
  void operator()(GstBuffer *buffer) const { gst_buffer_unref(buffer); }
};
template <typename T>
using Ptr = std::unique_ptr<T, Unref>;

bool on_gpu() {
  const char *device = std::getenv("WAN_TEST_DEVICE");
  return device && std::string(device) != "cpu";
}

Ptr<GstElement> make_element(const char *factory) {
  return Ptr<GstElement>(GST_ELEMENT(gst_object_ref_sink(gst_element_factory_make(factory, nullptr))));
}

Ptr<GstCaps> caps_of(const char *text) {
  return Ptr<GstCaps>(gst_caps_from_string(text));
}

TEST(CudaOrdinal, OfEveryDeviceName) {
  EXPECT_EQ(cuda_ordinal("auto"), 0);
  EXPECT_EQ(cuda_ordinal("cuda"), 0);
  EXPECT_EQ(cuda_ordinal("cuda:0"), 0);
  EXPECT_EQ(cuda_ordinal("cuda:12"), 12);
  EXPECT_EQ(frames_device("cuda:3,1", ""), "cuda:3");
  EXPECT_EQ(frames_device("cuda:3,1", "cuda:0"), "cuda:0");
  for (const char *name : {"cpu", "", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cuda1", "cuda:99999999999"})
    EXPECT_EQ(cuda_ordinal(name), -1) << name;
}

TEST(CudaCaps, AreTheSystemsAndTheSameInCudaMemory) {
  const Ptr<GstCaps> system(video_caps(false)), both(video_caps(true));
  EXPECT_TRUE(gst_caps_is_strictly_equal(system.get(), caps_of(kVideoCaps).get()));
  ASSERT_EQ(gst_caps_get_size(both.get()), 2u);
  EXPECT_TRUE(is_cuda_memory(both.get())) << "first";
  EXPECT_FALSE(is_cuda_memory(system.get()));
  const Ptr<GstCaps> second(gst_caps_copy_nth(both.get(), 1));
  EXPECT_TRUE(gst_caps_is_strictly_equal(second.get(), system.get()));
  EXPECT_TRUE(
      gst_structure_is_equal(gst_caps_get_structure(both.get(), 0), gst_caps_get_structure(both.get(), 1)));
}

// What choose_memory() leaves of both memories in front of the elements of a launch line.
std::string chosen_before(const std::string &line,
                          const Ptr<GstCaps> &caps = Ptr<GstCaps>(video_caps(true))) {
  const Ptr<GstElement> bin(
      GST_ELEMENT(gst_object_ref_sink(gst_parse_bin_from_description(line.c_str(), TRUE, nullptr))));
  const Ptr<GstPad> source(GST_PAD(gst_object_ref_sink(gst_pad_new("src", GST_PAD_SRC))));
  const Ptr<GstPad> sink(gst_element_get_static_pad(bin.get(), "sink"));
  EXPECT_EQ(gst_pad_link(source.get(), sink.get()), GST_PAD_LINK_OK);
  const Ptr<GstCaps> chosen(choose_memory(source.get(), gst_caps_ref(caps.get())));
  gst_pad_unlink(source.get(), sink.get());
  if (gst_caps_is_equal(chosen.get(), caps.get())) return "all";
  return gst_caps_is_equal(chosen.get(), Ptr<GstCaps>(video_caps(false)).get()) ? "system" : "neither";
}

TEST(CudaCaps, AreOnlyChosenWhereTheyAreNamed) {
  EXPECT_EQ(chosen_before("fakesink"), "system");
  EXPECT_EQ(chosen_before("queue ! fakesink"), "system");
  EXPECT_EQ(chosen_before("videoconvert ! fakesink"), "system") << "it passes any memory through";
  EXPECT_EQ(chosen_before("capsfilter caps=video/x-raw,format=NV12 ! fakesink"), "system");
  EXPECT_EQ(chosen_before("queue ! capsfilter caps=video/x-raw(memory:CUDAMemory) ! fakesink"), "all");
  EXPECT_EQ(chosen_before("capsfilter caps=video/x-raw;video/x-raw(memory:CUDAMemory) ! fakesink"), "all");
  EXPECT_EQ(chosen_before("fakesink", caps_of("video/x-raw(memory:CUDAMemory)")), "all")
      << "there is no other";
}

Ptr<GstQuery> allocation_query(const GstCaps *caps) {
  return Ptr<GstQuery>(gst_query_new_allocation(const_cast<GstCaps *>(caps), TRUE));
}

Ptr<GstQuery> context_query(const char *type = cuda::kContextType) {
  return Ptr<GstQuery>(gst_query_new_context(type));
}

bool has_context(GstQuery *query) {
  GstContext *context = nullptr;
  gst_query_parse_context(query, &context);
  return context != nullptr;
}

TEST(WithoutAGpu, ThereIsNoCudaMemory) {
  const Ptr<GstElement> element = make_element("fakesrc");
  const Ptr<GstCaps> caps =
      caps_of("video/x-raw(memory:CUDAMemory),format=NV12,width=64,height=32,framerate=16/1");
  // No GPU is number -1, and where there are none nor is any other.
  for (const int ordinal : {-1, on_gpu() ? 1000 : 0}) {
    EXPECT_FALSE(cuda_memory_available(ordinal)) << ordinal;
    CudaMemory memory(ordinal);
    const Ptr<GstQuery> context = context_query(), allocation = allocation_query(caps.get());
    EXPECT_FALSE(memory.answer(element.get(), context.get()));
    EXPECT_FALSE(has_context(context.get()));
    EXPECT_FALSE(memory.choose_pool(element.get(), allocation.get()));
    EXPECT_EQ(gst_query_get_n_allocation_pools(allocation.get()), 0u);
  }
}

class OnAGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!on_gpu()) GTEST_SKIP() << "needs a GPU";
    ASSERT_TRUE(cuda_memory_available(0));
    element_ = make_element("fakesrc");
  }

  /// The context that answers a query; a new reference.
  Ptr<GstCudaContext> answer(CudaMemory &memory) {
    const Ptr<GstQuery> query = context_query();
    if (!memory.answer(element_.get(), query.get())) return {};
    GstContext *context = nullptr;
    gst_query_parse_context(query.get(), &context);
    return context_in(context);
  }
  static Ptr<GstCudaContext> context_in(GstContext *context) {
    const GValue *value = gst_structure_get_value(gst_context_get_structure(context), cuda::kContextType);
    return Ptr<GstCudaContext>(static_cast<GstCudaContext *>(g_value_dup_object(value)));
  }
  static CUctx_st *handle(const Ptr<GstCudaContext> &context) {
    return static_cast<CUctx_st *>(cuda::api()->gst_context_get_handle(context.get()));
  }

  /// As an application does it.
  void give(const Ptr<GstCudaContext> &context) {
    const Ptr<GstContext> given(gst_context_new(cuda::kContextType, TRUE));
    gst_structure_set(gst_context_writable_structure(given.get()), cuda::kContextType,
                      G_OBJECT_TYPE(context.get()), context.get(), nullptr);
    gst_element_set_context(element_.get(), given.get());
  }

  Ptr<GstElement> element_;
};

TEST_F(OnAGpu, TheContextIsThePrimaryOneAndTheSameForAll) {
  CudaMemory first(0), second(0);
  const Ptr<GstCudaContext> context = answer(first);
  ASSERT_TRUE(context);
  EXPECT_EQ(answer(first).get(), context.get());
  EXPECT_EQ(answer(second).get(), context.get());
  CUctx_st *primary = nullptr;
  ASSERT_EQ(cuda::api()->primary_context_retain(&primary, 0), 0);
  EXPECT_EQ(handle(context), primary);
  cuda::api()->primary_context_release(0);
  const Ptr<GstQuery> other = context_query("gst.gl.GLDisplay");
  EXPECT_FALSE(first.answer(element_.get(), other.get()));
}

TEST_F(OnAGpu, AGivenContextIsUsedIfItIsThePrimaryOne) {
  CudaMemory owner(0), user(0);
  const Ptr<GstCudaContext> own = answer(owner);
  const Ptr<GstCudaContext> given(cuda::api()->gst_context_new_wrapped(handle(own), 0));
  give(given);
  EXPECT_NE(given.get(), own.get());
  EXPECT_EQ(answer(user).get(), given.get());
}

TEST_F(OnAGpu, AGivenContextOfAnotherKindIsNot) {
  GModule *library = g_module_open("libgstcuda-1.0.so.0", G_MODULE_BIND_LAZY);
  gpointer symbol = nullptr;
  ASSERT_TRUE(g_module_symbol(library, "gst_cuda_context_new", &symbol));
  const Ptr<GstCudaContext> given(reinterpret_cast<GstCudaContext *(*)(guint)>(symbol)(0));
  give(given);
  CudaMemory memory(0);
  const Ptr<GstCudaContext> context = answer(memory);
  ASSERT_TRUE(context);
  EXPECT_NE(handle(context), handle(given));
}

// A picture whose bytes are all different from their neighbours', in system memory.
Ptr<GstBuffer> picture(const GstVideoInfo &info) {
  Ptr<GstBuffer> buffer(gst_buffer_new_allocate(nullptr, info.size, nullptr));
  GstMapInfo map;
  gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE);
  for (gsize i = 0; i < map.size; ++i) map.data[i] = guint8(i * 7 + i / 251);
  gst_buffer_unmap(buffer.get(), &map);
  return buffer;
}

// The pixels of a frame, without the rows' padding.
std::vector<guint8> pixels(const GstVideoInfo &info, GstBuffer *buffer) {
  std::vector<guint8> pixels;
  GstVideoFrame frame;
  EXPECT_TRUE(gst_video_frame_map(&frame, &info, buffer, GST_MAP_READ));
  for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(&frame); ++plane) {
    const int bytes = GST_VIDEO_FRAME_COMP_WIDTH(&frame, plane) * GST_VIDEO_FRAME_COMP_PSTRIDE(&frame, plane);
    for (int y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, plane); ++y) {
      const auto *row = static_cast<const guint8 *>(GST_VIDEO_FRAME_PLANE_DATA(&frame, plane)) +
                        y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane);
      pixels.insert(pixels.end(), row, row + bytes);
    }
  }
  gst_video_frame_unmap(&frame);
  return pixels;
}

class CudaPool : public OnAGpu, public testing::WithParamInterface<const char *> {
 protected:
  void SetUp() override {
    OnAGpu::SetUp();
    if (IsSkipped()) return;
    // Of a width that no device would take for the rows' length.
    const std::string text =
        std::string("video/x-raw(memory:CUDAMemory),width=80,height=48,framerate=16/1,format=") + GetParam();
    const Ptr<GstCaps> caps = caps_of(text.c_str());
    ASSERT_TRUE(gst_video_info_from_caps(&info_, caps.get()));
    const Ptr<GstQuery> query = allocation_query(caps.get());
    ASSERT_TRUE(memory_.choose_pool(element_.get(), query.get()));
    ASSERT_EQ(gst_query_get_n_allocation_pools(query.get()), 1u);
    GstBufferPool *pool = nullptr;
    guint size = 0, max = 1;
    gst_query_parse_nth_allocation_pool(query.get(), 0, &pool, &size, nullptr, &max);
    pool_.reset(pool);
    EXPECT_GT(size, info_.size) << "rows are padded";
    EXPECT_EQ(max, 0u);
    ASSERT_TRUE(gst_buffer_pool_set_active(pool, TRUE));
  }
  void TearDown() override {
    if (pool_) gst_buffer_pool_set_active(pool_.get(), FALSE);
  }
  Ptr<GstBuffer> acquire() {
    GstBuffer *buffer = nullptr;
    EXPECT_EQ(gst_buffer_pool_acquire_buffer(pool_.get(), &buffer, nullptr), GST_FLOW_OK);
    return Ptr<GstBuffer>(buffer);
  }

  CudaMemory memory_{0};
  GstVideoInfo info_ = {};
  Ptr<GstBufferPool> pool_;
};

TEST_P(CudaPool, TakesAFrameOfSystemMemory) {
  const Ptr<GstBuffer> source = picture(info_), target = acquire();
  EXPECT_TRUE(copy_frame(info_, source.get(), target.get()));
  EXPECT_EQ(pixels(info_, target.get()), pixels(info_, source.get()));
}

TEST_P(CudaPool, TakesAFrameOfTheEngine) {
  // A frame on the GPU that lies as info_ says: the rows of its bytes are those of a picture of one plane,
  // grey.
  const std::string text =
      "video/x-raw(memory:CUDAMemory),format=RGBA,width=" + std::to_string(info_.size / 4) +
      ",height=1,framerate=16/1";
  const Ptr<GstCaps> caps = caps_of(text.c_str());
  GstVideoInfo flat;
  ASSERT_TRUE(gst_video_info_from_caps(&flat, caps.get()));
  ASSERT_EQ(flat.size, info_.size);
  const Ptr<GstQuery> query = allocation_query(caps.get());
  ASSERT_TRUE(memory_.choose_pool(element_.get(), query.get()));
  GstBufferPool *pool = nullptr;
  gst_query_parse_nth_allocation_pool(query.get(), 0, &pool, nullptr, nullptr, nullptr);
  const Ptr<GstBufferPool> flat_pool(pool);
  ASSERT_TRUE(gst_buffer_pool_set_active(pool, TRUE));
  GstBuffer *acquired = nullptr;
  ASSERT_EQ(gst_buffer_pool_acquire_buffer(pool, &acquired, nullptr), GST_FLOW_OK);
  Ptr<GstBuffer> frame(acquired);
  const Ptr<GstBuffer> source = picture(info_);
  ASSERT_TRUE(copy_frame(flat, source.get(), frame.get()));

  for (int i = 0; i < 3; ++i) {  // the pool's buffers are used again
    const Ptr<GstBuffer> target = acquire();
    GstMapInfo map;
    ASSERT_TRUE(gst_buffer_map(frame.get(), &map, GstMapFlags(GST_MAP_READ | cuda::kMapCuda)));
    EXPECT_TRUE(memory_.copy_frame(map.data, info_, target.get()));
    gst_buffer_unmap(frame.get(), &map);
    EXPECT_EQ(pixels(info_, target.get()), pixels(info_, source.get()));
  }
  frame.reset();
  gst_buffer_pool_set_active(pool, FALSE);
}

INSTANTIATE_TEST_SUITE_P(, CudaPool, testing::Values("NV12", "I420", "RGB", "RGBx", "BGRx", "RGBA", "BGRA"),
                         [](const auto &format) { return std::string(format.param); });

}  // namespace
}  // namespace wan::test

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
