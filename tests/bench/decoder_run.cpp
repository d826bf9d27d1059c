// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder_run.h"

#include <ATen/ATen.h>

#include <fstream>

#include "device.h"
#include "ops/frames_to_pixels.h"
#include "output/frame_ring.h"
#include "vae/tiled_decode.h"

namespace wan::bench {

/// Measures a video while its frames arrive.
struct VideoDecoder::Receiver {
  FrameSink &sink;
  Trace *trace;
  Clock::time_point start = Clock::now();
  VideoTime time{};

  void take(int64_t chunk, const uint8_t *data, size_t bytes, int64_t frames) {
    if (time.frames == 0) time.first_frame = seconds_since(start);
    time.frames += frames;
    const Trace::Span span(trace, Lane::kFrames, "hand over", chunk);
    sink.take(data, bytes);
  }

  WanCallbacks callbacks() {
    WanCallbacks callbacks{};
    callbacks.user = this;
    callbacks.frames = [](void *user, WanFrames *frames) {
      const std::unique_ptr<WanFrames, void (*)(WanFrames *)> owned(frames, free_frames);
      const size_t bytes = frames->frame_size * static_cast<size_t>(frames->num_frames);
      static_cast<Receiver *>(user)->take(frames->chunk, frames->data, bytes, frames->num_frames);
      return true;
    };
    return callbacks;
  }
};

/// take(chunk, frames) gets [1, 3, T, H, W] float32.
template <typename Take>
void VideoDecoder::decode_chunks(const at::Tensor &latents, const RunContext &context, Trace *trace,
                                 const Take &take) const {
  if (options_.tiled) {
    const at::Tensor video = tiled_decode(vae_, latents, context, [] {});
    for (int64_t chunk = 0, frame = 0; frame < video.size(2); ++chunk) {
      const int64_t count = chunk == 0 ? 1 : options_.chunk_frames;
      take(chunk, video.narrow(2, frame, count).to(latents.device()));
      frame += count;
    }
    return;
  }
  StreamState state;
  for (int64_t chunk = 0; chunk < latents.size(2); ++chunk) {
    at::Tensor frames;
    {
      const Trace::Span span(trace, Lane::kDecoder, "launch", chunk);
      frames = vae_.decode(latents.narrow(2, chunk, 1), state, context);
    }
    take(chunk, frames);
  }
}

void VideoDecoder::decode_sync(const at::Tensor &latents, Receiver &receiver) const {
  const RunContext context(WanCallbacks{});
  decode_chunks(latents, context, receiver.trace, [&](int64_t chunk, const at::Tensor &frames) {
    at::Tensor pixels;
    {
      const Trace::Span span(receiver.trace, Lane::kDecoder, "wait and copy", chunk);
      pixels = frames_to_pixels(frames, options_.layout).cpu();
    }
    receiver.take(chunk, pixels.const_data_ptr<uint8_t>(), pixels.nbytes(), pixels.size(0));
  });
}

void VideoDecoder::decode_async(const at::Tensor &latents, Receiver &receiver) const {
  const RunContext context(receiver.callbacks());
  FrameRing ring(options_.layout, options_.chunk_frames, FrameMemory::kHost, pool_, context);
  decode_chunks(latents, context, receiver.trace, [&](int64_t chunk, const at::Tensor &frames) {
    const Trace::Span span(receiver.trace, Lane::kDecoder, "push", chunk);
    ring.push(frames);
  });
  ring.finish();
}

VideoTime VideoDecoder::decode(const at::Tensor &latents, FrameSink &sink, Trace *trace) const {
  sink.rewind();
  synchronize(latents.device());
  Receiver receiver{sink, trace};
  options_.mode == Mode::kSync ? decode_sync(latents, receiver) : decode_async(latents, receiver);
  receiver.time.seconds = seconds_since(receiver.start);
  return receiver.time;
}

void VideoDecoder::dump(const at::Tensor &latents, const std::filesystem::path &file) const {
  std::ofstream out(file, std::ios::binary);
  const RunContext context(WanCallbacks{});
  decode_chunks(latents, context, nullptr, [&](int64_t, const at::Tensor &frames) {
    const at::Tensor host = frames[0].transpose(0, 1).contiguous().cpu();
    out.write(static_cast<const char *>(host.const_data_ptr()), static_cast<std::streamsize>(host.nbytes()));
  });
  if (!out.flush()) throw Error(WAN_INTERNAL, "'" + file.string() + "' cannot be written");
}

}  // namespace wan::bench
