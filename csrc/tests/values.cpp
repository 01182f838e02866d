// What the kernels compute, against a plain program in double: outputs and states in every arithmetic, and every gradient in float64,
// by its product with a random direction. For machines and compilers on which nothing of Python runs.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <utility>
#include <vector>

#include "../padless.h"

namespace {

typedef std::vector<double> Numbers;

int g_failed = 0;
uint64_t g_state = 1;

double draw() {  // in [-1, 1), with 7 bits: the same in bfloat16
  g_state = g_state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)(g_state >> 57) / 64 - 1;
}
Numbers draw(int64_t count, double scale = 1) {
  Numbers numbers(count);
  for (double& each : numbers) each = draw() * scale;
  return numbers;
}

constexpr int64_t kSteps = 4;
const int64_t kFew[kSteps] = {3, 2, 2, 1}, kMany[kSteps] = {50, 33, 17, 2};  // sequences in each step; AMX takes 16 and 32 rows at once
const int64_t kOneRow[kSteps] = {1}, kOneStep[kSteps] = {PADLESS_STEP_ROWS};

// A layer with its rows and first states: what the loss depends on.
struct Case {
  int64_t cell, input, hidden;
  const int64_t* sizes;
  Numbers x, w_ih, w_hh, b_ih, b_hh, h0, c0;
  int64_t batch() const { return sizes[0]; }
  int64_t rows() const { return sizes[0] + sizes[1] + sizes[2] + sizes[3]; }
  int64_t gates() const { return cell == PADLESS_LSTM ? 4 : cell == PADLESS_GRU ? 3 : 1; }
  std::vector<Numbers*> parts() { return {&x, &w_ih, &w_hh, &b_ih, &b_hh, &h0, &c0}; }
};

Case draw_case(int64_t cell, int64_t input, int64_t hidden, const int64_t* sizes) {
  Case c = {cell, input, hidden, sizes, {}, {}, {}, {}, {}, {}, {}};
  const int64_t units = c.gates() * hidden;
  c.x = draw(c.rows() * input), c.w_ih = draw(units * input, 0.25), c.w_hh = draw(units * hidden, 0.25);
  c.b_ih = draw(units), c.b_hh = draw(units), c.h0 = draw(c.batch() * hidden), c.c0 = draw(c.batch() * hidden);
  return c;
}

double sigmoid(double x) { return 1 / (1 + exp(-x)); }

struct Result {
  Numbers y, h, c;
};

Result expected(const Case& p) {
  Result r = {Numbers(p.rows() * p.hidden), p.h0, p.c0};
  for (int64_t t = 0, row = 0; t < kSteps; ++t)
    for (int64_t slot = 0; slot < p.sizes[t]; ++slot, ++row) {
      double *h = &r.h[slot * p.hidden], *c = &r.c[slot * p.hidden];
      Numbers in(p.gates() * p.hidden), recurrent = in;
      for (int64_t g = 0; g < p.gates() * p.hidden; ++g) {
        in[g] = p.b_ih[g], recurrent[g] = p.b_hh[g];
        for (int64_t k = 0; k < p.input; ++k) in[g] += p.w_ih[g * p.input + k] * p.x[row * p.input + k];
        for (int64_t k = 0; k < p.hidden; ++k) recurrent[g] += p.w_hh[g * p.hidden + k] * h[k];
      }
      for (int64_t u = 0; u < p.hidden; ++u) {
        const auto sum = [&](int64_t gate) { return in[gate * p.hidden + u] + recurrent[gate * p.hidden + u]; };
        if (p.cell == PADLESS_LSTM) {
          c[u] = sigmoid(sum(1)) * c[u] + sigmoid(sum(0)) * tanh(sum(2));
          h[u] = sigmoid(sum(3)) * tanh(c[u]);
        } else if (p.cell == PADLESS_GRU) {
          const double z = sigmoid(sum(1)), n = tanh(in[2 * p.hidden + u] + sigmoid(sum(0)) * recurrent[2 * p.hidden + u]);
          h[u] = n + z * (h[u] - n);
        } else {
          h[u] = p.cell == PADLESS_RNN_TANH ? tanh(sum(0)) : fmax(sum(0), 0);
        }
        r.y[row * p.hidden + u] = h[u];
      }
    }
  return r;
}

template <class T> struct Buffer {
  std::vector<T> numbers;
  Buffer(const Numbers& from) : numbers(from.begin(), from.end()) {}
  explicit Buffer(int64_t count) : numbers(count) {}
  T* data() { return numbers.data(); }
};
template <> struct Buffer<uint16_t> {  // bfloat16
  std::vector<uint16_t> numbers;
  explicit Buffer(int64_t count) : numbers(count) {}
  Buffer(const Numbers& from) {
    for (const double each : from) {
      const float wide = (float)each;
      uint32_t bits;
      memcpy(&bits, &wide, 4);
      numbers.push_back((uint16_t)(bits >> 16));
    }
  }
  uint16_t* data() { return numbers.data(); }
};

