// Weights in the order in which the product core reads them, and the sizes of everything that depends on it.
#pragma once

struct PackedHeader {  // 64 bytes before the panels: a buffer packed for something else is an error, not a wrong result
  uint64_t magic;
  int64_t kind, vector_bytes, cell, dtype, input, hidden, projection;
};
constexpr uint64_t kPackedMagic = 0x7061646c65737331u;
enum { kForwardPack = 1, kBackwardPack = 2 };

constexpr int gate_count(int64_t cell) { return cell == PADLESS_LSTM ? 4 : cell == PADLESS_GRU ? 3 : 1; }
// Gate gradients per unit: GRU keeps two for its n gate, [n (input side), r, z, n (hidden side)], so that both products
// read a contiguous run of columns.
constexpr int gradient_count(int64_t cell) { return cell == PADLESS_LSTM || cell == PADLESS_GRU ? 4 : 1; }
// Hidden vectors per panel: one with all its gates where there are several, else four neighbours.
constexpr int panel_vectors(int64_t cell) { return gate_count(cell) == 1 ? 4 : 1; }

// [k_count][NV * width] panels of `vectors` vectors, `most` to a panel; the panel that begins at vector v is stored at
// v * gates * width * k_count.
//
// In a last panel of few units these are side by side, gate after gate, in as few vectors as possible: LSTM of 100 units takes
// 25 accumulators for its 400 gates and not 28 (78 -> 86 % of sgemm in inference).
//
// Where bfloat16 numbers are multiplied (Parts > 0), a panel is [k block of 32][NV][part] tiles of 16 rows of 64 bytes: row r
// interleaves rows 2r and 2r + 1 of the block, as bfloat16. Rows past k_count are zeros, and no gates share vectors.
template <class T, int Parts = 0> struct Panels {
  typedef typename ElementOf<T, Parts>::Type Element;
  const Element* data;
  int64_t k_count, vectors;
  int most, gates;
  int64_t shared = 0;  // units of the last panel where their gates share vectors; 0: every gate has vectors of its own
  bool shares(int64_t p) const { return shared && p == vectors - 1; }
  int tile(int64_t p) const { return (int)(shares(p) ? (shared * gates + kWidth<T> - 1) / kWidth<T> : size(p) * gates); }
  int64_t gate_step(int64_t p) const { return shares(p) ? shared : kWidth<T>; }  // from one gate of a unit to the next
  int64_t count() const { return (vectors + most - 1) / most; }
  int64_t first(int64_t p) const { return p * most; }
  int64_t size(int64_t p) const { return minimum(most, vectors - p * most); }
  int64_t vector_elements() const { return Parts ? round_up(k_count, 32) * kWidth<T> * Parts : kWidth<T> * k_count; }
  int64_t elements() const { return vectors * gates * vector_elements(); }
  const Element* at(int64_t p) const { return data + p * most * gates * vector_elements(); }
  int64_t bytes() const { return elements() * (int64_t)sizeof(Element); }
};

template <class T> PADLESS_INLINE int64_t vectors_of(int64_t columns) { return (columns + kWidth<T> - 1) / kWidth<T>; }

template <class T, int Parts = 0> struct ForwardWeights {
  typedef typename ElementOf<T, Parts>::Type Element;
  Panels<T, Parts> input, hidden;
  Panels<T, Parts> projection;  // [H -> P]; none without one
  const T* bias;         // [vectors][gates][width] and as the panels, where the input product starts
  const T* hidden_bias;  // GRU: [vectors][width], where the hidden product of its n gate starts
  int64_t bytes;
  ForwardWeights(const padless::Layer& layer, const void* packed) {
    const int gates = gate_count(layer.cell), most = panel_vectors(layer.cell);
    const int64_t v = vectors_of<T>(layer.hidden), column = v * gates * kWidth<T>;
    const int64_t last = layer.hidden - (v - 1) * kWidth<T>;
    const int64_t shared = !Parts && last * gates <= (gates - 1) * kWidth<T> ? last : 0;
    bias = (const T*)((const char*)packed + sizeof(PackedHeader));
    hidden_bias = bias + column;
    const Element* p = (const Element*)(hidden_bias + v * kWidth<T>);
    hidden = {p, output_width(layer), v, most, gates, shared};
    p += hidden.elements();
    projection = {p, layer.hidden, vectors_of<T>(layer.projection), 4, 1};
    p += projection.elements();
    input = {p, layer.input, v, most, gates, shared};
    bytes = (const char*)(p + input.elements()) - (const char*)packed;
  }
};

