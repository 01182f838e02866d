// The equations of the cells, one vector of hidden units for a block of rows: what happens to a product when it is done.
#pragma once

// A block of rows of one step; pointers stand at its first row and first unit.
template <class T> struct ForwardBlock {
  int64_t rows;
  const T* product;  // gates of the first unit, gate_step apart
  int64_t product_stride, gate_step;
  const T* input_n;  // GRU: the input side of its n gate
  int64_t input_n_stride;
  const T* h;  // [rows], before the step
  T* h_next;   // does not alias h
  T* c;        // LSTM, in place
  int64_t state_stride;
  void* gates;  // saved, or null: T*, or bfloat16
  bool narrow_gates;
  int64_t gates_stride;
  T* cells;
  int64_t cells_stride;
  int64_t gate_width;  // from one saved gate of a unit to the next
  T* y;                // of step and unit, the slot is added; null: h_next is all that is wanted
  int64_t y_stride;
  const int64_t* y_sequence;  // of the first row's slot
  int64_t slot_step;
  int64_t units;  // units left from here: fewer than a vector at a ragged edge
};

// Element `at` of the saved gates, which are T or bfloat16.
template <int Parts, class T> PADLESS_INLINE void* saved_at(const T* gates, int64_t at, const padless_problem& p) {
  return Parts && p.narrow_gates ? (void*)((const uint16_t*)gates + at) : (void*)(gates + at);
}

template <class T> PADLESS_INLINE void put_hidden(const ForwardBlock<T>& b, int64_t r, Vec<T> h) {
  store(b.h_next + r * b.state_stride, h);
  if (b.y) store_first(b.y + b.y_sequence[r * b.slot_step] * b.y_stride, h, b.units);
}

// The value of gate g of row r, for backward.
template <class T> PADLESS_INLINE void save_gate(const ForwardBlock<T>& b, int64_t r, int g, Vec<T> v) {
  const int64_t at = r * b.gates_stride + g * b.gate_width;
  if constexpr (sizeof(T) == 4)
    if (b.narrow_gates) return store_halves((uint16_t*)b.gates + at, narrowed(v), kWidth<T>);
  store((T*)b.gates + at, v);
}

template <class T> struct Lstm {
  static constexpr int64_t kind = PADLESS_LSTM;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b) {
    const int64_t step = b.gate_step;
    for (int64_t r = 0; r < b.rows; ++r) {
      const T* a = b.product + r * b.product_stride;
      const Vec<T> i = sigmoid(load(a)), f = sigmoid(load(a + step)), g = tanh(load(a + 2 * step)), o = sigmoid(load(a + 3 * step));
      T* state = b.c + r * b.state_stride;
      const Vec<T> c = fma(f, load(state), i * g);
      store(state, c);
      put_hidden(b, r, o * tanh(c));
      if (b.gates) {
        save_gate(b, r, 0, i);
        save_gate(b, r, 1, f);
        save_gate(b, r, 2, g);
        save_gate(b, r, 3, o);
      }
      if (b.cells) store(b.cells + r * b.cells_stride, c);
    }
  }
};

template <class T> struct Gru {
  static constexpr int64_t kind = PADLESS_GRU;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b) {
    const int64_t step = b.gate_step;
    for (int64_t r = 0; r < b.rows; ++r) {
      const T* a = b.product + r * b.product_stride;
      const Vec<T> reset = sigmoid(load(a)), z = sigmoid(load(a + step)), hidden_n = load(a + 2 * step);
      const Vec<T> n = tanh(fma(reset, hidden_n, load(b.input_n + r * b.input_n_stride)));
      put_hidden(b, r, fma(z, load(b.h + r * b.state_stride) - n, n));  // (1 - z) n + z h
      if (b.gates) {
        save_gate(b, r, 0, reset);
        save_gate(b, r, 1, z);
        save_gate(b, r, 2, n);
        save_gate(b, r, 3, hidden_n);
      }
    }
  }
};

template <class T> struct RnnTanh {
  static constexpr int64_t kind = PADLESS_RNN_TANH;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b) {
    for (int64_t r = 0; r < b.rows; ++r) put_hidden(b, r, tanh(load(b.product + r * b.product_stride)));
  }
};

template <class T> struct RnnRelu {
  static constexpr int64_t kind = PADLESS_RNN_RELU;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b) {
    for (int64_t r = 0; r < b.rows; ++r) {
      const Vec<T> a = load(b.product + r * b.product_stride), zero = {};
      put_hidden(b, r, zero > a ? zero : a);  // NaN stays
    }
  }
};
