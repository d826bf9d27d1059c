// SPDX-License-Identifier: LGPL-2.1-or-later
#include "traffic.h"

#include <algorithm>
#include <utility>

namespace studio {
namespace {

constexpr gsize kMostUnfinished = 1200 * 1024;

}  // namespace

gsize Traffic::allowed(gsize wanted) {
  const double left = bytes_.left();
  return left < 1 ? 0 : std::min(wanted, gsize(left));
}

void Traffic::count(gsize bytes) {
  bytes_.take(double(bytes));
  unfinished_ += bytes;
}

guint Traffic::wait() {
  return allowed(1) ? 0 : 50;
}

bool Traffic::is_too_much() const {
  return unfinished_ > kMostUnfinished;
}

// ---- the stream, as GObject has it

struct StudioInput {
  GInputStream parent;
  GPollableInputStream *base;
  std::shared_ptr<Traffic> *traffic;
};
struct StudioInputClass {
  GInputStreamClass parent_class;
};
struct StudioStream {
  GIOStream parent;
  GIOStream *base;
  GInputStream *input;
};
struct StudioStreamClass {
  GIOStreamClass parent_class;
};

namespace {

void implement_pollable(GPollableInputStreamInterface *pollable);

}  // namespace

G_DEFINE_TYPE_WITH_CODE(StudioInput, studio_input, G_TYPE_INPUT_STREAM,
                        G_IMPLEMENT_INTERFACE(G_TYPE_POLLABLE_INPUT_STREAM, implement_pollable))
G_DEFINE_TYPE(StudioStream, studio_stream, G_TYPE_IO_STREAM)

namespace {

gssize read_nonblocking(GPollableInputStream *stream, void *buffer, gsize size, GError **error) {
  auto *self = reinterpret_cast<StudioInput *>(stream);
  Traffic &traffic = **self->traffic;
  if (traffic.is_too_much()) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE, "too much without a whole message");
    return -1;
  }
  const gsize allowed = traffic.allowed(size);
  if (!allowed) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK, "too much at once");
    return -1;
  }
  const gssize count = g_pollable_input_stream_read_nonblocking(self->base, buffer, allowed, nullptr, error);
  traffic.count(gsize(std::max<gssize>(count, 0)));
  return count;
}

gboolean is_readable(GPollableInputStream *stream) {
  auto *self = reinterpret_cast<StudioInput *>(stream);
  return !(*self->traffic)->wait() && g_pollable_input_stream_is_readable(self->base);
}

GSource *create_source(GPollableInputStream *stream, GCancellable *cancellable) {
  auto *self = reinterpret_cast<StudioInput *>(stream);
  const guint wait = (*self->traffic)->wait();
  g_autoptr(GSource) child =
      wait ? g_timeout_source_new(wait) : g_pollable_input_stream_create_source(self->base, nullptr);
  return g_pollable_source_new_full(stream, child, cancellable);
}

void implement_pollable(GPollableInputStreamInterface *pollable) {
  pollable->is_readable = is_readable;
  pollable->create_source = create_source;
  pollable->read_nonblocking = read_nonblocking;
}

void finalize_input(GObject *object) {
  auto *self = reinterpret_cast<StudioInput *>(object);
  g_object_unref(self->base);
  delete self->traffic;
  G_OBJECT_CLASS(studio_input_parent_class)->finalize(object);
}

// The base is closed last: writing may go on when reading has ended.
gboolean close_stream(GIOStream *stream, GCancellable *cancellable, GError **error) {
  return g_io_stream_close(reinterpret_cast<StudioStream *>(stream)->base, cancellable, error);
}

void finalize_stream(GObject *object) {
  auto *self = reinterpret_cast<StudioStream *>(object);
  g_object_unref(self->input);
  g_object_unref(self->base);
  G_OBJECT_CLASS(studio_stream_parent_class)->finalize(object);
}

}  // namespace

void studio_input_init(StudioInput *) {}

void studio_input_class_init(StudioInputClass *klass) {
  G_OBJECT_CLASS(klass)->finalize = finalize_input;
}

void studio_stream_init(StudioStream *) {}

void studio_stream_class_init(StudioStreamClass *klass) {
  G_OBJECT_CLASS(klass)->finalize = finalize_stream;
  GIOStreamClass *stream = G_IO_STREAM_CLASS(klass);
  stream->close_fn = close_stream;
  stream->get_input_stream = [](GIOStream *self) { return reinterpret_cast<StudioStream *>(self)->input; };
  stream->get_output_stream = [](GIOStream *self) {
    return g_io_stream_get_output_stream(reinterpret_cast<StudioStream *>(self)->base);
  };
}

GIOStream *limit_stream(GIOStream *base, std::shared_ptr<Traffic> traffic) {
  auto *input = static_cast<StudioInput *>(g_object_new(studio_input_get_type(), nullptr));
  input->base = G_POLLABLE_INPUT_STREAM(g_object_ref(g_io_stream_get_input_stream(base)));
  input->traffic = new std::shared_ptr<Traffic>(std::move(traffic));
  auto *stream = static_cast<StudioStream *>(g_object_new(studio_stream_get_type(), nullptr));
  stream->base = G_IO_STREAM(g_object_ref(base));
  stream->input = G_INPUT_STREAM(input);
  return G_IO_STREAM(stream);
}

}  // namespace studio
