// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The VAE that wan-bench decode and encode run.
#pragma once

#include <glib.h>

#include <memory>
#include <optional>

#include "vae/autoencoder_kl_wan.h"

namespace wan::bench {

/// What the options say of it.
struct VaeChoice {
  char *directory = nullptr;  // a checkpoint's vae/, or random weights
  gboolean z48 = FALSE;       // of these: TI2V-5B's, not A14B's
  int base_dim = 0;           // of these: the width, 0: the released one

  VaeConfig config() const;
  /// encoder_dtype: as of AutoencoderKLWan.
  std::unique_ptr<const AutoencoderKLWan> load(
      at::Device device, at::ScalarType dtype,
      std::optional<at::ScalarType> encoder_dtype = std::nullopt) const;
};

}  // namespace wan::bench
