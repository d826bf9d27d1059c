// SPDX-License-Identifier: LGPL-2.1-or-later
#include "remote/worker.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <condition_variable>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <utility>

#include "checkpoint/fingerprint.h"
#include "checkpoint/input_file.h"
#include "device.h"
#include "pipeline/denoiser.h"
#include "pipeline/experts.h"
#include "remote/handshake.h"
#include "remote/protocol.h"
#include "threads.h"
#include "torch_error.h"

namespace wan {

namespace {

using ErrorPointer = std::unique_ptr<GError, void (*)(GError *)>;

void say(const std::string &sentence) {
  g_print("%s\n", printable(sentence, sentence.npos).c_str());
}

/// Tells the element every second that the worker lives, while that is busy.
class Heartbeat {
 public:
  explicit Heartbeat(Channel &channel)
      : thread_(start_thread([&channel](const std::stop_token &stop) { beat(channel, stop); })) {}

 private:
  static void beat(Channel &channel, const std::stop_token &stop) {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    try {
      while (!changed.wait_for(lock, stop, std::chrono::seconds(1), [] { return false; }) &&
             !stop.stop_requested())
        channel.send({kAlive});
    } catch (const Error &) {
      // Who computes finds out, too.
    }
  }

  const std::jthread thread_;
};

/// Ends what is computed where the element has gone, or speaks out of turn, which it never does.
RunContext while_connected(Channel &channel) {
  WanCallbacks callbacks{};
  callbacks.user = &channel;
  callbacks.cancelled = [](void *user) { return static_cast<Channel *>(user)->is_readable(); };
  callbacks.log = [](void *, WanLogLevel, const char *message) { say(message); };
  return RunContext(callbacks);
}

/// The checkpoint, and its experts when somebody has asked for them.
class Worker {
 public:
  explicit Worker(const WorkerOptions &options)
      : config_(CheckpointConfig::read(local_path(options.model_dir.c_str()))),
        memory_(parse_memory_mode(options.memory)),
        devices_(choose(options.device)),
        fingerprint_(fingerprint_experts(config_)) {}

  void serve(Channel &channel, const std::string &secret) {
    greet_element(channel, secret);
    while (channel.wait()) {
      const Message message = channel.receive();
      channel.send_answer(answer(message, channel));
      require_devices();
    }
  }
  void forget_clip() {
    denoiser_.reset();
    clip_.reset();
  }
  /// Throws wan::Error (WAN_DEVICE) where one cannot be used any more.
  void require_devices() const {
    for (const at::Device device : devices_) require_working(device);
  }

 private:
  static std::vector<at::Device> choose(const std::string &name) {
    const DeviceChoice choice = choose_devices(name);
    for (const std::string &sentence : choice.passed_over) say(sentence);
    return choice.devices;
  }
  /// An error is an answer, too; a lost element is thrown.
  Message answer(const Message &message, Channel &channel) {
    const Heartbeat heartbeat(channel);
    try {
      require_compute_threads();
      const c10::DeviceGuard guard(devices_.front());
      if (message.type == "load") return load(message, channel);
      if (message.type == "clip") return begin_clip(message, channel);
      if (message.type == "step") return step(message, channel);
      throw invalid("There is no message '" + printable(message.type) + "'");
    } catch (const std::bad_alloc &) {
      return failure({WAN_OUT_OF_MEMORY, "This machine has too little memory"});
    } catch (...) {
      return failure(current_error([] {
        return "choose a smaller width, height or number of frames, or start the worker with another "
               "--memory";
      }));
    }
  }
  static Message failure(const Error &error) {
    say(error.what());
    return error_message(error);
  }

  Message load(const Message &message, Channel &channel) {
    const JsonFile values = values_of(message, channel.peer());
    if (values.get<std::string>("experts", "") != fingerprint_)
      throw invalid("The worker's checkpoint " + config_.directory.string() +
                    " has other experts than the element's: give both the same");
    const std::string dtype = values.get<std::string>("dtype", "");
    if (dtype != "float32" && dtype != "bfloat16") throw values.error("dtype", "must be float32 or bfloat16");
    const Placement wanted = {
        devices_, dtype == "float32" ? at::kFloat : at::kBFloat16,
        static_cast<WanQuantization>(values.integer("quantization", WAN_QUANTIZATION_NONE,
                                                    WAN_QUANTIZATION_NONE, WAN_QUANTIZATION_STORED))};
    if (!experts_ || experts_->placement().dtype != wanted.dtype ||
        experts_->placement().quantization != wanted.quantization)
      load_experts(wanted, channel);
    return {"loaded", {{"devices", describe_devices(devices_)}}};
  }

  void load_experts(const Placement &placement, Channel &channel) {
    forget_clip();
    experts_.reset();
    const RunContext context = while_connected(channel);
    const auto source =
        open_checkpoint(config_, {}, context, [&context](uint64_t, uint64_t) { context.check(); });
    experts_.emplace(config_, *source, placement, memory_, /*alone=*/true);
    say("The experts are loaded on " + describe_devices(devices_) +
        " with memory=" + memory_mode_name(experts_->memory_mode()));
  }

