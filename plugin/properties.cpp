// SPDX-License-Identifier: LGPL-2.1-or-later
#include "properties.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

namespace wan {
namespace {

constexpr auto kStatic = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
constexpr auto kPlaying = GParamFlags(kStatic | GST_PARAM_MUTABLE_PLAYING);
constexpr auto kReady = GParamFlags(kStatic | GST_PARAM_MUTABLE_READY);

constexpr char kUriScheme[] = "wan://";

std::string get_string(const GValue *value) {
  const gchar *text = g_value_get_string(value);
  return text ? text : "";
}

std::vector<QueuedClip> get_prompts(const GValue *value) {
  std::vector<QueuedClip> clips(gst_value_array_get_size(value));
  for (size_t i = 0; i < clips.size(); ++i)
    clips[i].settings.prompt = get_string(gst_value_array_get_value(value, guint(i)));
  return clips;
}

void set_prompts(GValue *value, const std::vector<QueuedClip> &clips) {
  for (const QueuedClip &clip : clips) {
    GValue prompt = G_VALUE_INIT;
    g_value_init(&prompt, G_TYPE_STRING);
    g_value_set_string(&prompt, clip.settings.prompt.c_str());
    gst_value_array_append_and_take_value(value, &prompt);
  }
}

std::vector<double> get_sigmas(const GValue *value) {
  std::vector<double> sigmas(gst_value_array_get_size(value));
  for (size_t i = 0; i < sigmas.size(); ++i)
    sigmas[i] = g_value_get_double(gst_value_array_get_value(value, guint(i)));
  return sigmas;
}

void set_sigmas(GValue *value, const std::vector<double> &sigmas) {
  for (const double sigma : sigmas) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, G_TYPE_DOUBLE);
    g_value_set_double(&item, sigma);
    gst_value_array_append_and_take_value(value, &item);
  }
}

std::vector<std::shared_ptr<const GstStructure>> get_structures(const GValue *value) {
  std::vector<std::shared_ptr<const GstStructure>> structures;
  for (guint i = 0; i < gst_value_array_get_size(value); ++i) {
    const GstStructure *structure = gst_value_get_structure(gst_value_array_get_value(value, i));
    if (structure)
      structures.emplace_back(gst_structure_copy(structure), [](const GstStructure *copy) {
        gst_structure_free(const_cast<GstStructure *>(copy));
      });
  }
  return structures;
}

void set_structures(GValue *value, const std::vector<std::shared_ptr<const GstStructure>> &structures) {
  for (const auto &structure : structures) {
    GValue element = G_VALUE_INIT;
    g_value_init(&element, GST_TYPE_STRUCTURE);
    gst_value_set_structure(&element, structure.get());
    gst_value_array_append_and_take_value(value, &element);
  }
}

bool set_clip_property(ClipSettings *clip, guint id, const GValue *value) {
  switch (id) {
    case PROP_PROMPT:
      clip->prompt = get_string(value);
      break;
    case PROP_NEGATIVE_PROMPT:
      clip->negative_prompt = get_string(value);
      break;
    case PROP_SEED:
      clip->seed = g_value_get_int64(value);
      break;
    case PROP_NUM_FRAMES:
      clip->num_frames = g_value_get_int(value);
      break;
    case PROP_STEPS:
      clip->steps = g_value_get_int(value);
      break;
    case PROP_GUIDANCE_SCALE:
      clip->guidance_scale = g_value_get_double(value);
      break;
    case PROP_GUIDANCE_SCALE_2:
      clip->guidance_scale_2 = g_value_get_double(value);
      break;
    case PROP_FLOW_SHIFT:
      clip->flow_shift = g_value_get_double(value);
      break;
    case PROP_SCHEDULER:
      clip->scheduler = WanScheduler(g_value_get_enum(value));
      break;
    case PROP_SIGMAS:
      clip->sigmas = get_sigmas(value);
      break;
    case PROP_CACHE:
      clip->cache = WanCache(g_value_get_enum(value));
      break;
    case PROP_CACHE_THRESHOLD:
      clip->cache_threshold = g_value_get_double(value);
      break;
    default:
      return false;
  }
  return true;
}