struct Memory {  // aligned to 64 bytes
  void* at;
  explicit Memory(int64_t bytes) : at(aligned_alloc(64, (size_t)(bytes + 64) / 64 * 64)) {}
  ~Memory() { free(at); }
  Memory(const Memory&) = delete;
};

void require(int error) {
  if (!error) return;
  printf("%s\n", padless_error_text(error));
  abort();
}

void run(padless_problem& p, bool backward) {
  p.scratch_bytes = padless_scratch_bytes(&p, backward);
  Memory scratch(p.scratch_bytes);
  p.scratch = scratch.at;
  require(backward ? padless_backward(&p) : padless_forward(&p));
}

template <class T> padless_problem problem_of(const Case& c, int64_t dtype, Buffer<T>& x, Buffer<T>& y, Buffer<T>& h0, Buffer<T>& c0) {
  padless_problem p;
  memset(&p, 0, sizeof p);
  p.cell = c.cell, p.dtype = dtype, p.threads = 1, p.batch = p.state_rows = c.batch(), p.rows = p.x_rows = p.y_rows = c.rows();
  p.steps = kSteps, p.batch_sizes = c.sizes, p.input_size = p.x_stride = c.input, p.hidden_size = p.y_stride = c.hidden;
  p.x = x.data(), p.y = y.data(), p.h0 = h0.data(), p.c0 = c0.data();
  p.h0_stride = p.c0_stride = p.h_n_stride = p.c_n_stride = p.dh0_stride = p.dc0_stride = c.hidden;
  return p;
}

template <class T> double distance(const Buffer<T>& got, const Numbers& want) {
  double most = 0;
  for (size_t i = 0; i < want.size(); ++i) most = fmax(most, fabs((double)got.numbers[i] - want[i]));
  return most;
}

void expect_below(double got, double most, const char* what, const Case& c, const char* set) {
  if (got <= most) return;
  ++g_failed;
  printf("%s, cell %d, B = %d, I = %d, H = %d: %s is off by %.3g, more than %.3g\n", set, (int)c.cell, (int)c.batch(), (int)c.input,
         (int)c.hidden, what, got, most);
}

// T: rows and states; W: weights, given packed or as they are. Returns y.
template <class T, class W> std::vector<T> check_forward(const Case& c, int64_t dtype, bool unpacked, double most, const char* set) {
  Buffer<T> x(c.x), h0(c.h0), c0(c.c0), y(c.rows() * c.hidden), h_n(c.batch() * c.hidden), c_n(c.batch() * c.hidden);
  Buffer<W> w_ih(c.w_ih), w_hh(c.w_hh), b_ih(c.b_ih), b_hh(c.b_hh);
  padless_problem p = problem_of(c, dtype, x, y, h0, c0);
  p.h_n = h_n.data(), p.c_n = c_n.data();
  const int narrow = sizeof(W) == 2;
  p.forward_weights_bytes = padless_pack_forward_bytes(c.cell, dtype, c.input, c.hidden, 0);
  Memory packed(p.forward_weights_bytes);
  if (unpacked) {
    p.w_ih = w_ih.data(), p.w_hh = w_hh.data(), p.b_ih = b_ih.data(), p.b_hh = b_hh.data(), p.narrow_weights = narrow;
  } else {
    require(padless_pack_forward(c.cell, dtype, c.input, c.hidden, 0, w_ih.data(), w_hh.data(), b_ih.data(), b_hh.data(), nullptr, narrow,
                                 packed.at));
    p.forward_weights = packed.at;
  }
  run(p, false);
  const Result want = expected(c);
  expect_below(distance(y, want.y), most, "y", c, set);
  expect_below(distance(h_n, want.h), most, "h_n", c, set);
  if (c.cell == PADLESS_LSTM) expect_below(distance(c_n, want.c), most, "c_n", c, set);
  return y.numbers;
}

