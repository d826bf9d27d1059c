// SPDX-License-Identifier: LGPL-2.1-or-later
#include "recording.h"

#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "main_loop.h"

namespace studio {
namespace {

using Handle = std::weak_ptr<Recording>;

constexpr gint64 kMebibyte = 1024 * 1024;
constexpr guint64 kLeastFree = 1024 * kMebibyte;
// The queue takes what comes while the disk is busy.
constexpr char kBranch[] =
    "queue name=queue leaky=downstream max-size-buffers=0 max-size-time=0 max-size-bytes=67108864 ! "
    "h264parse ! matroskamux offset-to-zero=true ! fdsink name=file sync=false async=false";

const Codec &codec() {
  return *Pipeline::find_codec("h264");
}

// Writes as much as it can tell where the system does not say.
bool is_disk_full(const std::string &directory) {
  g_autoptr(GFile) file = g_file_new_for_path(directory.c_str());
  g_autoptr(GFileInfo) info =
      g_file_query_filesystem_info(file, G_FILE_ATTRIBUTE_FILESYSTEM_FREE, nullptr, nullptr);
  return info && g_file_info_get_attribute_uint64(info, G_FILE_ATTRIBUTE_FILESYSTEM_FREE) < kLeastFree;
}

void add_probe(GstElement *branch, const char *element, GstPadProbeType type, GstPadProbeCallback callback,
               const Handle &recording) {
  g_autoptr(GstElement) found = gst_bin_get_by_name(GST_BIN(branch), element);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(found, "sink");
  gst_pad_add_probe(pad, type, callback, new Handle(recording),
                    [](gpointer handle) { delete static_cast<Handle *>(handle); });
}

}  // namespace

std::shared_ptr<Recording> Recording::create(Pipeline *pipeline, const RecordingOptions &options,
                                             OnEnded on_ended) {
  if (options.directory.empty()) throw BadMessage("Nothing is recorded here: --recordings says where to.");
  if (is_disk_full(options.directory)) throw BadMessage("There is less than 1 GiB of disk space left.");
  const std::shared_ptr<Recording> recording(new Recording(pipeline, options, std::move(on_ended)));
  recording->create_file();
  recording->start();
  return recording;
}

// A new one, whatever lies there.
void Recording::create_file() {
  g_autoptr(GDateTime) now = g_date_time_new_now_local();
  g_autofree char *name = g_date_time_format(now, "live-studio-%Y%m%d-%H%M%S.mkv");
  g_autofree char *path = g_build_filename(options_.directory.c_str(), name, nullptr);
  file_ = g_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file_ < 0) throw BadMessage(std::string("The file cannot be made: ") + g_strerror(errno) + ".");
  name_ = name;
}

void Recording::start() {
  g_autoptr(GError) error = nullptr;
  branch_ = gst_parse_bin_from_description_full(kBranch, FALSE, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!branch_) throw BadMessage(std::string("Nothing can be recorded here: ") + error->message + ".");
  g_autoptr(GstElement) queue = gst_bin_get_by_name(GST_BIN(branch_), "queue");
  g_autoptr(GstElement) file = gst_bin_get_by_name(GST_BIN(branch_), "file");
  g_autoptr(GstPad) sink = gst_element_get_static_pad(queue, "sink");
  gst_element_add_pad(branch_, gst_ghost_pad_new("sink", sink));
  g_object_set(file, "fd", file_, nullptr);

  const auto on_overrun = +[](GstElement *, Handle *recording) {
    run_in_main_loop<Recording>(*recording, [](Recording &self) { self.stop("The disk is too slow."); });
  };
  // What is not decoded without a frame before the first one is left out.
  const auto on_buffer = [](GstPad *, GstPadProbeInfo *info, gpointer recording) {
    const GstBuffer *buffer = gst_pad_probe_info_get_buffer(info);
    if (GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DELTA_UNIT)) return GST_PAD_PROBE_DROP;
    run_in_main_loop<Recording>(*static_cast<Handle *>(recording), [](Recording &self) { self.on_begun(); });
    return GST_PAD_PROBE_REMOVE;
  };
  // All is written. The pipeline is not told of it: it would take the end of its only sink for its own.
  const auto on_event = [](GstPad *, GstPadProbeInfo *info, gpointer recording) {
    if (GST_EVENT_TYPE(gst_pad_probe_info_get_event(info)) != GST_EVENT_EOS) return GST_PAD_PROBE_OK;
    run_in_main_loop<Recording>(*static_cast<Handle *>(recording),
                                [](Recording &self) { self.on_written(); });
    return GST_PAD_PROBE_DROP;
  };
  connect(queue, "overrun", on_overrun, weak_from_this());
  add_probe(branch_, "queue", GST_PAD_PROBE_TYPE_BUFFER, on_buffer, weak_from_this());
  add_probe(branch_, "file", GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, on_event, weak_from_this());
  pipeline_->attach(codec(), branch_);
  pipeline_->force_key_frame(codec());
}

Recording::~Recording() {
  if (branch_ && !is_ending_) pipeline_->unlink(codec(), branch_);
  if (branch_) pipeline_->remove(branch_);
  if (file_ >= 0) ::close(file_);
}

// A file without a frame would be none.
void Recording::stop(const std::string &reason) {
  if (is_stopped_) return;
  is_stopped_ = true;
  reason_ = reason;
  if (has_begun_) end();
}

void Recording::on_begun() {
  has_begun_ = true;
  if (is_stopped_) end();
}

void Recording::end() {
  is_ending_ = true;
  pipeline_->unlink(codec(), branch_);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(branch_, "sink");
  gst_pad_send_event(sink, gst_event_new_eos());
}

void Recording::on_written() {
  on_ended_(reason_);
}

gint64 Recording::bytes() const {
  struct stat status = {};
  return fstat(file_, &status) == 0 ? gint64(status.st_size) : 0;
}

void Recording::look_after() {
  if (bytes() >= options_.most_mebibytes * kMebibyte) stop("The file is as large as it may be.");
  if (is_disk_full(options_.directory)) stop("There is less than 1 GiB of disk space left.");
}

}  // namespace studio
