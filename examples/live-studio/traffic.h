// What one connection may send: its bytes a second, and how many without a whole message. libsoup reads for
// as long as there is something to read, and keeps the fragments of a message without an end.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gio/gio.h>

#include <memory>

#include "allowance.h"

namespace studio {

class Traffic {
 public:
  /** How many of `wanted` bytes may be read now. */
  gsize allowed(gsize wanted);
  /** That many were read. */
  void count(gsize bytes);
  /** Milliseconds until something may be read. */
  guint wait();
  /** More came in than a message, or a request with all before it, may have. */
  bool is_too_much() const;
  /** A message, a ping's answer or the request for a WebSocket was whole. */
  void was_whole() { unfinished_ = 0; }

 private:
  Allowance bytes_{640 * 1024, 256 * 1024};  // the largest picture, and what goes with it
  gsize unfinished_ = 0;
};

/** A stream that reads from `base` as the traffic allows, and writes to it. */
GIOStream *limit_stream(GIOStream *base, std::shared_ptr<Traffic> traffic);

}  // namespace studio