template <class T, int Parts = 0> struct BackwardWeights {
  typedef typename ElementOf<T, Parts>::Type Element;
  Panels<T, Parts> hidden, input;  // [gradients -> P] and [gradients -> I]
  Panels<T, Parts> projection;     // [P -> H]; none without one
  int64_t bytes;
  BackwardWeights(const padless::Layer& layer, const void* packed) {
    const int64_t k = gate_count(layer.cell) * layer.hidden;
    const Element* p = (const Element*)((const char*)packed + sizeof(PackedHeader));
    hidden = {p, k, vectors_of<T>(output_width(layer)), 4, 1};
    p += hidden.elements();
    projection = {p, layer.projection, layer.projection ? vectors_of<T>(layer.hidden) : 0, 4, 1};
    p += projection.elements();
    input = {p, k, vectors_of<T>(layer.input), 4, 1};
    bytes = (const char*)(p + input.elements()) - (const char*)packed;
  }
};

template <class T, int Parts> constexpr int64_t header_dtype() {
  return Parts ? PADLESS_BFLOAT16 + Parts - 1 : sizeof(T) == 4 ? PADLESS_FLOAT32 : PADLESS_FLOAT64;
}
template <class T, int Parts>
static void write_header(void* packed, int64_t kind, const padless::Layer& l) {
  const PackedHeader header = {kPackedMagic, kind,    kVectorBytes, l.cell, header_dtype<T, Parts>(),
                               l.input,      l.hidden, l.projection};
  __builtin_memcpy(packed, &header, sizeof header);
}
template <class T, int Parts>
static bool header_fits(const void* packed, int64_t kind, const padless::Layer& l) {
  PackedHeader h;
  __builtin_memcpy(&h, packed, sizeof h);
  return h.magic == kPackedMagic && h.kind == kind && h.vector_bytes == kVectorBytes && h.cell == l.cell &&
         h.dtype == header_dtype<T, Parts>() && h.input == l.input && h.hidden == l.hidden && h.projection == l.projection;
}

// An element of weights as the caller holds them: T or, for T = float, bfloat16. "S" is its type below.
template <class T> PADLESS_INLINE T number_in(T element) { return element; }
PADLESS_INLINE float number_in(uint16_t element) {
  const uint32_t bits = (uint32_t)element << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, 4);
  return wide;
}
// A vector of them: the first n, and zeros.
template <class T> PADLESS_INLINE Vec<T> load_numbers(const T* from, int64_t n) { return load_first(from, n); }
PADLESS_INLINE VecF load_numbers(const uint16_t* from, int64_t n) { return widened(load_halves(from, n)); }

// Transposes `rows` rows of `columns` columns, the rows `stride` apart: column k goes to to[k * to_stride], as the first `lanes`
// elements of a vector whose elements past `rows` are zeros.
template <class T, class S>
PADLESS_INLINE void transpose(const S* from, int64_t stride, int64_t rows, int64_t columns, T* to, int64_t to_stride, int64_t lanes) {
  constexpr int W = kWidth<T>, E = kLane<S>;
  if (columns < E) {
    for (int64_t k = 0; k < columns; ++k)
      for (int64_t r = 0; r < lanes; ++r) to[k * to_stride + r] = r < rows ? number_in(from[r * stride + k]) : T(0);
    return;
  }
  // E columns at a time; the last E may include some that are done already.
  Vec<T> part[E];
  if (rows == W && lanes == W) {
    for (int64_t k = 0; k < columns; k += E) {
      const int64_t at = minimum(k, columns - E);
      load_columns(from + at, stride, part);
#pragma GCC unroll 8
      for (int i = 0; i < E; ++i) store(to + (at + i) * to_stride, part[i]);
    }
    return;
  }
  S block[W][E] = {};
  for (int64_t k = 0; k < columns; k += E) {
    const int64_t at = minimum(k, columns - E);
    for (int64_t r = 0; r < rows; ++r) __builtin_memcpy(block[r], from + r * stride + at, sizeof block[r]);
    load_columns(block[0], E, part);
#pragma GCC unroll 8
    for (int i = 0; i < E; ++i) store_first(to + (at + i) * to_stride, part[i], lanes);
  }
}

// Weights as the caller holds them: T or, only for T = float, possibly bfloat16.
template <class T> struct Given {
  const void* at;
  bool narrow;
  Given from(int64_t element) const { return {element_of<T>(at, element, narrow), narrow}; }
  // Calls f with a pointer of their type.
  template <class F> inline __attribute__((always_inline)) void with_type(const F& f) const {
    if constexpr (sizeof(T) == 4)
      if (narrow) return f((const uint16_t*)at);
    f((const T*)at);
  }
  T operator[](int64_t element) const {
    T number;
    with_type([&](const auto* weights) { number = number_in(weights[element]); });
    return number;
  }
};

