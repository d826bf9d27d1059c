// So much of something at once, and so much a second.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <glib.h>

#include <algorithm>

namespace studio {

class Allowance {
 public:
  Allowance(double at_once, double per_second) : at_once_(at_once), per_second_(per_second), left_(at_once) {}

  double left() {
    const gint64 now = g_get_monotonic_time();
    left_ = std::min(left_ + per_second_ * double(now - counted_) / G_USEC_PER_SEC, at_once_);
    counted_ = now;
    return left_;
  }
  void take(double amount) { left_ -= amount; }
  /** False if there is less than one left. */
  bool take_one() {
    const bool is_left = left() >= 1;
    if (is_left) take(1);
    return is_left;
  }

 private:
  double at_once_, per_second_, left_;
  gint64 counted_ = g_get_monotonic_time();
};

}  // namespace studio
