// SPDX-License-Identifier: LGPL-2.1-or-later
#include "clip_settings.h"

#include <cmath>
#include <cstddef>

#include "enums.h"
#include "values.h"

namespace wan {
namespace {

constexpr auto kStatic = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS);
constexpr auto kPlaying = GParamFlags(kStatic | GST_PARAM_MUTABLE_PLAYING);
constexpr auto kReady = GParamFlags(kStatic | GST_PARAM_MUTABLE_READY);

// Diffusers' default; what it costs is in docs/parity.md.
constexpr double kCacheThreshold = 0.05;

// ---- what makes a value no setting

template <typename T>
std::string no_fault(const char *, const T &) {
  return "";
}

std::string scale_fault(const char *name, const double &value) {
  if (value == -1 || (std::isfinite(value) && value >= 0)) return "";
  return std::string(name) + " must be a number from 0 on, or -1 for the checkpoint's own.";
}

std::string shift_fault(const char *name, const double &value) {
  if (value == -1 || (std::isfinite(value) && value > 0)) return "";
  return std::string(name) + " must be a number above 0, or -1 for the checkpoint's own.";
}

std::string threshold_fault(const char *name, const std::optional<double> &value) {
  if (!value || (std::isfinite(*value) && *value >= 0)) return "";
  return std::string(name) + " must be a number from 0 on.";
}

std::string sigmas_fault(const char *name, const std::vector<double> &sigmas) {
  for (size_t i = 0; i < sigmas.size(); ++i) {
    if (!(sigmas[i] > 0 && sigmas[i] <= 1))
      return std::string(name) + " must be above 0 and up to 1, and " + text_of(sigmas[i]) + " is not.";
    if (i > 0 && sigmas[i] >= sigmas[i - 1])
      return std::string(name) + " must fall from step to step, and " + text_of(sigmas[i]) + " comes after " +
             text_of(sigmas[i - 1]) + ".";
  }
  return "";
}

// ---- what the checkpoint suggests, and what the engine is given

template <typename T>
void suggest_value(T WanDefaults::*suggestion, const WanDefaults &defaults, auto *field) {
  *field = defaults.*suggestion;
}
// Where no checkpoint has an opinion.
template <typename T>
void suggest_value(const T &suggestion, const WanDefaults &, auto *field) {
  *field = suggestion;
}

void hand(const std::string &text, const char *WanGenerateOptions::*option, WanGenerateOptions *options) {
  options->*option = text.c_str();
}
template <typename T>
void hand(const T &value, T WanGenerateOptions::*option, WanGenerateOptions *options) {
  options->*option = value;
}
template <typename T>
void hand(const std::optional<T> &value, T WanGenerateOptions::*option, WanGenerateOptions *options) {
  options->*option = *value;
}
void hand(const std::vector<double> &sigmas, const double *WanGenerateOptions::*option,
          WanGenerateOptions *options) {
  options->*option = sigmas.empty() ? nullptr : sigmas.data();
  options->num_sigmas = sigmas.size();
}
// The stream decides.
template <typename T>
void hand(const T &, std::nullptr_t, WanGenerateOptions *) {}

// ---- the table

template <typename T>
void write_field(const T &field, GValue *value) {
  write_value(field, value);
}
template <typename T>
void write_field(const std::optional<T> &field, GValue *value) {
  if (field) write_value(*field, value);
}

template <typename T>
using Fault = std::string (*)(const char *name, const T &value);

template <typename T>
ClipSetting row(GParamSpec *pspec, T ClipSettings::*field, auto suggestion, auto option,
                Fault<std::type_identity_t<T>> fault = no_fault<T>) {
  g_param_spec_ref_sink(pspec);
  return {
      .pspec = pspec,
      .set = [=](ClipSettings *clip, const GValue *value) { read_value(value, &(clip->*field)); },
      .get =
          [=](const ClipSettings &clip, GValue *value) {
            g_param_value_set_default(pspec, value);
            if (clip.*field != ClipSettings().*field) write_field(clip.*field, value);
          },
      .is_open = [=](const ClipSettings &clip) { return clip.*field == ClipSettings().*field; },
      .overlay =
          [=](ClipSettings *clip, const ClipSettings &under) {
            if (clip->*field == ClipSettings().*field) clip->*field = under.*field;
          },
      .suggest = [=](ClipSettings *clip,
                     const WanDefaults &defaults) { suggest_value(suggestion, defaults, &(clip->*field)); },
      .hand_over = [=](const ClipSettings &clip,
                       WanGenerateOptions *options) { hand(clip.*field, option, options); },
      .fault = [=](const ClipSettings &clip) { return fault(pspec->name, clip.*field); },
  };
}

std::vector<ClipSetting> make_table() {
  return {
      row(g_param_spec_string("prompt", "Prompt", "What the video shows, from the next clip on", "",
                              kPlaying),
          &ClipSettings::prompt, std::string(), &WanGenerateOptions::prompt, text_fault),
      row(g_param_spec_string(
              "negative-prompt", "Negative prompt",
              "What the video should not show, from the next clip on; used if the guidance scale is above 1",
              "", kPlaying),
          &ClipSettings::negative_prompt, std::string(), &WanGenerateOptions::negative_prompt, text_fault),
      row(g_param_spec_string(
              "image", "Image",
              "Path or URI of the picture that the video begins with, from the next clip on; for "
              "models that make videos from pictures",
              "", kPlaying),
          &ClipSettings::image, std::string(), nullptr, text_fault),
      row(g_param_spec_string(
              "last-image", "Last image",
              "Path or URI of the picture that the video ends with, from the next clip on; for "
              "models that take two pictures",
              "", kPlaying),
          &ClipSettings::last_image, std::string(), nullptr, text_fault),
      row(g_param_spec_int64(
              "seed", "Seed",
              "Seed of the next clip; each later clip adds 1 (-1: a random seed, which stats, "
              "tags and frame meta report). Seeds of 2^63 and more are written as the negative "
              "number with the same bits",
              G_MININT64, G_MAXINT64, kRandomSeed, kPlaying),
          &ClipSettings::seed, kRandomSeed, nullptr),
      row(g_param_spec_int("num-frames", "Number of frames",
                           "Frames in a clip: a multiple of 4 plus 1; other numbers are rounded (0: the "
                           "checkpoint's own; of a causal model, no end)",
                           0, G_MAXINT, 0, kReady),
          &ClipSettings::num_frames, &WanDefaults::num_frames, &WanGenerateOptions::num_frames),
      row(g_param_spec_int("steps", "Steps",
                           "Denoising steps, from the next clip on (0: the checkpoint's own)", 0, 1000, 0,
                           kPlaying),
          &ClipSettings::steps, &WanDefaults::steps, &WanGenerateOptions::steps),
      row(g_param_spec_double(
              "guidance-scale", "Guidance scale",
              "How closely the video follows the prompt, from the next clip on; up to 1 turns "
              "guidance off and is twice as fast (-1: the checkpoint's own)",
              -1, 100, -1, kPlaying),
          &ClipSettings::guidance_scale, &WanDefaults::guidance_scale, &WanGenerateOptions::guidance_scale,
          scale_fault),
      row(g_param_spec_double("guidance-scale-2", "Guidance scale 2",
                              "Guidance scale of the low-noise expert, from the next clip on (-1: "
                              "guidance-scale if that is set, else the checkpoint's own)",
                              -1, 100, -1, kPlaying),
          &ClipSettings::guidance_scale_2, &WanDefaults::guidance_scale_2,
          &WanGenerateOptions::guidance_scale_2, scale_fault),
      row(g_param_spec_double("flow-shift", "Flow shift",
                              "Shift of the noise schedule; more spends more steps at high noise. From the "
                              "next clip on (-1: the checkpoint's own)",
                              -1, 100, -1, kPlaying),
          &ClipSettings::flow_shift, &WanDefaults::flow_shift, &WanGenerateOptions::flow_shift, shift_fault),
      row(g_param_spec_enum("scheduler", "Scheduler", "Denoising scheduler, from the next clip on",
                            scheduler_type(), WAN_SCHEDULER_AUTO, kPlaying),
          &ClipSettings::scheduler, &WanDefaults::scheduler, &WanGenerateOptions::scheduler),
      row(gst_param_spec_array(
              "sigmas", "Sigmas",
              "Noise level of each step, falling and before flow-shift, from the next clip on; replaces "
              "steps. A list of timesteps divided by 1000 is one (empty: the scheduler's own)",
              g_param_spec_double("sigma", "Sigma", "Noise level, above 0", 0, 1, 1, kStatic), kPlaying),
          &ClipSettings::sigmas, std::vector<double>(), &WanGenerateOptions::sigmas, sigmas_fault),
      row(g_param_spec_enum(
              "cache", "Cache",
              "What a step may reuse from earlier steps, from the next clip on: faster, but the "
              "video changes; see docs/parity.md",
              cache_type(), WAN_CACHE_NONE, kPlaying),
          &ClipSettings::cache, WAN_CACHE_NONE, &WanGenerateOptions::cache),
      row(g_param_spec_double(
              "cache-threshold", "Cache threshold",
              "cache=first-block skips the other blocks where the first block's output has changed by at "
              "most this fraction, from the next clip on; more is faster and less exact",
              0, G_MAXDOUBLE, kCacheThreshold, kPlaying),
          &ClipSettings::cache_threshold, kCacheThreshold, &WanGenerateOptions::cache_threshold,
          threshold_fault),
      row(g_param_spec_enum("prompt-switch", "Prompt switch",
                            "How an endless video goes on where the prompt changes, from the next clip on; "
                            "for causal models",
                            prompt_switch_type(), WAN_SWITCH_AUTO, kPlaying),
          &ClipSettings::prompt_switch, &WanDefaults::prompt_switch, nullptr),
      row(g_param_spec_double(
              "continuity-correction", "Continuity correction",
              "With continuity=last-frame, how far the colours that a clip begins with are moved back to "
              "those of the film's first clip, from the next clip on (0: not at all; 1: wholly)",
              0, 1, 0, kPlaying),
          &ClipSettings::continuity_correction, 0.0, &WanGenerateOptions::continuity_correction),
  };
}

bool is_text(const ClipSetting &setting) {
  return setting.pspec->value_type == G_TYPE_STRING;
}

void add_enum(const GValue *value, const char *name, GstStructure *structure) {
  GEnumClass *names = G_ENUM_CLASS(g_type_class_peek(G_VALUE_TYPE(value)));
  gst_structure_set(structure, name, G_TYPE_STRING,
                    g_enum_get_value(names, g_value_get_enum(value))->value_nick, nullptr);
}

}  // namespace

