// How processors read and round in products of bfloat16 numbers: subnormal numbers count as zero. For amx.h and dots.h where
// they are emulated.
#pragma once

namespace emulation {

static float flush_subnormal(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if (!(bits & 0x7f800000u)) bits &= 0x80000000u;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
static float widened(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, 4);
  return flush_subnormal(wide);
}

}  // namespace emulation
