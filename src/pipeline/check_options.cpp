#include "pipeline/check_options.h"

#include <cmath>
#include <string>
#include <tuple>

#include "error.h"
#include "scheduler/scheduler.h"

namespace wan {

namespace {

void require(bool condition, const std::string &message) {
  if (!condition) throw invalid(message);
}

void check_size(const CheckpointConfig &config, const WanPixelLayout &layout) {
  const int32_t multiple = config.defaults.size_multiple;
  const int64_t patches = config.vae.spatial_scale();
  const TransformerConfig &transformer = config.transformer;
  for (const auto &[value, name, patch] : {std::tuple{layout.width, "width", transformer.patch_width},
                                           {layout.height, "height", transformer.patch_height}}) {
    require(value > 0 && value % multiple == 0, "The " + std::string(name) + " " + std::to_string(value) +
                                                    " is not a multiple of " + std::to_string(multiple));
    const int64_t most = transformer.rope_max_seq_len * patches * patch;
    require(value <= most, "The " + std::string(name) + " " + std::to_string(value) +
                               " is too large: the model takes up to " + std::to_string(most));
  }
}

void check_frames(const CheckpointConfig &config, const WanGenerateOptions &options) {
  const int32_t multiple = config.defaults.frames_multiple;
  require(options.num_frames > 0 && (options.num_frames - 1) % multiple == 0,
          "The number of frames, " + std::to_string(options.num_frames) +
              ", is not 1 more than a multiple of " + std::to_string(multiple));
  const int64_t latent_frames = (options.num_frames - 1) / config.vae.temporal_scale() + 1;
  const int64_t most = (config.transformer.rope_max_seq_len - 1) * config.vae.temporal_scale() + 1;
  require(latent_frames <= config.transformer.rope_max_seq_len,
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

}  // namespace

int32_t decoded_frames(const WanGenerateOptions &options) {
  return options.used_frames ? options.used_frames : options.num_frames;
}

void check_options(const CheckpointConfig &config, const WanGenerateOptions &options) {
  if (options.layout.width != 0 || options.layout.height != 0) check_size(config, options.layout);
  check_frames(config, options);
  require(options.sigmas || (options.steps > 0 && options.steps <= config.scheduler.num_train_timesteps),
          "steps=" + std::to_string(options.steps) + " is not in 1 to " +
              std::to_string(config.scheduler.num_train_timesteps));
  require(options.flow_shift > 0 && std::isfinite(options.flow_shift), "flow-shift must be above 0");
  require(std::isfinite(options.guidance_scale) && std::isfinite(options.guidance_scale_2),
          "guidance-scale must be a number");
  require(options.cache == WAN_CACHE_NONE || options.cache_threshold >= 0,
          "cache-threshold must be 0 or above");
  make_scheduler(config.scheduler, options);  // for what it throws
}

}  // namespace wan
