// SPDX-License-Identifier: LGPL-2.1-or-later
#include "remote/channel.h"

#include <ATen/ATen.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <bit>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

namespace wan {

static_assert(std::endian::native == std::endian::little, "tensors are sent as they lie in memory");

namespace {

constexpr gint64 kPollMicroseconds = 20'000;
// How much longer a host may acknowledge nothing than a peer may be silent: networks recover.
constexpr int kHostPatience = 3;

const std::map<at::ScalarType, std::string> kDtypes = {{at::kFloat, "F32"}, {at::kBFloat16, "BF16"}};

Json describe(const at::Tensor &tensor) {
  if (!tensor.defined()) return nullptr;
  return {{"dtype", kDtypes.at(tensor.scalar_type())}, {"shape", tensor.sizes().vec()}};
}

at::Tensor empty_as_described(const std::optional<TensorDescription> &description) {
  if (!description) return {};
  return at::empty(description->shape, description->dtype == "F32" ? at::kFloat : at::kBFloat16);
}

}  // namespace

JsonFile values_of(const Message &message, const std::string &peer) {
  return {std::string_view(message.values.dump()), peer};
}

Channel::Channel(SocketPointer socket, std::string peer, std::chrono::milliseconds patience)
    : socket_(std::move(socket)), peer_(std::move(peer)), patience_(patience) {
  g_socket_set_blocking(socket_.get(), FALSE);
}

Error Channel::lost(const std::string &why) const {
  return {WAN_LOST, peer_ + " was lost: " + why};
}

void Channel::require_host() const {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(g_socket_get_fd(socket_.get()), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return;  // no TCP
  const std::chrono::milliseconds silent(info.tcpi_last_ack_recv);
  if (info.tcpi_unacked > 0 && silent > kHostPatience * patience_)
    throw lost("its host has not answered for " +
               number_text(std::chrono::duration<double>(kHostPatience * patience_).count()) + " seconds");
}

void Channel::transfer(size_t bytes, GIOCondition condition, const Transfer &how,
                       const std::function<gssize(size_t, size_t, GError **)> &move) const {
  auto heard = Clock::now();
  for (size_t done = 0; done < bytes;) {
    GError *error = nullptr;
    const gssize moved = move(done, bytes - done, &error);
    if (moved > 0) {
      done += static_cast<size_t>(moved);
      heard = Clock::now();
      continue;
    }
    const std::unique_ptr<GError, void (*)(GError *)> failure(error, g_error_free);
    if (!failure) throw lost("it closed the connection");
    if (!g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) throw lost(error->message);
    how.check();
    if (how.patience && Clock::now() - heard > *how.patience)
      throw lost("nothing was heard of it for " +
                 number_text(std::chrono::duration<double>(*how.patience).count()) + " seconds");
    if (!how.patience) require_host();
    g_socket_condition_timed_wait(socket_.get(), condition, kPollMicroseconds, nullptr, nullptr);
  }
}

void Channel::write(const void *data, size_t bytes, const Transfer &how) const {
  transfer(bytes, G_IO_OUT, how, [&](size_t done, size_t left, GError **error) {
    return g_socket_send(socket_.get(), static_cast<const gchar *>(data) + done, left, nullptr, error);
  });
}

void Channel::read(void *data, size_t bytes, const Check &check) const {
  transfer(bytes, G_IO_IN, {check, patience_}, [&](size_t done, size_t left, GError **error) {
    return g_socket_receive(socket_.get(), static_cast<gchar *>(data) + done, left, nullptr, error);
  });
}

void Channel::send(const Message &message, const Check &check) {
  send(message, Transfer{check, patience_});
}

void Channel::send_answer(const Message &message) {
  send(message, Transfer{[] {}, std::nullopt});
}

void Channel::send(const Message &message, const Transfer &how) {
  Json header = {{"type", message.type}, {"values", message.values}, {"tensors", Json::array()}};
  std::vector<at::Tensor> tensors;
  for (const at::Tensor &tensor : message.tensors) {
    tensors.push_back(tensor.defined() ? tensor.cpu().contiguous() : tensor);
    header["tensors"].push_back(describe(tensor));
  }
  const std::string text = header.dump();
  const auto length = static_cast<uint32_t>(text.size());
  const std::lock_guard lock(sending_);
  write(&length, sizeof(length), how);
  write(text.data(), text.size(), how);
  for (const at::Tensor &tensor : tensors)
    if (tensor.defined()) write(tensor.const_data_ptr(), tensor.nbytes(), how);
}

Message Channel::receive_one(const MessageLimits &limits, const Check &check) const {
  uint32_t length = 0;
  read(&length, sizeof(length), check);
  if (length > limits.header_bytes)
    throw invalid(peer_ + " does not speak as gst-wan does: its message would have " +
                  std::to_string(length) + " bytes");
  std::string text(length, '\0');
  read(text.data(), text.size(), check);
  MessageHeader header = parse_message_header(text, limits.tensor_bytes, peer_);
  Message message = {std::move(header.type), std::move(header.values)};
  for (const auto &description : header.tensors) message.tensors.push_back(empty_as_described(description));
  for (const at::Tensor &tensor : message.tensors)
    if (tensor.defined()) read(tensor.mutable_data_ptr(), tensor.nbytes(), check);
  return message;
}

/// What the peer's devices are and what it was told are not ours.
Error Channel::error_of(const Message &message) const {
  const JsonFile values = values_of(message, peer_);
  auto status = static_cast<WanStatus>(values.integer("status", WAN_INTERNAL, WAN_NOT_FOUND, WAN_INTERNAL));
  if (status == WAN_DEVICE || status == WAN_CANCELLED) status = WAN_LOST;
  return {status, peer_ + " says: " + printable(values.get<std::string>("message", ""), 512)};
}

Message Channel::receive(const MessageLimits &limits, const Check &check) {
  Message message = receive_one(limits, check);
  while (message.type == kAlive) {
    check();
    message = receive_one(limits, check);
  }
  if (message.type != kError) return message;
  throw error_of(message);
}

Message Channel::expect(const std::string &type, const MessageLimits &limits, const Check &check) {
  Message message = receive(limits, check);
  if (message.type != type)
    throw invalid(peer_ + " sent the message '" + printable(message.type) + "' where '" + type + "' is due");
  return message;
}

bool Channel::wait() const {
  const gint64 patience = std::chrono::microseconds(patience_).count();
  while (!g_socket_condition_timed_wait(socket_.get(), G_IO_IN, patience, nullptr, nullptr)) require_host();
  char next;
  return recv(g_socket_get_fd(socket_.get()), &next, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

bool Channel::is_readable() const {
  return g_socket_condition_check(socket_.get(), static_cast<GIOCondition>(G_IO_IN | G_IO_HUP | G_IO_ERR)) !=
         0;
}

Message error_message(const Error &error) {
  return {kError, {{"status", static_cast<int64_t>(error.kind())}, {"message", error.what()}}};
}

}  // namespace wan
