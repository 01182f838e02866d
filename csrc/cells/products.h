// Products of rows with packed panels. Parts = 0 is the FMA tile of tile.h. Parts = 1 and 2 are products of bfloat16 numbers
// with float32 sums, by AMX or (one part) by vdpbf16ps; with 2 parts every number is the sum of a high and a low one, and the three
// larger of the four products are added. All add to a start or to zero, in an order that does not depend on the other rows.
#pragma once

// Whether the hidden product starts at zero, and the cell adds the input product to it. Otherwise the hidden product continues the
// sums of the input product. With AMX the former is faster for few rows, because loading a start always loads 16 rows.
#if defined(PADLESS_AMX)
constexpr bool adds_input(int parts) { return parts > 0; }
#else
constexpr bool adds_input(int) { return false; }
#endif
// Whether a product may start at null, for zero.
constexpr bool starts_empty(int parts) { return adds_input(parts); }

// Other work during a product: `advance` is called after each of its steps, with the number of steps done and their total. AMX
// multiplies in a unit of its own, so that the others are free.
struct Meanwhile {
  void (*advance)(void* work, int64_t done, int64_t of) = nullptr;
  void* work = nullptr;
  void operator()(int64_t done, int64_t of) const {
    if (advance) advance(work, done, of);
  }
};

// Prefetches cache lines meanwhile, evenly: all at once they would keep the loads of tiles waiting.
struct LinesAhead {
  const char* next;
  int64_t lines, done;
  Meanwhile meanwhile() { return {next ? advance : nullptr, this}; }
  static void advance(void* work, int64_t done, int64_t of) {
    LinesAhead& own = *(LinesAhead*)work;
    for (const int64_t to = own.lines * done / of; own.done < to; ++own.done) __builtin_prefetch(own.next + 64 * own.done, 1);
  }
};

#if defined(PADLESS_AMX)

// Loads tile N with the start of the sums of vector v, for its first (half = 0) or second 16 rows; zeros where there is none.
template <int N> PADLESS_INLINE void begin_tile(const Start<float>& start, int v, int half) {
  if (start.at[v]) tiles::load<N>(start.at[v] + 16 * half * start.stride[v], 4 * start.stride[v]);
  else tiles::zero<N>();
}

