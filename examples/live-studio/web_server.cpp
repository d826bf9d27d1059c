// SPDX-License-Identifier: LGPL-2.1-or-later
#include "web_server.h"

#include <array>
#include <cstring>

namespace studio {
namespace {

struct Page {
  const char *path, *resource, *type;
};
constexpr std::array kPages = {
    Page{"/", "/gst-wan/studio/index.html", "text/html; charset=utf-8"},
    Page{"/studio.css", "/gst-wan/studio/studio.css", "text/css; charset=utf-8"},
    Page{"/studio.js", "/gst-wan/studio/studio.js", "text/javascript; charset=utf-8"},
};

constexpr char kPictures[] = "/picture/";  // and the clip's id

// Nothing from elsewhere, and not in another page's frame, where a click could be led astray.
constexpr char kPolicy[] =
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

void set_headers(SoupServerMessage *message) {
  SoupMessageHeaders *headers = soup_server_message_get_response_headers(message);
  soup_message_headers_replace(headers, "Content-Security-Policy", kPolicy);
  soup_message_headers_replace(headers, "X-Content-Type-Options", "nosniff");
  soup_message_headers_replace(headers, "Referrer-Policy", "no-referrer");
  soup_message_headers_replace(headers, "Cross-Origin-Resource-Policy", "same-origin");
  soup_message_headers_replace(headers, "Cache-Control", "no-cache");
}

// Other names than these may be an attacker's that was made to resolve to this machine (DNS rebinding): its
// page would then be of the same origin.
bool is_own_name(const char *host) {
  const std::string own = g_get_host_name(), name = host;
  return name == "localhost" || g_hostname_is_ip_address(host) || name == own || name == own + ".local";
}

// "http://" and the host and port that was asked for, as an Origin has it; empty if that is not this program.
std::string own_origin(SoupServerMessage *message) {
  // All of them, one after the other if there are several.
  const char *host = soup_message_headers_get_list(soup_server_message_get_request_headers(message), "Host");
  const std::string origin = std::string("http://") + (host ? host : "");
  g_autoptr(GUri) uri = g_uri_parse(origin.c_str(), G_URI_FLAGS_NONE, nullptr);
  const bool is_host_alone = uri && !g_uri_get_userinfo(uri) && *g_uri_get_path(uri) == 0 &&
                             !g_uri_get_query(uri) && !g_uri_get_fragment(uri);
  return is_host_alone && g_uri_get_host(uri) && is_own_name(g_uri_get_host(uri)) ? origin : "";
}

bool is_own_page(SoupServerMessage *message) {
  const char *origin =
      soup_message_headers_get_list(soup_server_message_get_request_headers(message), "Origin");
  return origin && own_origin(message) == origin;
}

// Null bytes: there is no such page.
void serve(SoupServerMessage *message, GBytes *bytes, const char *type) {
  set_headers(message);
  if (own_origin(message).empty())
    return soup_server_message_set_status(message, SOUP_STATUS_FORBIDDEN, nullptr);
  if (!bytes) return soup_server_message_set_status(message, SOUP_STATUS_NOT_FOUND, nullptr);
  const std::string method = soup_server_message_get_method(message);
  if (method != "GET" && method != "HEAD")
    return soup_server_message_set_status(message, SOUP_STATUS_METHOD_NOT_ALLOWED, nullptr);
  soup_message_headers_set_content_type(soup_server_message_get_response_headers(message), type, nullptr);
  soup_message_body_append_bytes(soup_server_message_get_response_body(message), bytes);
  soup_server_message_set_status(message, SOUP_STATUS_OK, nullptr);
}

void serve_page(SoupServer *, SoupServerMessage *message, const char *path, GHashTable *, gpointer data) {
  const Page &page = *static_cast<const Page *>(data);
  g_autoptr(GBytes) bytes =
      g_strcmp0(path, page.path) == 0
          ? g_resources_lookup_data(page.resource, G_RESOURCE_LOOKUP_FLAGS_NONE, nullptr)
          : nullptr;
  serve(message, bytes, page.type);
}

// A foreign page could open a WebSocket to here: browsers leave it to the server to refuse.
void check_origin(SoupServer *, SoupServerMessage *message, const char *, GHashTable *, gpointer) {
  if (!is_own_page(message)) soup_server_message_set_status(message, SOUP_STATUS_FORBIDDEN, nullptr);
}

}  // namespace

WebServer::WebServer(const std::string &address, int port, FindPicture find_picture,
                     OnConnection on_connection)
    : server_(soup_server_new("server-header", "gst-wan ", nullptr)),
      listener_(address, port, server_),
      find_picture_(std::move(find_picture)),
      on_connection_(std::move(on_connection)) {
  for (const Page &page : kPages)
    soup_server_add_handler(server_, page.path, serve_page, const_cast<Page *>(&page), nullptr);
  const auto picture = [](SoupServer *, SoupServerMessage *message, const char *path, GHashTable *,
                          gpointer self) { static_cast<WebServer *>(self)->serve_picture(message, path); };
  soup_server_add_handler(server_, kPictures, picture, this, nullptr);
  const auto opened = [](SoupServer *, SoupServerMessage *message, const char *,
                         SoupWebsocketConnection *connection, gpointer data) {
    auto *self = static_cast<WebServer *>(data);
    if (const ConnectionPtr kept = self->listener_.keep(message)) self->on_connection_(connection, kept);
  };
  // A few bytes, compressed, could stand for more than there is memory.
  soup_server_remove_websocket_extension(server_, SOUP_TYPE_WEBSOCKET_EXTENSION_DEFLATE);
  soup_server_add_early_handler(server_, "/socket", check_origin, nullptr, nullptr);
  soup_server_add_websocket_handler(server_, "/socket", nullptr, nullptr, opened, this, nullptr);
}

WebServer::~WebServer() {
  soup_server_disconnect(server_);
  g_object_unref(server_);
}

void WebServer::serve_picture(SoupServerMessage *message, const std::string &path) const {
  guint64 clip = 0;
  const bool is_number =
      path.starts_with(kPictures) &&
      g_ascii_string_to_unsigned(path.c_str() + strlen(kPictures), 10, 1, G_MAXUINT, &clip, nullptr);
  const PicturePtr picture = is_number ? find_picture_(guint(clip)) : nullptr;
  serve(message, picture ? picture->thumbnail() : nullptr, "image/jpeg");
}

}  // namespace studio
