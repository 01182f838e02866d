// What the C ABI refuses and accepts in cases that random problems rarely reach: indices, numbers of threads, unpacked weights.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <vector>

#include "../padless.h"

namespace {

int g_failed = 0;

void expect(int got, int wanted, const char* what) {
  if (got == wanted) return;
  ++g_failed;
  printf("%s: got %d (%s), expected %d (%s)\n", what, got, padless_error_text(got), wanted, padless_error_text(wanted));
}

// An RNN of one unit and no input over sequences of length 0, which keep the rows of h0 that `index` names.
int keep_states(const std::vector<int64_t>& index, int64_t state_rows, int64_t threads = 1) {
  std::vector<float> h0(state_rows + 1, 3.0f), h_n(state_rows + 1, 0.0f), w_hh(1, 1.0f);
  alignas(64) static char packed[4096], scratch[1 << 17];
  padless_problem p;
  memset(&p, 0, sizeof p);
  p.cell = PADLESS_RNN_TANH, p.dtype = PADLESS_FLOAT32, p.threads = threads, p.batch = (int64_t)index.size(), p.hidden_size = 1;
  p.x_step = p.x_sequence = p.y_step = p.y_sequence = index.data();
  p.state_index = index.data(), p.state_rows = state_rows;
  p.h0 = h0.data(), p.h0_stride = 1, p.h_n = h_n.data(), p.h_n_stride = 1;
  p.forward_weights_bytes = padless_pack_forward_bytes(p.cell, p.dtype, 0, 1, 0), p.forward_weights = packed;
  if (p.forward_weights_bytes > (int64_t)sizeof packed) return -1;
  if (const int error = padless_pack_forward(p.cell, p.dtype, 0, 1, 0, nullptr, w_hh.data(), nullptr, nullptr, nullptr, 0, packed))
    return error;
  p.scratch = scratch, p.scratch_bytes = padless_scratch_bytes(&p, 0);
  if (p.scratch_bytes > (int64_t)sizeof scratch) return -1;
  const int error = padless_forward(&p);
  for (int64_t row : index)
    if (!error && h_n[row] != 3.0f) return -1;
  return error;
}

// Scratch of an LSTM with I = H = 256 for 64 sequences of 100 steps.
int64_t scratch_bytes(int64_t threads) {
  const std::vector<int64_t> sizes(100, 64);
  padless_problem p;
  memset(&p, 0, sizeof p);
  p.cell = PADLESS_LSTM, p.threads = threads, p.batch = 64, p.rows = 6400, p.steps = 100;
  p.batch_sizes = sizes.data(), p.input_size = p.hidden_size = 256;
  return padless_scratch_bytes(&p, 0);
}

// The backward pass of steps of an RNN of one unit, of `sizes` rows each, with unpacked weights.
int step_backward(const std::vector<int64_t>& sizes, bool has_w_ih) {
  std::vector<float> rows(4096, 1.0f), weight(1, 1.0f), grad(4096, 0.0f);
  alignas(64) static char scratch[1 << 22];
  padless_problem p;
  memset(&p, 0, sizeof p);
  p.cell = PADLESS_RNN_TANH, p.threads = p.input_size = p.hidden_size = p.x_stride = p.y_stride = p.dx_stride = 1;
  for (const int64_t size : sizes) p.rows += size;
  p.batch = sizes[0], p.steps = (int64_t)sizes.size(), p.batch_sizes = sizes.data(), p.x_rows = p.y_rows = p.rows;
  p.x = p.y = rows.data(), p.dx = grad.data(), p.w_ih = has_w_ih ? weight.data() : nullptr, p.w_hh = weight.data();
  p.scratch = scratch, p.scratch_bytes = padless_scratch_bytes(&p, 1);
  return p.scratch_bytes > (int64_t)sizeof scratch ? -1 : padless_backward(&p);
}

int arrange(const std::vector<int64_t>& lengths, const std::vector<int64_t>& order) {
  int64_t slots[8], offsets[9], batch_sizes[8];
  return padless_arrange(lengths.data(), (int64_t)lengths.size(), 8, order.data(), slots, offsets, batch_sizes);
}

}  // namespace

