// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The directory of a zip archive whose files are stored as they are (APPNOTE.TXT 6.3, sections 4.3 and 4.5):
// an untrusted file.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "checkpoint/input_file.h"

namespace wan {

/// A file of the archive: its bytes, from the archive's beginning.
struct ZipEntry {
  uint64_t begin, end;
};

/// Finds all files by their names. Throws wan::Error (WAN_INVALID) where the archive is damaged, or where a
/// file in it is compressed or encrypted.
std::map<std::string, ZipEntry> read_zip_directory(const ReadBytes &read, uint64_t file_size,
                                                   const std::string &source);

}  // namespace wan
