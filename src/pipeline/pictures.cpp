// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/pictures.h"

#include <ATen/ATen.h>

#include <string>

namespace wan {

namespace {

/// Of a side, in pixels; see WanPicture.
constexpr int32_t kMaxSide = 1 << 16;

/// A copy, since the caller's memory may change.
at::Tensor copy_of(const WanPicture &picture) {
  const bool is_picture = picture.rgb && picture.width > 0 && picture.height > 0 &&
                          picture.width <= kMaxSide && picture.height <= kMaxSide &&
                          picture.stride >= static_cast<size_t>(picture.width) * 3;
  if (!is_picture)
    throw invalid("A picture of " + std::to_string(picture.width) + "x" + std::to_string(picture.height) +
                  " pixels with rows of " + std::to_string(picture.stride) +
                  " bytes is none: each side must be from 1 to " + std::to_string(kMaxSide));
  return at::from_blob(const_cast<uint8_t *>(picture.rgb), {picture.height, picture.width, 3},
                       {static_cast<int64_t>(picture.stride), 3, 1}, at::kByte)
      .clone(at::MemoryFormat::Contiguous);
}

at::Tensor ask(WanPictureKind kind, const WanGenerateOptions &options, const RunContext &context) {
  return options.pictures[kind] ? ask_for_picture(kind, context) : at::Tensor();
}

}  // namespace

at::Tensor ask_for_picture(WanPictureKind kind, const RunContext &context) {
  return copy_of(context.picture(kind));
}

Pictures ask_for_pictures(const WanGenerateOptions &options, const RunContext &context) {
  return {ask(WAN_PICTURE_FIRST, options, context), ask(WAN_PICTURE_LAST, options, context)};
}

at::Tensor picture_of(const at::Tensor &frame) {
  const at::Tensor bytes = ((frame[0].select(1, 0) + 1) * 127.5).round().clamp(0, 255).to(at::kByte);
  return bytes.permute({1, 2, 0}).to(at::kCPU).contiguous();
}

}  // namespace wan
