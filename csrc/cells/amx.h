// The AMX tile operations that the kernels use, and the same operations in plain C++ where PADLESS_EMULATE is defined.
//
// A tile has 16 rows of 64 bytes. `dot<C, A, B>` adds to C, 16 x 16 float32, the product of A, 16 x 32 bfloat16, and B, whose
// row k interleaves rows 2k and 2k + 1 of a 32 x 16 bfloat16 matrix. The emulation adds in the hardware's order and
// treats subnormal numbers as it does (as zero), so that both have the same bits.
#pragma once

namespace tiles {

constexpr int kRows = 16;  // of a tile

#if defined(PADLESS_EMULATE)

struct Tile {
  float rows[16][16];
};
struct Registers {
  Tile tile[8];
};
static thread_local Registers registers;

using emulation::flush_subnormal;
using emulation::widened;

PADLESS_INLINE void configure() {}
PADLESS_INLINE void release() {}
PADLESS_INLINE void fence() {}
template <int N> static void zero() { __builtin_memset(&registers.tile[N], 0, sizeof(Tile)); }
template <int N> static void load(const void* from, int64_t stride) {
  for (int r = 0; r < kRows; ++r) __builtin_memcpy(registers.tile[N].rows[r], (const char*)from + r * stride, 64);
}
template <int N> static void store(void* to, int64_t stride) {
  for (int r = 0; r < kRows; ++r) __builtin_memcpy((char*)to + r * stride, registers.tile[N].rows[r], 64);
}
static void dot(Tile& c, const Tile& a, const Tile& b) {
  uint16_t left[16][32], right[16][32];
  __builtin_memcpy(left, a.rows, sizeof left);
  __builtin_memcpy(right, b.rows, sizeof right);
  for (int m = 0; m < kRows; ++m) {
    float sums[32] = {};  // even and odd k apart
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 32; ++n)
        sums[n] = flush_subnormal(__builtin_fmaf(widened(left[m][2 * k + n % 2]), widened(right[k][n]), sums[n]));
    for (int n = 0; n < 16; ++n)
      c.rows[m][n] = flush_subnormal(flush_subnormal(c.rows[m][n]) + flush_subnormal(sums[2 * n] + sums[2 * n + 1]));
  }
}
template <int C, int A, int B> static void dot() { dot(registers.tile[C], registers.tile[A], registers.tile[B]); }

#else

// By inline assembly: GCC 12 lets stores sink below the loads of its intrinsics, and this needs no compiler flags.
PADLESS_INLINE void configure() {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  asm volatile("ldtilecfg %0" ::"m"(config));
}
PADLESS_INLINE void release() { asm volatile("tilerelease" ::: "memory"); }
PADLESS_INLINE void fence() { asm volatile("" ::: "memory"); }  // stores before it are done when a tile is loaded
template <int N> PADLESS_INLINE void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(N)); }
template <int N> PADLESS_INLINE void load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(N) : "memory");
}
template <int N> PADLESS_INLINE void store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(N) : "memory");
}
template <int C, int A, int B> PADLESS_INLINE void dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

#endif

// Whether a product of small whole numbers, which needs no rounding, is right; called once, before the set is used.
static __attribute__((noinline)) bool pass_self_test() {
  uint16_t a[16][32], b[16][32];
  float c[16][16];
  const auto whole = [](int n) {  // n in [-8, 7] as bfloat16
    const float x = (float)n;
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return (uint16_t)(bits >> 16);
  };
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 32; ++k) {
      a[m][k] = whole((5 * m + 3 * k) % 16 - 8);
      b[k / 2][2 * m + k % 2] = whole((7 * m + 11 * k) % 16 - 8);  // column m, row k
      c[m][k / 2] = (float)m;
    }
  configure();
  fence();
  load<0>(c, 64);
  load<4>(a, 64);
  load<6>(b, 64);
  dot<0, 4, 6>();
  store<0>(c, 64);
  release();
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      int sum = m;
      for (int k = 0; k < 32; ++k) sum += ((5 * m + 3 * k) % 16 - 8) * ((7 * n + 11 * k) % 16 - 8);
      if (c[m][n] != (float)sum) return false;
    }
  return true;
}

}  // namespace tiles
