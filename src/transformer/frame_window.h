// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which latent frames a causal model remembers, and where in time their keys stand: whole numbers on the
// host.
#pragma once

#include <cstdint>
#include <vector>

namespace wan {

/// What a pass over some frames writes and sees. A slot is room for a frame's keys and values.
struct KeyPlan {
  /// In place of a slot: the frame's keys and values are seen by no one.
  static constexpr int64_t kNoSlot = -1;

  struct Key {
    int64_t slot;
    double position;
  };

  std::vector<double> positions;  // in time, of the pass's frames
  std::vector<int64_t> writes;    // the slot of each of them
  std::vector<Key> keys;          // all that is seen, what is written among it
};

/// Where a remembered frame stands.
enum class FramePositions {
  kAbsolute,  // at its number in the video, plus the offset when it was written
  kRelative   // at its place in the window, the sink first
};

/// The last frames of a video and its first ones, the sink. Frames leave once a section, when its first pass
/// begins; its other passes write to the same slots.
class RollingWindow {
 public:
  /// window, sink: in frames; a section and the sink, and the pinned section, must fit the window.
  RollingWindow(int64_t window, int64_t sink, FramePositions positions)
      : window_(window), sink_(sink), relative_(positions == FramePositions::kRelative) {}

  int64_t slots() const { return window_; }
  /// Whether the position of a frame may change while it is remembered.
  bool moves() const { return relative_; }
  /// The frames that are remembered, in order.
  std::vector<int64_t> frames() const;

  /// A pass over the frames from `start` on: new ones, or those of the last section again.
  KeyPlan begin(int64_t start, int64_t frames);
  /// A pass over the last frames that writes all of them anew. Where more frames are remembered than these,
  /// the slots of the sink stay as they are, or, with replaces_sink, the oldest of these frames become the
  /// sink.
  KeyPlan recache(int64_t start, int64_t frames, bool replaces_sink);

  /// All frames, and the pins and offsets of their scenes.
  void forget();
  /// Those before the frame `start`, so that the sink begins with it.
  void forget_before(int64_t start);
  /// Moves all frames that are written from now on forward in time.
  void add_offset(int64_t frames) { offset_ += frames; }
  /// Frames that are to be remembered as the sink is, once those before them are forgotten; in place of the
  /// last that were pinned.
  void pin(int64_t start, int64_t frames) { pinned_ = {start, frames}; }

 private:
  struct Frame {
    int64_t number, slot, position;
  };
  struct Run {
    int64_t start, frames;
  };

  int64_t protected_frames() const;
  void make_room(int64_t frames);
  void remember(int64_t number);
  int64_t free_slot() const;
  /// The slot of a frame, unless that is among the first `from` ones.
  int64_t slot_of(int64_t number, size_t from) const;
  KeyPlan plan(int64_t start, int64_t frames, size_t first_written) const;

  const int64_t window_, sink_;
  const bool relative_;
  int64_t offset_ = 0;
  Run pinned_ = {0, 0};
  std::vector<Frame> kept_;  // in order
};

/// Rolling Forcing's: a pass covers several sections in flight, of which the first is remembered. The first
/// section of the video is an anchor, which always stands right before what else is remembered.
class RollingForcingWindow {
 public:
  /// section: frames of a section; attended: frames that a pass may see, its own among them; kept: frames
  /// that are remembered at most; in_flight: sections of a pass at most.
  RollingForcingWindow(int64_t section, int64_t attended, int64_t kept, int64_t in_flight)
      : section_(section), attended_(attended), kept_frames_(kept), in_flight_(in_flight) {}

  int64_t slots() const { return kept_frames_ + (in_flight_ - 1) * section_; }
  /// A pass over the sections in flight, the first from the frame `start` on.
  KeyPlan begin(int64_t start, int64_t frames);
  /// The same over the first one alone, finished.
  KeyPlan finish(int64_t start);
  void forget() { kept_.clear(); }

 private:
  struct Section {
    int64_t start, slot;  // its first frame's
  };

  void enter(int64_t start);
  void see(const Section &section, int64_t position, KeyPlan &plan) const;
  KeyPlan own(int64_t start, int64_t frames) const;

  const int64_t section_, attended_, kept_frames_, in_flight_;
  std::vector<Section> kept_;  // in order
};

}  // namespace wan