// NV columns of tiles times one or two row blocks of 16.
template <int Parts, int NV, bool Two>
static __attribute__((noinline)) void tile_product(const uint16_t* a, int64_t stride, int64_t part, const uint16_t* panel,
                                                   int64_t blocks, const Start<float>* start, float* out, int64_t out_stride,
                                                   const Meanwhile* meanwhile) {
  using namespace tiles;
  const int64_t line = 2 * stride, out_line = 4 * out_stride;
  fence();
  if constexpr (!Two) {
    begin_tile<0>(*start, 0, 0);
    if constexpr (NV > 1) begin_tile<1>(*start, 1, 0);
    if constexpr (NV > 2) begin_tile<2>(*start, 2, 0);
    if constexpr (NV > 3) begin_tile<3>(*start, 3, 0);
    for (int64_t k = 0; k < blocks; ++k, panel += NV * Parts * 512) {
      load<4>(a + 32 * k, line);
      if constexpr (Parts > 1) load<5>(a + part + 32 * k, line);
#define PADLESS_COLUMN(V)                                                    \
  if constexpr (NV > V && Parts == 1) {                                      \
    load<6 + V % 2>(panel + V * 512, 64);                                    \
    dot<V, 4, 6 + V % 2>();                                                  \
  } else if constexpr (NV > V) {                                             \
    load<6>(panel + V * 1024, 64);                                           \
    dot<V, 5, 6>();                                                          \
    dot<V, 4, 6>();                                                          \
    load<7>(panel + V * 1024 + 512, 64);                                     \
    dot<V, 4, 7>();                                                          \
  }
      PADLESS_COLUMN(0) PADLESS_COLUMN(1) PADLESS_COLUMN(2) PADLESS_COLUMN(3)
#undef PADLESS_COLUMN
      (*meanwhile)(k + 1, blocks);
    }
    store<0>(out, out_line);
    if constexpr (NV > 1) store<1>(out + 16, out_line);
    if constexpr (NV > 2) store<2>(out + 32, out_line);
    if constexpr (NV > 3) store<3>(out + 48, out_line);
  } else {
    const uint16_t* below = a + 16 * stride;
    for (int v = 0; v < NV; v += 2) {
      const bool pair = v + 1 < NV;
      begin_tile<0>(*start, v, 0);
      begin_tile<2>(*start, v, 1);
      if (pair) {
        begin_tile<1>(*start, v + 1, 0);
        begin_tile<3>(*start, v + 1, 1);
      }
      const uint16_t* b = panel + v * Parts * 512;
      const auto load_rows = [&](int64_t k, int a_part) {
        load<4>(a + a_part * part + 32 * k, line);
        load<5>(below + a_part * part + 32 * k, line);
      };
      const auto load_columns = [&](int b_part) {
        load<6>(b + b_part * 512, 64);
        if (pair) load<7>(b + (Parts + b_part) * 512, 64);
      };
      const auto multiply = [&] {
        dot<0, 4, 6>();
        if (pair) dot<1, 4, 7>();
        dot<2, 5, 6>();
        if (pair) dot<3, 5, 7>();
      };
      for (int64_t k = 0; k < blocks; ++k, b += NV * Parts * 512) {
        load_columns(0);
        if constexpr (Parts > 1) {
          load_rows(k, 1);
          multiply();
        }
        load_rows(k, 0);
        multiply();
        if constexpr (Parts > 1) {
          load_columns(1);
          multiply();
        }
        (*meanwhile)(v / 2 * blocks + k + 1, (NV + 1) / 2 * blocks);
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
                                 const Start<float>* start, float* out, int64_t out_stride, const Meanwhile& meanwhile) {
  if (n > 16) tile_product<Parts, NV, true>(a.at, a.stride, a.part, panel, blocks, start, out, out_stride, &meanwhile);
  else tile_product<Parts, NV, false>(a.at, a.stride, a.part, panel, blocks, start, out, out_stride, &meanwhile);
}

#endif

// Keeps the tiles configured while a kernel that multiplies by AMX runs.
template <int Parts> struct TileScope {
#if defined(PADLESS_AMX)
  TileScope() { if (Parts) tiles::configure(); }
  ~TileScope() { if (Parts) tiles::release(); }
#else
  TileScope() {}
  ~TileScope() {}
#endif
};

// n rows times a panel, which is stored at `data`, added to `start`. AMX writes 16 or 32 rows, so `out` and `start` have that many.
// AMX does not prefetch, and only AMX does other work meanwhile.
template <class T, int Parts>
PADLESS_INLINE void multiply_panel_at(const typename ElementOf<T, Parts>::Type* data, const Panels<T, Parts>& w, int64_t panel,
                                      const Operand<T, Parts>& a, int64_t n, Start<T>& start, T* out, int64_t out_stride,
                                      const Prefetch& prefetch = {}, const Meanwhile& meanwhile = {}) {
  (void)meanwhile;
  const int nv = w.tile(panel);
  if constexpr (Parts == 0) {
    const bool prefetches = share_prefetch(nv, w.k_count, prefetch, start);
    const TileFunction<T> multiply = prefetches ? find_prefetching_tile<T>(nv, (int)n) : find_tile<T>(nv, (int)n);
    multiply(a.at, a.stride, data, w.k_count, &start, out, out_stride);
  } else {
#if defined(PADLESS_DOTS)
    static_assert(Parts == 1, "three products by vdpbf16ps take longer than one by FMA");
    dots::multiply(n, a.at, a.stride, data, nv, w.k_count, start, out, out_stride, prefetch);
#elif defined(PADLESS_AMX)
    const int64_t k_blocks = tiled(w.k_count) / 32;
    switch (nv) {
      case 1: return tile_product<Parts, 1>(n, a, data, k_blocks, &start, out, out_stride, meanwhile);
      case 2: return tile_product<Parts, 2>(n, a, data, k_blocks, &start, out, out_stride, meanwhile);
      case 3: return tile_product<Parts, 3>(n, a, data, k_blocks, &start, out, out_stride, meanwhile);
      default: return tile_product<Parts, 4>(n, a, data, k_blocks, &start, out, out_stride, meanwhile);
    }
#endif
  }
}
template <class T, int Parts>
PADLESS_INLINE void multiply_panel(const Panels<T, Parts>& w, int64_t panel, const Operand<T, Parts>& a, int64_t n, Start<T>& start,
                                   T* out, int64_t out_stride, const Prefetch& prefetch = {}, const Meanwhile& meanwhile = {}) {
  multiply_panel_at(w.at(panel), w, panel, a, n, start, out, out_stride, prefetch, meanwhile);
}

// Where the sums of the hidden product of a panel start: at those of the input product, `in`, or at zero where the cell adds these.
// GRU's n gate starts at its hidden bias (`bias`, null for other cells). Where it shares vectors with other gates, the starts are
// assembled in `mixed`, which may be the buffer that the product is written to.
template <class T, int Parts>
PADLESS_INLINE Start<T> hidden_start_of(const Panels<T, Parts>& w, int64_t panel, const T* in, const T* bias, int64_t rows, T* mixed) {
  const int nv = w.tile(panel);
  const int64_t stride = nv * kWidth<T>;
  Start<T> start = {};
  if (!adds_input(Parts))
    for (int v = 0; v < nv; ++v) {
      start.at[v] = in + v * kWidth<T>;
      start.stride[v] = stride;
    }
  if (!bias) return start;
  if (!w.shares(panel)) {
    start.at[2] = bias;
    start.stride[2] = 0;
    return start;
  }
  const int64_t step = w.gate_step(panel);
  copy(mixed, in, rows * stride);
  for (int64_t r = 0; r < rows; ++r) copy(mixed + r * stride + 2 * step, bias, step);
  for (int v = 0; v < nv; ++v) start.at[v] = mixed + v * kWidth<T>;
  return start;
}
