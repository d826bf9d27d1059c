// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>

#include "common/reference.h"

namespace wan::test {

/// For fixtures that compare with a reference: prints at a test's end how far it was off at most, so that a
/// log shows how near to their bounds the results are.
class LargestError {
 public:
  ~LargestError() { std::cout << "largest relative error " << largest_ << "\n"; }
  void expect_parity(const at::Tensor &out, const at::Tensor &expected, const std::string &what,
                     double tolerance) {
    const double error = relative_error(out, expected);
    largest_ = std::max(largest_, error);
    EXPECT_LE(error, tolerance) << what;
  }

 private:
  double largest_ = 0;
};

}  // namespace wan::test
