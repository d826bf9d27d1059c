// SPDX-License-Identifier: LGPL-2.1-or-later
#include "video_caps.h"

#include <algorithm>

namespace wan {
namespace {

// Leaves to choose from only what the model can make; false and no change if that is nothing.
bool keep_multiples(GstStructure *structure, const char *field, int multiple) {
  GValue multiples = G_VALUE_INIT, possible = G_VALUE_INIT;
  g_value_init(&multiples, GST_TYPE_INT_RANGE);
  gst_value_set_int_range_step(&multiples, multiple, G_MAXINT / multiple * multiple, multiple);
  const bool any = gst_value_intersect(&possible, gst_structure_get_value(structure, field), &multiples);
  if (any) gst_structure_take_value(structure, field, &possible);
  g_value_unset(&multiples);
  return any;
}

// The first alternative with a size that can be made, for a scaler offers its output's size first and then
// any other. If there is none the first of all, to be refused by name.
GstCaps *choose_alternative(GstCaps *caps, int multiple) {
  caps = gst_caps_make_writable(caps);
  guint chosen = 0;
  for (guint i = 0; i < gst_caps_get_size(caps); ++i) {
    GstStructure *structure = gst_caps_get_structure(caps, i);
    if (keep_multiples(structure, "width", multiple) && keep_multiples(structure, "height", multiple)) {
      chosen = i;
      break;
    }
  }
  GstCaps *alternative = gst_caps_copy_nth(caps, chosen);
  gst_caps_unref(caps);
  return alternative;
}

const char *usual_colorimetry(const GstStructure *structure) {
  const char *format = gst_structure_get_string(structure, "format");
  const GstVideoFormatInfo *info = gst_video_format_get_info(gst_video_format_from_string(format));
  if (GST_VIDEO_FORMAT_INFO_IS_RGB(info)) return GST_VIDEO_COLORIMETRY_SRGB;
  int height = 0;
  gst_structure_get_int(structure, "height", &height);
  return height >= 720 ? GST_VIDEO_COLORIMETRY_BT709 : GST_VIDEO_COLORIMETRY_BT601;
}

void fixate_colorimetry(GstStructure *structure) {
  const char *usual = usual_colorimetry(structure);
  if (gst_structure_has_field(structure, "colorimetry"))
    gst_structure_fixate_field_string(structure, "colorimetry", usual);
  else
    gst_structure_set(structure, "colorimetry", G_TYPE_STRING, usual, nullptr);
}

WanPixelFormat pixel_format(GstVideoFormat format) {
  switch (format) {
    case GST_VIDEO_FORMAT_NV12:
      return WAN_PIXEL_NV12;
    case GST_VIDEO_FORMAT_I420:
      return WAN_PIXEL_I420;
    case GST_VIDEO_FORMAT_RGB:
      return WAN_PIXEL_RGB;
    case GST_VIDEO_FORMAT_RGBx:
    case GST_VIDEO_FORMAT_RGBA:
      return WAN_PIXEL_RGBX;
    default:  // the template has BGRx and BGRA besides
      return WAN_PIXEL_BGRX;
  }
}

bool colors_supported(const GstVideoInfo &info) {
  const GstVideoColorimetry &colors = info.colorimetry;
  if (GST_VIDEO_INFO_IS_RGB(&info)) return colors.range == GST_VIDEO_COLOR_RANGE_0_255;
  return (colors.matrix == GST_VIDEO_COLOR_MATRIX_BT601 || colors.matrix == GST_VIDEO_COLOR_MATRIX_BT709) &&
         (colors.range == GST_VIDEO_COLOR_RANGE_0_255 || colors.range == GST_VIDEO_COLOR_RANGE_16_235);
}

std::string size_text(const GstVideoInfo &info) {
  return "width=" + std::to_string(info.width) + ", height=" + std::to_string(info.height);
}

}  // namespace

GstCaps *fixate_caps(GstCaps *caps, const WanDefaults &defaults) {
  caps = choose_alternative(caps, defaults.size_multiple);
  GstStructure *structure = gst_caps_get_structure(caps, 0);
  gst_structure_fixate_field_nearest_int(structure, "width", defaults.width);
  gst_structure_fixate_field_nearest_int(structure, "height", defaults.height);
  gst_structure_fixate_field_nearest_fraction(structure, "framerate", defaults.fps_n, defaults.fps_d);
  gst_structure_fixate_field(structure, "format");
  fixate_colorimetry(structure);
  return gst_caps_fixate(caps);
}

bool pixel_layout(const GstVideoInfo &info, const WanDefaults &defaults, WanPixelLayout *layout,
                  std::string *reason) {
  if (info.width % defaults.size_multiple || info.height % defaults.size_multiple) {
    *reason = "The caps ask for " + size_text(info) + ", but both must be multiples of " +
              std::to_string(defaults.size_multiple) + " for this checkpoint.";
    return false;
  }
  if (!colors_supported(info)) {
    gchar *colorimetry = gst_video_colorimetry_to_string(&info.colorimetry);
    *reason = std::string("The caps ask for colorimetry=") + (colorimetry ? colorimetry : "unknown") +
              ", but only BT.601 and BT.709 (YUV) and full-range RGB can be made.";
    g_free(colorimetry);
    return false;
  }
  *layout = {};
  layout->format = pixel_format(GST_VIDEO_INFO_FORMAT(&info));
  layout->matrix =
      info.colorimetry.matrix == GST_VIDEO_COLOR_MATRIX_BT709 ? WAN_MATRIX_BT709 : WAN_MATRIX_BT601;
  layout->full_range = info.colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255;
  layout->width = info.width;
  layout->height = info.height;
  std::copy_n(info.offset, 3, layout->offset);
  std::copy_n(info.stride, 3, layout->stride);
  layout->size = info.size;
  return true;
}

}  // namespace wan