bool get_clip_property(const ClipSettings &clip, guint id, GValue *value) {
  switch (id) {
    case PROP_PROMPT:
      g_value_set_string(value, clip.prompt.c_str());
      break;
    case PROP_NEGATIVE_PROMPT:
      g_value_set_string(value, clip.negative_prompt.c_str());
      break;
    case PROP_SEED:
      g_value_set_int64(value, clip.seed);
      break;
    case PROP_NUM_FRAMES:
      g_value_set_int(value, clip.num_frames);
      break;
    case PROP_STEPS:
      g_value_set_int(value, clip.steps);
      break;
    case PROP_GUIDANCE_SCALE:
      g_value_set_double(value, clip.guidance_scale);
      break;
    case PROP_GUIDANCE_SCALE_2:
      g_value_set_double(value, clip.guidance_scale_2);
      break;
    case PROP_FLOW_SHIFT:
      g_value_set_double(value, clip.flow_shift);
      break;
    case PROP_SCHEDULER:
      g_value_set_enum(value, clip.scheduler);
      break;
    case PROP_SIGMAS:
      set_sigmas(value, clip.sigmas);
      break;
    case PROP_CACHE:
      g_value_set_enum(value, clip.cache.value_or(WAN_CACHE_NONE));
      break;
    case PROP_CACHE_THRESHOLD:
      g_value_set_double(value, clip.cache_threshold.value_or(kCacheThreshold));
      break;
    default:
      return false;
  }
  return true;
}

bool convert(const GValue *from, GParamSpec *pspec, GValue *to);

bool convert_array(const GValue *from, GParamSpec *element, GValue *to) {
  for (guint i = 0; i < gst_value_array_get_size(from); ++i) {
    GValue item = G_VALUE_INIT;
    if (!convert(gst_value_array_get_value(from, i), element, &item)) return false;
    gst_value_array_append_and_take_value(to, &item);
  }
  return true;
}

// Converts a number, enumerated value or boxed one. False if it would be another number then.
bool convert_exactly(const GValue *from, GValue *to) {
  if (G_VALUE_TYPE(from) == G_VALUE_TYPE(to)) {
    g_value_copy(from, to);
    return true;
  }
  if (G_VALUE_HOLDS_BOOLEAN(from) || G_VALUE_HOLDS_STRING(from) || !g_value_transform(from, to)) return false;
  GValue back = G_VALUE_INIT;
  g_value_init(&back, G_VALUE_TYPE(from));
  const bool exact = g_value_transform(to, &back) && gst_value_compare(from, &back) == GST_VALUE_EQUAL;
  g_value_unset(&back);
  return exact;
}

// Text would be taken for the seed of these bits, or for one that is cut to them.
bool is_seed_text(const char *text) {
  gchar *end = nullptr;
  errno = 0;
  const guint64 seed = g_ascii_strtoull(text, &end, 0);
  return errno == 0 && *end == '\0' && (seed != guint64(kRandomSeed) || strchr(text, '-'));
}

// GStreamer takes the list within for one of the elements that the property describes, and may crash on it.
bool holds_list_in_list(std::string_view text) {
  int lists = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '"')
      quoted = !quoted;
    else if (!quoted && (text[i] == '<' || text[i] == '{'))
      ++lists;
  }
  return lists > 1;
}

bool convert_text(const char *text, GParamSpec *pspec, GValue *to) {
  if (!text || (pspec->param_id == PROP_SEED && !is_seed_text(text))) return false;
  if (GST_IS_PARAM_SPEC_ARRAY_LIST(pspec) && holds_list_in_list(text)) return false;
  return gst_value_deserialize_with_pspec(to, text, pspec);
}

