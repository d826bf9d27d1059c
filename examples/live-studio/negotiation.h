// What a page says of its side of the video connection, read with the distrust that it needs.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/webrtc/webrtc.h>

#include <memory>
#include <string>

namespace studio {

using Description = std::shared_ptr<GstWebRTCSessionDescription>;

/** Reads an answer to what was offered. The parser takes any text; webrtcbin checks what this lets through.
 * Throws BadMessage. */
Description parse_answer(const std::string &text);

/** Throws BadMessage if that is no candidate. */
void check_candidate(const std::string &candidate);

}  // namespace studio
