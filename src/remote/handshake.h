// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Both ends of a connection prove to each other that they know the same secret, without sending it, and that
// they are of the same version.
#pragma once

#include <string>

#include "remote/channel.h"

namespace wan {

/// The environment variable GST_WAN_SECRET; empty where it is not set.
std::string shared_secret();

/// The element's end. Throws wan::Error: WAN_INVALID where the worker has another secret or version.
void greet_worker(Channel &channel, const std::string &secret, const Channel::Check &check);
/// The worker's end. Throws likewise, and has told the element.
void greet_element(Channel &channel, const std::string &secret);

}  // namespace wan
