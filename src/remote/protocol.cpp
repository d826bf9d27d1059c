// SPDX-License-Identifier: LGPL-2.1-or-later
#include "remote/protocol.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "pipeline/check_options.h"

namespace wan {

namespace {

constexpr int64_t kMaxFrames = 100'000;

void require_shape(const at::Tensor &tensor, at::IntArrayRef shape, const std::string &what) {
  if (tensor.sizes() != shape)
    throw invalid("The tensor " + what + " has the shape " + c10::str(tensor.sizes()) + ", not " +
                  c10::str(shape));
}

/// As JSON has it, of the clip's own enum.
WanCache cache_of(const JsonFile &file) {
  return static_cast<WanCache>(file.integer("cache", WAN_CACHE_NONE, WAN_CACHE_NONE, WAN_CACHE_FIRST_BLOCK));
}

void check_inputs(const ModelInputs &inputs, const ClipPlan &plan, const CheckpointConfig &config) {
  const TransformerConfig &transformer = config.transformer;
  if (!inputs.text.prompt.defined()) throw invalid("The prompt's tensor is missing");
  require_shape(inputs.text.prompt, {1, inputs.text.prompt.size(1), transformer.text_dim}, "of the prompt");
  const int64_t more = transformer.in_channels - config.vae.z_dim;
  if (inputs.channels.defined() != (more > 0) || inputs.image.defined() != transformer.image_dim.has_value())
    throw invalid("The clip has not the pictures that the model takes");
  if (inputs.channels.defined())
    require_shape(inputs.channels, {1, more, plan.frames, plan.height, plan.width}, "of the pictures");
  if (inputs.clean_frame.defined())
    require_shape(inputs.clean_frame, {1, config.vae.z_dim, 1, plan.height, plan.width},
                  "of the first frame");
}

}  // namespace

void tune(GSocket *socket) {
  g_socket_set_keepalive(socket, TRUE);
  for (const auto &[option, value] : {std::pair{TCP_KEEPIDLE, 10}, {TCP_KEEPINTVL, 5}, {TCP_KEEPCNT, 3}})
    g_socket_set_option(socket, IPPROTO_TCP, option, value, nullptr);
  g_socket_set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1, nullptr);
}

Message clip_message(const WanGenerateOptions &options, const ModelInputs &inputs,
                     const std::vector<double> &timesteps) {
  return {"clip",
          {{"width", options.layout.width},
           {"height", options.layout.height},
           {"num_frames", options.num_frames},
           {"cache", static_cast<int64_t>(options.cache)},
           {"cache_threshold", options.cache_threshold},
           {"timesteps", timesteps}},
          {inputs.text.negative, inputs.channels, inputs.clean_frame, inputs.image}};
}

RemoteClip parse_clip(const Message &message, const CheckpointConfig &config, const std::string &peer) {
  const JsonFile file = values_of(message, peer);
  RemoteClip clip = {};
  clip.options.layout.width = static_cast<int32_t>(file.integer("width", 0, 1, 1 << 16));
  clip.options.layout.height = static_cast<int32_t>(file.integer("height", 0, 1, 1 << 16));
  clip.options.num_frames = static_cast<int32_t>(file.integer("num_frames", 0, 1, kMaxFrames));
  clip.options.guidance_scale = clip.options.guidance_scale_2 = 1;
  clip.options.cache = cache_of(file);
  clip.options.cache_threshold = file.number("cache_threshold", 0, 0, 1e6);
  check_size(config, clip.options.layout.width, clip.options.layout.height);
  clip.plan = latents_size(config, clip.options);
  if (clip.plan.frames > config.transformer.rope_max_seq_len)
    throw file.error("num_frames", "is more than the model takes");
  clip.timesteps = file.get<std::vector<double>>("timesteps", {});
  for (const double timestep : clip.timesteps)
    if (!(timestep >= 0 && timestep <= 1000)) throw file.error("timesteps", "must lie in 0 to 1000");
  if (clip.timesteps.empty() || message.tensors.size() != 4) throw invalid(peer + " sent an incomplete clip");
  clip.inputs = {{message.tensors[0], {}}, message.tensors[1], message.tensors[2], message.tensors[3]};
  check_inputs(clip.inputs, clip.plan, config);
  return clip;
}

}  // namespace wan
