// SPDX-License-Identifier: LGPL-2.1-or-later
#include "source.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace studio {
namespace {

constexpr size_t kLongestPrompt = 2000;  // bytes
constexpr size_t kLongestQueue = 32;
// Held before a clip goes on air, so that it does not falter between the chunks that it is decoded in.
constexpr guint64 kPrebuffer = 300 * GST_MSECOND;
// Of these messages each queued clip gets one.
constexpr std::array kEnds = {"wan-clip-done", "wan-clip-skipped", "wan-clip-failed"};

struct Setting {
  const char *name, *property;  // in a message, of wansrc
};
constexpr std::array kSettings = {Setting{"prompt", "prompt"}, Setting{"seed", "seed"},
                                  Setting{"steps", "steps"}, Setting{"guidance", "guidance-scale"}};

struct Value {
  Value() = default;
  Value(const Value &) = delete;
  Value &operator=(const Value &) = delete;
  ~Value() {
    if (G_IS_VALUE(&value)) g_value_unset(&value);
  }
  GValue value = G_VALUE_INIT;
};

// Null in a message stands for the default.
void read(const Message &message, const char *member, GParamSpec *pspec, GValue *value) {
  g_value_init(value, pspec->value_type);
  if (message.is_null(member))
    g_param_value_set_default(pspec, value);
  else if (G_IS_PARAM_SPEC_STRING(pspec))
    g_value_set_string(value, message.text(member, kLongestPrompt).c_str());
  else if (G_IS_PARAM_SPEC_INT(pspec))
    g_value_set_int(value, gint(message.integer(member, 0, G_PARAM_SPEC_INT(pspec)->maximum)));
  else if (G_IS_PARAM_SPEC_INT64(pspec))
    g_value_set_int64(value, message.integer(member, 0, G_PARAM_SPEC_INT64(pspec)->maximum));
  else
    g_value_set_double(value, message.number(member, 0, G_PARAM_SPEC_DOUBLE(pspec)->maximum));
}

}  // namespace

Source::Source(GstElement *element, const SourceOptions &options)
    : element_(GST_ELEMENT(gst_object_ref(element))) {
  g_object_set(element, "is-live", TRUE, "num-clips", -1, "prebuffer", kPrebuffer, "model",
               options.model.c_str(), "prompt", options.prompt.c_str(), "steps", options.steps, "num-frames",
               options.num_frames, "seed", options.seed, "image", options.image.c_str(), nullptr);
}

Source::~Source() {
  g_clear_pointer(&on_air_, gst_structure_free);
  gst_object_unref(element_);
}

size_t Source::queue_length() const {
  g_auto(GValue) value = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(element_), "prompts", &value);
  return gst_value_array_get_size(&value);
}

std::vector<Json> Source::queue() const {
  std::vector<Json> queue;
  const size_t begun = clips_.size() - std::min(queue_length(), clips_.size());
  for (auto clip = std::next(clips_.begin(), ptrdiff_t(begun)); clip != clips_.end(); ++clip)
    queue.push_back(Json()
                        .integer("id", clip->first)
                        .text("prompt", clip->second.prompt)
                        .truth("picture", clip->second.picture != nullptr));
  return queue;
}

PicturePtr Source::picture(guint id) const {
  const auto clip = clips_.find(id);
  return clip == clips_.end() ? nullptr : clip->second.picture;
}

guint Source::enqueue(const Message &message, const PicturePtr &picture) {
  const std::string prompt = message.text("prompt", kLongestPrompt);
  if (prompt.empty()) throw BadMessage("The prompt is empty.");
  if (queue_length() >= kLongestQueue) throw BadMessage("The queue is full.");
  g_autoptr(GstStructure) settings = gst_structure_new_empty("settings");
  if (picture) gst_structure_set(settings, "image", GST_TYPE_SAMPLE, picture->sample(), nullptr);
  refusal_.clear();
  guint queued = 0;
  g_signal_emit_by_name(element_, "enqueue", prompt.c_str(), settings, &queued);
  throw_refusal();
  clips_[queued] = {prompt, picture};
  return queued;
}

void Source::throw_refusal() const {
  if (!refusal_.empty()) throw BadMessage(refusal_);
}

void Source::set(const Message &message) {
  std::array<Value, kSettings.size()> values;
  GObjectClass *klass = G_OBJECT_GET_CLASS(element_);
  bool any = false;
  for (size_t i = 0; i < kSettings.size(); ++i) {
    if (!message.has(kSettings[i].name)) continue;
    any = true;
    read(message, kSettings[i].name, g_object_class_find_property(klass, kSettings[i].property),
         &values[i].value);
  }
  if (!any) throw BadMessage("The message names no setting.");
  refusal_.clear();
  for (size_t i = 0; i < kSettings.size(); ++i)
    if (G_IS_VALUE(&values[i].value))
      g_object_set_property(G_OBJECT(element_), kSettings[i].property, &values[i].value);
  throw_refusal();
}

void Source::note(const GstStructure *structure) {
  guint id = 0;
  const bool ended = std::any_of(kEnds.begin(), kEnds.end(),
                                 [&](auto *name) { return gst_structure_has_name(structure, name); });
  if (ended && gst_structure_get_uint(structure, "id", &id)) clips_.erase(id);
  if (!gst_structure_has_name(structure, "wan-clip")) return;
  g_clear_pointer(&on_air_, gst_structure_free);
  on_air_ = gst_structure_copy(structure);
}

void Source::describe(Json *state) const {
  Json settings, stats;
  for (const Setting &setting : kSettings)
    settings.property(setting.name, G_OBJECT(element_), setting.property);
  GstStructure *structure = nullptr;
  g_object_get(element_, "stats", &structure, nullptr);
  stats.fields(structure);
  gst_structure_free(structure);
  state->objects("queue", queue());
  state->object("settings", settings);
  state->object("stats", stats);
  if (!on_air_) return;
  guint id = 0;
  gst_structure_get_uint(on_air_, "id", &id);
  state->object("onAir", Json().fields(on_air_).truth("picture", picture(id) != nullptr));
}

}  // namespace studio