const std::vector<ClipSetting> &clip_settings() {
  static const std::vector<ClipSetting> table = make_table();
  return table;
}

ClipSettings overlay(ClipSettings over, const ClipSettings &under) {
  ClipSettings beneath = under;
  if (over.steps != 0) beneath.sigmas.clear();
  if (over.guidance_scale != ClipSettings().guidance_scale) beneath.guidance_scale_2 = over.guidance_scale;
  for (const ClipSetting &setting : clip_settings()) setting.overlay(&over, beneath);
  return over;
}

ClipSettings complete(const ClipSettings &settings, const WanDefaults &defaults) {
  ClipSettings own;
  for (const ClipSetting &setting : clip_settings()) setting.suggest(&own, defaults);
  ClipSettings clip = overlay(settings, own);
  clip.num_frames = round_frames(clip.num_frames, defaults);
  return clip;
}

std::string clip_fault(const ClipSettings &settings) {
  for (const ClipSetting &setting : clip_settings())
    if (std::string fault = setting.fault(settings); !fault.empty()) return fault;
  return "";
}

std::string text_fault(const char *name, const std::string &text) {
  const bool valid = g_utf8_validate(text.data(), gssize(text.size()), nullptr);
  return valid ? "" : std::string(name) + " is not UTF-8.";
}

