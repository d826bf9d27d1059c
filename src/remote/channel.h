// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Messages between an element's process and a gst-wan-worker, over a TCP connection.
#pragma once

#include <ATen/core/Tensor.h>
#include <gio/gio.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "remote/message_header.h"

namespace wan {

struct Unref {
  void operator()(gpointer object) const { g_object_unref(object); }
};
using SocketPointer = std::unique_ptr<GSocket, Unref>;

/// A kind, a few values, and tensors, which arrive on the CPU.
struct Message {
  std::string type;
  Json values = Json::object();
  std::vector<at::Tensor> tensors = {};  // float32, bfloat16 or undefined, at most kMaxTensors
};

/// The values, to be read with errors that name the peer.
JsonFile values_of(const Message &message, const std::string &peer);

/// How large a message may be: what says otherwise is refused before memory is taken for it.
struct MessageLimits {
  uint32_t header_bytes;
  uint64_t tensor_bytes;
};
/// Until the other end has proved that it knows the secret.
constexpr MessageLimits kStrangersLimits = {4 << 10, 0};
constexpr MessageLimits kLimits = {256 << 10, uint64_t{2} << 30};

/// One end of a connection. A message is the length of its header (4 bytes, little endian), the header, a
/// JSON object, and the tensors' bytes.
class Channel {
 public:
  /// peer: its name in errors, as "The worker 10.0.0.2:5890". An end that is silent for so long is lost.
  Channel(SocketPointer socket, std::string peer,
          std::chrono::milliseconds patience = std::chrono::seconds(10));
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;

  const std::string &peer() const { return peer_; }
  /// Called while one waits for the peer; may throw.
  using Check = std::function<void()>;
  /// From any thread. Throws wan::Error (WAN_LOST) where the peer is lost.
  void send(
      const Message &message, const Check &check = [] {});
  /// The same to a peer that may be busy, and then reads nothing for as long as that takes, while its host
  /// acknowledges what is sent.
  void send_answer(const Message &message);
  /// The next message but kAlive. Throws likewise; WAN_INVALID where it is none or beyond the limits; and
  /// what an error message of the peer says.
  Message receive(
      const MessageLimits &limits = kLimits, const Check &check = [] {});
  /// The same, of this type.
  Message expect(
      const std::string &type, const MessageLimits &limits = kLimits, const Check &check = [] {});
  /// Waits without end for a message to begin; false: the peer has closed the connection. Throws as send().
  bool wait() const;
  /// Whether the peer has sent something that was not received, or is gone.
  bool is_readable() const;

 private:
  using Clock = std::chrono::steady_clock;
  /// Bytes that are moved; without patience one waits for as long as the peer's host is there.
  struct Transfer {
    const Check &check;
    std::optional<std::chrono::milliseconds> patience;
  };

  Error lost(const std::string &why) const;
  /// Throws where the peer's host has vanished: TCP's keepalive does not look for it while something that was
  /// sent is not acknowledged, and that would be sent again for a quarter of an hour.
  void require_host() const;
  /// Moves all bytes by move(done, left), which moves some of them as g_socket_send() does.
  void transfer(size_t bytes, GIOCondition condition, const Transfer &how,
                const std::function<gssize(size_t done, size_t left, GError **error)> &move) const;
  void send(const Message &message, const Transfer &how);
  void write(const void *data, size_t bytes, const Transfer &how) const;
  void read(void *data, size_t bytes, const Check &check) const;
  Error error_of(const Message &message) const;
  Message receive_one(const MessageLimits &limits, const Check &check) const;

  const SocketPointer socket_;
  const std::string peer_;
  const std::chrono::milliseconds patience_;
  std::mutex sending_;
};

/// Types of messages that any conversation has.
constexpr const char *kAlive = "alive";  // nothing, but that the sender works
constexpr const char *kError = "error";  // status, message: in place of an answer

/// What to send where something failed.
Message error_message(const Error &error);

}  // namespace wan
