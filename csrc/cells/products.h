// Products of rows with packed panels. Parts = 0 is the FMA tile of tile.h. Parts = 1 and 2 are products of bfloat16 numbers
// with float32 sums, by AMX or (one part) by vdpbf16ps; with 2 parts every number is the sum of a high and a low one, and the three
// larger of the four products are added. All add to a start in one order, whatever rows stand beside a row.
#pragma once

#if defined(PADLESS_AMX)

// NV columns of tiles times one or two row blocks of 16. All starts are loaded, so the sum continues that of an earlier product.
template <int Parts, int NV, bool Two>
static __attribute__((noinline)) void tile_product(const uint16_t* a, int64_t stride, int64_t part, const uint16_t* panel,
                                                   int64_t blocks, const Start<float>* start, float* out, int64_t out_stride) {
  using namespace tiles;
  const int64_t line = 2 * stride, out_line = 4 * out_stride;
  const auto from = [&](int v, int half) { return start->at[v] + 16 * half * start->stride[v]; };
  fence();
  if constexpr (!Two) {
    load<0>(from(0, 0), 4 * start->stride[0]);
    if constexpr (NV > 1) load<1>(from(1, 0), 4 * start->stride[1]);
    if constexpr (NV > 2) load<2>(from(2, 0), 4 * start->stride[2]);
    if constexpr (NV > 3) load<3>(from(3, 0), 4 * start->stride[3]);
    for (int64_t k = 0; k < blocks; ++k, panel += NV * Parts * 512) {
      load<4>(a + 32 * k, line);
      if constexpr (Parts > 1) load<5>(a + part + 32 * k, line);
#define PADLESS_COLUMN(V)                          \
  if constexpr (NV > V) {                          \
    load<6>(panel + V * Parts * 512, 64);          \
    if constexpr (Parts > 1) {                     \
      load<7>(panel + V * Parts * 512 + 512, 64);  \
      dot<V, 5, 6>();                              \
      dot<V, 4, 7>();                              \
    }                                              \
    dot<V, 4, 6>();                                \
  }
      PADLESS_COLUMN(0) PADLESS_COLUMN(1) PADLESS_COLUMN(2) PADLESS_COLUMN(3)
#undef PADLESS_COLUMN
    }
    store<0>(out, out_line);
    if constexpr (NV > 1) store<1>(out + 16, out_line);
    if constexpr (NV > 2) store<2>(out + 32, out_line);
    if constexpr (NV > 3) store<3>(out + 48, out_line);
  } else {
    const uint16_t* below = a + 16 * stride;
    for (int v = 0; v < NV; v += 2) {
      const bool pair = v + 1 < NV;
      load<0>(from(v, 0), 4 * start->stride[v]);
      load<2>(from(v, 1), 4 * start->stride[v]);
      if (pair) {
        load<1>(from(v + 1, 0), 4 * start->stride[v + 1]);
        load<3>(from(v + 1, 1), 4 * start->stride[v + 1]);
      }
      const auto multiply = [&](int64_t k, int a_part, int b_part) {
        const uint16_t* b = panel + ((k * NV + v) * Parts + b_part) * 512;
        load<4>(a + a_part * part + 32 * k, line);
        load<6>(b, 64);
        dot<0, 4, 6>();
        if (pair) {
          load<7>(b + Parts * 512, 64);
          dot<1, 4, 7>();
        }
        load<5>(below + a_part * part + 32 * k, line);
        dot<2, 5, 6>();
        if (pair) dot<3, 5, 7>();
      };
      for (int64_t k = 0; k < blocks; ++k) {
        if constexpr (Parts > 1) {
          multiply(k, 1, 0);
          multiply(k, 0, 1);
        }
        multiply(k, 0, 0);
      }
      float* to = out + 16 * v;
      store<0>(to, out_line);
      store<2>(to + 16 * out_stride, out_line);
      if (pair) {
        store<1>(to + 16, out_line);
        store<3>(to + 16 * out_stride + 16, out_line);
      }
    }
  }
}