WanGenerateOptions generate_options(const ClipSettings &settings) {
  WanGenerateOptions options = {};
  for (const ClipSetting &setting : clip_settings()) setting.hand_over(settings, &options);
  return options;
}

void add_fields(const ClipSettings &settings, GstStructure *structure) {
  for (const ClipSetting &setting : clip_settings()) {
    Value value(setting.pspec->value_type);
    setting.get(settings, value.get());
    if (G_VALUE_HOLDS_ENUM(value.get()))
      add_enum(value.get(), setting.name(), structure);
    else
      gst_structure_set_value(structure, setting.name(), value.get());
  }
}

std::string launch_line(const ClipSettings &settings) {
  ClipSettings told = settings;
  if (told.cache == WAN_CACHE_NONE) {
    told.cache.reset();
    told.cache_threshold.reset();
  }
  std::string line;
  for (const bool texts : {false, true})
    for (const ClipSetting &setting : clip_settings()) {
      if (is_text(setting) != texts || setting.is_open(told)) continue;
      Value value(setting.pspec->value_type);
      setting.get(told, value.get());
      line += assignment(setting.name(), launch_text(value.get()));
    }
  return line;
}

int round_frames(int wanted, const WanDefaults &defaults) {
  if (wanted == 0) return 0;
  const int step = defaults.frames_multiple;
  return wanted % step == 1 % step ? wanted : wanted / step * step + 1;
}

}  // namespace wan