// Converts a value to a property's type; text as in gst-launch-1.0. False if it cannot be, or is out of
// range.
bool convert(const GValue *from, GParamSpec *pspec, GValue *to) {
  g_value_init(to, pspec->value_type);
  bool converted = false;
  if (GST_VALUE_HOLDS_ARRAY(from) && GST_IS_PARAM_SPEC_ARRAY_LIST(pspec))
    converted = convert_array(from, GST_PARAM_SPEC_ARRAY_LIST(pspec)->element_spec, to);
  else if (G_VALUE_HOLDS_STRING(from) && pspec->value_type != G_TYPE_STRING)
    converted = convert_text(g_value_get_string(from), pspec, to);
  else
    converted = convert_exactly(from, to);
  const bool random = pspec->param_id == PROP_SEED && G_VALUE_HOLDS_UINT64(from) &&
                      g_value_get_uint64(from) == guint64(kRandomSeed);
  if (converted && !random && !g_param_value_validate(pspec, to)) return true;
  g_value_unset(to);
  return false;
}

std::string value_error(const char *name, const GValue *value) {
  gchar *text = g_strdup_value_contents(value);
  const std::string message = std::string(text) + " is not a valid value for " + name + ".";
  g_free(text);
  return message;
}

void install_clip_properties(GObjectClass *klass) {
  const auto install = [klass](guint id, GParamSpec *pspec) {
    g_object_class_install_property(klass, id, pspec);
  };
  const ClipSettings clip;
  install(PROP_PROMPT, g_param_spec_string("prompt", "Prompt", "What the video shows, from the next clip on",
                                           clip.prompt.c_str(), kPlaying));
  install(PROP_NEGATIVE_PROMPT,
          g_param_spec_string(
              "negative-prompt", "Negative prompt",
              "What guidance leads away from, from the next clip on; used with a guidance scale above 1",
              clip.negative_prompt.c_str(), kPlaying));
  install(PROP_SEED,
          g_param_spec_int64(
              "seed", "Seed",
              "Seed of the next clip; each clip after it has the next seed (-1: a random one, "
              "to be read in stats, tags and each frame's meta; the other negative numbers are the "
              "unsigned ones of the same bits, so that all are seeds up to 2^64 - 2)",
              G_MININT64, G_MAXINT64, clip.seed, kPlaying));
  install(PROP_NUM_FRAMES,
          g_param_spec_int("num-frames", "Number of frames",
                           "Frames of a clip: 1 more than a multiple of 4, else rounded to one (0: as the "
                           "checkpoint suggests)",
                           0, G_MAXINT, clip.num_frames, kReady));
  install(PROP_STEPS,
          g_param_spec_int("steps", "Steps",
                           "Denoising steps, from the next clip on (0: as the checkpoint suggests)", 0, 1000,
                           clip.steps, kPlaying));
  install(PROP_GUIDANCE_SCALE,
          g_param_spec_double(
              "guidance-scale", "Guidance scale",
              "How strongly the prompt leads, from the next clip on; up to 1 is without guidance and "
              "twice as fast (-1: as the checkpoint suggests)",
              -1, 100, clip.guidance_scale, kPlaying));
  install(PROP_GUIDANCE_SCALE_2,
          g_param_spec_double(
              "guidance-scale-2", "Guidance scale 2",
              "Guidance scale of the low-noise expert, from the next clip on (-1: guidance-scale if that "
              "is set, else as the checkpoint suggests)",
              -1, 100, clip.guidance_scale_2, kPlaying));
  install(
      PROP_FLOW_SHIFT,
      g_param_spec_double("flow-shift", "Flow shift",
                          "Shift of the noise schedule towards high noise, from the next clip on (-1: the "
                          "checkpoint's)",
                          -1, 100, clip.flow_shift, kPlaying));
  install(PROP_SCHEDULER,
          g_param_spec_enum("scheduler", "Scheduler", "Denoising scheduler, from the next clip on",
                            scheduler_type(), clip.scheduler, kPlaying));
  install(PROP_SIGMAS,
          gst_param_spec_array(
              "sigmas", "Sigmas",
              "Noise level of each step before the shift, falling, in place of steps, from the next clip on; "
              "a list of timesteps divided by 1000 is one (empty: as the scheduler spaces them)",
              g_param_spec_double("sigma", "Sigma", "Noise level, above 0", 0, 1, 1, kStatic), kPlaying));
  install(PROP_CACHE,
          g_param_spec_enum("cache", "Cache",
                            "What steps may take over from steps before, from the next clip on: an "
                            "approximation that makes another video, see docs/parity.md",
                            cache_type(), WAN_CACHE_NONE, kPlaying));
  install(PROP_CACHE_THRESHOLD,
          g_param_spec_double("cache-threshold", "Cache threshold",
                              "Relative change of the first block's part up to which cache=first-block takes "
                              "the others' over, from the next clip on; more is faster and less exact",
                              0, G_MAXDOUBLE, kCacheThreshold, kPlaying));
}

