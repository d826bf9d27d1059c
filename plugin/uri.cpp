// SPDX-License-Identifier: LGPL-2.1-or-later
#include "uri.h"

#include <map>
#include <set>
#include <string_view>

#include "properties.h"
#include "values.h"

namespace wan {
namespace {

constexpr char kUriScheme[] = "wan://";

// What a URI may set: the element's own properties, but none that would have it open a stranger's choice of
// library or file, or talk to a stranger's host. is-live is one of them, though the base class keeps it.
bool is_for_uris(const GParamSpec *pspec) {
  static const std::set<std::string_view> refused = {"engine", "image", "last-image", "worker"};
  return pspec && (pspec->flags & G_PARAM_WRITABLE) && !refused.contains(pspec->name);
}

bool read_parameter(GObjectClass *klass, const char *name, const char *text,
                    std::list<Assignment> *assignments, std::string *reason) {
  GParamSpec *pspec = own_property(klass, name);
  if (!is_for_uris(pspec)) {
    *reason = std::string(name) + " cannot be set by a URI.";
    return false;
  }
  Assignment &assignment = assignments->emplace_back(pspec);
  GValue from = G_VALUE_INIT;
  g_value_init(&from, G_TYPE_STRING);
  g_value_set_string(&from, text);
  const bool converted = convert_value(&from, pspec, &assignment.value);
  if (!converted) *reason = value_error(name, &from);
  g_value_unset(&from);
  return converted;
}

// Why the settings that a URI names cannot be, though each property has room for them.
std::string fault_of(const std::list<Assignment> &assignments) {
  Settings settings;
  for (const Assignment &assignment : assignments)
    set_property(&settings, assignment.pspec->param_id, &assignment.value);
  return settings_fault(settings);
}

// The parts of a URI, decoded; false and the reason if it is none.
bool split_uri(const std::string &uri, std::map<std::string, std::string> *parameters, std::string *reason) {
  if (!g_utf8_validate(uri.data(), gssize(uri.size()), nullptr)) {
    *reason = "The URI is not UTF-8.";
    return false;
  }
  if (g_ascii_strncasecmp(uri.c_str(), kUriScheme, sizeof kUriScheme - 1) != 0) {
    *reason = uri + " does not begin with " + kUriScheme;
    return false;
  }
  if (uri.find('#') != std::string::npos) {
    *reason = uri + " has a fragment, which is not supported: write a # in a prompt as %23.";
    return false;
  }
  const std::string text = uri.substr(sizeof kUriScheme - 1);
  const size_t question = text.find('?');
  const std::string query = question == std::string::npos ? "" : text.substr(question + 1);
  gchar *prompt = g_uri_unescape_string(text.substr(0, question).c_str(), nullptr);
  GHashTable *table = g_uri_parse_params(query.c_str(), -1, "&", G_URI_PARAMS_NONE, nullptr);
  const bool valid = prompt && table && g_utf8_validate(prompt, -1, nullptr);
  if (valid) {
    GHashTableIter iter;
    gpointer name, value;
    g_hash_table_iter_init(&iter, table);
    while (g_hash_table_iter_next(&iter, &name, &value))
      parameters->emplace(static_cast<char *>(name), static_cast<char *>(value));
    if (*prompt || !parameters->count("prompt")) (*parameters)["prompt"] = prompt;
  } else {
    *reason = uri + " is not a valid URI: it must be percent-encoded UTF-8 with parameters as name=value.";
  }
  g_clear_pointer(&table, g_hash_table_unref);
  g_free(prompt);
  return valid;
}

}  // namespace

bool read_uri(GObjectClass *klass, const char *uri, std::list<Assignment> *assignments, std::string *reason) {
  std::map<std::string, std::string> parameters;
  if (!split_uri(uri, &parameters, reason)) return false;
  for (const auto &[name, value] : parameters)
    if (!read_parameter(klass, name.c_str(), value.c_str(), assignments, reason)) return false;
  *reason = fault_of(*assignments);
  return reason->empty();
}

}  // namespace wan
