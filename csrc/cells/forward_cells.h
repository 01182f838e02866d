// The equations of the cells, one vector of hidden units for a block of rows: what happens to a product when it is done.
#pragma once

// A block of rows of one step; pointers point to its first row and first unit.
template <class T> struct ForwardBlock {
  const T* product;  // gates of the first unit, gate_step apart
  const T* input;    // what the input adds to them, where `product` lacks it: GRU's n gate and, with AMX, all gates
  int64_t product_stride, gate_step;
  const T* h;  // [rows], before the step
  T* h_next;   // does not alias h; rows before `h_from` are not wanted
  int64_t h_from;
  T* c;        // LSTM, in place
  int64_t state_stride;
  uint16_t* next;  // h after the step, as products of bfloat16 numbers read it
  int64_t next_stride, next_part;
  void* gates;  // saved, or null: T*, or bfloat16
  bool narrow_gates;
  int64_t gates_stride;
  T* cells;
  int64_t cells_stride;
  int64_t gate_width;  // from one saved gate of a unit to the next
  void* y;             // of the step and unit, the slot is added: T*, or bfloat16; null: y is not written here
  bool narrow_y;
  int64_t y_stride;
  const int64_t* y_sequence;  // of the first row's slot
  int64_t slot_step;
  int64_t units;  // units from here on: fewer than a vector in the last one
};

// The pre-activation of the gate at column `at` of a row; `product` and `input` point to the row.
template <int Parts, class T> PADLESS_INLINE Vec<T> gate_sum(const T* product, const T* input, int64_t at) {
  const Vec<T> sum = load(product + at);
  return adds_input(Parts) ? sum + load(input + at) : sum;
}
template <int Parts, class T> PADLESS_INLINE Vec<T> gate_sum(const ForwardBlock<T>& b, int64_t r, int64_t g) {
  return gate_sum<Parts>(b.product + r * b.product_stride, b.input + r * b.product_stride, g * b.gate_step);
}

template <int Parts, class T> PADLESS_INLINE void put_hidden(const ForwardBlock<T>& b, int64_t r, Vec<T> h) {
  if (Parts == 0 || r >= b.h_from) store(b.h_next + r * b.state_stride, h);
  const int64_t at = b.y ? b.y_sequence[r * b.slot_step] * b.y_stride : 0;
  if constexpr (Parts > 0) {
    const Halves halves = put_parts<Parts>(b.next + r * b.next_stride, b.next_part, h, b.units, true);
    if (b.y && b.narrow_y) return store_halves((uint16_t*)b.y + at, halves, b.units);
  }
  if (b.y) store_first((T*)b.y + at, h, b.units);
}

// The value of gate g of row r, for backward.
template <class T> PADLESS_INLINE void save_gate(const ForwardBlock<T>& b, int64_t r, int g, Vec<T> v) {
  void* const at = element_of<T>(b.gates, r * b.gates_stride + g * b.gate_width, b.narrow_gates);
  store_stored<T>(at, v, kWidth<T>, b.narrow_gates);
}

// `forward` of a cell: rows [begin, end) of a block.
template <class T, int Parts> struct Lstm {
  static constexpr int64_t kind = PADLESS_LSTM;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Vec<T> i = sigmoid_for<Parts>(gate_sum<Parts>(b, r, 0)), f = sigmoid_for<Parts>(gate_sum<Parts>(b, r, 1));
      const Vec<T> g = tanh_for<Parts>(gate_sum<Parts>(b, r, 2)), o = sigmoid_for<Parts>(gate_sum<Parts>(b, r, 3));
      T* state = b.c + r * b.state_stride;
      const Vec<T> c = fma(f, load(state), i * g);
      store(state, c);
      put_hidden<Parts>(b, r, o * tanh_for<Parts>(c));
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

template <class T, int Parts> struct Gru {
  static constexpr int64_t kind = PADLESS_GRU;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Vec<T> reset = sigmoid_for<Parts>(gate_sum<Parts>(b, r, 0)), z = sigmoid_for<Parts>(gate_sum<Parts>(b, r, 1));
      const int64_t at = r * b.product_stride + 2 * b.gate_step;
      const Vec<T> hidden_n = load(b.product + at), n = tanh_for<Parts>(fma(reset, hidden_n, load(b.input + at)));
      put_hidden<Parts>(b, r, fma(z, load(b.h + r * b.state_stride) - n, n));  // (1 - z) n + z h
      if (b.gates) {
        save_gate(b, r, 0, reset);
        save_gate(b, r, 1, z);
        save_gate(b, r, 2, n);
        save_gate(b, r, 3, hidden_n);
      }
    }
  }
};

template <class T, int Parts> struct RnnTanh {
  static constexpr int64_t kind = PADLESS_RNN_TANH;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) put_hidden<Parts>(b, r, tanh_for<Parts>(gate_sum<Parts>(b, r, 0)));
  }
};

template <class T, int Parts> struct RnnRelu {
  static constexpr int64_t kind = PADLESS_RNN_RELU;
  static __attribute__((noinline)) void forward(const ForwardBlock<T>& b, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Vec<T> a = gate_sum<Parts>(b, r, 0), zero = {};
      put_hidden<Parts>(b, r, zero > a ? zero : a);  // NaN stays
    }
  }
};
