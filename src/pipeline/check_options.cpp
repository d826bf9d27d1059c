// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/check_options.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>

#include "error.h"
#include "scheduler/scheduler.h"
#include "text/prompt_clean.h"

namespace wan {

namespace {

void require(bool condition, const std::string &message) {
  if (!condition) throw invalid(message);
}

void check_frames(const CheckpointConfig &config, const WanGenerateOptions &options) {
  if (config.causal && options.num_frames == 0) return;
  const int32_t multiple = config.defaults.frames_multiple;
  require(options.num_frames > 0 && (options.num_frames - 1) % multiple == 0,
          "The number of frames, " + std::to_string(options.num_frames) +
              ", is not 1 more than a multiple of " + std::to_string(multiple));
  const int64_t latent_frames = (options.num_frames - 1) / config.vae.temporal_scale() + 1;
  const int64_t most = (config.transformer.rope_max_seq_len - 1) * config.vae.temporal_scale() + 1;
  require(config.causal || latent_frames <= config.transformer.rope_max_seq_len,
          "The number of frames, " + std::to_string(options.num_frames) +
              ", is too large: the model takes up to " + std::to_string(most));
  require(options.used_frames >= 0 && options.used_frames <= options.num_frames,
          "The number of frames to decode, " + std::to_string(options.used_frames) +
              ", is not in 0 to the clip's " + std::to_string(options.num_frames));
  const int32_t decoded = decoded_frames(options);
  require(options.fade_frames >= 0 && options.fade_frames <= decoded / 2,
          "A crossfade of " + std::to_string(options.fade_frames) + " frames does not fit a clip of " +
              std::to_string(decoded) + ": it may have 0 to " + std::to_string(decoded / 2));
}

/// The enums count from 0. To C++ it is undefined to read another number as one, which a caller in C may
/// write.
template <typename Enum>
void check_enum(const std::string &name, const Enum &value, Enum last) {
  std::underlying_type_t<Enum> number;
  std::memcpy(&number, &value, sizeof number);
  require(number <= static_cast<std::underlying_type_t<Enum>>(last),
          name + "=" + std::to_string(number) + " is not a known value");
}

/// A plane of a frame: `rows` rows of `bytes` bytes.
void check_plane(const WanPixelLayout &layout, int plane, int64_t bytes, int64_t rows) {
  const int64_t stride = layout.stride[plane];
  // Offset and size are compared apart, so that nothing overflows.
  const bool fits = stride >= bytes && layout.offset[plane] <= layout.size &&
                    static_cast<uint64_t>(stride * (rows - 1) + bytes) <= layout.size - layout.offset[plane];
  require(fits, "The layout's plane " + std::to_string(plane) + " does not fit a frame of " +
                    std::to_string(layout.size) + " bytes");
}

void check_planes(const WanPixelLayout &layout) {
  const int64_t width = layout.width, height = layout.height;
  switch (layout.format) {
    case WAN_PIXEL_NV12:
      check_plane(layout, 0, width, height);
      return check_plane(layout, 1, width, height / 2);
    case WAN_PIXEL_I420:
      check_plane(layout, 0, width, height);
      check_plane(layout, 1, width / 2, height / 2);
      return check_plane(layout, 2, width / 2, height / 2);
    case WAN_PIXEL_RGB:
      return check_plane(layout, 0, 3 * width, height);
    case WAN_PIXEL_RGBX:
    case WAN_PIXEL_BGRX:
      return check_plane(layout, 0, 4 * width, height);
  }
}

void check_layout(const CheckpointConfig &config, const WanPixelLayout &layout) {
  check_size(config, layout.width, layout.height);
  check_enum("layout.format", layout.format, WAN_PIXEL_BGRX);
  check_enum("layout.matrix", layout.matrix, WAN_MATRIX_BT709);
  check_planes(layout);
}

void check_number(const char *name, double value, double most) {
  // The negated comparison is true of what is no number, too.
  if (!(value >= 0 && value <= most))
    throw invalid(std::string(name) + "=" + number_text(value) + " is not in 0 to " + number_text(most));
}

/// What a causal model has in a way of its own, or not at all.
void check_causal(const CheckpointConfig &config, const WanGenerateOptions &options) {
  const std::string model = "The model makes an endless video, ";
  require(options.steps == config.causal->steps() && !options.sigmas,
          model + "and its steps are fixed: leave steps=" + std::to_string(config.causal->steps()) +
              " and no sigmas");
  require(options.scheduler == WAN_SCHEDULER_AUTO,
          model + "and has a sampler of its own: set scheduler=auto");
  require(options.guidance_scale == 1 && options.guidance_scale_2 == 1,
          model + "which takes no guidance: set guidance-scale=1 and guidance-scale-2=1");
  require(options.fade_frames == 0 && options.used_frames == 0,
          model + "which has no clips that could fade into each other: set transition=cut");
  require(options.continuity == WAN_CONTINUITY_NONE, model + "which needs no continuity: set it to none");
  require(options.cache == WAN_CACHE_NONE, model + "whose few steps leave nothing to skip: set cache=none");
}

void check_steps(const CheckpointConfig &config, const WanGenerateOptions &options) {
  const int64_t least = options.sigmas ? 0 : 1, most = config.scheduler.num_train_timesteps;
  require(options.steps >= least && options.steps <= most,
          "steps=" + std::to_string(options.steps) + " is not in 1 to " + std::to_string(most));
  check_number("flow-shift", options.flow_shift, kMaxShift);
  require(options.flow_shift > 0, "flow-shift must be above 0");
  check_enum("scheduler", options.scheduler, WAN_SCHEDULER_EULER);
  if (config.causal) return check_causal(config, options);
  make_scheduler(config.scheduler, options);  // for what it throws
}

std::string name_of(WanPictureKind kind) {
  return kind == WAN_PICTURE_FIRST ? "image" : "last-image";
}

void check_picture(const WanDefaults &defaults, WanPictureKind kind, const WanGenerateOptions &options) {
  const std::string model = std::string(defaults.variant) + (defaults.endless ? ", causal" : "");
  const bool continues = kind == WAN_PICTURE_FIRST && options.continuity != WAN_CONTINUITY_NONE;
  if (defaults.pictures[kind] == WAN_PICTURE_REFUSED) {
    require(!options.pictures[kind], "The model is " + model + ", which takes no " + name_of(kind) +
                                         ": leave it out, or choose a model that makes videos from pictures");
    require(!continues,
            "The model is " + model +
                ", which takes no image, so its clips cannot begin with the last frame of the one before");
  }
  if (defaults.pictures[kind] == WAN_PICTURE_REQUIRED)
    require(options.pictures[kind] || continues,
            "The model is " + model + ", which makes videos from pictures: set " + name_of(kind));
}

void check_pictures(const CheckpointConfig &config, const WanGenerateOptions &options) {
  check_enum("continuity", options.continuity, WAN_CONTINUITY_LAST_FRAME);
  for (const WanPictureKind kind : {WAN_PICTURE_FIRST, WAN_PICTURE_LAST})
    check_picture(config.defaults, kind, options);
  check_number("continuity-correction", options.continuity_correction, 1);
  require(!options.pictures[WAN_PICTURE_LAST] || options.num_frames > 1,
          "A clip of one frame has no room for a last-image");
  require(options.continuity == WAN_CONTINUITY_NONE || options.fade_frames == 0,
          "Clips that begin with the last frame of the one before cannot be crossfaded: set transition=cut");
}

}  // namespace

void check_size(const CheckpointConfig &config, int32_t width, int32_t height) {
  const int32_t multiple = config.defaults.size_multiple;
  const int64_t patches = config.vae.spatial_scale();
  const TransformerConfig &transformer = config.transformer;
  for (const auto &[value, name, patch] :
       {std::tuple{width, "width", transformer.patch_width}, {height, "height", transformer.patch_height}}) {
    require(value > 0 && value % multiple == 0, "The " + std::string(name) + " " + std::to_string(value) +
                                                    " is not a multiple of " + std::to_string(multiple));
    const int64_t most = transformer.rope_max_seq_len * patches * patch;
    require(value <= most, "The " + std::string(name) + " " + std::to_string(value) +
                               " is too large: the model takes up to " + std::to_string(most));
  }
}

int32_t decoded_frames(const WanGenerateOptions &options) {
  return options.used_frames ? options.used_frames : options.num_frames;
}

void check_options(const CheckpointConfig &config, const WanGenerateOptions &options) {
  if (options.layout.width != 0 || options.layout.height != 0) check_layout(config, options.layout);
  check_frames(config, options);
  check_steps(config, options);
  check_number("guidance-scale", options.guidance_scale, kMaxGuidance);
  check_number("guidance-scale-2", options.guidance_scale_2, kMaxGuidance);
  check_pictures(config, options);
  check_enum("cache", options.cache, WAN_CACHE_FIRST_BLOCK);
  require(options.cache_threshold >= 0, "cache-threshold must be 0 or above");
  if (options.prompt) require_prompt(options.prompt);
  if (options.negative_prompt) require_prompt(options.negative_prompt, "negative prompt");
}

}  // namespace wan