  Message begin_clip(const Message &message, const Channel &channel) {
    if (!experts_) throw invalid("A clip came before its experts");
    forget_clip();
    clip_ = parse_clip(message, config_, channel.peer());
    for (at::Tensor *input : {&clip_->inputs.text.prompt, &clip_->inputs.channels, &clip_->inputs.clean_frame,
                              &clip_->inputs.image})
      if (input->defined()) *input = input->to(devices_.front());
    denoiser_.emplace(*experts_, clip_->options, clip_->plan, clip_->inputs, clip_->timesteps);
    return {"ready"};
  }

  Message step(const Message &message, Channel &channel) {
    if (!denoiser_) throw invalid("A step came before its clip");
    const auto last = static_cast<int64_t>(clip_->timesteps.size()) - 1;
    const int64_t step = values_of(message, channel.peer()).integer("step", -1, 0, last);
    const ClipPlan &plan = clip_->plan;
    if (message.tensors.size() != 1 || !message.tensors.front().defined() ||
        message.tensors.front().sizes() !=
            at::IntArrayRef({1, config_.vae.z_dim, plan.frames, plan.height, plan.width}))
      throw invalid("A step came without latents of the clip's size");
    const at::Tensor latents = message.tensors.front().to(devices_.front());
    const at::Tensor velocity = (*denoiser_)(static_cast<size_t>(step), latents, while_connected(channel));
    return {"velocity", {{"cached", denoiser_->cached()}}, {velocity.cpu()}};
  }

  const CheckpointConfig config_;
  const WanMemoryMode memory_;
  const std::vector<at::Device> devices_;
  const std::string fingerprint_;
  std::optional<Experts> experts_;
  std::optional<RemoteClip> clip_;
  std::optional<Denoiser> denoiser_;
};

struct ListenAddress {
  std::unique_ptr<GSocketAddress, Unref> address;
  bool is_loopback;
};

ListenAddress parse_listen(const std::string &text) {
  GError *error = nullptr;
  const std::unique_ptr<GSocketConnectable, Unref> parsed(
      g_network_address_parse(text.c_str(), kWorkerPort, &error));
  const ErrorPointer failure(error, g_error_free);
  GInetAddress *host =
      parsed ? g_inet_address_new_from_string(g_network_address_get_hostname(G_NETWORK_ADDRESS(parsed.get())))
             : nullptr;
  if (!host)
    throw invalid("--listen is '" + printable(text) +
                  "': give an IP address of this host and a port, as 127.0.0.1:5890");
  const std::unique_ptr<GInetAddress, Unref> owned(host);
  const guint16 port = g_network_address_get_port(G_NETWORK_ADDRESS(parsed.get()));
  return {std::unique_ptr<GSocketAddress, Unref>(g_inet_socket_address_new(host, port)),
          g_inet_address_get_is_loopback(host) != FALSE};
}

std::string describe(GSocketAddress *address) {
  const std::unique_ptr<gchar, void (*)(gpointer)> text(
      g_socket_connectable_to_string(G_SOCKET_CONNECTABLE(address)), g_free);
  return text.get();
}

SocketPointer listen(const WorkerOptions &options, const std::string &secret) {
  const ListenAddress where = parse_listen(options.listen);
  if (!where.is_loopback && secret.empty())
    throw invalid("Others can reach " + options.listen +
                  ": set the environment variable GST_WAN_SECRET for the worker and its elements");
  GError *error = nullptr;
  SocketPointer socket(g_socket_new(g_socket_address_get_family(where.address.get()), G_SOCKET_TYPE_STREAM,
                                    G_SOCKET_PROTOCOL_TCP, &error));
  if (!socket || !g_socket_bind(socket.get(), where.address.get(), TRUE, &error) ||
      !g_socket_listen(socket.get(), &error)) {
    const ErrorPointer failure(error, g_error_free);
    throw Error(WAN_LOST, "The worker cannot listen on " + options.listen + ": " + error->message);
  }
  const std::unique_ptr<GSocketAddress, Unref> own(g_socket_get_local_address(socket.get(), nullptr));
  say("Listening on " + describe(own.get()));
  return socket;
}

SocketPointer accept(GSocket *listener) {
  GError *error = nullptr;
  SocketPointer socket(g_socket_accept(listener, nullptr, &error));
  if (socket) {
    tune(socket.get());
    return socket;
  }
  const ErrorPointer failure(error, g_error_free);
  throw Error(WAN_LOST, std::string("No connection can be taken: ") + error->message);
}

std::string peer_of(GSocket *socket) {
  const std::unique_ptr<GSocketAddress, Unref> address(g_socket_get_remote_address(socket, nullptr));
  return "The element " + (address ? describe(address.get()) : std::string("that has gone"));
}

}  // namespace

void serve_elements(const WorkerOptions &options) {
  const c10::InferenceMode inference;
  const std::string secret = shared_secret();
  Worker worker(options);
  const SocketPointer listener = listen(options, secret);
  for (;;) {
    SocketPointer socket = accept(listener.get());
    const std::string peer = peer_of(socket.get());
    Channel channel(std::move(socket), peer);
    try {
      worker.serve(channel, secret);
    } catch (const Error &error) {
      say(error.what());
    }
    worker.forget_clip();
    worker.require_devices();
  }
}

}  // namespace wan
