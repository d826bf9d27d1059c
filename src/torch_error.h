// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What exceptions of LibTorch and of the system mean.
#pragma once

#include <functional>
#include <string>

#include "error.h"

namespace wan {

/// Of the exception that is being handled. advice: what to change where a GPU has too little memory. Throws
/// std::bad_alloc on, since there may be no memory to tell of it.
Error current_error(const std::function<std::string()> &advice);

}  // namespace wan
