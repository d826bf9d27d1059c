// SPDX-License-Identifier: LGPL-2.1-or-later
#include "prompt_pad.h"

#include <string>
#include <utility>

#include "log.h"
#include "side_pad.h"

namespace wan {
namespace {

// Far more than a text encoder reads. A buffer beyond that is no prompt but a mistake.
constexpr gsize kMaxText = 65536;

struct PromptPad {
  std::shared_ptr<PromptTrack> track;
  GstSegment segment = {};
  bool is_markup = false;
  GstClockTime end = GST_CLOCK_TIME_NONE;  // of the text before
};

PromptPad *private_of(GstPad *pad) {
  return static_cast<PromptPad *>(gst_pad_get_element_private(pad));
}

// What Pango's markup says, without its elements and entities. False if it is none.
bool strip_markup(std::string *text) {
  GMarkupParser parser = {};
  std::string plain;
  parser.text = [](GMarkupParseContext *, const gchar *part, gsize length, gpointer plain, GError **) {
    static_cast<std::string *>(plain)->append(part, length);
  };
  GMarkupParseContext *context = g_markup_parse_context_new(&parser, GMarkupParseFlags(0), &plain, nullptr);
  const std::string document = "<markup>" + *text + "</markup>";
  const bool parsed =
      g_markup_parse_context_parse(context, document.data(), gssize(document.size()), nullptr) &&
      g_markup_parse_context_end_parse(context, nullptr);
  g_markup_parse_context_free(context);
  if (parsed) *text = std::move(plain);
  return parsed;
}

// Text of a buffer, without the end of line that parsers leave; else why it is none.
const char *read_text(GstBuffer *buffer, bool is_markup, std::string *text) {
  if (gst_buffer_get_size(buffer) > kMaxText) return "has more than 65536 bytes";
  text->resize(gst_buffer_get_size(buffer));
  text->resize(gst_buffer_extract(buffer, 0, text->data(), text->size()));
  const std::string line_ends("\n\r\0", 3);
  text->resize(text->find_last_not_of(line_ends) + 1);
  if (!g_utf8_validate(text->data(), gssize(text->size()), nullptr)) return "is not UTF-8";
  if (is_markup && !strip_markup(text)) return "is not the markup that its caps say";
  return nullptr;
}

// When the text is shown. False if that is outside of the segment. start: NONE where it has no time.
bool cue_times(PromptPad &prompts, GstBuffer *buffer, GstClockTime *start, GstClockTime *end) {
  const bool timed = prompts.segment.format == GST_FORMAT_TIME;
  const GstClockTime duration = GST_BUFFER_DURATION(buffer);
  if (timed && GST_BUFFER_PTS_IS_VALID(buffer)) {
    const GstClockTime pts = GST_BUFFER_PTS(buffer);
    guint64 first, last;
    if (!gst_segment_clip(&prompts.segment, GST_FORMAT_TIME, pts, later(pts, duration), &first, &last))
      return false;
    *start = gst_segment_to_running_time(&prompts.segment, GST_FORMAT_TIME, first);
    const bool open = !GST_CLOCK_TIME_IS_VALID(duration) || !GST_CLOCK_TIME_IS_VALID(last);
    *end = open ? GST_CLOCK_TIME_NONE : running_end(prompts.segment, last);
    return GST_CLOCK_TIME_IS_VALID(*start);
  }
  *start = timed ? prompts.end : GST_CLOCK_TIME_NONE;
  if (timed && !GST_CLOCK_TIME_IS_VALID(*start) && GST_CLOCK_TIME_IS_VALID(duration)) *start = 0;
  *end = GST_CLOCK_TIME_IS_VALID(*start) ? later(*start, duration) : GST_CLOCK_TIME_NONE;
  return true;
}

bool add(PromptPad &prompts, std::string text, GstClockTime start, GstClockTime end) {
  prompts.end = end;
  if (!GST_CLOCK_TIME_IS_VALID(start)) return prompts.track->add_now(std::move(text));
  const bool open = !GST_CLOCK_TIME_IS_VALID(end) || end < start;
  return prompts.track->add(std::move(text), start, open ? PromptTrack::kOpen : end - start);
}

GstFlowReturn chain(GstPad *pad, GstObject *parent, GstBuffer *buffer) {
  PromptPad &prompts = *private_of(pad);
  std::string text;
  GstClockTime start, end;
  const char *fault = read_text(buffer, prompts.is_markup, &text);
  const bool shown = !fault && cue_times(prompts, buffer, &start, &end);
  gst_buffer_unref(buffer);
  // Of one among many; the others count.
  if (shown)
    GST_DEBUG_OBJECT(pad, "prompt from %" GST_TIME_FORMAT " to %" GST_TIME_FORMAT ": %s",
                     GST_TIME_ARGS(start), GST_TIME_ARGS(end), text.c_str());
  if (fault)
    GST_ELEMENT_WARNING(parent, STREAM, DECODE, ("A prompt on prompt_sink was left out: it %s.", fault),
                        (nullptr));
  if (!shown || add(prompts, std::move(text), start, end)) return GST_FLOW_OK;
  return GST_FLOW_FLUSHING;
}

void take_gap(PromptPad &prompts, GstEvent *event) {
  const GstClockTime time = gap_end(prompts.segment, event);
  if (GST_CLOCK_TIME_IS_VALID(time)) prompts.track->advance(time);
}

void take_caps(PromptPad &prompts, GstEvent *event) {
  GstCaps *caps;
  gst_event_parse_caps(event, &caps);
  const gchar *format = gst_structure_get_string(gst_caps_get_structure(caps, 0), "format");
  prompts.is_markup = g_strcmp0(format, "pango-markup") == 0;
}

// Nothing goes on from here: these events are not of the video.
gboolean take_event(GstPad *pad, GstObject *, GstEvent *event) {
  PromptPad &prompts = *private_of(pad);
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_STREAM_START:  // behind another stream, whose prompts stay
      prompts.track->set_linked(true);
      prompts.track->set_ended(false);
      break;
    case GST_EVENT_FLUSH_START:
      prompts.track->set_flushing(true);
      break;
    case GST_EVENT_FLUSH_STOP:
      prompts.track->reset();
      prompts.track->set_flushing(false);
      prompts.end = GST_CLOCK_TIME_NONE;
      break;
    case GST_EVENT_CAPS:
      take_caps(prompts, event);
      break;
    case GST_EVENT_SEGMENT:
      gst_event_copy_segment(event, &prompts.segment);
      break;
    case GST_EVENT_GAP:
      take_gap(prompts, event);
      break;
    case GST_EVENT_EOS:
      prompts.track->set_ended(true);
      break;
    default:
      break;
  }
  gst_event_unref(event);
  return TRUE;
}

// A film that is played again is read again.
gboolean activate(GstPad *pad, GstObject *, GstPadMode, gboolean active) {
  PromptPad &prompts = *private_of(pad);
  prompts.track->set_flushing(!active);
  if (!active) prompts.track->reset();
  prompts.end = GST_CLOCK_TIME_NONE;
  return TRUE;
}

}  // namespace

void prompt_pad_update_link(GstPad *pad) {
  private_of(pad)->track->set_linked(is_fed(pad));
}

GstPad *prompt_pad_new(GstPadTemplate *pad_template, std::shared_ptr<PromptTrack> track) {
  GstPad *pad = gst_pad_new_from_template(pad_template, "prompt_sink");
  auto *prompts = new PromptPad{std::move(track)};
  prompts->track->set_linked(false);
  gst_segment_init(&prompts->segment, GST_FORMAT_UNDEFINED);
  gst_pad_set_element_private(pad, prompts);
  g_object_weak_ref(
      G_OBJECT(pad), [](gpointer prompts, GObject *) { delete static_cast<PromptPad *>(prompts); }, prompts);
  gst_pad_set_chain_function(pad, chain);
  gst_pad_set_event_function(pad, take_event);
  gst_pad_set_activatemode_function(pad, activate);
  watch_link(pad, prompt_pad_update_link);
  return pad;
}

}  // namespace wan