template <int Parts>
static void pack_tiles_transposed(const Panels<float, Parts>& panels, const Given<float>& weights, int64_t hidden) {
  uint16_t lines[Parts][16][32];  // columns of a tile
  for (int64_t p = 0; p < panels.count(); ++p) {
    uint16_t* to = const_cast<uint16_t*>(panels.at(p));
    for (int64_t k = 0; k < panels.k_count; k += 32)
      for (int64_t v = 0; v < panels.size(p); ++v)
        for (int g = 0; g < panels.gates; ++g, to += Parts * 512) {
          const int64_t unit = (panels.first(p) + v) * 16;
          for (int64_t c = 0; c < 16; ++c) {
            const bool inside = unit + c < hidden;
            const Given<float> row = weights.from((g * hidden + unit + c) * panels.k_count);
            if (inside && k + 64 <= panels.k_count)  // the next block: 64 rows in turns are too many streams for the processor
              for (int64_t i = 32; i < 64; i += 16) __builtin_prefetch(row.from(k + i).at);
            for (int64_t i = 0; i < 32; i += 16) {
              const Halved<Parts> h = load_halved<Parts>(inside ? row.at : nullptr, k + i, panels.k_count - k - i, row.narrow);
              for (int q = 0; q < Parts; ++q) store_halves(&lines[q][c][i], h.part[q], 16);
            }
          }
          for (int q = 0; q < Parts; ++q)  // pairs of rows stay together
            transpose((const float*)lines[q], 16, 16, 16, (float*)(to + q * 512), 16, 16);
        }
  }
}

// weights [gates * hidden, k_count] -> panel p, at `to`.
template <class T, class S>
static void pack_panel(const Panels<T, 0>& panels, int64_t p, const S* weights, int64_t hidden, T* to) {
  constexpr int W = kWidth<T>;
  const int64_t vectors = panels.size(p), stride = panels.tile(p) * W, step = panels.gate_step(p);
  if (panels.shares(p))  // zeros in the part of the last vector that its units leave
    for (int64_t k = 0; k < panels.k_count; ++k) store(to + (k + 1) * stride - W, Vec<T>{});
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t unit = (panels.first(p) + v) * W, rows = minimum(W, hidden - unit);
    for (int g = 0; g < panels.gates; ++g)
      transpose(weights + (g * hidden + unit) * panels.k_count, panels.k_count, rows, panels.k_count,
                to + v * panels.gates * W + g * step, stride, step);
  }
}
template <class T, int Parts>
static void pack_transposed(const Panels<T, Parts>& panels, const Given<T>& weights, int64_t hidden) {
  if constexpr (Parts > 0) pack_tiles_transposed(panels, weights, hidden);
  else
    weights.with_type([&](const auto* from) {
      for (int64_t p = 0; p < panels.count(); ++p) pack_panel(panels, p, from, hidden, const_cast<T*>(panels.at(p)));
    });
}

// What the products of the gates start with: the sums of their biases and, in an array of its own, the hidden bias of GRU's n gate.
template <class T, int Parts>
static void pack_biases(const padless::Layer& layer, const Panels<T, Parts>& panels, const Given<T>& b_ih, const Given<T>& b_hh,
                        T* bias, T* hidden_bias) {
  constexpr int W = kWidth<T>;
  const int64_t cell = layer.cell, hidden = layer.hidden;
  const int gates = gate_count(cell);
  for (int64_t i = 0; i < panels.vectors * gates * W; ++i) bias[i] = 0;
  for (int64_t v = 0; v < panels.vectors; ++v)
    for (int lane = 0; lane < W; ++lane) {
      const int64_t unit = v * W + lane, step = panels.gate_step(v / panels.most);
      for (int g = 0; unit < hidden && g < gates; ++g) {
        const bool apart = cell == PADLESS_GRU && g == 2;  // r * (U h + b) keeps the hidden bias of n apart
        T sum = 0;
        if (b_ih.at) sum += b_ih[g * hidden + unit];
        if (b_hh.at && !apart) sum += b_hh[g * hidden + unit];
        bias[v * gates * W + g * step + lane] = sum;
      }
      hidden_bias[unit] = cell == PADLESS_GRU && b_hh.at && unit < hidden ? b_hh[2 * hidden + unit] : T(0);
    }
}

