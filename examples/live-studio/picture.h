// A picture that a page has sent for a clip to begin with.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <memory>

namespace studio {

class Picture {
 public:
  /** Decodes a baseline JPEG of at most 512 KiB and 2048x2048 pixels, as pages send them whatever the viewer
   * has chosen: no other decoder is within reach of the network. Throws BadMessage. */
  explicit Picture(GBytes *jpeg);
  ~Picture();
  Picture(const Picture &) = delete;
  Picture &operator=(const Picture &) = delete;

  GstSample *sample() const { return sample_; }
  /** A small JPEG, encoded here. */
  GBytes *thumbnail() const { return thumbnail_; }

 private:
  GstSample *sample_ = nullptr;
  GBytes *thumbnail_ = nullptr;
};

using PicturePtr = std::shared_ptr<const Picture>;

}  // namespace studio
