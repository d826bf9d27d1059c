// SPDX-License-Identifier: LGPL-2.1-or-later
#include "remote/handshake.h"

#include <sys/random.h>

#include <array>
#include <chrono>
#include <cstdlib>

namespace wan {

namespace {

constexpr size_t kNonceBytes = 32;
/// In which a stranger must have said all: the worker listens to nobody else meanwhile.
constexpr std::chrono::seconds kPatience(5);

std::string take(char *text) {
  const std::unique_ptr<char, void (*)(gpointer)> owned(text, g_free);
  return owned.get();
}

std::string nonce() {
  std::array<guchar, kNonceBytes> bytes;
  if (getentropy(bytes.data(), bytes.size()) != 0)
    throw Error(WAN_INTERNAL, "The system gives no random numbers");
  std::string text;
  for (const guchar byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::string proof(const std::string &secret, const char *who, const std::string &nonces) {
  const std::string text = who + nonces;
  return take(g_compute_hmac_for_data(G_CHECKSUM_SHA256, reinterpret_cast<const guchar *>(secret.data()),
                                      secret.size(), reinterpret_cast<const guchar *>(text.data()),
                                      text.size()));
}

/// In a time that does not say where they differ.
bool are_equal(const std::string &a, const std::string &b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

std::string text_of(const Message &message, const char *key) {
  const auto found = message.values.find(key);
  return found != message.values.end() && found->is_string() ? found->get<std::string>() : "";
}

Channel::Check until(std::chrono::steady_clock::time_point end, const std::string &peer) {
  return [end, peer] {
    if (std::chrono::steady_clock::now() > end)
      throw Error(WAN_LOST, peer + " takes too long to say who it is");
  };
}

void require_version(const Message &hello, const std::string &peer) {
  if (const std::string version = text_of(hello, "version"); version != WAN_VERSION)
    throw invalid(peer + " has version '" + printable(version) +
                  "' of gst-wan, and this is " WAN_VERSION ": install the same on both");
}

}  // namespace

std::string shared_secret() {
  const char *value = std::getenv("GST_WAN_SECRET");
  return value ? value : "";
}

void greet_worker(Channel &channel, const std::string &secret, const Channel::Check &check) {
  const Message hello = channel.expect("hello", kStrangersLimits, check);
  require_version(hello, channel.peer());
  const std::string own = nonce(), nonces = text_of(hello, "nonce") + own;
  channel.send(
      {"hello", {{"version", WAN_VERSION}, {"nonce", own}, {"proof", proof(secret, "element", nonces)}}},
      check);
  const Message welcome = channel.expect("welcome", kStrangersLimits, check);
  if (!are_equal(text_of(welcome, "proof"), proof(secret, "worker", nonces)))
    throw invalid(channel.peer() +
                  " does not know the secret: give the worker and the element the same GST_WAN_SECRET");
}

void greet_element(Channel &channel, const std::string &secret) {
  const Channel::Check check = until(std::chrono::steady_clock::now() + kPatience, channel.peer());
  const std::string own = nonce();
  channel.send({"hello", {{"version", WAN_VERSION}, {"nonce", own}}}, check);
  const Message hello = channel.expect("hello", kStrangersLimits, check);
  try {
    require_version(hello, channel.peer());
    const std::string nonces = own + text_of(hello, "nonce");
    if (!are_equal(text_of(hello, "proof"), proof(secret, "element", nonces)))
      throw invalid("The secrets differ: give the worker and the element the same GST_WAN_SECRET");
    channel.send({"welcome", {{"proof", proof(secret, "worker", nonces)}}}, check);
  } catch (const Error &error) {
    channel.send(error_message(error), check);
    throw;
  }
}

}  // namespace wan
