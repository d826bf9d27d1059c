// SPDX-License-Identifier: LGPL-2.1-or-later
#include "frames.h"

#include <cstring>

namespace wan {
namespace {

void paint_black_rgb(GstVideoFrame *frame) {
  const auto *format = frame->info.finfo;
  std::memset(GST_VIDEO_FRAME_PLANE_DATA(frame, 0), 0, frame->info.size);
  if (GST_VIDEO_FORMAT_INFO_PSTRIDE(format, 0) != 4) return;
  // Alpha, or the byte in its place, comes last in all formats of four bytes.
  for (int y = 0; y < GST_VIDEO_FRAME_HEIGHT(frame); ++y) {
    auto *row = static_cast<guint8 *>(GST_VIDEO_FRAME_PLANE_DATA(frame, 0)) +
                y * GST_VIDEO_FRAME_PLANE_STRIDE(frame, 0);
    for (int x = 0; x < GST_VIDEO_FRAME_WIDTH(frame); ++x) row[4 * x + 3] = 255;
  }
}

void paint_black_yuv(GstVideoFrame *frame) {
  const GstVideoInfo &info = frame->info;
  const int luma = info.colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255 ? 0 : 16;
  for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(frame); ++plane) {
    const int rows = GST_VIDEO_FRAME_COMP_HEIGHT(frame, plane);
    std::memset(GST_VIDEO_FRAME_PLANE_DATA(frame, plane), plane == 0 ? luma : 128,
                gsize(rows) * GST_VIDEO_FRAME_PLANE_STRIDE(frame, plane));
  }
}

// A black picture of that size, seen so far.
GstVideoOverlayComposition *black_overlay(int width, int height, double opacity) {
  constexpr int kSide = 2;  // the overlay is scaled
  const gsize size = 4 * kSide * kSide;
  GstBuffer *pixels = gst_buffer_new_allocate(nullptr, size, nullptr);
  for (gsize i = 0; i < size; i += 4) gst_buffer_fill(pixels, i, "\0\0\0\xff", 4);
  gst_buffer_add_video_meta(pixels, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_BGRA, kSide, kSide);
  GstVideoOverlayRectangle *rectangle = gst_video_overlay_rectangle_new_raw(
      pixels, 0, 0, guint(width), guint(height), GST_VIDEO_OVERLAY_FORMAT_FLAG_NONE);
  gst_buffer_unref(pixels);
  gst_video_overlay_rectangle_set_global_alpha(rectangle, float(opacity));
  GstVideoOverlayComposition *composition = gst_video_overlay_composition_new(rectangle);
  gst_video_overlay_rectangle_unref(rectangle);
  return composition;
}

}  // namespace

GstBuffer *wrap_frame(const Chunk &chunk, int frame, gsize size, bool shared) {
  auto *owner = new std::shared_ptr<WanFrames>(chunk.frames);
  GstBuffer *buffer = gst_buffer_new();
  gst_buffer_append_memory(
      buffer, gst_memory_new_wrapped(
                  shared ? GST_MEMORY_FLAG_READONLY : GstMemoryFlags(0),
                  chunk.frames->data + frame * chunk.frames->frame_size, size, 0, size, owner,
                  [](gpointer owner) { delete static_cast<std::shared_ptr<WanFrames> *>(owner); }));
  return buffer;
}

GstBuffer *black_frame(const GstVideoInfo &info) {
  GstBuffer *buffer = gst_buffer_new_allocate(nullptr, info.size, nullptr);
  GstVideoFrame frame;
  gst_video_frame_map(&frame, &info, buffer, GST_MAP_WRITE);
  if (GST_VIDEO_INFO_IS_RGB(&info))
    paint_black_rgb(&frame);
  else
    paint_black_yuv(&frame);
  gst_video_frame_unmap(&frame);
  return buffer;
}

void fade_in(const GstVideoInfo &info, GstBuffer **buffer, double visible) {
  GstBuffer *faded = gst_buffer_copy_deep(*buffer);
  GstVideoOverlayComposition *black = black_overlay(info.width, info.height, 1 - visible);
  GstVideoFrame frame;
  gst_video_frame_map(&frame, &info, faded, GST_MAP_READWRITE);
  gst_video_overlay_composition_blend(black, &frame);
  gst_video_frame_unmap(&frame);
  gst_video_overlay_composition_unref(black);
  gst_buffer_unref(*buffer);
  *buffer = faded;
}

}  // namespace wan
