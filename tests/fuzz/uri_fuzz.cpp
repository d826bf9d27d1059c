// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A URI of wansrc, read on an object that has the element's properties: what it assigns is text that can be
// shown, and settings that clips can have.
#include <gst/gst.h>

#include <cstdlib>
#include <string>

#include "fuzz.h"
#include "properties.h"
#include "uri.h"

namespace {

GObjectClass *settings_class() {
  gst_init(nullptr, nullptr);
  const auto class_init = [](gpointer klass, gpointer) {
    static_cast<GObjectClass *>(klass)->set_property = [](GObject *, guint, const GValue *, GParamSpec *) {};
    static_cast<GObjectClass *>(klass)->get_property = [](GObject *, guint, GValue *, GParamSpec *) {};
    wan::install_properties(static_cast<GObjectClass *>(klass));
  };
  const GType type = g_type_register_static_simple(G_TYPE_OBJECT, "Settings", sizeof(GObjectClass),
                                                   class_init, sizeof(GObject), nullptr, GTypeFlags(0));
  return G_OBJECT_CLASS(g_type_class_ref(type));
}

}  // namespace

void wan::fuzz::run(std::string_view input) {
  static GObjectClass *const klass = settings_class();
  const std::string uri = "wan://" + std::string(input);
  std::list<Assignment> assignments;
  std::string reason;
  if (!read_uri(klass, uri.c_str(), &assignments, &reason)) {
    if (reason.empty()) std::abort();
    return;
  }
  Settings settings;
  for (const Assignment &assignment : assignments)
    set_property(&settings, assignment.pspec->param_id, &assignment.value);
  if (!settings_fault(settings).empty() || settings.engine != "") std::abort();
}
