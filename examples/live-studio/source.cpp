// SPDX-License-Identifier: LGPL-2.1-or-later
#include "source.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace studio {
namespace {

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
  return clip == clips_.end() ? history_.picture(id) : clip->second.picture;
}

GstStructure *Source::stats() const {
  GstStructure *stats = nullptr;
  g_object_get(element_, "stats", &stats, nullptr);
  return stats;
}

bool Source::is_endless() const {
  g_autoptr(GstStructure) stats = this->stats();
  gboolean is_endless = FALSE;
  gst_structure_get_boolean(stats, "endless", &is_endless);
  return is_endless;
}

// Null for a prompt switch stands for the model's own.
guint Source::enqueue(const Scene &scene, const char *prompt_switch) {
  if (scene.prompt.empty()) throw BadMessage("The prompt is empty.");
  if (queue_length() >= kLongestQueue) throw BadMessage("The queue is full.");
  g_autoptr(GstStructure) settings = gst_structure_new_empty("settings");
  if (scene.picture) gst_structure_set(settings, "image", GST_TYPE_SAMPLE, scene.picture->sample(), nullptr);
  if (scene.seed) gst_structure_set(settings, "seed", G_TYPE_INT64, gint64(*scene.seed), nullptr);
  if (prompt_switch) gst_structure_set(settings, "prompt-switch", G_TYPE_STRING, prompt_switch, nullptr);
  refusal_.clear();
  guint queued = 0;
  g_signal_emit_by_name(element_, "enqueue", scene.prompt.c_str(), settings, &queued);
  throw_refusal();
  clips_[queued] = scene;
  return queued;
}

// The property follows, so that what changes it changes this scene.
guint Source::cut_to(const Scene &scene) {
  const guint id = enqueue(scene, "cut");
  gboolean removed = FALSE;
  for (const auto &[other, clip] : clips_)
    if (other != id) g_signal_emit_by_name(element_, "remove", other, &removed);
  g_object_set(element_, "prompt", scene.prompt.c_str(), nullptr);
  return id;
}

guint Source::show_again(const Message &message) {
  const Scene scene = history_.find(message.integer("scene", 1, G_MAXINT64));
  return is_endless() ? cut_to(scene) : enqueue(scene);
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
  add_to_history();
}

void Source::add_to_history() {
  guint id = 0;
  guint64 seed = 0, pts = 0;
  gst_structure_get(on_air_, "id", G_TYPE_UINT, &id, "seed", G_TYPE_UINT64, &seed, "pts", G_TYPE_UINT64, &pts,
                    nullptr);
  const char *prompt = gst_structure_get_string(on_air_, "prompt");
  if (prompt && *prompt) history_.add({prompt, picture(id), seed}, id, pts);
}

void Source::describe(Json *state) const {
  Json settings, figures;
  for (const Setting &setting : kSettings)
    settings.property(setting.name, G_OBJECT(element_), setting.property);
  g_autoptr(GstStructure) stats = this->stats();
  figures.fields(stats);
  state->objects("queue", queue());
  state->object("settings", settings);
  state->object("stats", figures);
  state->objects("history", history_.describe());
  if (!on_air_) return;
  guint id = 0;
  gst_structure_get_uint(on_air_, "id", &id);
  state->object("onAir", Json().fields(on_air_).truth("picture", picture(id) != nullptr));
}

}  // namespace studio
