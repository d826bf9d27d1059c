// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/kernels.h"

namespace wan::kernels {

// Where an operation has kernels besides CUDA's, its file registers them; the CUDA module registers its own.
TORCH_LIBRARY(wan, library) {
  AttentionSm90::define(library);
  Dequantize::define(library);
  Fp8AttentionSm90::define(library);
  FramesToPixels::define(library);
  GatedResidual::define(library);
  HeadsRmsNorm::define(library);
  LayerNorm::define(library);
  PackedConv::define(library);
  QuantizeRows::define(library);
  RmsNorm::define(library);
  RotateHeads::define(library);
  ScaledSoftmax::define(library);
}

}  // namespace wan::kernels
