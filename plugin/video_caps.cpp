// SPDX-License-Identifier: LGPL-2.1-or-later
#include "video_caps.h"

#include <algorithm>
#include <utility>

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

bool is_rgb(const GstStructure *structure) {
  const char *format = gst_structure_get_string(structure, "format");
  return GST_VIDEO_FORMAT_INFO_IS_RGB(gst_video_format_get_info(gst_video_format_from_string(format)));
}

bool colors_supported(const GstVideoColorimetry &colors, bool rgb) {
  if (rgb) return colors.range == GST_VIDEO_COLOR_RANGE_0_255;
  return (colors.matrix == GST_VIDEO_COLOR_MATRIX_BT601 || colors.matrix == GST_VIDEO_COLOR_MATRIX_BT709) &&
         (colors.range == GST_VIDEO_COLOR_RANGE_0_255 || colors.range == GST_VIDEO_COLOR_RANGE_16_235);
}

const char *usual_colorimetry(const GstStructure *structure) {
  if (is_rgb(structure)) return GST_VIDEO_COLORIMETRY_SRGB;
  int height = 0;
  gst_structure_get_int(structure, "height", &height);
  return height >= 720 ? GST_VIDEO_COLORIMETRY_BT709 : GST_VIDEO_COLORIMETRY_BT601;
}

bool colorimetry_supported(const GValue *text, bool rgb) {
  GstVideoColorimetry colors;
  return G_VALUE_HOLDS_STRING(text) && gst_video_colorimetry_from_string(&colors, g_value_get_string(text)) &&
         colors_supported(colors, rgb);
}

// Leaves of a list only what can be made; no change if that is nothing.
void keep_supported_colorimetry(GstStructure *structure) {
  const GValue *list = gst_structure_get_value(structure, "colorimetry");
  if (!list || !GST_VALUE_HOLDS_LIST(list)) return;
  GValue possible = G_VALUE_INIT;
  g_value_init(&possible, GST_TYPE_LIST);
  for (guint i = 0; i < gst_value_list_get_size(list); ++i) {
    const GValue *item = gst_value_list_get_value(list, i);
    if (colorimetry_supported(item, is_rgb(structure))) gst_value_list_append_value(&possible, item);
  }
  if (gst_value_list_get_size(&possible) > 0)
    gst_structure_take_value(structure, "colorimetry", &possible);
  else
    g_value_unset(&possible);
}

void fixate_colorimetry(GstStructure *structure) {
  const char *usual = usual_colorimetry(structure);
  keep_supported_colorimetry(structure);
  if (gst_structure_has_field(structure, "colorimetry"))
    gst_structure_fixate_field_string(structure, "colorimetry", usual);
  else
    gst_structure_set(structure, "colorimetry", G_TYPE_STRING, usual, nullptr);
}

// Caps of one structure with one format, which it takes.
GstCaps *fixate_alternative(GstCaps *caps, const GValue *format, const WanDefaults &defaults) {
  GstStructure *structure = gst_caps_get_structure(caps, 0);
  gst_structure_set_value(structure, "format", format);
  for (const auto &[side, usual] : {std::pair{"width", defaults.width}, {"height", defaults.height}}) {
    keep_multiples(structure, side, defaults.size_multiple);
    gst_structure_fixate_field_nearest_int(structure, side, usual);
  }
  gst_structure_fixate_field_nearest_fraction(structure, "framerate", defaults.fps_n, defaults.fps_d);
  fixate_colorimetry(structure);
  return gst_caps_fixate(caps);
}

// GstVideoInfo has usual colours in place of such as do not belong to the format.
bool can_be_made(const GstCaps *caps, const WanDefaults &defaults) {
  const GstStructure *structure = gst_caps_get_structure(caps, 0);
  GstVideoInfo info;
  WanPixelLayout layout;
  std::string reason;
  return colorimetry_supported(gst_structure_get_value(structure, "colorimetry"), is_rgb(structure)) &&
         gst_video_info_from_caps(&info, caps) && pixel_layout(info, defaults, &layout, &reason);
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

std::string size_text(const GstVideoInfo &info) {
  return "width=" + std::to_string(info.width) + ", height=" + std::to_string(info.height);
}

}  // namespace

// A scaler offers its output's size first and then any other, and an encoder may name colours that cannot be
// made beside those that can.
GstCaps *fixate_caps(GstCaps *caps, const WanDefaults &defaults) {
  GstCaps *first = nullptr, *chosen = nullptr;
  for (guint i = 0; !chosen && i < gst_caps_get_size(caps); ++i) {
    const GValue *formats = gst_structure_get_value(gst_caps_get_structure(caps, i), "format");
    const bool list = GST_VALUE_HOLDS_LIST(formats);
    for (guint j = 0; !chosen && j < (list ? gst_value_list_get_size(formats) : 1); ++j) {
      const GValue *format = list ? gst_value_list_get_value(formats, j) : formats;
      GstCaps *candidate = fixate_alternative(gst_caps_copy_nth(caps, i), format, defaults);
      if (can_be_made(candidate, defaults)) chosen = gst_caps_ref(candidate);
      if (!first) first = gst_caps_ref(candidate);
      gst_caps_unref(candidate);
    }
  }
  gst_caps_unref(caps);
  if (!chosen) return first;
  gst_caps_unref(first);
  return chosen;
}

GstCaps *frame_caps(const GstCaps *caps) {
  const GstStructure *all = gst_caps_get_structure(caps, 0);
  GstStructure *fields = gst_structure_new_empty(gst_structure_get_name(all));
  for (const char *name :
       {"format", "width", "height", "framerate", "pixel-aspect-ratio", "interlace-mode", "colorimetry"})
    gst_structure_set_value(fields, name, gst_structure_get_value(all, name));
  GstCaps *frames = gst_caps_new_full(fields, nullptr);
  gst_caps_set_features(frames, 0, gst_caps_features_copy(gst_caps_get_features(caps, 0)));
  return frames;
}

bool same_layout(const WanPixelLayout &one, const WanPixelLayout &other) {
  return one.format == other.format && one.matrix == other.matrix && one.full_range == other.full_range &&
         one.width == other.width && one.height == other.height && one.size == other.size &&
         std::equal(one.offset, one.offset + 3, other.offset) &&
         std::equal(one.stride, one.stride + 3, other.stride);
}

bool pixel_layout(const GstVideoInfo &info, const WanDefaults &defaults, WanPixelLayout *layout,
                  std::string *reason) {
  if (info.width % defaults.size_multiple || info.height % defaults.size_multiple) {
    *reason = "The caps ask for " + size_text(info) + ", but both must be multiples of " +
              std::to_string(defaults.size_multiple) + " for this checkpoint.";
    return false;
  }
  if (!colors_supported(info.colorimetry, GST_VIDEO_INFO_IS_RGB(&info))) {
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
