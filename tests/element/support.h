// What the tests of the element share: a pipeline that is run to its end, and what came out of it.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wan::test {

struct Unref {
  void operator()(GstElement *element) const { gst_object_unref(element); }
  void operator()(GstPad *pad) const { gst_object_unref(pad); }
  void operator()(GstBus *bus) const { gst_object_unref(bus); }
  void operator()(GstMessage *message) const { gst_message_unref(message); }
  void operator()(GstSample *sample) const { gst_sample_unref(sample); }
  void operator()(GstCaps *caps) const { gst_caps_unref(caps); }
  void operator()(GstStructure *structure) const { gst_structure_free(structure); }
  void operator()(GstQuery *query) const { gst_query_unref(query); }
};
template <typename T>
using Ptr = std::unique_ptr<T, Unref>;

/** Little work: 5 frames of 32×32 in one step, on the CPU. */
inline const std::string kSmallSource = "wansrc name=src device=cpu num-frames=5 steps=1 seed=1 ";
inline const std::string kSmallCaps = " ! video/x-raw,width=32,height=32 ";
inline const std::string kSink = " ! appsink name=sink sync=false wait-on-eos=false ";

/** A source that runs on the stub engine (stub_engine.cpp), whose prompt says how it behaves. */
std::string stub_source(const std::string &prompt);
/** The path of a library built for the tests, from the environment variable that Meson sets. */
std::string test_library(const char *variable);

class Pipeline {
 public:
  explicit Pipeline(const std::string &launch);
  ~Pipeline();
  Pipeline(const Pipeline &) = delete;
  Pipeline &operator=(const Pipeline &) = delete;

  GstElement *get() const { return pipeline_.get(); }
  Ptr<GstElement> find(const char *name) const;
  GstStateChangeReturn set_state(GstState state) { return gst_element_set_state(pipeline_.get(), state); }
  /** Sets the state and waits until it is reached or has failed. */
  GstStateChangeReturn reach(GstState state);

  /** The next message of these types, or null after a long time. Those skipped are kept in messages(). */
  const GstMessage *wait(GstMessageType types);
  /** Waits for an element message "wan-progress" of a stage. */
  const GstStructure *wait_progress(const std::string &stage);
  /** Plays until EOS or an error, and returns to NULL. */
  void run();

  const std::vector<Ptr<GstMessage>> &messages() const { return messages_; }
  std::vector<const GstMessage *> messages(GstMessageType types) const;

  /** What run() found in an appsink named sink. */
  const std::vector<Ptr<GstSample>> &samples() const { return samples_; }

  Ptr<GstStructure> stats() const;

 private:
  Ptr<GstElement> pipeline_;
  std::vector<Ptr<GstMessage>> messages_;
  std::vector<Ptr<GstSample>> samples_;
};

struct Error {
  std::string domain, message, debug;
  int code;
};
/** The first error of a pipeline, none if it ended with EOS. */
std::optional<Error> first_error(const Pipeline &pipeline);
/** Runs a pipeline that must fail, checks that it is back in NULL, and returns the error. */
Error error_of(const std::string &launch);

std::string bytes(GstBuffer *buffer);
std::string bytes(GstSample *sample);
/** The bytes of all frames of a run, one after the other. */
std::string video_of(const std::string &launch);

/** A private copy of the embedded model, to be damaged. */
class ModelCopy {
 public:
  ModelCopy();
  ~ModelCopy();
  std::filesystem::path operator/(const char *file) const { return directory_ / file; }
  std::string source() const;

 private:
  std::filesystem::path directory_;
};

}  // namespace wan::test
