// SPDX-License-Identifier: LGPL-2.1-or-later
#include "remote/remote_denoiser.h"

#include <fcntl.h>

#include <limits>
#include <utility>

#include "checkpoint/fingerprint.h"
#include "remote/handshake.h"
#include "remote/protocol.h"

namespace wan {

namespace {

constexpr guint kConnectSeconds = 10;

SocketPointer open_connection(const std::string &address) {
  GError *error = nullptr;
  const std::unique_ptr<GSocketClient, Unref> client(g_socket_client_new());
  g_socket_client_set_enable_proxy(client.get(), FALSE);
  g_socket_client_set_timeout(client.get(), kConnectSeconds);
  const std::unique_ptr<GSocketConnection, Unref> connection(
      g_socket_client_connect_to_host(client.get(), address.c_str(), kWorkerPort, nullptr, &error));
  SocketPointer socket;
  if (connection) {
    // The connection closes its socket when it goes.
    const int own =
        fcntl(g_socket_get_fd(g_socket_connection_get_socket(connection.get())), F_DUPFD_CLOEXEC, 0);
    socket.reset(g_socket_new_from_fd(own, &error));
  }
  if (socket) {
    tune(socket.get());
    return socket;
  }
  const std::unique_ptr<GError, void (*)(GError *)> failure(error, g_error_free);
  throw Error(WAN_LOST, "No worker answers at " + address + " (" + error->message +
                            "): start gst-wan-worker there, or change the property worker");
}

Channel::Check check_of(const RunContext &context) {
  return [&context] { context.check(); };
}

}  // namespace

RemoteDenoiser::RemoteDenoiser(std::string address, const CheckpointConfig &config,
                               const Placement &placement, const RunContext &context)
    : address_(std::move(address)),
      load_{"load",
            {{"experts", fingerprint_experts(config)},
             {"dtype", placement.dtype == at::kFloat ? "float32" : "bfloat16"},
             {"quantization", static_cast<int64_t>(placement.quantization)}}} {
  connect(context);
}

/// What fails leaves no connection whose next message would be the answer to something else.
template <typename Function>
void RemoteDenoiser::converse(Function function) {
  try {
    function();
  } catch (...) {
    answer_is_due_ = false;
    channel_.reset();
    throw;
  }
}

void RemoteDenoiser::connect(const RunContext &context) {
  converse([&] {
    channel_ = std::make_unique<Channel>(open_connection(address_), "The worker " + address_);
    greet_worker(*channel_, shared_secret(), check_of(context));
    channel_->send(load_, check_of(context));
  });
}

void RemoteDenoiser::wait_until_loaded(const RunContext &context) {
  converse([&] {
    const Message loaded = channel_->expect("loaded", kLimits, check_of(context));
    devices_ = printable(values_of(loaded, channel_->peer()).get<std::string>("devices", ""));
  });
}

void RemoteDenoiser::begin_clip(const WanGenerateOptions &options, const ModelInputs &inputs,
                                const std::vector<double> &timesteps, const RunContext &context) {
  cached_ = 0;
  // Nothing is due, so a worker that says something has gone, and another may be in its place.
  if (channel_ && channel_->is_readable()) channel_.reset();
  if (!channel_) {
    connect(context);
    wait_until_loaded(context);
  }
  converse([&] {
    channel_->send(clip_message(options, inputs, timesteps), check_of(context));
    channel_->expect("ready", kLimits, check_of(context));
  });
}

void RemoteDenoiser::begin_step(size_t step, const at::Tensor &latents, const RunContext &context) {
  converse([&] {
    channel_->send({"step", {{"step", step}}, {latents}}, check_of(context));
    answer_is_due_ = true;
  });
}

at::Tensor RemoteDenoiser::finish_step(const RunContext &context) {
  at::Tensor velocity;
  converse([&] {
    const Message answer = channel_->expect("velocity", kLimits, check_of(context));
    if (answer.tensors.size() != 1 || !answer.tensors.front().defined())
      throw invalid(channel_->peer() + " sent no velocity");
    velocity = answer.tensors.front();
    cached_ = static_cast<int32_t>(
        values_of(answer, channel_->peer()).integer("cached", 0, 0, std::numeric_limits<int32_t>::max()));
    answer_is_due_ = false;
  });
  return velocity;
}

void RemoteDenoiser::end_clip() {
  if (std::exchange(answer_is_due_, false)) channel_.reset();
}

}  // namespace wan
