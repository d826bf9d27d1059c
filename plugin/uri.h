// The URIs of the element, wan://prompt?property=value&...
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <list>
#include <string>

namespace wan {

/** A property and what to set it to. */
struct Assignment {
  GParamSpec *pspec;
  GValue value = G_VALUE_INIT;
  Assignment(GParamSpec *pspec) : pspec(pspec) {}
  Assignment(const Assignment &) = delete;
  ~Assignment() { g_value_unset(&value); }
};

/** Reads a URI, percent-encoded: the prompt and the properties that it names. False and the reason if it is
 * none, or a property cannot have the value or is not for strangers: engine, which would open any library. */
bool read_uri(GObjectClass *klass, const char *uri, std::list<Assignment> *assignments, std::string *reason);

}  // namespace wan
