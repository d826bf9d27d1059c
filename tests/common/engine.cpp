// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/engine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/reference.h"

namespace wan::test {

WanPicture picture_of(const at::Tensor &picture) {
  return {picture.const_data_ptr<uint8_t>(), static_cast<int32_t>(picture.size(1)),
          static_cast<int32_t>(picture.size(0)), static_cast<size_t>(picture.stride(0))};
}

WanCallbacks callbacks_of(const Listener &listener) {
  WanCallbacks callbacks{};
  callbacks.user = const_cast<Listener *>(&listener);
  callbacks.progress = [](void *user, const WanProgress *progress) {
    static_cast<const Listener *>(user)->progress(*progress);
  };
  callbacks.cancelled = [](void *user) { return static_cast<const Listener *>(user)->cancelled(); };
  callbacks.frames = [](void *user, WanFrames *frames) {
    const bool go_on = static_cast<const Listener *>(user)->frames(*frames);
    api().frames_free(frames);
    return go_on;
  };
  callbacks.followed = [](void *user) { return static_cast<const Listener *>(user)->followed(); };
  callbacks.next_section = [](void *user, WanSection *section) {
    return static_cast<const Listener *>(user)->next_section(*section);
  };
  callbacks.picture = [](void *user, WanPictureKind kind, WanPicture *picture) {
    static thread_local at::Tensor pixels;
    pixels = static_cast<const Listener *>(user)->picture(kind);
    if (pixels.defined()) *picture = picture_of(pixels);
    return pixels.defined();
  };
  return callbacks;
}

namespace {

void check(WanStatus status, const WanError &error) {
  if (status != WAN_OK) throw Failure{status, error.message};
}

}  // namespace

const WanEngineApi &api() {
  return *wan_engine(WAN_ENGINE_ABI);
}

WanPixelLayout packed_layout(WanPixelFormat format, int32_t width, int32_t height) {
  WanPixelLayout layout{};
  layout.format = format;
  layout.width = width;
  layout.height = height;
  const size_t area = static_cast<size_t>(width) * static_cast<size_t>(height);
  if (format == WAN_PIXEL_NV12 || format == WAN_PIXEL_I420) {
    const int32_t chroma_stride = format == WAN_PIXEL_NV12 ? width : width / 2;
    layout.stride[0] = width;
    layout.stride[1] = layout.stride[2] = chroma_stride;
    layout.offset[1] = area;
    layout.offset[2] = area + area / 4;
    layout.size = area * 3 / 2;
  } else {
    const int32_t step = format == WAN_PIXEL_RGB ? 3 : 4;
    layout.stride[0] = width * step;
    layout.size = area * static_cast<size_t>(step);
  }
  return layout;
}

Model load_model(const WanLoadOptions &options, const WanCallbacks &callbacks) {
  WanModel *model = nullptr;
  WanError error;
  check(api().load(&options, &callbacks, &model, &error), error);
  return {model, api().model_free};
}

Model load_model(const std::string &directory, const std::string &device, WanDtype dtype,
                 const std::vector<WanLora> &loras, WanQuantization quantization) {
  WanLoadOptions options{};
  options.model_dir = directory.c_str();
  options.device = device.c_str();
  options.dtype = dtype;
  options.quantization = quantization;
  options.loras = loras.data();
  options.num_loras = loras.size();
  const Listener quiet;
  return load_model(options);
}

WanGenerateOptions tiny_options(WanPixelFormat format) {
  WanDefaults defaults;
  WanError error;
  check(api().describe(tiny_model().c_str(), &defaults, &error), error);
  WanGenerateOptions options{};
  options.prompt = "a red circle bouncing on a blue background";
  options.negative_prompt = "";
  options.seed = 42;
  options.num_frames = defaults.num_frames;
  options.steps = defaults.steps;
  options.guidance_scale = defaults.guidance_scale;
  options.guidance_scale_2 = defaults.guidance_scale_2;
  options.flow_shift = defaults.flow_shift;
  options.layout = packed_layout(format, defaults.width, defaults.height);
  return options;
}

void generate(const Model &model, const WanGenerateOptions &options, const Listener &listener) {
  const WanCallbacks callbacks = callbacks_of(listener);
  WanError error;
  check(api().generate(model.get(), &options, &callbacks, &error), error);
}

void cancel_clips(const Model &model, const WanGenerateOptions &options, Dice &dice, int clips, int checks) {
  for (int i = 0; i < clips; ++i) {
    std::atomic<int> left = dice.roll(checks);
    Listener listener;
    listener.cancelled = [&left] { return --left < 0; };
    try {
      generate(model, options, listener);
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.status, WAN_CANCELLED) << failure.message;
    }
  }
}

at::Tensor pixels_of(const WanFrames &frames, const WanGenerateOptions &options) {
  const auto size = static_cast<int64_t>(options.layout.size);
  const at::Device device = options.on_device ? at::kCUDA : at::kCPU;  // which GPU, LibTorch finds out
  return at::from_blob(frames.data, {frames.num_frames, size}, at::dtype(at::kByte).device(device))
      .to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
}

at::Tensor generate_clip(const Model &model, const WanGenerateOptions &options, Listener listener) {
  std::vector<at::Tensor> chunks;
  listener.frames = [&](const WanFrames &frames) {
    chunks.push_back(pixels_of(frames, options));
    return true;
  };
  generate(model, options, listener);
  return at::cat(chunks);
}

}  // namespace wan::test
