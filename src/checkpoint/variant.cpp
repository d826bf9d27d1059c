// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/variant.h"

#include <algorithm>
#include <iterator>

namespace wan {

namespace {

constexpr auto kRefused = WAN_PICTURE_REFUSED, kOptional = WAN_PICTURE_OPTIONAL,
               kRequired = WAN_PICTURE_REQUIRED;

constexpr Variant kVariants[] = {
    {.name = "T2V-A14B",
     .traits = {.picture_input = PictureInput::kNone,
                .sees_clip = false,
                .two_pictures = false,
                .two_experts = true},
     .first_picture = kRefused,
     .last_picture = kRefused,
     .boundary_ratio = 0.875,
     .flow_shift = 3,
     .width = 832,
     .height = 480,
     .num_frames = 81,
     .framerate = 16,
     .steps = 40,
     .guidance_scale = 4,
     .guidance_scale_2 = 3},
    {.name = "I2V-A14B",
     .traits = {.picture_input = PictureInput::kChannels,
                .sees_clip = false,
                .two_pictures = false,
                .two_experts = true},
     .first_picture = kRequired,
     .last_picture = kOptional,
     .boundary_ratio = 0.9,
     .flow_shift = 3,
     .width = 832,
     .height = 480,
     .num_frames = 81,
     .framerate = 16,
     .steps = 40,
     .guidance_scale = 3.5,
     .guidance_scale_2 = 3.5},
    {.name = "TI2V-5B",
     .traits = {.picture_input = PictureInput::kCleanFrame,
                .sees_clip = false,
                .two_pictures = false,
                .two_experts = false},
     .first_picture = kOptional,
     .last_picture = kRefused,
     .boundary_ratio = {},
     .flow_shift = 5,
     .width = 1280,
     .height = 704,
     .num_frames = 121,
     .framerate = 24,
     .steps = 50,
     .guidance_scale = 5,
     .guidance_scale_2 = 5},
    {.name = "Wan2.1-T2V",
     .traits = {.picture_input = PictureInput::kNone,
                .sees_clip = false,
                .two_pictures = false,
                .two_experts = false},
     .first_picture = kRefused,
     .last_picture = kRefused,
     .boundary_ratio = {},
     .flow_shift = 3,
     .width = 832,
     .height = 480,
     .num_frames = 81,
     .framerate = 16,
     .steps = 50,
     .guidance_scale = 5,
     .guidance_scale_2 = 5},
    {.name = "Wan2.1-I2V",
     .traits = {.picture_input = PictureInput::kChannels,
                .sees_clip = true,
                .two_pictures = false,
                .two_experts = false},
     .first_picture = kRequired,
     .last_picture = kRefused,
     .boundary_ratio = {},
     .flow_shift = 3,
     .width = 832,
     .height = 480,
     .num_frames = 81,
     .framerate = 16,
     .steps = 40,
     .guidance_scale = 5,
     .guidance_scale_2 = 5},
    {.name = "Wan2.1-FLF2V",
     .traits = {.picture_input = PictureInput::kChannels,
                .sees_clip = true,
                .two_pictures = true,
                .two_experts = false},
     .first_picture = kRequired,
     .last_picture = kRequired,
     .boundary_ratio = {},
     .flow_shift = 16,
     .width = 1280,
     .height = 720,
     .num_frames = 81,
     .framerate = 16,
     .steps = 50,
     .guidance_scale = 5.5,
     .guidance_scale_2 = 5.5},
};

}  // namespace

const Variant *find_variant(const ModelTraits &traits) {
  ModelTraits other_experts = traits;
  other_experts.two_experts = !traits.two_experts;
  for (const ModelTraits &wanted : {traits, other_experts})
    if (const auto *found = std::ranges::find(kVariants, wanted, &Variant::traits);
        found != std::end(kVariants))
      return found;
  return nullptr;
}

}  // namespace wan
