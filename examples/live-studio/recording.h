// A file that the video is written to, as viewers get it: Matroska, which holds what was written so far
// however the program ends.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <functional>
#include <memory>
#include <string>

#include "json.h"
#include "pipeline.h"

namespace studio {

struct RecordingOptions {
  std::string directory;         // empty: nobody records
  gint64 most_mebibytes = 4096;  // of a file
};

/** All its methods are for the main loop's thread. */
class Recording : public std::enable_shared_from_this<Recording> {
 public:
  /** The file is whole. `reason`: why, empty if it was asked for. */
  using OnEnded = std::function<void(const std::string &reason)>;

  /** Throws BadMessage if there is no place for it. */
  static std::shared_ptr<Recording> create(Pipeline *pipeline, const RecordingOptions &options,
                                           OnEnded on_ended);
  ~Recording();
  Recording(const Recording &) = delete;
  Recording &operator=(const Recording &) = delete;

  /** Takes no more video; on_ended comes when what there is has been written. */
  void stop(const std::string &reason = "");
  /** Each second: stops at the file's limit, or before the disk is full. */
  void look_after();
  bool has_branch(const GstElement *branch) const { return branch == branch_; }
  /** Of the file. */
  const std::string &name() const { return name_; }
  gint64 bytes() const;
  gint64 seconds() const { return (g_get_monotonic_time() - begun_) / G_USEC_PER_SEC; }

 private:
  Recording(Pipeline *pipeline, const RecordingOptions &options, OnEnded on_ended)
      : pipeline_(pipeline), options_(options), on_ended_(std::move(on_ended)) {}
  void create_file();
  void start();
  void on_begun();
  void end();
  void on_written();

  Pipeline *pipeline_;
  RecordingOptions options_;
  OnEnded on_ended_;
  std::string name_, reason_;
  int file_ = -1;
  GstElement *branch_ = nullptr;
  bool has_begun_ = false, is_stopped_ = false, is_ending_ = false;
  gint64 begun_ = g_get_monotonic_time();
};

}  // namespace studio