template <class T, int Parts>
static void pack_forward(const padless::Layer& layer, const Given<T>& w_ih, const Given<T>& w_hh, const Given<T>& b_ih,
                         const Given<T>& b_hh, const Given<T>& w_hr, void* packed) {
  const ForwardWeights<T, Parts> w(layer, packed);
  write_header<T, Parts>(packed, kForwardPack, layer);
  pack_transposed(w.input, w_ih, layer.hidden);
  pack_transposed(w.hidden, w_hh, layer.hidden);
  pack_transposed(w.projection, w_hr, layer.projection);
  pack_biases(layer, w.input, b_ih, b_hh, const_cast<T*>(w.bias), const_cast<T*>(w.hidden_bias));
}

template <int Parts>
static void pack_tile_columns(const Panels<float, Parts>& panels, const Given<float>& weights, int64_t columns, int64_t first, int64_t count,
                              int64_t to) {
  // A row of a tile holds two rows of the panel. Where one of them is not ours, what is stored already is kept.
  for (int64_t row = to - to % 2; row < to + count; row += 2) {
    const bool has_even = row >= to, has_odd = row + 1 < to + count;
    const Given<float> line = weights.from((first + row - to) * columns), next = weights.from((first + row + 1 - to) * columns);
    for (int64_t p = 0; p < panels.count(); ++p) {
      const int64_t vectors = panels.size(p);
      uint16_t* panel = const_cast<uint16_t*>(panels.at(p));
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t at = (panels.first(p) + v) * 16;
        const Halved<Parts> even = load_halved<Parts>(has_even ? line.at : nullptr, at, columns - at, line.narrow);
        const Halved<Parts> odd = load_halved<Parts>(has_odd ? next.at : nullptr, at, columns - at, next.narrow);
        for (int q = 0; q < Parts; ++q) {
          uint16_t* tile = panel + ((row / 32 * vectors + v) * Parts + q) * 512 + row % 32 / 2 * 32;
          const VecU32 pairs = paired(even.part[q], odd.part[q]);
          store_pairs(tile, has_even && has_odd ? pairs : (VecU32)load((const float*)tile) | pairs);
        }
      }
    }
  }
}

template <class T, class S>
static void pack_vector_columns(const Panels<T, 0>& panels, const S* weights, int64_t columns, int64_t first, int64_t count, int64_t to) {
  constexpr int W = kWidth<T>;
  for (int64_t p = 0; p < panels.count(); ++p) {
    const int64_t vectors = panels.size(p);
    T* panel = const_cast<T*>(panels.at(p)) + to * vectors * W;
    for (int64_t k = 0; k < count; ++k)
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t at = (panels.first(p) + v) * W;
        store(panel + (k * vectors + v) * W, load_numbers(weights + (first + k) * columns + at, columns - at));
      }
  }
}
// Panels of columns: rows [first, first + count) of `weights` [.., columns] go to rows [to, to + count) of each panel.
template <class T, int Parts>
static void pack_columns(const Panels<T, Parts>& panels, const Given<T>& weights, int64_t columns, int64_t first, int64_t count,
                         int64_t to) {
  if constexpr (Parts > 0) pack_tile_columns(panels, weights, columns, first, count, to);
  else weights.with_type([&](const auto* from) { pack_vector_columns(panels, from, columns, first, count, to); });
}

template <class T, int Parts>
static void pack_backward(const padless::Layer& layer, const Given<T>& w_ih, const Given<T>& w_hh, const Given<T>& w_hr,
                          void* packed) {
  const int64_t input = layer.input, hidden = layer.hidden;
  const BackwardWeights<T, Parts> w(layer, packed);
  write_header<T, Parts>(packed, kBackwardPack, layer);
  // Rows of tiles that are not written, or not whole.
  if (Parts && (w.hidden.k_count % 32 || w.projection.k_count % 32))
    __builtin_memset((char*)packed + sizeof(PackedHeader), 0, w.bytes - sizeof(PackedHeader));
  pack_columns(w.hidden, w_hh, output_width(layer), 0, w.hidden.k_count, 0);
  pack_columns(w.projection, w_hr, hidden, 0, layer.projection, 0);
  if (layer.cell == PADLESS_GRU) {  // gradients are stored in the order n, r, z
    pack_columns(w.input, w_ih, input, 2 * hidden, hidden, 0);
    pack_columns(w.input, w_ih, input, 0, 2 * hidden, hidden);
  } else {
    pack_columns(w.input, w_ih, input, 0, w.input.k_count, 0);
  }
}
