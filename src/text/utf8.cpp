#include "text/utf8.h"

#include <glib.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace wan {

std::string valid_utf8(const std::string &text, size_t most) {
  const std::unique_ptr<char, decltype(&g_free)> valid(
      g_utf8_make_valid(text.data(), static_cast<gssize>(text.size())), g_free);
  const std::string_view whole(valid.get());
  const char *end = nullptr;  // of the last whole character
  g_utf8_validate(whole.data(), static_cast<gssize>(std::min(whole.size(), most)), &end);
  return {whole.data(), end};
}

}  // namespace wan
