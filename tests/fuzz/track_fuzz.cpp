// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Timed prompts: any of them, at any times, in any order, while clips are chosen.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "fuzz.h"
#include "prompt_track.h"

namespace {

// Takes the bytes of the input one after the other, zeros behind its end.
class Bytes {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}
  bool left() const { return !bytes_.empty(); }
  template <typename T>
  T take() {
    T value = 0;
    const size_t size = std::min(sizeof value, bytes_.size());
    std::memcpy(&value, bytes_.data(), size);
    bytes_.remove_prefix(size);
    return value;
  }

 private:
  std::string_view bytes_;
};

// What at() promises.
void choose(wan::PromptTrack &track, uint64_t time, bool latest) {
  track.wait(time, time + 1000, [] { return true; });
  const auto cue = track.at(time, latest);
  if (cue && cue->until <= time) std::abort();
  if (cue) track.replace(cue->prompt, time);
}

}  // namespace

void wan::fuzz::run(std::string_view input) {
  PromptTrack track;
  track.attach();
  for (Bytes bytes(input); bytes.left();) {
    const auto operation = bytes.take<uint8_t>();
    const std::string prompt(operation >> 4, 'a');
    switch (operation & 15) {
      case 0:
        track.advance(bytes.take<uint64_t>());
        break;
      case 1:
        track.set_ended(prompt.empty());
        break;
      case 2:
        track.set_linked(prompt.empty());
        break;
      case 3:
        track.add_now(prompt);
        break;
      case 4:
        track.reset();
        break;
      case 5:
      case 6:
      case 7:
        choose(track, bytes.take<uint64_t>() >> 1, prompt.empty());
        break;
      case 8:
      case 9:
        choose(track, bytes.take<uint16_t>(), prompt.empty());
        break;
      case 10:
      case 11:
        track.add(prompt, bytes.take<uint16_t>(), bytes.take<uint16_t>());
        break;
      default:
        // The longest that a pad hands over.
        track.add(prompt, bytes.take<uint64_t>() >> 1, bytes.take<uint64_t>());
    }
  }
}
