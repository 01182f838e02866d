// `add_pairs`, the instruction vdpbf16ps, or the same in plain C++ where PADLESS_EMULATE is defined, and the products of
// rows with packed panels that are made of it.
//
// A vector of weights has 16 columns of two rows, interleaved: a row of a tile in the layout of pack.h. Every output is one chain
// over k, odd k before even k in each pair, whatever the other rows are.
#pragma once

namespace dots {

// sums[i] + a[2i + 1] * b[2i + 1] + a[2i] * b[2i], each product added with one rounding; subnormal numbers count as zero.
#if defined(PADLESS_EMULATE)
using emulation::flush_subnormal;
static VecF add_pairs(VecF sums, VecF a, VecF b) {
  uint16_t left[32], right[32];
  __builtin_memcpy(left, &a, sizeof left);
  __builtin_memcpy(right, &b, sizeof right);
  for (int i = 0; i < 16; ++i) {
    float sum = flush_subnormal(sums[i]);
    for (int k = 2 * i + 1; k >= 2 * i; --k)
      sum = flush_subnormal(__builtin_fmaf(emulation::widened(left[k]), emulation::widened(right[k]), sum));
    sums[i] = sum;
  }
  return sums;
}
#else
PADLESS_INLINE VecF add_pairs(VecF sums, VecF a, VecF b) {  // by inline assembly: it needs no compiler flags
  asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
  return sums;
}
#endif

PADLESS_INLINE VecF splat_pair(const uint16_t* pair) {
  int32_t both;
  __builtin_memcpy(&both, pair, 4);
  return (VecF)(both - VecI32{});
}

// R rows times a panel of NV vectors, k_count > 0 (for none, GCC would keep a copy of all sums on the stack).
template <int NV, int R, bool Prefetches>
static __attribute__((noinline)) void product(const uint16_t* a, int64_t stride, const uint16_t* panel, int64_t k_count,
                                              const Start<float>* start, float* out, int64_t out_stride) {
  if (k_count <= 0) __builtin_unreachable();
  VecF sums[R][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v)
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r][v] = load(start->at[v] + r * start->stride[v]);
  const uint16_t* row[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) row[r] = a + r * stride;
  const char* next = Prefetches ? start->next : nullptr;
  const int64_t lines = Prefetches ? start->lines : 0;
#pragma GCC unroll 1
  for (int64_t k = 0; k < k_count; k += 2) {
    if constexpr (Prefetches) next = prefetch_lines(next, lines);
    VecF b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) b[v] = load((const float*)(panel + 512 * v));
    panel += k % 32 == 30 ? 512 * (NV - 1) + 32 : 32;  // 16 pairs, then the next vector's
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const VecF x = splat_pair(row[r] + k);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sums[r][v] = add_pairs(sums[r][v], x, b[v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(out + r * out_stride + v * 16, sums[r][v]);
}

typedef void (*Function)(const uint16_t*, int64_t, const uint16_t*, int64_t, const Start<float>*, float*, int64_t);
template <int NV, int R, bool Prefetches> constexpr Function product_or_null() {
  if constexpr (R <= tile_rows(NV)) return &product<NV, R, Prefetches>;
  else return nullptr;
}
#define PADLESS_DOT_PRODUCTS(NV, P)                                                                                      \
  {nullptr, product_or_null<NV, 1, P>(), product_or_null<NV, 2, P>(), product_or_null<NV, 3, P>(),                         \
   product_or_null<NV, 4, P>(), product_or_null<NV, 5, P>(), product_or_null<NV, 6, P>(), product_or_null<NV, 7, P>(),      \
   product_or_null<NV, 8, P>(), product_or_null<NV, 9, P>(), product_or_null<NV, 10, P>(), product_or_null<NV, 11, P>(),    \
   product_or_null<NV, 12, P>()}

// n rows times a panel of nv vectors. `start` is moved on.
PADLESS_INLINE void multiply(int64_t n, const uint16_t* a, int64_t stride, const uint16_t* panel, int nv, int64_t k_count,
                             Start<float>& start, float* out, int64_t out_stride, const Prefetch& prefetch) {
  static constexpr Function table[5][kMaxRows + 1] = {{}, PADLESS_DOT_PRODUCTS(1, false), PADLESS_DOT_PRODUCTS(2, false),
                                                      PADLESS_DOT_PRODUCTS(3, false), PADLESS_DOT_PRODUCTS(4, false)};
  static constexpr Function prefetching[2][kMaxRows + 1] = {PADLESS_DOT_PRODUCTS(3, true), PADLESS_DOT_PRODUCTS(4, true)};
  if (k_count == 0)
    for (int64_t r = 0; r < n; ++r)
      for (int v = 0; v < nv; ++v) store(out + r * out_stride + v * 16, load(start.at[v] + r * start.stride[v]));
  const Blocks blocks = Blocks::of(k_count ? n : 0, tile_rows(nv));
  for (int64_t b = 0; b < blocks.blocks; ++b) {
    const int64_t rows = blocks.size(b);
    const Prefetch own = {prefetch.next, prefetch.block * blocks.blocks + b, prefetch.blocks * blocks.blocks};
    const bool prefetches = share_prefetch(nv, (k_count + 1) / 2, own, start);
    (prefetches ? prefetching[nv - 3] : table[nv])[rows](a, stride, panel, k_count, &start, out, out_stride);
    a += rows * stride;
    out += rows * out_stride;
    for (int v = 0; v < nv; ++v) start.at[v] += rows * start.stride[v];
  }
}
#undef PADLESS_DOT_PRODUCTS

}  // namespace dots
