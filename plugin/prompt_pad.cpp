// SPDX-License-Identifier: LGPL-2.1-or-later
#include "prompt_pad.h"

#include <string>

namespace wan {
namespace {

struct PromptPad {
  std::shared_ptr<PromptTrack> track;
  GstSegment segment = {};
  GstClockTime end = 0;  // of the text before
};

PromptPad *private_of(GstPad *pad) {
  return static_cast<PromptPad *>(gst_pad_get_element_private(pad));
}

// Text of a buffer, without the end of line that parsers leave; none if it is not UTF-8.
bool read_text(GstBuffer *buffer, std::string *text) {
  text->resize(gst_buffer_get_size(buffer));
  gst_buffer_extract(buffer, 0, text->data(), text->size());
  text->resize(text->find_last_not_of(std::string("\n\r\0", 3)) + 1);
  return g_utf8_validate(text->data(), gssize(text->size()), nullptr);
}

GstFlowReturn chain(GstPad *pad, GstObject *parent, GstBuffer *buffer) {
  PromptPad &prompts = *private_of(pad);
  const GstClockTime duration = GST_BUFFER_DURATION(buffer);
  const bool stamped = GST_BUFFER_PTS_IS_VALID(buffer);
  const GstClockTime start =
      stamped ? gst_segment_to_running_time(&prompts.segment, GST_FORMAT_TIME, GST_BUFFER_PTS(buffer))
              : prompts.end;
  std::string text;
  const bool valid = read_text(buffer, &text);
  gst_buffer_unref(buffer);
  if (!valid) {
    GST_ELEMENT_ERROR(parent, STREAM, DECODE, ("A prompt that came in at prompt_sink is not UTF-8."),
                      (nullptr));
    return GST_FLOW_ERROR;
  }
  if (!GST_CLOCK_TIME_IS_VALID(start)) return GST_FLOW_OK;  // outside of the segment
  prompts.end = GST_CLOCK_TIME_IS_VALID(duration) ? start + duration : start;
  if (prompts.track->add(std::move(text), start, duration)) return GST_FLOW_OK;
  GST_ELEMENT_ERROR(parent, STREAM, FAILED,
                    ("More than %zu prompts wait at prompt_sink.", PromptTrack::kMaxCues), (nullptr));
  return GST_FLOW_ERROR;
}

void take_gap(PromptPad &prompts, GstEvent *event) {
  GstClockTime time, duration;
  gst_event_parse_gap(event, &time, &duration);
  if (GST_CLOCK_TIME_IS_VALID(duration)) time += duration;
  time = gst_segment_to_running_time(&prompts.segment, GST_FORMAT_TIME, time);
  if (GST_CLOCK_TIME_IS_VALID(time)) prompts.track->advance(time);
}

// Nothing goes on from here: these events are not of the video.
gboolean take_event(GstPad *pad, GstObject *, GstEvent *event) {
  PromptPad &prompts = *private_of(pad);
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_STREAM_START:
    case GST_EVENT_FLUSH_STOP:
      prompts.track->reset();
      prompts.end = 0;
      break;
    case GST_EVENT_SEGMENT:
      gst_event_copy_segment(event, &prompts.segment);
      break;
    case GST_EVENT_GAP:
      take_gap(prompts, event);
      break;
    case GST_EVENT_EOS:
      prompts.track->end();
      break;
    default:
      break;
  }
  gst_event_unref(event);
  return TRUE;
}

}  // namespace

GstPad *prompt_pad_new(GstPadTemplate *pad_template, std::shared_ptr<PromptTrack> track) {
  GstPad *pad = gst_pad_new_from_template(pad_template, "prompt_sink");
  auto *prompts = new PromptPad{std::move(track)};
  gst_segment_init(&prompts->segment, GST_FORMAT_TIME);
  gst_pad_set_element_private(pad, prompts);
  g_object_weak_ref(
      G_OBJECT(pad), [](gpointer prompts, GObject *) { delete static_cast<PromptPad *>(prompts); }, prompts);
  gst_pad_set_chain_function(pad, chain);
  gst_pad_set_event_function(pad, take_event);
  gst_pad_set_iterate_internal_links_function(pad,
                                              [](GstPad *, GstObject *) -> GstIterator * { return nullptr; });
  return pad;
}

}  // namespace wan
