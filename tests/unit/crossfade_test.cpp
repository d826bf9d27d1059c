// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Crossfades beside a reference made by hand, in chunks of every length. On the CPU, and on CUDA where
// WAN_TEST_DEVICE says so.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "common/tiny_model.h"
#include "output/crossfade.h"

namespace wan::test {
namespace {

constexpr int64_t kFrames = 13;

class CrossfadeTest : public testing::Test {
 protected:
  static at::Tensor random_frames(int64_t count, int64_t width = 6) {
    return (at::rand({1, 3, count, 4, width}) * 2 - 1).to(test_device());
  }

  /// Whether the clip is followed, and how often that was asked.
  std::function<bool()> followed(bool answer) {
    return [this, answer] {
      ++asked_;
      return answer;
    };
  }

  /// What leaves of `clip`, whose first chunk has one frame and the others `chunk_frames`.
  static std::vector<at::Tensor> pass(Crossfade &fade, const at::Tensor &clip, int64_t chunk_frames = 4) {
    std::vector<at::Tensor> leaving;
    for (int64_t first = 0; first < clip.size(2);) {
      const int64_t count = first ? std::min(chunk_frames, clip.size(2) - first) : 1;
      const at::Tensor frames = fade(clip.narrow(2, first, count));
      if (frames.defined()) leaving.push_back(frames);
      first += count;
    }
    return leaving;
  }

  const c10::InferenceMode inference_;
  const at::Tensor clip_ = random_frames(kFrames);
  int asked_ = 0;
};

/// The first frames of `clip` mixed with `before`, number by number.
at::Tensor mixed_by_hand(const at::Tensor &before, const at::Tensor &clip) {
  at::Tensor mixed = clip.cpu().clone();
  const at::Tensor old = before.cpu();
  const int64_t count = old.size(2);
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t t = 0; t < count; ++t)
      for (int64_t y = 0; y < old.size(3); ++y)
        for (int64_t x = 0; x < old.size(4); ++x) {
          const double share = static_cast<double>(t + 1) / static_cast<double>(count + 1);
          at::Tensor value = mixed[0][c][t][y][x];
          value.fill_(old[0][c][t][y][x].item<double>() * (1 - share) + value.item<double>() * share);
        }
  return mixed;
}

TEST_F(CrossfadeTest, ACutPassesEveryFrameAndAsksNothing) {
  Crossfade fade(0, kFrames, random_frames(2), followed(true));
  const at::Tensor frames = clip_.narrow(2, 0, 4);
  EXPECT_TRUE(fade(frames).is_same(frames)) << "without a copy";
  pass(fade, clip_.narrow(2, 4, 9));
  EXPECT_FALSE(fade.tail().defined());
  EXPECT_EQ(asked_, 0);
}

TEST_F(CrossfadeTest, TheFirstFramesAreMixedWithTheTailOfTheClipBefore) {
  for (const int64_t fade_frames : {1, 2, 3, 5, 6})
    for (const int64_t chunk_frames : {1, 4, 12}) {
      const at::Tensor before = random_frames(fade_frames);
      Crossfade fade(fade_frames, kFrames, before, followed(false));
      const at::Tensor out = at::cat(pass(fade, clip_, chunk_frames), 2);
      EXPECT_LT((out.cpu() - mixed_by_hand(before, clip_)).abs().max().item<float>(), 1e-6) << fade_frames;
      const int64_t rest = kFrames - fade_frames;
      EXPECT_TRUE(at::equal(out.narrow(2, fade_frames, rest), clip_.narrow(2, fade_frames, rest)));
    }
}

TEST_F(CrossfadeTest, OneFrameIsTheMeanOfBoth) {
  const at::Tensor before = at::full({1, 3, 1, 4, 6}, -1.0, clip_.options());
  Crossfade fade(1, kFrames, before, followed(false));
  EXPECT_TRUE(at::equal(fade(at::ones_like(before)), at::zeros_like(before)));
}

TEST_F(CrossfadeTest, TheLastFramesAreKeptForTheClipThatFollows) {
  for (const int64_t fade_frames : {1, 2, 4, 5, 6}) {
    asked_ = 0;
    Crossfade fade(fade_frames, kFrames, {}, followed(true));
    const at::Tensor out = at::cat(pass(fade, clip_), 2);
    EXPECT_TRUE(at::equal(out, clip_.narrow(2, 0, kFrames - fade_frames))) << fade_frames;
    EXPECT_TRUE(at::equal(fade.tail(), clip_.narrow(2, kFrames - fade_frames, fade_frames))) << fade_frames;
    EXPECT_EQ(asked_, 1);
  }
}

TEST_F(CrossfadeTest, IsAskedAboutTheTailNoEarlierThanItsFirstChunk) {
  Crossfade fade(2, kFrames, {}, followed(true));
  pass(fade, clip_.narrow(2, 0, 9));
  EXPECT_EQ(asked_, 0);
  pass(fade, clip_.narrow(2, 9, 4));
  EXPECT_EQ(asked_, 1);
}

TEST_F(CrossfadeTest, AClipThatIsNotFollowedLeavesWhole) {
  Crossfade fade(5, kFrames, {}, followed(false));
  const std::vector<at::Tensor> out = pass(fade, clip_);
  EXPECT_EQ(out.size(), 4u) << "in the chunks that it came in";
  for (const at::Tensor &frames : out)
    EXPECT_TRUE(frames.storage().is_alias_of(clip_.storage())) << "no copy";
  EXPECT_TRUE(at::equal(at::cat(out, 2), clip_));
  EXPECT_FALSE(fade.tail().defined());
  EXPECT_EQ(asked_, 1);
}

TEST_F(CrossfadeTest, AClipMayBeNothingButFades) {
  const at::Tensor clip = random_frames(8), before = random_frames(4);
  Crossfade fade(4, 8, before, followed(true));
  const at::Tensor out = at::cat(pass(fade, clip), 2);
  EXPECT_EQ(out.size(2), 4);
  EXPECT_LT((out.cpu() - mixed_by_hand(before, clip).narrow(2, 0, 4)).abs().max().item<float>(), 1e-6);
  EXPECT_TRUE(at::equal(fade.tail(), clip.narrow(2, 4, 4)));
}

TEST_F(CrossfadeTest, ATailOfAnotherSizeOrLengthIsIgnored) {
  for (const at::Tensor &before : {random_frames(2), random_frames(4), random_frames(3, 8), at::Tensor()}) {
    Crossfade fade(3, kFrames, before, followed(false));
    EXPECT_TRUE(at::equal(at::cat(pass(fade, clip_), 2), clip_));
  }
}

TEST_F(CrossfadeTest, TheTailOutlivesTheClipsMemory) {
  at::Tensor clip = clip_.clone();
  Crossfade fade(3, kFrames, {}, followed(true));
  pass(fade, clip);
  const at::Tensor tail = fade.tail();
  clip.zero_();
  EXPECT_TRUE(at::equal(tail, clip_.narrow(2, kFrames - 3, 3)));
  EXPECT_EQ(tail.storage().nbytes(), tail.nbytes()) << "and holds no more than itself";
}

}  // namespace
}  // namespace wan::test