int main() {
  expect(keep_states({}, 0), PADLESS_OK, "no sequences");
  expect(keep_states({2, 0, 1}, 3), PADLESS_OK, "a permutation");
  expect(keep_states({63, 64, 0}, 65), PADLESS_OK, "some of the rows");
  expect(keep_states({1, 0, 1}, 3), PADLESS_BAD_STATE_INDEX, "a row twice");
  expect(keep_states({0, 0}, 1), PADLESS_BAD_STATE_INDEX, "more sequences than rows");
  expect(keep_states({0}, 0), PADLESS_BAD_STATE_INDEX, "no rows");
  expect(keep_states({0, 3}, 3), PADLESS_BAD_STATE_INDEX, "a row past the last");
  expect(keep_states({0, -1}, 3), PADLESS_BAD_STATE_INDEX, "a negative row");

  const int64_t many = 300000;  // more than the check marks at once
  std::vector<int64_t> backwards(many);
  for (int64_t i = 0; i < many; ++i) backwards[i] = many - 1 - i;
  expect(keep_states(backwards, many), PADLESS_OK, "a large permutation");
  backwards[many - 1] = many - 1;
  expect(keep_states(backwards, many), PADLESS_BAD_STATE_INDEX, "a large index, a row twice");
  backwards[many - 1] = many;
  expect(keep_states(backwards, many), PADLESS_BAD_STATE_INDEX, "a large index, a row past the last");
  expect(keep_states({many - 1, 5, 200000}, many), PADLESS_OK, "rows far apart");
  expect(keep_states({200000, 5, 200000}, many), PADLESS_BAD_STATE_INDEX, "rows far apart, one twice");

  padless_problem narrow;
  memset(&narrow, 0, sizeof narrow);
  narrow.hidden_size = narrow.threads = 1;
  const double weight = 1;
  char packed[1];
  for (const int64_t dtype : {PADLESS_FLOAT64, PADLESS_BFLOAT16_3}) {
    narrow.dtype = dtype;
    for (int64_t* flag : {&narrow.narrow_x, &narrow.narrow_y, &narrow.narrow_states, &narrow.narrow_gates, &narrow.narrow_weights}) {
      *flag = 1;
      expect(padless_forward(&narrow), PADLESS_BAD_ENUM, "bfloat16 in float64 or in three products");
      *flag = 0;
    }
    expect(padless_pack_forward(PADLESS_RNN_TANH, dtype, 0, 1, 0, nullptr, &weight, nullptr, nullptr, nullptr, 1, packed),
           PADLESS_BAD_ENUM, "bfloat16 weights for float64 or three products");
    expect(padless_pack_backward(PADLESS_RNN_TANH, dtype, 0, 1, 0, nullptr, &weight, nullptr, 1, packed), PADLESS_BAD_ENUM,
           "bfloat16 weights for the backward of these");
  }
  expect(keep_states({0, 1}, 2, 2), PADLESS_OK, "two threads");
  expect(keep_states({0, 1}, 2, 1025), PADLESS_BAD_THREADS, "too many threads");
  expect(keep_states({0, 1}, 2, 0), PADLESS_BAD_THREADS, "no thread");
  expect(scratch_bytes(1024) < 2 * scratch_bytes(512), 1, "scratch in proportion to the threads");
  expect(step_backward({1}, true), PADLESS_OK, "a step of one row");
  expect(step_backward({PADLESS_STEP_ROWS, 0}, true), PADLESS_OK, "a step of the most rows");
  expect(step_backward({PADLESS_STEP_ROWS + 1}, true), PADLESS_BAD_SIZE, "a step of too many rows");
  expect(step_backward({2, 1}, true), PADLESS_BAD_SIZE, "two steps");
  expect(step_backward({0}, true), PADLESS_BAD_SIZE, "a step without rows");
  expect(step_backward({2}, false), PADLESS_BAD_NULL, "a step without w_ih");
  expect(arrange({2, 3}, {1, 0}), PADLESS_OK, "an order");
  expect(arrange({2, 3}, {0, 0}), PADLESS_BAD_STATE_INDEX, "an order that names a sequence twice");
  for (int error = 0; error < PADLESS_ERROR_COUNT; ++error)
    if (!strcmp(padless_error_text(error), padless_error_text(PADLESS_ERROR_COUNT))) expect(error, -1, "an error without a text");
  return g_failed != 0;
}