void install_live_properties(GObjectClass *klass) {
  const auto install = [klass](guint id, GParamSpec *pspec) {
    g_object_class_install_property(klass, id, pspec);
  };
  const Settings defaults;
  install(PROP_IS_LIVE,
          g_param_spec_boolean("is-live", "Is live",
                               "Send frames at their rate by the clock, whatever generation does; the video "
                               "starts at once",
                               FALSE, kReady));
  install(PROP_UNDERRUN,
          g_param_spec_enum("underrun", "Underrun", "Live: what to send when no frame is ready at its time",
                            underrun_type(), int(defaults.underrun), kPlaying));
  install(PROP_FILLER, g_param_spec_enum("filler", "Filler", "Live: what to show before the first frame",
                                         filler_type(), int(defaults.filler), kReady));
  install(PROP_PREBUFFER,
          g_param_spec_uint64("prebuffer", "Prebuffer",
                              "Live: video to hold before it goes on air, and again after an underrun (ns)",
                              0, G_MAXINT64, defaults.prebuffer, kPlaying));
}

}  // namespace

void install_properties(GObjectClass *klass) {
  const auto install = [klass](guint id, GParamSpec *pspec) {
    g_object_class_install_property(klass, id, pspec);
  };
  const Settings defaults;
  install(PROP_MODEL, g_param_spec_string("model", "Model",
                                          "Directory of the checkpoint: Diffusers', original or single files "
                                          "(empty: $GST_WAN_MODEL, else the "
                                          "small embedded model)",
                                          defaults.model.c_str(), kReady));
  install_clip_properties(klass);
  install(PROP_DEVICE,
          g_param_spec_string("device", "Device",
                              "Where the model runs: auto (a GPU if there is one), cpu, cuda or cuda:N",
                              defaults.device.c_str(), kReady));
  install(PROP_DTYPE,
          g_param_spec_enum("dtype", "Data type", "Number format of the weights and of the computation",
                            dtype_type(), defaults.dtype, kReady));
  install(PROP_QUANTIZATION,
          g_param_spec_enum("quantization", "Quantization",
                            "Number format of the matrices that the experts multiply",
                            quantization_type(), defaults.quantization, kReady));
  install(
      PROP_MEMORY,
      g_param_spec_enum("memory", "Memory",
                        "Where the experts' weights are while a clip is made; a model on the CPU is resident",
                        memory_mode_type(), defaults.memory, kReady));
  install(
      PROP_LORAS,
      gst_param_spec_array(
          "loras", "LoRAs",
          "LoRAs to merge into the experts when the model is loaded: structures with path (of a .safetensors "
          "file), strength (1) and strength-2, of the low-noise expert (strength); 0: not for that expert",
          g_param_spec_boxed("lora", "LoRA", "A LoRA and its strengths", GST_TYPE_STRUCTURE, kStatic),
          kReady));
  install(PROP_NUM_CLIPS,
          g_param_spec_int("num-clips", "Number of clips",
                           "Clips to make before the stream ends, if none is queued then (-1: endless)", -1,
                           G_MAXINT, defaults.num_clips, kReady));
  install(PROP_PROMPTS,
          gst_param_spec_array(
              "prompts", "Prompts", "Prompts of the clips that wait to be made, before those of prompt",
              g_param_spec_string("prompt", "Prompt", "What the clip shows", "", kStatic), kPlaying));
  install(PROP_TRANSITION, g_param_spec_enum("transition", "Transition", "How one clip becomes the next",
                                             transition_type(), int(defaults.transition), kReady));
  install(PROP_TRANSITION_FRAMES, g_param_spec_int("transition-frames", "Transition frames",
                                                   "Frames that a crossfade takes, at most half a clip", 1,
                                                   G_MAXINT, defaults.transition_frames, kReady));
  install(
      PROP_QUEUE_SIZE,
      g_param_spec_uint("queue-size", "Queue size",
                        "Decoded chunks (of up to 4 frames) to hold for a slow downstream before decoding "
                        "waits; live: at least a clip",
                        1, 1000, defaults.queue_size, kReady));
  install_live_properties(klass);
  install(PROP_ENGINE, g_param_spec_string("engine", "Engine",
                                           "Engine library, read when the element leaves NULL (empty: "
                                           "$GST_WAN_ENGINE, else the installed one)",
                                           defaults.engine.c_str(), kStatic));
  install(PROP_STATS,
          g_param_spec_boxed("stats", "Statistics",
                             "Structure wan-stats: the clip being made and on air, seconds by stage, queue, "
                             "frames, underruns, memory",
                             GST_TYPE_STRUCTURE, GParamFlags(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
  for (const GType type : {scheduler_type(), cache_type(), dtype_type(), quantization_type(),
                           memory_mode_type(), underrun_type(), filler_type(), transition_type()})
    gst_type_mark_as_plugin_api(type, GstPluginAPIFlags(0));
}

bool set_property(Settings *settings, guint id, const GValue *value) {
  if (set_clip_property(&settings->clip, id, value)) return true;
  switch (id) {
    case PROP_MODEL:
      settings->model = get_string(value);
      break;
    case PROP_DEVICE:
      settings->device = get_string(value);
      break;
    case PROP_DTYPE:
      settings->dtype = WanDtype(g_value_get_enum(value));
      break;
    case PROP_QUANTIZATION:
      settings->quantization = WanQuantization(g_value_get_enum(value));
      break;
    case PROP_MEMORY:
      settings->memory = WanMemoryMode(g_value_get_enum(value));
      break;
    case PROP_LORAS:
      settings->loras = get_structures(value);
      break;
    case PROP_NUM_CLIPS:
      settings->num_clips = g_value_get_int(value);
      break;
    case PROP_PROMPTS:
      settings->queue = get_prompts(value);
      break;
    case PROP_TRANSITION:
      settings->transition = Transition(g_value_get_enum(value));
      break;
    case PROP_TRANSITION_FRAMES:
      settings->transition_frames = g_value_get_int(value);
      break;
    case PROP_QUEUE_SIZE:
      settings->queue_size = g_value_get_uint(value);
      break;
    case PROP_UNDERRUN:
      settings->underrun = Underrun(g_value_get_enum(value));
      break;
    case PROP_FILLER:
      settings->filler = Filler(g_value_get_enum(value));
      break;
    case PROP_PREBUFFER:
      settings->prebuffer = g_value_get_uint64(value);
      break;
    case PROP_ENGINE:
      settings->engine = get_string(value);
      break;
    default:
      return false;
  }
  return true;
}

bool get_property(const Settings &settings, guint id, GValue *value) {
  if (get_clip_property(settings.clip, id, value)) return true;
  switch (id) {
    case PROP_MODEL:
      g_value_set_string(value, settings.model.c_str());
      break;
    case PROP_DEVICE:
      g_value_set_string(value, settings.device.c_str());
      break;
    case PROP_DTYPE:
      g_value_set_enum(value, settings.dtype);
      break;
    case PROP_QUANTIZATION:
      g_value_set_enum(value, settings.quantization);
      break;
    case PROP_MEMORY:
      g_value_set_enum(value, settings.memory);
      break;
    case PROP_LORAS:
      set_structures(value, settings.loras);
      break;
    case PROP_NUM_CLIPS:
      g_value_set_int(value, settings.num_clips);
      break;
    case PROP_PROMPTS:
      set_prompts(value, settings.queue);
      break;
    case PROP_TRANSITION:
      g_value_set_enum(value, int(settings.transition));
      break;
    case PROP_TRANSITION_FRAMES:
      g_value_set_int(value, settings.transition_frames);
      break;
    case PROP_QUEUE_SIZE:
      g_value_set_uint(value, settings.queue_size);
      break;
    case PROP_UNDERRUN:
      g_value_set_enum(value, int(settings.underrun));
      break;
    case PROP_FILLER:
      g_value_set_enum(value, int(settings.filler));
      break;
    case PROP_PREBUFFER:
      g_value_set_uint64(value, settings.prebuffer);
      break;
    case PROP_ENGINE:
      g_value_set_string(value, settings.engine.c_str());
      break;
    default:
      return false;
  }
  return true;
}

static std::string text_fault(const char *name, const std::string &text) {
  return g_utf8_validate(text.data(), gssize(text.size()), nullptr) ? ""
                                                                    : std::string(name) + " is not UTF-8.";
}

std::string clip_fault(const ClipSettings &settings) {
  std::string fault = text_fault("prompt", settings.prompt);
  if (fault.empty()) fault = text_fault("negative-prompt", settings.negative_prompt);
  return fault.empty() ? fault_of(settings) : fault;
}

std::string settings_fault(const Settings &settings) {
  for (const QueuedClip &clip : settings.queue)
    if (std::string fault = text_fault("A text of prompts", clip.settings.prompt); !fault.empty())
      return fault;
  return clip_fault(settings.clip);
}

bool is_clip_property(guint id) {
  return id >= PROP_PROMPT && id <= PROP_CACHE_THRESHOLD;
}

// False if the field is there and no finite number.
static bool read_strength(const GstStructure *structure, const char *name, double *strength) {
  const GValue *field = gst_structure_get_value(structure, name);
  if (!field) return true;
  GValue number = G_VALUE_INIT;
  g_value_init(&number, G_TYPE_DOUBLE);
  const bool is_number = !G_VALUE_HOLDS_STRING(field) && g_value_transform(field, &number);
  if (is_number) *strength = g_value_get_double(&number);
  g_value_unset(&number);
  return is_number && std::isfinite(*strength);
}

static bool read_lora(const GstStructure *structure, LoraChoice *lora) {
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

// A class numbers its properties for itself: those of the classes above have ids that stand for others here.
static GParamSpec *own_property(GObjectClass *klass, const char *name) {
  GParamSpec *pspec = g_object_class_find_property(klass, name);
  return pspec && pspec->owner_type == G_OBJECT_CLASS_TYPE(klass) ? pspec : nullptr;
}

bool read_clip_settings(GObjectClass *klass, const GstStructure *structure, ClipSettings *clip,
                        std::string *reason) {
  for (int i = 0; i < gst_structure_n_fields(structure); ++i) {
    const char *name = gst_structure_nth_field_name(structure, guint(i));
    const GValue *field = gst_structure_get_value(structure, name);
    GParamSpec *pspec = own_property(klass, name);
    GValue value = G_VALUE_INIT;
    if (pspec && !convert(field, pspec, &value)) {
      *reason = value_error(name, field);
      return false;
    }
    const bool known = pspec && set_clip_property(clip, pspec->param_id, &value);
    if (pspec) g_value_unset(&value);
    if (known) continue;
    *reason = std::string("A clip has no setting ") + name + ".";
    return false;
  }
  return true;
}

// What a URI may set: the element's own properties. is-live is one of them, though the base class keeps it.
static bool is_for_uris(const GParamSpec *pspec) {
  return pspec && (pspec->flags & G_PARAM_WRITABLE) && pspec->param_id != PROP_ENGINE;
}

static bool read_parameter(GObjectClass *klass, const char *name, const char *text,
                           std::list<Assignment> *assignments, std::string *reason) {
  GParamSpec *pspec = own_property(klass, name);
  if (!is_for_uris(pspec)) {
    *reason = std::string(name) + " cannot be set by a URI.";
    return false;
  }
  Assignment &assignment = assignments->emplace_back(pspec);
  GValue from = G_VALUE_INIT;
  g_value_init(&from, G_TYPE_STRING);
  g_value_set_string(&from, text);
  const bool converted = convert(&from, pspec, &assignment.value);
  if (!converted) *reason = value_error(name, &from);
  g_value_unset(&from);
  return converted;
}

// Why the settings that a URI names cannot be, though each property has room for them.
static std::string fault_of(const std::list<Assignment> &assignments) {
  Settings settings;
  for (const Assignment &assignment : assignments)
    set_property(&settings, assignment.pspec->param_id, &assignment.value);
  return settings_fault(settings);
}

// The parts of a URI, decoded; false and the reason if it is none.
static bool split_uri(const std::string &uri, std::map<std::string, std::string> *parameters,
                      std::string *reason) {
  if (!g_utf8_validate(uri.data(), gssize(uri.size()), nullptr)) {
    *reason = "The URI is not UTF-8.";
    return false;
  }
  if (g_ascii_strncasecmp(uri.c_str(), kUriScheme, sizeof kUriScheme - 1) != 0) {
    *reason = uri + " does not begin with " + kUriScheme;
    return false;
  }
  if (uri.find('#') != std::string::npos) {
    *reason = uri + " has a fragment, which stands for nothing here: a # in a prompt is written as %23.";
    return false;
  }
  const std::string text = uri.substr(sizeof kUriScheme - 1);
  const size_t question = text.find('?');
  const std::string query = question == std::string::npos ? "" : text.substr(question + 1);
  gchar *prompt = g_uri_unescape_string(text.substr(0, question).c_str(), nullptr);
  GHashTable *table = g_uri_parse_params(query.c_str(), -1, "&", G_URI_PARAMS_NONE, nullptr);
  const bool valid = prompt && table && g_utf8_validate(prompt, -1, nullptr);
  if (valid) {
    GHashTableIter iter;
    gpointer name, value;
    g_hash_table_iter_init(&iter, table);
    while (g_hash_table_iter_next(&iter, &name, &value))
      parameters->emplace(static_cast<char *>(name), static_cast<char *>(value));
    if (*prompt || !parameters->count("prompt")) (*parameters)["prompt"] = prompt;
  } else {
    *reason = uri + " is not percent-encoded UTF-8 with parameters as name=value, as a URI must be.";
  }
  g_clear_pointer(&table, g_hash_table_unref);
  g_free(prompt);
  return valid;
}

bool read_uri(GObjectClass *klass, const char *uri, std::list<Assignment> *assignments, std::string *reason) {
  std::map<std::string, std::string> parameters;
  if (!split_uri(uri, &parameters, reason)) return false;
  for (const auto &[name, value] : parameters)
    if (!read_parameter(klass, name.c_str(), value.c_str(), assignments, reason)) return false;
  *reason = fault_of(*assignments);
  return reason->empty();
}

}  // namespace wan
