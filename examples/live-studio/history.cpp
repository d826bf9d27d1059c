// SPDX-License-Identifier: LGPL-2.1-or-later
#include "history.h"

#include <algorithm>

namespace studio {
namespace {

constexpr size_t kMostScenes = 16;  // whose pictures take a few MB each
// What somebody types changes the prompt every second or so.
constexpr GstClockTime kBrief = 4 * GST_SECOND;

bool are_same(const Scene &a, const Scene &b) {
  return a.prompt == b.prompt && a.picture == b.picture && a.seed == b.seed;
}

}  // namespace

void History::add(const Scene &scene, guint id, GstClockTime begun) {
  if (id == 0 && !entries_.empty()) {
    const Entry &last = entries_.back();
    const bool goes_on = scene.prompt == last.scene.prompt;
    if (goes_on && last.id != 0) return;
    if (goes_on || (last.id == 0 && begun < last.begun + kBrief)) entries_.pop_back();
  }
  std::erase_if(entries_, [&](const Entry &entry) { return are_same(entry.scene, scene); });
  entries_.push_back({++last_number_, scene, id, begun});
  if (entries_.size() > kMostScenes) entries_.pop_front();
}

const Scene &History::find(gint64 number) const {
  const auto entry =
      std::find_if(entries_.begin(), entries_.end(), [&](auto &each) { return each.number == number; });
  if (entry == entries_.end()) throw BadMessage("That scene is not in the history any more.");
  return entry->scene;
}

PicturePtr History::picture(guint id) const {
  const auto entry =
      std::find_if(entries_.begin(), entries_.end(), [&](auto &each) { return each.id == id; });
  return entry == entries_.end() ? nullptr : entry->scene.picture;
}

std::vector<Json> History::describe() const {
  std::vector<Json> scenes;
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry)
    scenes.push_back(Json()
                         .integer("scene", entry->number)
                         .integer("id", entry->id)
                         .text("prompt", entry->scene.prompt)
                         .text("seed", std::to_string(*entry->scene.seed))
                         .truth("picture", entry->scene.picture != nullptr));
  return scenes;
}

}  // namespace studio
