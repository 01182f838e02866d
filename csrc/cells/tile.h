// The one product core: R rows times a panel of NV vectors, all accumulators in registers, one FMA chain per output over
// k = 0, 1, 2, ... whatever R is. The bits of an output therefore depend on its row and its weights alone, not on the block
// that it is computed in; every product of the forward pass is a sequence of such calls, each continuing where the last stopped.
#pragma once

// The values that the accumulators of vector v start with: for row r those at at[v] + r * stride[v] or, with AMX, zeros if at[v]
// is null.
template <class T> struct Start {
  const T* at[4];
  int64_t stride[4];
  // For a prefetching tile: per step of k it prefetches `lines` cache lines (1 to 4) into the second-level cache, from `next` on.
  const char* next = nullptr;
  int64_t lines = 0;
};

// Prefetches 1 to 4 cache lines into the second-level cache; returns the address after them.
PADLESS_INLINE const char* prefetch_lines(const char* next, int64_t lines) {
  __builtin_prefetch(next, 0, 2);
  if (lines > 1) __builtin_prefetch(next + 64, 0, 2);
  if (lines > 2) __builtin_prefetch(next + 128, 0, 2);
  if (lines > 3) __builtin_prefetch(next + 192, 0, 2);
  return next + 64 * lines;
}

// a: row r, column k at a[r * a_stride + k] (rows), or a[k * a_stride + r] (Columns: the transpose).
// panel: [k_count][NV * width]. out: row r at out + r * out_stride, NV * width elements.
template <class T, int NV, int R, bool Columns, bool Prefetches = false>
static __attribute__((noinline)) void tile(const T* a, int64_t a_stride, const T* panel, int64_t k_count,
                                           const Start<T>* start, T* out, int64_t out_stride) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[R][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const T* at = start->at[v];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) acc[r][v] = load(at + r * start->stride[v]);
  }
  const T* row[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) row[r] = a + (Columns ? 0 : r * a_stride);
  const char* next = Prefetches ? start->next : nullptr;
  const int64_t lines = Prefetches ? start->lines : 0;
#pragma GCC unroll 1
  for (int64_t k = 0; k < k_count; ++k) {
    if constexpr (Prefetches) next = prefetch_lines(next, lines);
    if constexpr (kAccumulators == 12 && R < NV) {
      // 16 registers: 12 accumulators, 3 factors and one weight at a time; 4 weights and a factor would be 17.
      Vec<T> x[R];
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) x[r] = splat(Columns ? a[k * a_stride + r] : row[r][k]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        Vec<T> b = load(panel + v * W);
#if defined(PADLESS_VECTOR_REGISTER)
        asm("" : "+" PADLESS_VECTOR_REGISTER(b));
#endif
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) acc[r][v] = fma(x[r], b, acc[r][v]);
      }
      panel += NV * W;
      continue;
    }
    Vec<T> b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      b[v] = load(panel + v * W);
#if defined(PADLESS_VECTOR_REGISTER)
      // With 3 rows or fewer GCC folds this load into every FMA that uses it: 50 instead of 83 % of peak.
      if (R <= 3 && R > 1 && kAccumulators == 24) asm("" : "+" PADLESS_VECTOR_REGISTER(b[v]));
