// SPDX-License-Identifier: LGPL-2.1-or-later
#include "picture_pad.h"

#include <utility>

#include "log.h"
#include "side_pad.h"

namespace wan {
namespace {

struct PicturePad {
  std::shared_ptr<PictureTrack> track;
  GstSegment segment = {};
};

PicturePad &private_of(GstPad *pad) {
  return *static_cast<PicturePad *>(gst_pad_get_element_private(pad));
}

// False if it is outside of the segment.
bool start_of(const PicturePad &pictures, GstBuffer *buffer, GstClockTime *start) {
  *start = 0;
  if (pictures.segment.format != GST_FORMAT_TIME || !GST_BUFFER_PTS_IS_VALID(buffer)) return true;
  *start = gst_segment_to_running_time(&pictures.segment, GST_FORMAT_TIME, GST_BUFFER_PTS(buffer));
  return GST_CLOCK_TIME_IS_VALID(*start);
}

GstFlowReturn chain(GstPad *pad, GstObject *, GstBuffer *buffer) {
  PicturePad &pictures = private_of(pad);
  GstClockTime start;
  const bool shown = start_of(pictures, buffer, &start);
  GstCaps *caps = gst_pad_get_current_caps(pad);
  PictureTrack::Sample sample(gst_sample_new(buffer, caps, &pictures.segment, nullptr), gst_sample_unref);
  gst_clear_caps(&caps);
  gst_buffer_unref(buffer);
  if (!shown) return GST_FLOW_OK;
  GST_DEBUG_OBJECT(pad, "picture from %" GST_TIME_FORMAT " on", GST_TIME_ARGS(start));
  return pictures.track->add(std::move(sample), start) ? GST_FLOW_OK : GST_FLOW_FLUSHING;
}

void take_gap(PicturePad &pictures, GstEvent *event) {
  const GstClockTime time = gap_end(pictures.segment, event);
  if (GST_CLOCK_TIME_IS_VALID(time)) pictures.track->advance(time);
}

// Nothing goes on from here: these events are not of the video that is made.
gboolean take_event(GstPad *pad, GstObject *, GstEvent *event) {
  PicturePad &pictures = private_of(pad);
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_STREAM_START:
      pictures.track->set_linked(true);  // who sends is linked, in whatever way
      pictures.track->set_ended(false);
      break;
    case GST_EVENT_FLUSH_START:
      pictures.track->set_flushing(true);
      break;
    case GST_EVENT_FLUSH_STOP:
      pictures.track->reset();
      pictures.track->set_flushing(false);
      break;
    case GST_EVENT_SEGMENT:
      gst_event_copy_segment(event, &pictures.segment);
      break;
    case GST_EVENT_GAP:
      take_gap(pictures, event);
      break;
    case GST_EVENT_EOS:
      pictures.track->set_ended(true);
      break;
    default:
      break;
  }
  gst_event_unref(event);
  return TRUE;
}

// A stream that is played again is read again.
gboolean activate(GstPad *pad, GstObject *, GstPadMode, gboolean active) {
  PictureTrack &track = *private_of(pad).track;
  track.set_flushing(!active);
  if (!active) track.reset();
  return TRUE;
}

}  // namespace

void picture_pad_update_link(GstPad *pad) {
  private_of(pad).track->set_linked(is_fed(pad));
}

GstPad *picture_pad_new(GstPadTemplate *pad_template, const char *name, std::shared_ptr<PictureTrack> track) {
  GstPad *pad = gst_pad_new_from_template(pad_template, name);
  auto *pictures = new PicturePad{std::move(track)};
  gst_segment_init(&pictures->segment, GST_FORMAT_UNDEFINED);
  gst_pad_set_element_private(pad, pictures);
  g_object_weak_ref(
      G_OBJECT(pad), [](gpointer pictures, GObject *) { delete static_cast<PicturePad *>(pictures); },
      pictures);
  gst_pad_set_chain_function(pad, chain);
  gst_pad_set_event_function(pad, take_event);
  gst_pad_set_activatemode_function(pad, activate);
  watch_link(pad, picture_pad_update_link);
  return pad;
}

}  // namespace wan
