// Products with weights as torch stores them: where weights are used once, packing them first takes longer than the product. Every
// output is the chain of FMAs that `tile` computes from packed weights, so the bits are the same. The forward pass multiplies one row
// by weights that it transposes in registers; the backward pass needs no transposition.
#pragma once

// Columns [k, end) of NV vectors of weights, as many as whole runs of `Run` columns hold; returns where it stopped.
// Row r of vector v begins at weights[v] + r * stride. A run is taken from one vector after the other.
template <class T, class S, int NV, int Run>
PADLESS_INLINE int64_t continue_chains(const T* a, const S* const* weights, int64_t stride, int64_t k, int64_t end, Vec<T>* acc) {
  constexpr int E = kLane<S>;
#pragma GCC unroll 1
  for (; k + Run <= end; k += Run)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v)
#pragma GCC unroll 8
      for (int part = 0; part < Run; part += E) {
        Vec<T> columns[E];
        load_columns(weights[v] + k + part, stride, columns);
#pragma GCC unroll 8
        for (int i = 0; i < E; ++i) acc[v] = fma(splat(a[k + part + i]), columns[i], acc[v]);
      }
  return k;
}

// Whether the first-level cache (64 sets of 8 ways or more, 64 bytes each) holds a line of each of `rows` rows at once. Where rows are
// a power of two apart their lines share few sets.
PADLESS_INLINE bool lines_fit(int64_t rows, int64_t stride_bytes) {
  const int64_t apart = stride_bytes & -stride_bytes;  // the largest power of two in it
  const int64_t sets = apart >= 4096 ? 1 : apart <= 64 ? 64 : 4096 / apart;
  return rows <= 8 * sets;
}

template <class T, class S, int NV>
static __attribute__((noinline)) void tile_unpacked(const T* a, const S* const* weights, int64_t k_count, const T* const* start,
                                                    T* const* out) {
  constexpr int W = kWidth<T>, short_run = kLane<S>, line = 64 / sizeof(S);
  Vec<T> acc[NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) acc[v] = load(start[v]);
  int64_t k = 0;
  // By short runs the chains of both vectors advance together. Where lines of all rows do not fit the cache together, each line is used
  // up before the next vector's.
  if (!lines_fit(NV * W, k_count * (int64_t)sizeof(S))) k = continue_chains<T, S, NV, line>(a, weights, k_count, k, k_count, acc);
  k = continue_chains<T, S, NV, short_run>(a, weights, k_count, k, k_count, acc);
  for (; k < k_count; ++k)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      T column[W];
      for (int r = 0; r < W; ++r) column[r] = number_in(weights[v][r * k_count + k]);
      acc[v] = fma(splat(a[k]), load(column), acc[v]);
    }
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) store(out[v], acc[v]);
}

// Whether a panel has vectors of its own for each gate, without a unit past the last.
template <class T> PADLESS_INLINE bool is_whole(const Panels<T, 0>& w, int64_t panel, int64_t hidden) {
  return !w.shares(panel) && (w.first(panel) + w.size(panel)) * kWidth<T> <= hidden;
}

// One row times one whole panel or two (`count`, of equally many vectors), two vectors at a time.
template <class T, class S>
PADLESS_INLINE void multiply_unpacked(const Panels<T, 0>& w, const int64_t* panel, int count, const S* weights, int64_t hidden, const T* a,
                                      const Start<T>* start, T* const* out) {
  constexpr int W = kWidth<T>;
  const int nv = w.tile(panel[0]), total = nv * count;
  const S* rows[8];
  const T* starts[8];
  T* outs[8];
  for (int v = 0; v < nv; ++v)
    for (int i = 0; i < count; ++i) {  // a vector of each panel in turn: in LSTM and GRU their rows follow each other
      const int at = v * count + i;
      const int64_t unit = (w.first(panel[i]) + v / w.gates) * W;
      rows[at] = weights + (v % w.gates * hidden + unit) * w.k_count;
      starts[at] = start[i].at[v];
      outs[at] = out[i] + v * W;
    }
  int at = 0;
  for (; at + 2 <= total; at += 2) tile_unpacked<T, S, 2>(a, rows + at, w.k_count, starts + at, outs + at);
  if (at < total) tile_unpacked<T, S, 1>(a, rows + at, w.k_count, starts + at, outs + at);
}

// Factors of a product: that of row r and number k of its sum is at[r * row + k * next].
template <class T> struct Factors {
  const T* at;
  int64_t row, next;
};

// sums[r, :] += the sum over k of factors[r, k] * terms[k, :], for n rows of sums and K rows of terms, in the order of k as in `tile`.
// With First the sums start at zero and need not be written before. The terms are read from memory once and stay in the first-level
// cache for the other rows. Rows of sums are whole vectors.
template <class T, class S, int K, bool First>
static __attribute__((noinline)) void add_terms(const Factors<T>& factors, int64_t n, const S* terms, int64_t stride, int64_t columns,
                                                T* sums, int64_t sums_stride) {
  constexpr int W = kWidth<T>;
  for (int64_t r = 0; r < n; ++r, sums += sums_stride) {
    Vec<T> factor[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) factor[k] = splat(factors.at[r * factors.row + k * factors.next]);
    const auto add = [&](int64_t at, int64_t count) __attribute__((always_inline)) {
      Vec<T> sum = {};
      if constexpr (!First) sum = load(sums + at);
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) sum = fma(factor[k], load_numbers(terms + k * stride + at, count), sum);
      store(sums + at, sum);
    };
    int64_t at = 0;
    for (; at + W <= columns; at += W) add(at, W);
    if (at < columns) add(at, columns - at);
  }
}
template <class T, class S> using AddTerms = void (*)(const Factors<T>&, int64_t, const S*, int64_t, int64_t, T*, int64_t);
// The function for `size` rows of terms: 1, 4 or 8.
template <class T, class S, bool First> PADLESS_INLINE AddTerms<T, S> find_add_terms(int64_t size) {
  return size == 8 ? add_terms<T, S, 8, First> : size == 4 ? add_terms<T, S, 4, First> : add_terms<T, S, 1, First>;
}
// The same for k_count rows of terms, at least one.
template <class T, class S>
static void add_all_terms(Factors<T> factors, int64_t n, const S* terms, int64_t stride, int64_t k_count, int64_t columns, T* sums,
                          int64_t sums_stride, bool first) {
  for (int64_t k = 0; k < k_count;) {
    const int64_t size = k_count - k >= 8 ? 8 : k_count - k >= 4 ? 4 : 1;
    const AddTerms<T, S> add = first && k == 0 ? find_add_terms<T, S, true>(size) : find_add_terms<T, S, false>(size);
    add(factors, n, terms + k * stride, stride, columns, sums, sums_stride);
    factors.at += size * factors.next;
    k += size;
  }
}