template <int Parts, int NV>
PADLESS_INLINE void tile_product(int64_t n, const Operand<float, Parts>& a, const uint16_t* panel, int64_t blocks,
                                 const Start<float>* start, float* out, int64_t out_stride) {
  if (n > 16) tile_product<Parts, NV, true>(a.at, a.stride, a.part, panel, blocks, start, out, out_stride);
  else tile_product<Parts, NV, false>(a.at, a.stride, a.part, panel, blocks, start, out, out_stride);
}

#endif

// Whether a kernel multiplies by AMX: it holds the tiles' configuration while it runs.
template <int Parts> struct TileScope {
#if defined(PADLESS_AMX)
  TileScope() { if (Parts) tiles::configure(); }
  ~TileScope() { if (Parts) tiles::release(); }
#else
  TileScope() {}
  ~TileScope() {}
#endif
};

// n rows times a panel, which lies at `data`, continuing `start`. AMX writes 16 or 32 rows, so `out` and `start` have that many.
// Only FMA prefetches.
template <class T, int Parts>
PADLESS_INLINE void multiply_panel_at(const typename ElementOf<T, Parts>::Type* data, const Panels<T, Parts>& w, int64_t panel,
                                      const Operand<T, Parts>& a, int64_t n, Start<T>& start, T* out, int64_t out_stride,
                                      const Prefetch& prefetch = {}) {
  const int nv = w.tile(panel);
  if constexpr (Parts == 0) {
    const TileFunction<T> multiply = start_prefetch<T>(nv, (int)n, w.k_count, prefetch, start);
    multiply(a.at, a.stride, data, w.k_count, &start, out, out_stride);
  } else {
#if defined(PADLESS_DOTS)
    static_assert(Parts == 1, "three products by vdpbf16ps take longer than one by FMA");
    dots::multiply(n, a.at, a.stride, data, nv, w.k_count, start, out, out_stride);
#elif defined(PADLESS_AMX)
    const int64_t k_blocks = tiled(w.k_count) / 32;
    switch (nv) {
      case 1: return tile_product<Parts, 1>(n, a, data, k_blocks, &start, out, out_stride);
      case 2: return tile_product<Parts, 2>(n, a, data, k_blocks, &start, out, out_stride);
      case 3: return tile_product<Parts, 3>(n, a, data, k_blocks, &start, out, out_stride);
      default: return tile_product<Parts, 4>(n, a, data, k_blocks, &start, out, out_stride);
    }
#endif
  }
}
template <class T, int Parts>
PADLESS_INLINE void multiply_panel(const Panels<T, Parts>& w, int64_t panel, const Operand<T, Parts>& a, int64_t n, Start<T>& start,
                                   T* out, int64_t out_stride, const Prefetch& prefetch = {}) {
  multiply_panel_at(w.at(panel), w, panel, a, n, start, out, out_stride, prefetch);
}

// The sums of GRU's n gate start at its hidden bias and not at the input product `in`. Where the gate shares vectors with
// others, the starts are assembled in `mixed`, which may be the buffer that the product is written to.
template <class T, int Parts>
PADLESS_INLINE void start_apart(Start<T>& start, const T* bias, const T* in, const Panels<T, Parts>& w, int64_t panel, int64_t rows,
                                T* mixed) {
  if (!w.shares(panel)) {
    start.at[2] = bias;
    start.stride[2] = 0;
    return;
  }
  const int64_t step = w.gate_step(panel), stride = w.tile(panel) * kWidth<T>;
  copy(mixed, in, rows * stride);
  for (int64_t r = 0; r < rows; ++r) copy(mixed + r * stride + 2 * step, bias, step);
  for (int v = 0; v < w.tile(panel); ++v) start.at[v] = mixed + v * kWidth<T>;
}
