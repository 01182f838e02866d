// Gradients of the cells' equations, one vector of hidden units for a block of rows.
#pragma once

// A row of a state or of a tensor of the caller; null: zeros.
struct StateRow {
  const void* at;
  bool narrow;  // bfloat16
};

// A block of rows of one step; pointers point to its first row and first unit unless their comments say otherwise.
template <class T> struct BackwardBlock {
  int64_t rows;
  const T* product;  // gradient that reaches h from the following step
  int64_t product_stride;
  const void* dy;  // of the step and unit, the slot is added; or null
  int64_t dy_stride;
  const void* y;  // likewise: RNN reads its h here
  int64_t y_stride;
  bool narrow_y;              // whether dy and y are bfloat16
  const int64_t* y_sequence;  // of the first row's slot
  int64_t slot_step;
  const void* gates;  // T*, or bfloat16
  bool narrow_gates;
  int64_t gates_stride, gate_width;
  const T* cells;
  int64_t cells_stride;
  const StateRow* h_before;  // [rows] rows of h and c before the step; the unit is added
  const StateRow* c_before;
  T* dh;  // GRU: the part of the gradient that reaches h of the step before without a product
  T* dc;  // LSTM, in place
  int64_t state_stride;
  void* gradients;  // of the pre-activations, as products read them, gates `hidden` apart
  int64_t gradients_stride, gradients_part, hidden;
  T* unprojected;  // LSTM with a projection: o tanh(c) goes here, rows state_stride apart; else null
  int64_t unit, units;
};

template <class T> PADLESS_INLINE Vec<T> saved_gate(const BackwardBlock<T>& b, int64_t r, int g) {
  const void* const at = element_of<T>(b.gates, r * b.gates_stride + g * b.gate_width, b.narrow_gates);
  return load_stored<T>(at, kWidth<T>, b.narrow_gates);
}
template <class T> PADLESS_INLINE Vec<T> load_row(const StateRow& row, int64_t at, int64_t n) {
  return row.at ? load_stored<T>(element_of<T>(row.at, at, row.narrow), n, row.narrow) : Vec<T>{};
}
template <class T> PADLESS_INLINE Vec<T> gradient_of_h(const BackwardBlock<T>& b, int64_t r) {
  const Vec<T> dh = load(b.product + r * b.product_stride);
  return b.dy ? dh + load_row<T>({b.dy, b.narrow_y}, b.y_sequence[r * b.slot_step] * b.dy_stride, b.units) : dh;
}
template <int Parts, class T> PADLESS_INLINE void put_gradient(const BackwardBlock<T>& b, int64_t r, int g, Vec<T> v) {
  const int64_t at = r * b.gradients_stride + g * b.hidden;
  if constexpr (Parts > 0) put_parts<Parts>((uint16_t*)b.gradients + at, b.gradients_part, v, minimum(b.units, kWidth<T>), false);
  else store_first((T*)b.gradients + at, v, b.units);
}

template <class T, int Parts> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, Lstm<T, Parts>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> i = saved_gate(b, r, 0), f = saved_gate(b, r, 1), g = saved_gate(b, r, 2), o = saved_gate(b, r, 3);
    const Vec<T> tc = tanh_for<Parts>(load(b.cells + r * b.cells_stride)), dh = gradient_of_h(b, r);
    T* state = b.dc + r * b.state_stride;
    const Vec<T> dho = dh * o, dc = fma(-(dho * tc), tc, dho) + load(state);
    store(state, dc * f);
    const Vec<T> before = load_row<T>(b.c_before[r], b.unit, b.units);
    const Vec<T> dg = dc * i, di = dg * g, df = dc * f * before, d_o = dho * tc;
    put_gradient<Parts>(b, r, 0, fma(-di, i, di));
    put_gradient<Parts>(b, r, 1, fma(-df, f, df));
    put_gradient<Parts>(b, r, 2, fma(-(dg * g), g, dg));
    put_gradient<Parts>(b, r, 3, fma(-d_o, o, d_o));
    if (b.unprojected) store(b.unprojected + r * b.state_stride, o * tc);
  }
}

template <class T, int Parts> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, Gru<T, Parts>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> reset = saved_gate(b, r, 0), z = saved_gate(b, r, 1), n = saved_gate(b, r, 2), hidden_n = saved_gate(b, r, 3);
    const Vec<T> dh = gradient_of_h(b, r), through_z = dh * z;
    store(b.dh + r * b.state_stride, through_z);
    const Vec<T> dn = dh - through_z, dn_in = fma(-(dn * n), n, dn), dn_hidden = dn_in * reset;
    const Vec<T> before = load_row<T>(b.h_before[r], b.unit, b.units);
    const Vec<T> dr = dn_hidden * hidden_n, dz = through_z * (before - n);
    put_gradient<Parts>(b, r, 0, dn_in);
    put_gradient<Parts>(b, r, 1, fma(-dr, reset, dr));
    put_gradient<Parts>(b, r, 2, fma(-dz, z, dz));
    put_gradient<Parts>(b, r, 3, dn_hidden);
  }
}

template <class T> PADLESS_INLINE Vec<T> output_of(const BackwardBlock<T>& b, int64_t r) {
  return load_row<T>({b.y, b.narrow_y}, b.y_sequence[r * b.slot_step] * b.y_stride, b.units);
}

template <class T, int Parts> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, RnnTanh<T, Parts>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> h = output_of(b, r), dh = gradient_of_h(b, r);
    put_gradient<Parts>(b, r, 0, fma(-(dh * h), h, dh));
  }
}

template <class T, int Parts> __attribute__((noinline)) static void backward(const BackwardBlock<T>& b, RnnRelu<T, Parts>) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Vec<T> h = output_of(b, r), dh = gradient_of_h(b, r), zero = {};
    put_gradient<Parts>(b, r, 0, h <= zero ? zero : dh);
  }
}

// The gates of a row from its sums, for backward passes that recompute them: as ForwardBlock has `product` and `input`.
template <class T, int Parts>
PADLESS_INLINE void activate(const T* product, const T* input, int64_t step, T* saved, int64_t gate_width, Lstm<T, Parts>) {
  store(saved, sigmoid_for<Parts>(gate_sum<Parts>(product, input, 0)));
  store(saved + gate_width, sigmoid_for<Parts>(gate_sum<Parts>(product, input, step)));
  store(saved + 2 * gate_width, tanh_for<Parts>(gate_sum<Parts>(product, input, 2 * step)));
  store(saved + 3 * gate_width, sigmoid_for<Parts>(gate_sum<Parts>(product, input, 3 * step)));
}
template <class T, int Parts>
PADLESS_INLINE void activate(const T* product, const T* input, int64_t step, T* saved, int64_t gate_width, Gru<T, Parts>) {
  const Vec<T> reset = sigmoid_for<Parts>(gate_sum<Parts>(product, input, 0)), hidden_n = load(product + 2 * step);
  store(saved, reset);
  store(saved + gate_width, sigmoid_for<Parts>(gate_sum<Parts>(product, input, step)));
  store(saved + 2 * gate_width, tanh_for<Parts>(fma(reset, hidden_n, load(input + 2 * step))));
  store(saved + 3 * gate_width, hidden_n);
}
template <class T, int Parts> PADLESS_INLINE void activate(const T*, const T*, int64_t, T*, int64_t, RnnTanh<T, Parts>) {}
template <class T, int Parts> PADLESS_INLINE void activate(const T*, const T*, int64_t, T*, int64_t, RnnRelu<T, Parts>) {}
