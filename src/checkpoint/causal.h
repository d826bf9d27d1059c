// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Causal models, which make a video section by section: what a family of them does in its own way. A
// checkpoint does not say it, its gst-wan.json does, most often by the family's name.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json_file.h"
#include "wan/engine.h"

namespace wan {

/// How earlier frames are remembered.
enum class CausalMemory {
  kRolling,   // the last ones and the first ones
  kInFlight,  // the same, and several sections are denoised at once (Rolling Forcing)
  kRebuilt    // nothing but the last latents and the first one, from which all is computed anew (Krea)
};

enum class SectionSolver {
  kRenoise,  // predicts the finished latents and adds fresh noise to them for the next step
  kUniPC
};

/// How a video begins from a picture.
enum class ImageStart {
  kNone,
  kAlone,  // its latent is a section of its own
  kInside  // it is the first latent of the first section, at timestep 0
};

/// Of kRebuilt: from so many latents all is computed anew, the first of the scene, or what stands for it, and
/// the last ones.
constexpr int64_t kRebuiltFrames = 3;

struct CausalConfig {
  CausalMemory memory = CausalMemory::kRolling;
  int64_t num_frames_per_block = 3;  // latent frames of a section
  int64_t first_block = 3;           // of the first one
  int64_t local_attn_size = 21;      // latent frames that are seen, those of the section among them
  int64_t sink_size = 0;             // of these, the first ones of the video
  bool relative_positions = false;   // a frame stands at its place in the window, not in the video
  SectionSolver sampler = SectionSolver::kRenoise;
  std::vector<int64_t> denoising_step_list = {1000, 750, 500, 250};  // noise levels in thousandths; of UniPC
                                                                     // only their number counts
  bool warp_denoising_step = true;                                   // these are levels before the shift
  double flow_shift = 5;
  std::optional<double> boundary_ratio;  // of two experts
  WanPromptSwitch prompt_switch = WAN_SWITCH_CROSS;
  bool recache_keeps_sink = true;  // a recache leaves the sink as it was made
  /// Latent frames that a recache leaves, the newest ones, until the first section of the new prompt is made,
  /// which becomes the sink. 0: it leaves all, and the sink.
  int64_t recache_frames = 0;
  bool keep_first_frame = true;  // of kRebuilt: the first of the latents is the scene's first one; else it is
                                 // encoded anew, from the frame before the others' frames
  bool shared_text_kv = false;   // of two experts: both see the prompt as the one for high noise does
  int64_t scene_offset = 0;      // latent frames that a new scene is moved forward in time; it is then
                                 // pinned. 0: a new scene forgets all before it
  ImageStart image_start = ImageStart::kNone;

  int64_t steps() const { return static_cast<int64_t>(denoising_step_list.size()); }
  /// Whether a new scene, from a picture or not, forgets all before it and so is a video of its own.
  bool forgets_scenes(bool picture) const { return scene_offset == 0 || picture; }

  /// A family by its name: "self-forcing", "longlive2", … Nothing where there is none.
  static std::optional<CausalConfig> preset(std::string_view name);
  /// What the config.json of a CausalWanTransformer3DModel says.
  void apply_transformer_config(const JsonFile &file);
  /// "causal" of a gst-wan.json: a preset's name, or an object that may have one and the names of the above.
  /// Throws wan::Error (WAN_INVALID), likewise below.
  void apply(const JsonFile &file, const std::function<void(CausalConfig &)> &behind_preset);
  /// Refuses what does not fit together.
  void check(const std::string &source, bool two_experts) const;
};

}  // namespace wan
