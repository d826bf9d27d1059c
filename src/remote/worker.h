// SPDX-License-Identifier: LGPL-2.1-or-later
//
// gst-wan-worker: gives the devices of this host to an element on another one.
#pragma once

#include <string>

namespace wan {

struct WorkerOptions {
  std::string model_dir, device = "auto", memory = "auto";  // as the element's properties
  std::string listen = "127.0.0.1:5890";                    // an IP address and a port, 0: any that is free
};

/// Serves one element after the other, and returns never. The experts are loaded when the first one asks,
/// and stay. Throws wan::Error where it cannot begin, or where a device has failed for good.
[[noreturn]] void serve_elements(const WorkerOptions &options);

}  // namespace wan