// Gradients of sum(dy * y) + sum(dh * h_n) in the order of Case::parts. T: all numbers but the weights and their gradients, which are W.
template <class T, class W> struct Gradients {
  Buffer<T> dx, dh0, dc0;
  Buffer<W> dw_ih, dw_hh, db_ih, db_hh;
  Gradients(const Case& c, int64_t dtype, bool unpacked, int64_t threads, const Numbers& dy, const Numbers& dh)
      : dx((int64_t)c.x.size()), dh0((int64_t)c.h0.size()), dc0((int64_t)c.c0.size()), dw_ih((int64_t)c.w_ih.size()),
        dw_hh((int64_t)c.w_hh.size()), db_ih((int64_t)c.b_ih.size()), db_hh((int64_t)c.b_hh.size()) {
    Buffer<T> x(c.x), h0(c.h0), c0(c.c0), y(c.rows() * c.hidden), given_dy(dy), given_dh(dh);
    Buffer<W> w_ih(c.w_ih), w_hh(c.w_hh), b_ih(c.b_ih), b_hh(c.b_hh);
    padless_problem p = problem_of(c, dtype, x, y, h0, c0);
    const int64_t gates_bytes = c.rows() * padless_saved_width(c.cell, c.hidden) * (int64_t)sizeof(T);
    const int64_t cells_bytes = c.rows() * padless_cells_width(c.cell, c.hidden) * (int64_t)sizeof(T);
    p.threads = threads;
    p.forward_weights_bytes = padless_pack_forward_bytes(c.cell, p.dtype, c.input, c.hidden, 0);
    p.backward_weights_bytes = padless_pack_backward_bytes(c.cell, p.dtype, c.input, c.hidden, 0);
    Memory forward(p.forward_weights_bytes), backward(p.backward_weights_bytes), gates(gates_bytes), cells(cells_bytes);
    if (unpacked) {
      p.w_ih = w_ih.data(), p.w_hh = w_hh.data(), p.b_ih = b_ih.data(), p.b_hh = b_hh.data(), p.narrow_weights = sizeof(W) == 2;
    } else {
      require(padless_pack_forward(c.cell, p.dtype, c.input, c.hidden, 0, w_ih.data(), w_hh.data(), b_ih.data(), b_hh.data(), nullptr, 0,
                                   forward.at));
      require(padless_pack_backward(c.cell, p.dtype, c.input, c.hidden, 0, w_ih.data(), w_hh.data(), nullptr, 0, backward.at));
      p.forward_weights = forward.at, p.backward_weights = backward.at;
    }
    p.gates = gates.at, p.gates_bytes = gates_bytes, p.cells = cells.at, p.cells_bytes = cells_bytes;
    run(p, false);
    p.dy = given_dy.data(), p.dy_stride = c.hidden, p.dh_n = given_dh.data(), p.dh_n_stride = c.hidden, p.dx_stride = c.input;
    p.dx = dx.data(), p.dw_ih = dw_ih.data(), p.dw_hh = dw_hh.data(), p.db_ih = db_ih.data(), p.db_hh = db_hh.data();
    p.dh0 = dh0.data(), p.dc0 = c.cell == PADLESS_LSTM ? dc0.data() : nullptr;
    run(p, true);
  }
};

// The derivative in a random direction, by every part of the case.
void check_backward(Case c, bool unpacked, const char* set) {
  const Numbers dy = draw(c.rows() * c.hidden), dh = draw(c.batch() * c.hidden);
  const auto loss = [&](const Case& at) {
    const Result r = expected(at);
    double sum = 0;
    for (size_t i = 0; i < dy.size(); ++i) sum += dy[i] * r.y[i];
    for (size_t i = 0; i < dh.size(); ++i) sum += dh[i] * r.h[i];
    return sum;
  };
  const Gradients<double, double> got(c, PADLESS_FLOAT64, unpacked, 1, dy, dh);
  const Buffer<double>* const grads[] = {&got.dx, &got.dw_ih, &got.dw_hh, &got.db_ih, &got.db_hh, &got.dh0, &got.dc0};
  const std::vector<Numbers*> parts = c.parts();
  for (size_t part = 0; part < parts.size(); ++part) {
    const Numbers before = *parts[part], direction = draw((int64_t)before.size());
    const double step = 1e-5;
    double derivative = 0, at[2];
    for (int side = 0; side < 2; ++side) {
      for (size_t i = 0; i < before.size(); ++i) (*parts[part])[i] = before[i] + (side ? step : -step) * direction[i];
      at[side] = loss(c);
    }
    *parts[part] = before;
    for (size_t i = 0; i < before.size(); ++i) derivative += grads[part]->numbers[i] * direction[i];
    static const char* const names[] = {"dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0", "dc0"};
    expect_below(fabs((at[1] - at[0]) / (2 * step) - derivative), 1e-6 * (1 + fabs(derivative)), names[part], c, set);
  }
}