#endif
    }
    panel += NV * W;
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const Vec<T> x = splat(Columns ? a[k * a_stride + r] : row[r][k]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, b[v], acc[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(out + r * out_stride + v * W, acc[r][v]);
}

// One row times two panels. With a single panel each FMA would wait for the one before (4 chains, where two FMA units of 4 cycles
// need 8). Each chain is the one that `tile` computes.
template <class T, int NV>
static __attribute__((noinline)) void tile_pair(const T* a, const T* panel, const T* other, int64_t k_count,
                                                const Start<T>* start, const Start<T>* other_start, T* out, T* other_out) {
  constexpr int W = kWidth<T>;
  Vec<T> acc[2][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    acc[0][v] = load(start->at[v]);
    acc[1][v] = load(other_start->at[v]);
  }
#pragma GCC unroll 2
  for (int64_t k = 0; k < k_count; ++k) {
    const Vec<T> x = splat(a[k]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      acc[0][v] = fma(x, load(panel + v * W), acc[0][v]);
      acc[1][v] = fma(x, load(other + v * W), acc[1][v]);
    }
    panel += NV * W;
    other += NV * W;
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    store(out + v * W, acc[0][v]);
    store(other_out + v * W, acc[1][v]);
  }
}

template <class T> using TileFunction = void (*)(const T*, int64_t, const T*, int64_t, const Start<T>*, T*, int64_t);

// Most rows of a tile of nv vectors: 24 accumulators are 4 x 6, 3 x 8, 2 x 12 and 1 x 12.
constexpr int kMaxRows = 12;
constexpr int tile_rows(int nv) { return kAccumulators / nv < kMaxRows ? kAccumulators / nv : kMaxRows; }

template <class T, int NV, int R, bool Prefetches = false> constexpr TileFunction<T> tile_or_null() {
  if constexpr (R <= tile_rows(NV)) return &tile<T, NV, R, false, Prefetches>;
  else return nullptr;
}
#define PADLESS_TILES(NV, P)                                                                        \
  {nullptr, tile_or_null<T, NV, 1, P>(), tile_or_null<T, NV, 2, P>(), tile_or_null<T, NV, 3, P>(),    \
   tile_or_null<T, NV, 4, P>(), tile_or_null<T, NV, 5, P>(), tile_or_null<T, NV, 6, P>(),             \
   tile_or_null<T, NV, 7, P>(), tile_or_null<T, NV, 8, P>(), tile_or_null<T, NV, 9, P>(),             \
   tile_or_null<T, NV, 10, P>(), tile_or_null<T, NV, 11, P>(), tile_or_null<T, NV, 12, P>()}

template <class T> PADLESS_INLINE TileFunction<T> find_tile(int nv, int rows) {
  static constexpr TileFunction<T> table[5][kMaxRows + 1] = {
      {}, PADLESS_TILES(1, false), PADLESS_TILES(2, false), PADLESS_TILES(3, false), PADLESS_TILES(4, false)};
  return table[nv][rows];
}

// For 3 or 4 vectors: whole panels of LSTM and GRU, and those of backward. Other panels prefetch nothing.
template <class T> PADLESS_INLINE TileFunction<T> find_prefetching_tile(int nv, int rows) {
  static constexpr TileFunction<T> table[2][kMaxRows + 1] = {PADLESS_TILES(3, true), PADLESS_TILES(4, true)};
  return table[nv - 3][rows];
}

// The panel that the next product reads, to be prefetched during this one: each of the `blocks` blocks of rows of the product
// prefetches a part of it. Of vectors that are no whole cache lines together (GRU with AVX2) a third is left out; that costs nothing.
struct Prefetch {
  const void* next = nullptr;  // null: nothing
  int64_t block = 0, blocks = 1;
};

// Whether a product of one block of rows is to prefetch. If so, `start` is given the address, and the cache lines per step of k,
// of which a panel of nv vectors has k_count.
template <class T> PADLESS_INLINE bool share_prefetch(int nv, int64_t k_count, const Prefetch& prefetch, Start<T>& start) {
  if (!prefetch.next || nv < 3) return false;
  const int64_t a_step = nv * kVectorBytes / 64, lines = prefetch.blocks >= a_step ? 1 : prefetch.blocks > 1 ? 2 : a_step;
  if (prefetch.block * lines >= a_step) return false;  // earlier blocks have prefetched it
  start.next = (const char*)prefetch.next + prefetch.block * lines * 64 * k_count;
  start.lines = lines;
  return true;
}

// Splits `count` rows into blocks of at most `most`, as equal as possible: 13 -> 5, 4, 4 and not 6, 6, 1. `most` is a multiple of
// `unit`, and so are all blocks but the last.
struct Blocks {
  int64_t blocks, small, larger, unit, last;
  PADLESS_INLINE Blocks of(int64_t count, int64_t most, int64_t unit = 1) {
    const int64_t units = (count + unit - 1) / unit, blocks = (count + most - 1) / most;
    if (!blocks) return {};
    const int64_t small = units / blocks * unit, larger = units % blocks;
    return {blocks, small, larger, unit, count - (blocks - 1) * small - larger * unit};
  }
  int64_t size(int64_t block) const { return block + 1 < blocks ? small + (block < larger ? unit : 0) : last; }
};
#undef PADLESS_TILES
