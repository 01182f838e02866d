// Gradients of the cells' equations, one vector of hidden units for a block of rows.
#pragma once

// A block of rows of one step; pointers stand at its first row and first unit unless they say otherwise.
template <class T> struct BackwardBlock {
  int64_t rows;
  const T* product;  // gradient that reaches h from the following step
  int64_t product_stride;
  const T* dy;  // of the step and unit, the slot is added; or null
  int64_t dy_stride;
  const T* y;  // likewise: RNN reads its h here
  int64_t y_stride;
  const int64_t* y_sequence;  // of the first row's slot
  int64_t slot_step;
  const void* gates;  // T*, or bfloat16
  bool narrow_gates;
  int64_t gates_stride, gate_width;
  const T* cells;
  int64_t cells_stride;
  const T* const* h_before;  // [rows] rows of h and c before the step; the unit is added; null: zeros
  const T* const* c_before;
  T* dh;  // GRU: the gradient that passes h by without a product
  T* dc;  // LSTM, in place
  int64_t state_stride;
  T* gradients;  // of the pre-activations, gates `hidden` apart
  int64_t gradients_stride, hidden;
  T* unprojected;  // LSTM with a projection: o tanh(c) goes here, rows state_stride apart; else null
  int64_t unit, units;
};

template <class T> PADLESS_INLINE Vec<T> saved_gate(const BackwardBlock<T>& b, int64_t r, int g) {
  const int64_t at = r * b.gates_stride + g * b.gate_width;
  if constexpr (sizeof(T) == 4)
    if (b.narrow_gates) return widened(load_halves((const uint16_t*)b.gates + at, kWidth<T>));
  return load((const T*)b.gates + at);
}
template <class T> PADLESS_INLINE Vec<T> gradient_of_h(const BackwardBlock<T>& b, int64_t r) {
  const Vec<T> dh = load(b.product + r * b.product_stride);
  return b.dy ? dh + load_first(b.dy + b.y_sequence[r * b.slot_step] * b.dy_stride, b.units) : dh;
}
template <class T> PADLESS_INLINE Vec<T> load_before(const T* row, const BackwardBlock<T>& b) {
  return row ? load_first(row + b.unit, b.units) : Vec<T>{};
}

template <class T> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, Lstm<T>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> i = saved_gate(b, r, 0), f = saved_gate(b, r, 1), g = saved_gate(b, r, 2), o = saved_gate(b, r, 3);
    const Vec<T> tc = tanh(load(b.cells + r * b.cells_stride)), dh = gradient_of_h(b, r);
    T* state = b.dc + r * b.state_stride;
    const Vec<T> dho = dh * o, dc = fma(-(dho * tc), tc, dho) + load(state);
    store(state, dc * f);
    T* out = b.gradients + r * b.gradients_stride;
    const Vec<T> dg = dc * i, di = dg * g, df = dc * f * load_before(b.c_before[r], b), d_o = dho * tc;
    store_first(out, fma(-di, i, di), b.units);
    store_first(out + b.hidden, fma(-df, f, df), b.units);
    store_first(out + 2 * b.hidden, fma(-(dg * g), g, dg), b.units);
    store_first(out + 3 * b.hidden, fma(-d_o, o, d_o), b.units);
    if (b.unprojected) store(b.unprojected + r * b.state_stride, o * tc);
  }
}

template <class T> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, Gru<T>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> reset = saved_gate(b, r, 0), z = saved_gate(b, r, 1), n = saved_gate(b, r, 2), hidden_n = saved_gate(b, r, 3);
    const Vec<T> dh = gradient_of_h(b, r), through_z = dh * z;
    store(b.dh + r * b.state_stride, through_z);
    const Vec<T> dn = dh - through_z, dn_in = fma(-(dn * n), n, dn), dn_hidden = dn_in * reset;
    const Vec<T> dr = dn_hidden * hidden_n, dz = through_z * (load_before(b.h_before[r], b) - n);
    T* out = b.gradients + r * b.gradients_stride;
    store_first(out, dn_in, b.units);
    store_first(out + b.hidden, fma(-dr, reset, dr), b.units);
    store_first(out + 2 * b.hidden, fma(-dz, z, dz), b.units);
    store_first(out + 3 * b.hidden, dn_hidden, b.units);
  }
}

template <class T> PADLESS_INLINE Vec<T> output_of(const BackwardBlock<T>& b, int64_t r) {
  return load_first(b.y + b.y_sequence[r * b.slot_step] * b.y_stride, b.units);
}

template <class T> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, RnnTanh<T>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> h = output_of(b, r), dh = gradient_of_h(b, r);
    store_first(b.gradients + r * b.gradients_stride, fma(-(dh * h), h, dh), b.units);
  }
}

template <class T> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, RnnRelu<T>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> h = output_of(b, r), dh = gradient_of_h(b, r), zero = {};
    store_first(b.gradients + r * b.gradients_stride, h <= zero ? zero : dh, b.units);
  }
}

// The gates from their products alone, for backward passes that recompute them. `h_n` of GRU: its hidden side, stored raw.
template <class T> PADLESS_INLINE void activate(const T* a, const T* input_n, int64_t step, T* saved, int64_t gate_width, Lstm<T>) {
  (void)input_n;
  store(saved, sigmoid(load(a)));
  store(saved + gate_width, sigmoid(load(a + step)));
  store(saved + 2 * gate_width, tanh(load(a + 2 * step)));
  store(saved + 3 * gate_width, sigmoid(load(a + 3 * step)));
}
template <class T> PADLESS_INLINE void activate(const T* a, const T* input_n, int64_t step, T* saved, int64_t gate_width, Gru<T>) {
  const Vec<T> reset = sigmoid(load(a)), hidden_n = load(a + 2 * step);
  store(saved, reset);
  store(saved + gate_width, sigmoid(load(a + step)));
  store(saved + 2 * gate_width, tanh(fma(reset, hidden_n, load(input_n))));
  store(saved + 3 * gate_width, hidden_n);
}
template <class T> PADLESS_INLINE void activate(const T*, const T*, int64_t, T*, int64_t, RnnTanh<T>) {}
template <class T> PADLESS_INLINE void activate(const T*, const T*, int64_t, T*, int64_t, RnnRelu<T>) {}
