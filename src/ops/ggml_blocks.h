// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The blocks of weights that ggml quantizes to (block_q4_0 and so on of its ggml-common.h), and the values
// that they stand for: for the CPU and for CUDA. Every value is
//
//     scale * quant - minimum
//
// where scale and minimum belong to a group of 16 or 32 values. The products are exact in float32, since what
// is multiplied has at most 23 significant bits together. So a value is rounded once, by the difference, and
// is the same bit for bit whether or not a compiler fuses the two.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/ggml_types.h"
#include "ops/host_device.h"

namespace wan {

namespace ggml {

/// Of a group of values.
struct Scale {
  float scale, minimum = 0;

  WAN_HOST_DEVICE float operator()(int quant) const { return scale * static_cast<float>(quant) - minimum; }
};

WAN_HOST_DEVICE float from_half(uint16_t half) {
  const uint32_t magnitude = half & 0x7fff, sign = static_cast<uint32_t>(half & 0x8000) << 16;
  constexpr uint32_t kLeastNormal = 0x400, kInfinity = 0x7c00, kExponents = (127 - 15) << 23;
  if (magnitude < kLeastNormal) return static_cast<float>(magnitude) * (sign ? -0x1p-24f : 0x1p-24f);
  const uint32_t bits = sign | ((magnitude << 13) + (magnitude < kInfinity ? kExponents : 2 * kExponents));
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/// `bits` bits of bytes[index % stride], the lower ones first: how a run of values of fewer than 8 bits lies
/// in `stride` bytes.
template <int bits, int stride>
WAN_HOST_DEVICE int field(const uint8_t *bytes, int index) {
  return (bytes[index % stride] >> (index / stride * bits)) & ((1 << bits) - 1);
}

/// The same where such runs follow each other.
template <int bits, int stride>
WAN_HOST_DEVICE int field_of_runs(const uint8_t *bytes, int index) {
  constexpr int run = stride * 8 / bits;
  return field<bits, stride>(bytes + index / run * stride, index % run);
}

WAN_HOST_DEVICE int bit(const uint8_t *bytes, int index) {
  return (bytes[index / 8] >> (index % 8)) & 1;
}

/// The values that IQ4's quants are indices of: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53,
/// 69, 89 and 113. A byte of two numbers each, since a thread of a GPU would keep an array in memory.
WAN_HOST_DEVICE int iq4_value(int index) {
  constexpr uint64_t kNegative = 0xf6eaddcfbfad9881, kPositive = 0x7159453526190d01;
  return static_cast<int8_t>((index < 8 ? kNegative : kPositive) >> index % 8 * 8);
}

struct Q4_0 {
  static constexpr GgmlType kType = GgmlType::kQ4_0;
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  uint8_t qs[16];

  WAN_HOST_DEVICE Scale scale(int) const { return {from_half(d)}; }
  WAN_HOST_DEVICE int quant(int i) const { return field<4, 16>(qs, i) - 8; }
};

struct Q4_1 {
  static constexpr GgmlType kType = GgmlType::kQ4_1;
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d, m;
  uint8_t qs[16];

  WAN_HOST_DEVICE Scale scale(int) const { return {from_half(d), -from_half(m)}; }
  WAN_HOST_DEVICE int quant(int i) const { return field<4, 16>(qs, i); }
};

struct Q5_0 {
  static constexpr GgmlType kType = GgmlType::kQ5_0;
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  uint8_t qh[4], qs[16];

  WAN_HOST_DEVICE Scale scale(int) const { return {from_half(d)}; }
  WAN_HOST_DEVICE int quant(int i) const { return (field<4, 16>(qs, i) | bit(qh, i) << 4) - 16; }
};

struct Q5_1 {
  static constexpr GgmlType kType = GgmlType::kQ5_1;
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d, m;
  uint8_t qh[4], qs[16];

  WAN_HOST_DEVICE Scale scale(int) const { return {from_half(d), -from_half(m)}; }
  WAN_HOST_DEVICE int quant(int i) const { return field<4, 16>(qs, i) | bit(qh, i) << 4; }
};

struct Q8_0 {
  static constexpr GgmlType kType = GgmlType::kQ8_0;
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  int8_t qs[32];

  WAN_HOST_DEVICE Scale scale(int) const { return {from_half(d)}; }
  WAN_HOST_DEVICE int quant(int i) const { return qs[i]; }
};

struct Q2_K {
  static constexpr GgmlType kType = GgmlType::kQ2_K;
  static constexpr int kElements = 256, kGroup = 16;
  uint8_t scales[16], qs[64];
  uint16_t d, dmin;

  WAN_HOST_DEVICE Scale scale(int group) const {
    return {from_half(d) * static_cast<float>(scales[group] & 15),
            from_half(dmin) * static_cast<float>(scales[group] >> 4)};
  }
  WAN_HOST_DEVICE int quant(int i) const { return field_of_runs<2, 32>(qs, i); }
};

struct Q3_K {
  static constexpr GgmlType kType = GgmlType::kQ3_K;
  static constexpr int kElements = 256, kGroup = 16;
  uint8_t hmask[32], qs[64], scales[12];
  uint16_t d;

  WAN_HOST_DEVICE Scale scale(int group) const {
    const int six_bits = field<4, 8>(scales, group) | field<2, 4>(scales + 8, group) << 4;
    return {from_half(d) * static_cast<float>(six_bits - 32)};
  }
  WAN_HOST_DEVICE int quant(int i) const {
    return (field_of_runs<2, 32>(qs, i) | field<1, 32>(hmask, i) << 2) - 4;
  }
};

/// Scales and minima of eight groups in Q4_K and Q5_K, six bits each.
struct ScalesAndMinima {
  uint8_t
      low[8];  // the scales of groups 0 to 3, the minima of these, and above both two bits of groups 4 to 7
  uint8_t rest[4];  // of groups 4 to 7: four bits of the scale, and four of the minimum

  WAN_HOST_DEVICE int scale(int group) const {
    return group < 4 ? low[group] & 63 : (rest[group - 4] & 15) | (low[group - 4] >> 6) << 4;
  }
  WAN_HOST_DEVICE int minimum(int group) const {
    return group < 4 ? low[group + 4] & 63 : (rest[group - 4] >> 4) | (low[group] >> 6) << 4;
  }
  WAN_HOST_DEVICE Scale operator()(int group, uint16_t d, uint16_t dmin) const {
    return {from_half(d) * static_cast<float>(scale(group)),
            from_half(dmin) * static_cast<float>(minimum(group))};
  }
};

struct Q4_K {
  static constexpr GgmlType kType = GgmlType::kQ4_K;
  static constexpr int kElements = 256, kGroup = 32;
  uint16_t d, dmin;
  ScalesAndMinima scales;
  uint8_t qs[128];

  WAN_HOST_DEVICE Scale scale(int group) const { return scales(group, d, dmin); }
  WAN_HOST_DEVICE int quant(int i) const { return field_of_runs<4, 32>(qs, i); }
};

struct Q5_K {
  static constexpr GgmlType kType = GgmlType::kQ5_K;
  static constexpr int kElements = 256, kGroup = 32;
  uint16_t d, dmin;
  ScalesAndMinima scales;
  uint8_t qh[32], qs[128];

  WAN_HOST_DEVICE Scale scale(int group) const { return scales(group, d, dmin); }
  WAN_HOST_DEVICE int quant(int i) const { return field_of_runs<4, 32>(qs, i) | field<1, 32>(qh, i) << 4; }
};

struct Q6_K {
  static constexpr GgmlType kType = GgmlType::kQ6_K;
  static constexpr int kElements = 256, kGroup = 16;
  uint8_t ql[128], qh[64];
  int8_t scales[16];
  uint16_t d;

  WAN_HOST_DEVICE Scale scale(int group) const { return {from_half(d) * static_cast<float>(scales[group])}; }
  WAN_HOST_DEVICE int quant(int i) const {
    return (field_of_runs<4, 64>(ql, i) | field_of_runs<2, 32>(qh, i) << 4) - 32;
  }
};

struct IQ4_NL {
  static constexpr GgmlType kType = GgmlType::kIQ4_NL;
  static constexpr int kElements = 32, kGroup = 32;
  uint16_t d;
  uint8_t qs[16];

  WAN_HOST_DEVICE Scale scale(int) const { return {from_half(d)}; }
  WAN_HOST_DEVICE int quant(int i) const { return iq4_value(field<4, 16>(qs, i)); }
};

struct IQ4_XS {
  static constexpr GgmlType kType = GgmlType::kIQ4_XS;
  static constexpr int kElements = 256, kGroup = 32;
  uint16_t d, scales_h;
  uint8_t scales_l[4], qs[128];

  WAN_HOST_DEVICE Scale scale(int group) const {
    const int low = (scales_l[group / 2] >> (group % 2 * 4)) & 15, high = (scales_h >> (2 * group)) & 3;
    return {from_half(d) * static_cast<float>((low | high << 4) - 32)};
  }
  WAN_HOST_DEVICE int quant(int i) const { return iq4_value(field_of_runs<4, 16>(qs, i)); }
};

/// Calls function(Block()) with the kind of block that a type has.
template <typename Function>
auto with_block(GgmlType type, Function function) {
  switch (type) {
    case GgmlType::kQ4_0:
      return function(Q4_0());
    case GgmlType::kQ4_1:
      return function(Q4_1());
    case GgmlType::kQ5_0:
      return function(Q5_0());
    case GgmlType::kQ5_1:
      return function(Q5_1());
    case GgmlType::kQ8_0:
      return function(Q8_0());
    case GgmlType::kQ2_K:
      return function(Q2_K());
    case GgmlType::kQ3_K:
      return function(Q3_K());
    case GgmlType::kQ4_K:
      return function(Q4_K());
    case GgmlType::kQ5_K:
      return function(Q5_K());
    case GgmlType::kQ6_K:
      return function(Q6_K());
    case GgmlType::kIQ4_NL:
      return function(IQ4_NL());
    case GgmlType::kIQ4_XS:
      break;
  }
  return function(IQ4_XS());
}

}  // namespace ggml

}  // namespace wan
