// Pictures from files and URIs, decoded by GStreamer's own elements.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "wan/engine.h"

namespace wan {

/** RGB, 8 bits, row after row without padding. */
struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;
};

/** Pixels of a picture; a greater one is refused. */
inline constexpr int64_t kMaxPicturePixels = int64_t{1} << 28;

/** The first picture of a file or URI, upright as its orientation tag says; transparency is dropped. Blocks
 * until it is decoded. If it cannot be: none, WAN_NOT_FOUND or WAN_INVALID, and a sentence that names
 * `location`; WAN_CANCELLED once `cancelled`. */
std::shared_ptr<const Picture> read_picture(const std::string &location,
                                            const std::function<bool()> &cancelled, WanStatus *status,
                                            std::string *reason);

/** The same of a raw video frame, of any format that GStreamer converts. */
std::shared_ptr<const Picture> convert_picture(GstSample *sample, std::string *reason);

}  // namespace wan
