// SPDX-License-Identifier: LGPL-2.1-or-later
#include "negotiation.h"

#include <gst/sdp/sdp.h>

#include <algorithm>

#include "json.h"

namespace studio {
namespace {

// A viewer sends nothing, so what it says of what it sends is not needed, and need not be right.
void leave_out_sources(GstSDPMessage *sdp) {
  auto *media = const_cast<GstSDPMedia *>(gst_sdp_message_get_media(sdp, 0));
  for (guint i = gst_sdp_media_attributes_len(media); i-- > 0;)
    if (g_str_has_prefix(gst_sdp_media_get_attribute(media, i)->key, "ssrc"))
      gst_sdp_media_remove_attribute(media, i);
}

// By which the connection's encryption knows the peer. webrtcbin of GStreamer 1.26 does not ask for it.
bool has_fingerprint(const GstSDPMessage *sdp) {
  return gst_sdp_media_get_attribute_val(gst_sdp_message_get_media(sdp, 0), "fingerprint") ||
         gst_sdp_message_get_attribute_val(sdp, "fingerprint");
}

}  // namespace

Description parse_answer(const std::string &text) {
  GstSDPMessage *sdp = nullptr;
  // An empty text is a critical warning to the parser.
  const bool parsed = !text.empty() && gst_sdp_message_new_from_text(text.c_str(), &sdp) == GST_SDP_OK;
  const bool is_answer = parsed && gst_sdp_message_medias_len(sdp) == 1 &&
                         g_strcmp0(gst_sdp_media_get_media(gst_sdp_message_get_media(sdp, 0)), "video") == 0;
  if (!is_answer) {
    if (sdp) gst_sdp_message_free(sdp);
    throw BadMessage("The answer is no session description with one video.");
  }
  leave_out_sources(sdp);
  Description answer(gst_webrtc_session_description_new(GST_WEBRTC_SDP_TYPE_ANSWER, sdp),
                     gst_webrtc_session_description_free);
  if (!has_fingerprint(sdp)) throw BadMessage("The answer has no fingerprint.");
  return answer;
}

void check_candidate(const std::string &candidate) {
  const bool printable =
      std::all_of(candidate.begin(), candidate.end(), [](char c) { return g_ascii_isprint(c) != 0; });
  if (!printable || !candidate.starts_with("candidate:")) throw BadMessage("The candidate is none.");
}

}  // namespace studio