// Gradients of a single step by unpacked weights have the bits of those by packed weights, on one thread and on three; where the
// weights are bfloat16, their gradients are those of float32 weights, rounded.
void check_unpacked(const Case& c, const char* set) {
  const Numbers dy = draw(c.rows() * c.hidden), dh = draw(c.batch() * c.hidden);
  const Gradients<float, float> want(c, PADLESS_FLOAT32, false, 1, dy, dh);
  for (const int64_t threads : {1, 3}) {
    const Gradients<float, float> wide(c, PADLESS_FLOAT32, true, threads, dy, dh);
    const Gradients<float, uint16_t> narrow(c, PADLESS_FLOAT32, true, threads, dy, dh);
    const auto same = [&](const std::vector<float>& a, const std::vector<float>& b, const char* what) {
      expect_below(memcmp(a.data(), b.data(), a.size() * sizeof(float)) != 0, 0, what, c, set);
    };
    same(wide.dx.numbers, want.dx.numbers, "dx"), same(narrow.dx.numbers, want.dx.numbers, "dx of narrow weights");
    same(wide.dh0.numbers, want.dh0.numbers, "dh0"), same(narrow.dh0.numbers, want.dh0.numbers, "dh0 of narrow weights");
    same(wide.dc0.numbers, want.dc0.numbers, "dc0"), same(narrow.dc0.numbers, want.dc0.numbers, "dc0 of narrow weights");
    const auto rounded = [&](const std::vector<float>& a, const std::vector<float>& b, const std::vector<uint16_t>& half, const char* what) {
      same(a, b, what);
      double most = 0;
      for (size_t i = 0; i < b.size(); ++i) {
        const uint32_t bits = (uint32_t)half[i] << 16;
        float wide_half;
        memcpy(&wide_half, &bits, 4);
        most = fmax(most, fabs(wide_half - b[i]) - fabs(b[i]) / 256);
      }
      expect_below(most, 1e-30, what, c, set);
    };
    rounded(wide.dw_ih.numbers, want.dw_ih.numbers, narrow.dw_ih.numbers, "dw_ih");
    rounded(wide.dw_hh.numbers, want.dw_hh.numbers, narrow.dw_hh.numbers, "dw_hh");
    rounded(wide.db_ih.numbers, want.db_ih.numbers, narrow.db_ih.numbers, "db_ih");
    rounded(wide.db_hh.numbers, want.db_hh.numbers, narrow.db_hh.numbers, "db_hh");
  }
}

// The outputs of RNN_RELU, whose activation does not round, by instruction set. Emulated products of bfloat16 numbers have the bits of
// the instructions.
typedef std::vector<std::pair<std::string, std::vector<float>>> Outputs;
void check_emulation(const Outputs& of_sets) {
  for (const auto& own : of_sets) {
    if (own.second.empty() || own.first.find("_emulated") != std::string::npos) continue;
    bool found = false;
    for (const auto& each : of_sets)
      if (each.first == own.first + "_emulated")
        found = memcmp(each.second.data(), own.second.data(), own.second.size() * sizeof(float)) == 0;
    if (found) continue;
    ++g_failed;
    printf("%s does not have the bits of its emulation\n", own.first.c_str());
  }
}

}  // namespace

int main() {
  const char* set;
  Outputs products;
  for (int i = 0; (set = padless_isa_compiled(i)); ++i) {
    if (padless_isa_force(set) != PADLESS_OK) continue;
    g_state = 1;
    products.push_back({set, {}});
    for (int64_t cell = PADLESS_LSTM; cell <= PADLESS_RNN_RELU; ++cell)
      for (const int64_t size : {1, 5, 16, 33, 70})
        for (const int64_t* sizes : {kFew, kMany}) {
          const Case c = draw_case(cell, size + 2, size, sizes);
          for (const bool unpacked : {false, true}) {
            check_forward<double, double>(c, PADLESS_FLOAT64, unpacked, 1e-12, set);
            check_forward<float, float>(c, PADLESS_FLOAT32, unpacked, 2e-5, set);
            check_forward<float, uint16_t>(c, PADLESS_FLOAT32, unpacked, 2e-5, set);
          }
          const auto keep = [&](const std::vector<float>& y) {
            if (cell == PADLESS_RNN_RELU) products.back().second.insert(products.back().second.end(), y.begin(), y.end());
          };
          if (padless_computes(PADLESS_BFLOAT16)) keep(check_forward<float, uint16_t>(c, PADLESS_BFLOAT16, false, 5e-2, set));
          if (padless_computes(PADLESS_BFLOAT16_3)) keep(check_forward<float, float>(c, PADLESS_BFLOAT16_3, false, 2e-4, set));
          if (cell != PADLESS_RNN_RELU) check_backward(c, false, set);  // whose slope may change within a step of the direction
        }
    for (int64_t cell = PADLESS_LSTM; cell <= PADLESS_RNN_RELU; ++cell)
      for (const int64_t size : {1, 5, 16, 33, 70, 600})
        for (const int64_t* sizes : {kOneRow, kOneStep}) {
          const Case c = draw_case(cell, size == 600 ? size : size + 2, size == 600 ? 3 : size, sizes);
          check_unpacked(c, set);
          if (cell != PADLESS_RNN_RELU && size < 70) check_backward(c, true, set);
        }
  }
  check_emulation(products);
  return g_failed != 0;
}
