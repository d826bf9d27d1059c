// SPDX-License-Identifier: LGPL-2.1-or-later
#include "properties.h"

#include <cmath>
#include <functional>
#include <string_view>

#include "values.h"

namespace wan {

// ---- lists that only properties hold

using Structures = std::vector<std::shared_ptr<const GstStructure>>;

static void read_value(const GValue *value, std::vector<QueuedClip> *clips) {
  *clips = std::vector<QueuedClip>(gst_value_array_get_size(value));
  for (size_t i = 0; i < clips->size(); ++i)
    read_value(gst_value_array_get_value(value, guint(i)), &(*clips)[i].settings.prompt);
}

static void write_value(const std::vector<QueuedClip> &clips, GValue *value) {
  for (const QueuedClip &clip : clips) {
    GValue prompt = G_VALUE_INIT;
    g_value_init(&prompt, G_TYPE_STRING);
    write_value(clip.settings.prompt, &prompt);
    gst_value_array_append_and_take_value(value, &prompt);
  }
}

static void read_value(const GValue *value, Structures *structures) {
  structures->clear();
  for (guint i = 0; i < gst_value_array_get_size(value); ++i) {
    const GstStructure *structure = gst_value_get_structure(gst_value_array_get_value(value, i));
    if (structure)
      structures->emplace_back(gst_structure_copy(structure), [](const GstStructure *copy) {
        gst_structure_free(const_cast<GstStructure *>(copy));
      });
  }
}

static void write_value(const Structures &structures, GValue *value) {
  for (const auto &structure : structures) {
    GValue element = G_VALUE_INIT;
    g_value_init(&element, GST_TYPE_STRUCTURE);
    gst_value_set_structure(&element, structure.get());
    gst_value_array_append_and_take_value(value, &element);
  }
}

namespace {

// ---- the table

constexpr auto kStatic = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
constexpr auto kPlaying = GParamFlags(kStatic | GST_PARAM_MUTABLE_PLAYING);
constexpr auto kReady = GParamFlags(kStatic | GST_PARAM_MUTABLE_READY);

struct Row {
  GParamSpec *pspec;
  std::function<void(Settings *, const GValue *)> set;
  std::function<void(const Settings &, GValue *)> get;
};

template <typename T>
Row row(GParamSpec *pspec, T Settings::*field) {
  return {g_param_spec_ref_sink(pspec),
          [=](Settings *settings, const GValue *value) { read_value(value, &(settings->*field)); },
          [=](const Settings &settings, GValue *value) { write_value(settings.*field, value); }};
}

Row clip_row(const ClipSetting &setting) {
  return {setting.pspec,
          [&setting](Settings *settings, const GValue *value) { setting.set(&settings->clip, value); },
          [&setting](const Settings &settings, GValue *value) { setting.get(settings.clip, value); }};
}

std::vector<Row> make_table() {
  const Settings defaults;
  std::vector<Row> table = {row(
      g_param_spec_string("model", "Model",
                          "Directory of the checkpoint: Diffusers' format, the original release or single "
                          "files (empty: $GST_WAN_MODEL, else a small embedded model; for a live source "
                          "one that makes an endless video)",
                          defaults.model.c_str(), kReady),
      &Settings::model)};
  for (const ClipSetting &setting : clip_settings()) table.push_back(clip_row(setting));
  const Row others[] = {
      row(g_param_spec_string(
              "device", "Device",
              "Where the model runs: auto (a GPU if there is one), cpu, cuda or cuda:N; several "
              "share each step: cuda:0,1",
              defaults.device.c_str(), kReady),
          &Settings::device),
      row(g_param_spec_string(
              "decoder-device", "Decoder's device",
              "Where prompts and pictures are encoded and frames are decoded: one device of the same kind "
              "(empty: the first of device)",
              defaults.decoder_device.c_str(), kReady),
          &Settings::decoder_device),
      row(g_param_spec_string(
              "worker", "Worker",
              "HOST or HOST:PORT of a gst-wan-worker that computes the predictions of negative "
              "prompts (empty: none)",
              defaults.worker.c_str(), kReady),
          &Settings::worker),
      row(g_param_spec_enum("dtype", "Data type", "Number format of the weights and of the computation",
                            dtype_type(), defaults.dtype, kReady),
          &Settings::dtype),
      row(g_param_spec_enum("quantization", "Quantization", "Number format of the experts' large matrices",
                            quantization_type(), defaults.quantization, kReady),
          &Settings::quantization),
      row(g_param_spec_enum(
              "memory", "Memory",
              "Where the experts' weights are while a clip is made (on the CPU: resident or split)",
              memory_mode_type(), defaults.memory, kReady),
          &Settings::memory),
      row(g_param_spec_string("decoder", "Decoder",
                              "What makes frames of latents: full (the VAE), tiny (taew2_1.safetensors or "
                              "taew2_2.safetensors in the directory of model; faster and less exact) or the "
                              "path of such a file",
                              defaults.decoder.c_str(), kReady),
          &Settings::decoder),
      row(gst_param_spec_array(
              "loras", "LoRAs",
              "LoRAs to merge into the experts when the model is loaded. Each is a structure with path (of a "
              ".safetensors file), strength (default 1) and strength-2, which is the low-noise expert's "
              "(default: strength); 0 leaves that expert out",
              g_param_spec_boxed("lora", "LoRA", "A LoRA and its strengths", GST_TYPE_STRUCTURE, kStatic),
              kReady),
          &Settings::loras),
      row(g_param_spec_int("num-clips", "Number of clips",
                           "Clips to make before the stream ends; queued clips are made in any case (-1: "
                           "endless)",
                           -1, G_MAXINT, defaults.num_clips, kReady),
          &Settings::num_clips),
      row(gst_param_spec_array("prompts", "Prompts",
                               "Prompts of the clips in the queue, which are made before those of prompt",
                               g_param_spec_string("prompt", "Prompt", "What the clip shows", "", kStatic),
                               kPlaying),
          &Settings::queue),
      row(g_param_spec_enum("continuity", "Continuity",
                            "What a clip begins with, for models that make videos from pictures",
                            continuity_type(), defaults.continuity, kReady),
          &Settings::continuity),
      row(g_param_spec_enum("transition", "Transition", "How one clip becomes the next", transition_type(),
                            int(defaults.transition), kReady),
          &Settings::transition),
      row(g_param_spec_int("transition-frames", "Transition frames",
                           "Length of a crossfade in frames, at most half a clip", 1, G_MAXINT,
                           defaults.transition_frames, kReady),
          &Settings::transition_frames),
      row(g_param_spec_uint("queue-size", "Queue size",
                            "Decoded chunks (of up to 4 frames) to queue before decoding waits; a live "
                            "source queues at least one clip",
                            1, 1000, defaults.queue_size, kReady),
          &Settings::queue_size),
      row(g_param_spec_enum("underrun", "Underrun", "Live: what to send when no frame is ready at its time",
                            underrun_type(), int(defaults.underrun), kPlaying),
          &Settings::underrun),
      row(g_param_spec_enum("filler", "Filler", "Live: what to show before the first frame", filler_type(),
                            int(defaults.filler), kReady),
          &Settings::filler),
      row(g_param_spec_uint64(
              "prebuffer", "Prebuffer",
              "Live: video to collect before it goes on air, and again after an underrun (ns)", 0, G_MAXINT64,
              defaults.prebuffer, kPlaying),
          &Settings::prebuffer),
      row(g_param_spec_string("engine", "Engine",
                              "Engine library, read when the element leaves NULL (empty: $GST_WAN_ENGINE, "
                              "else the installed one)",
                              defaults.engine.c_str(), kStatic),
          &Settings::engine),
  };
  table.insert(table.end(), std::begin(others), std::end(others));
  return table;
}

const std::vector<Row> &properties() {
  static const std::vector<Row> table = make_table();
  return table;
}

const Row *find_row(guint id) {
  return id >= 1 && id <= properties().size() ? &properties()[id - 1] : nullptr;
}

// ---- LoRAs

// False if the field is there and no finite number.
bool read_strength(const GstStructure *structure, const char *name, double *strength) {
  const GValue *field = gst_structure_get_value(structure, name);
  if (!field) return true;
  GValue number = G_VALUE_INIT;
  g_value_init(&number, G_TYPE_DOUBLE);
  const bool is_number = !G_VALUE_HOLDS_STRING(field) && g_value_transform(field, &number);
  if (is_number) *strength = g_value_get_double(&number);
  g_value_unset(&number);
  return is_number && std::isfinite(*strength);
}

bool read_lora(const GstStructure *structure, LoraChoice *lora) {
  for (int i = 0; i < gst_structure_n_fields(structure); ++i) {
    const std::string_view name = gst_structure_nth_field_name(structure, guint(i));
    if (name != "path" && name != "strength" && name != "strength-2") return false;
  }
  const char *path = gst_structure_get_string(structure, "path");
  if (!path || !*path || !read_strength(structure, "strength", &lora->strength)) return false;
  lora->path = path;
  lora->strength_2 = lora->strength;
  return read_strength(structure, "strength-2", &lora->strength_2);
}

}  // namespace

void install_properties(GObjectClass *klass) {
  guint id = 0;
  for (const Row &row : properties()) g_object_class_install_property(klass, ++id, row.pspec);
  g_object_class_install_property(klass, PROP_IS_LIVE,
                                  g_param_spec_boolean("is-live", "Is live",
                                                       "Send a frame at every frame time by the clock, even "
                                                       "where generation is slower; the video starts at once",
                                                       FALSE, kReady));
  g_object_class_install_property(
      klass, PROP_STATS,
      g_param_spec_boxed(
          "stats", "Statistics",
          "Structure wan-stats: the clip being made and on air, its settings, seconds by stage, "
          "queue, frames, underruns, memory",
          GST_TYPE_STRUCTURE, GParamFlags(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
  for (const GType type :
       {scheduler_type(), cache_type(), dtype_type(), quantization_type(), memory_mode_type(),
        underrun_type(), filler_type(), transition_type(), continuity_type()})
    gst_type_mark_as_plugin_api(type, GstPluginAPIFlags(0));
}

bool set_property(Settings *settings, guint id, const GValue *value) {
  const Row *row = find_row(id);
  if (row) row->set(settings, value);
  return row;
}

bool get_property(const Settings &settings, guint id, GValue *value) {
  const Row *row = find_row(id);
  if (row) row->get(settings, value);
  return row;
}

std::string settings_fault(const Settings &settings) {
  for (const QueuedClip &clip : settings.queue)
    if (std::string fault = text_fault("A text of prompts", clip.settings.prompt); !fault.empty())
      return fault;
  if (settings.continuity != WAN_CONTINUITY_NONE && settings.transition != Transition::Cut)
    return "continuity=last-frame and transition=crossfade exclude each other: clips that continue each "
           "other need "
           "no transition.";
  return clip_fault(settings.clip);
}

static const ClipSetting *find_clip_setting(const GParamSpec *pspec) {
  for (const ClipSetting &setting : clip_settings())
    if (setting.pspec == pspec) return &setting;
  return nullptr;
}

bool is_clip_property(const GParamSpec *pspec) {
  return find_clip_setting(pspec);
}

GParamSpec *own_property(GObjectClass *klass, const char *name) {
  GParamSpec *pspec = g_object_class_find_property(klass, name);
  return pspec && pspec->owner_type == G_OBJECT_CLASS_TYPE(klass) ? pspec : nullptr;
}

bool read_loras(const Settings &settings, std::vector<LoraChoice> *loras, std::string *reason) {
  for (const auto &structure : settings.loras) {
    if (read_lora(structure.get(), &loras->emplace_back())) continue;
    gchar *text = gst_structure_to_string(structure.get());
    *reason = std::string(
                  "A LoRA needs path (a string), and may have strength and strength-2 (finite numbers); "
                  "this one cannot be read: ") +
              text;
    g_free(text);
    return false;
  }
  return true;
}

bool read_clip_settings(GObjectClass *klass, const GstStructure *structure, ClipSettings *clip,
                        std::string *reason) {
  for (int i = 0; i < gst_structure_n_fields(structure); ++i) {
    const char *name = gst_structure_nth_field_name(structure, guint(i));
    const GValue *field = gst_structure_get_value(structure, name);
    const ClipSetting *setting = find_clip_setting(own_property(klass, name));
    GValue value = G_VALUE_INIT;
    if (!setting) {
      *reason = std::string("A clip has no setting ") + name + ".";
      return false;
    }
    if (!convert_value(field, setting->pspec, &value)) {
      *reason = value_error(name, field);
      return false;
    }
    setting->set(clip, &value);
    g_value_unset(&value);
  }
  return true;
}

}  // namespace wan
