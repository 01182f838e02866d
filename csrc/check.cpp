// Checks of the arguments of the C ABI; after them the kernels trust every size, stride and offset.
#include <initializer_list>

#include "kernels.h"

namespace padless {
namespace {

// The product of two sizes is at most 2^40, in elements of 8 bytes: far from overflow.
constexpr int64_t kMost = int64_t(1) << 40;
constexpr int64_t kMostThreads = 1024;
bool fits(int64_t a, int64_t b) { return a == 0 || b <= kMost / a; }

// Whether every row (t, slot) lies in [0, rows). O(T + B) time: from the last step to the first, slots only become active.
bool rows_fit(const padless_problem& p, const int64_t* step, const int64_t* sequence, int64_t rows) {
  if (!step) return rows >= p.rows;  // time-major
  int64_t low = 0, high = 0, seen = 0;
  for (int64_t t = p.steps - 1; t >= 0; --t) {
    const int64_t active = p.batch_sizes[t];
    if (active == 0) continue;
    for (; seen < active; ++seen) {
      const int64_t at = sequence[seen];
      if (at < -kMost || at > kMost) return false;
      if (seen == 0 || at < low) low = at;
      if (seen == 0 || at > high) high = at;
    }
    const int64_t at = step[t];
    if (at < -kMost || at > kMost || at + low < 0 || at + high >= rows) return false;
  }
  return true;
}

// Whether `index` contains `count` different rows of [0, rows). A bitmap on the stack covers a window of the rows, in usual batches
// all of them; another pass begins at the lowest row of `index` past the window.
bool are_distinct_rows(const int64_t* index, int64_t count, int64_t rows) {
  constexpr int64_t kWindow = 1 << 17;
  uint64_t seen[kWindow / 64];
  if (count > rows) return false;
  for (int64_t begin = 0, next; begin < rows; begin = next) {
    const int64_t end = rows - begin < kWindow ? rows : begin + kWindow;
    for (int64_t word = 0; word < (end - begin + 63) / 64; ++word) seen[word] = 0;
    next = rows;
    for (int64_t slot = 0; slot < count; ++slot) {
      const int64_t row = index[slot];
      if (row < 0 || row >= rows) return false;
      if (row >= end && row < next) next = row;
      if (row < begin || row >= end) continue;
      uint64_t& word = seen[(row - begin) / 64];
      const uint64_t bit = uint64_t(1) << (row - begin) % 64;
      if (word & bit) return false;
      word |= bit;
    }
  }
  return true;
}

int check_state(const void* state, int64_t stride, int64_t width, const padless_problem& p) {
  if (!state) return PADLESS_OK;
  return stride < width || !fits(p.state_rows, stride) ? PADLESS_BAD_STRIDE : PADLESS_OK;
}

// Checks that every row of every sequence, and every cell of a grid, is inside its memory.
int check_rows(const padless_move& m, const padless_rows& rows) {
  if (rows.pieces) {
    for (int64_t b = 0; b < m.sequences; ++b)
      if (!rows.pieces[b] && m.lengths[b] > 0) return PADLESS_BAD_NULL;
    return PADLESS_OK;
  }
  if (rows.rows < 0 || rows.rows > kMost || !fits(rows.rows, m.row_bytes)) return PADLESS_BAD_SIZE;
  if (rows.rows > 0 && !rows.data) return PADLESS_BAD_NULL;
  if (rows.batch_sizes) {
    int64_t sum = 0;
    for (int64_t t = 0; t < rows.size_count; ++t) {
      const int64_t active = rows.batch_sizes[t], before = t ? rows.batch_sizes[t - 1] : kMost;
      if (active < 0 || active > before || (sum += active) > rows.rows) return PADLESS_BAD_BATCH_SIZES;
    }
  } else if (rows.step < 1 || !fits(m.steps, rows.step)) {
    return PADLESS_BAD_STRIDE;
  }
  if (!rows.first) {
    if (rows.batch_sizes) return PADLESS_BAD_NULL;
    if (m.sequences == 0 || m.steps == 0) return PADLESS_OK;
    if (rows.sequence < 1 || !fits(m.sequences, rows.sequence)) return PADLESS_BAD_STRIDE;
    return (m.sequences - 1) * rows.sequence + (m.steps - 1) * rows.step < rows.rows ? PADLESS_OK : PADLESS_BAD_ROW;
  }
  for (int64_t b = 0; b < m.sequences; ++b) {
    const int64_t length = m.lengths[b], first = rows.first[b];
    if (length == 0) continue;
    if (first < 0 || first > kMost) return PADLESS_BAD_ROW;
    if (rows.batch_sizes) {
      if (length > rows.size_count || first >= rows.batch_sizes[length - 1]) return PADLESS_BAD_ROW;
    } else if (first + (length - 1) * rows.step >= rows.rows) {
      return PADLESS_BAD_ROW;
    }
  }
  return PADLESS_OK;
}

bool is_grid(const padless_rows& rows) { return !rows.pieces && !rows.first; }

}  // namespace

int check_move(const padless_move& m) {
  if (m.right_aligned < 0 || m.right_aligned > 1) return PADLESS_BAD_ENUM;
  if (m.threads < 1 || m.threads > kMostThreads) return PADLESS_BAD_THREADS;
  if (m.sequences < 0 || m.sequences > kMost || m.steps < 0 || m.steps > kMost) return PADLESS_BAD_SIZE;
  if (m.row_bytes < 1 || m.row_bytes > kMost) return PADLESS_BAD_SIZE;
  if (m.sequences > 0 && !m.lengths) return PADLESS_BAD_NULL;
  for (int64_t b = 0; b < m.sequences; ++b)
    if (m.lengths[b] < 0 || m.lengths[b] > m.steps) return PADLESS_BAD_SIZE;
  if (const int error = check_rows(m, m.source)) return error;
  if (const int error = check_rows(m, m.target)) return error;
  return m.fill && !is_grid(m.target) ? PADLESS_BAD_ROW : PADLESS_OK;
}

int check_layer(const Layer& layer, int64_t dtype) {
  if (layer.cell < PADLESS_LSTM || layer.cell > PADLESS_RNN_RELU || dtype < 0 || dtype > PADLESS_BFLOAT16_3) return PADLESS_BAD_ENUM;
  if (layer.input < 0 || layer.hidden < 1 || layer.projection < 0) return PADLESS_BAD_SIZE;
  if (layer.input > (1 << 30) || layer.hidden > (1 << 20) || layer.projection > (1 << 20)) return PADLESS_BAD_SIZE;
  return layer.projection > 0 && layer.cell != PADLESS_LSTM ? PADLESS_BAD_SIZE : PADLESS_OK;
}

int check_shape(const padless_problem& p) {
  if (const int error = check_layer(layer_of(p), p.dtype)) return error;
  for (const int64_t flag : {p.reverse, p.narrow_x, p.narrow_y, p.narrow_states, p.narrow_gates, p.narrow_weights})
    if (flag < 0 || flag > 1) return PADLESS_BAD_ENUM;
  const bool is_narrow = p.narrow_x || p.narrow_y || p.narrow_states || p.narrow_gates || p.narrow_weights;
  if (is_narrow && !takes_narrow(p.dtype)) return PADLESS_BAD_ENUM;
  if (p.w_hh && (p.projection_size > 0 || p.dtype > PADLESS_FLOAT64)) return PADLESS_BAD_ENUM;
  if (p.threads < 1 || p.threads > kMostThreads) return PADLESS_BAD_THREADS;
  if (p.batch < 0 || p.rows < 0 || p.steps < 0) return PADLESS_BAD_SIZE;
  if (p.batch > kMost || p.rows > kMost || p.steps > kMost) return PADLESS_BAD_SIZE;
  if (!fits(p.rows + 1024, p.hidden_size * 4 + 64) || !fits(p.rows + 1024, p.input_size + 64)) return PADLESS_BAD_SIZE;
  if (!fits(p.rows + 1024, p.projection_size + 64)) return PADLESS_BAD_SIZE;
  if (p.steps > 0 && !p.batch_sizes) return PADLESS_BAD_NULL;
  int64_t sum = 0, most = p.batch;
  for (int64_t t = 0; t < p.steps; ++t) {
    const int64_t active = p.batch_sizes[t];
    if (active < 0 || active > most) return PADLESS_BAD_BATCH_SIZES;
    most = active;
    sum += active;
    if (sum > p.rows) return PADLESS_BAD_BATCH_SIZES;
  }
  return sum == p.rows ? PADLESS_OK : PADLESS_BAD_BATCH_SIZES;
}

int check_problem(const padless_problem& p, bool backward) {
  if (const int error = check_shape(p)) return error;
  const int64_t output = output_width(layer_of(p));
  if (p.w_hh && !p.w_ih && p.input_size > 0) return PADLESS_BAD_NULL;
  if (p.w_hh && backward && (p.rows < 1 || p.rows > PADLESS_STEP_ROWS || p.rows != p.batch_sizes[0])) return PADLESS_BAD_SIZE;
  if (p.rows > 0) {
    if (!p.x && p.input_size > 0) return PADLESS_BAD_NULL;
    if (!p.y || !p.x_step != !p.x_sequence || !p.y_step != !p.y_sequence) return PADLESS_BAD_NULL;
    if (p.x_rows < 0 || p.y_rows < 0 || p.x_rows > kMost || p.y_rows > kMost) return PADLESS_BAD_SIZE;
    if (p.x_stride < p.input_size || p.y_stride < output) return PADLESS_BAD_STRIDE;
    if (!fits(p.x_rows, p.x_stride) || !fits(p.y_rows, p.y_stride)) return PADLESS_BAD_STRIDE;
    if (!rows_fit(p, p.x_step, p.x_sequence, p.x_rows)) return PADLESS_BAD_ROW;
    if (!rows_fit(p, p.y_step, p.y_sequence, p.y_rows)) return PADLESS_BAD_ROW;
  }
  const bool cells = p.cell == PADLESS_LSTM;
  if (p.h0 || p.h_n || p.dh_n || p.dh0 || (cells && (p.c0 || p.c_n || p.dc_n || p.dc0))) {
    if (p.state_rows < 0 || p.state_rows > kMost) return PADLESS_BAD_SIZE;
    if (!p.state_index && p.state_rows < p.batch) return PADLESS_BAD_STATE_INDEX;
    if (p.state_index && !are_distinct_rows(p.state_index, p.batch, p.state_rows)) return PADLESS_BAD_STATE_INDEX;
    if (int error = check_state(p.h0, p.h0_stride, output, p)) return error;
    if (int error = check_state(p.h_n, p.h_n_stride, output, p)) return error;
    if (cells) {
      if (int error = check_state(p.c0, p.c0_stride, p.hidden_size, p)) return error;
      if (int error = check_state(p.c_n, p.c_n_stride, p.hidden_size, p)) return error;
    }
    if (backward) {
      if (int error = check_state(p.dh_n, p.dh_n_stride, output, p)) return error;
      if (int error = check_state(p.dh0, p.dh0_stride, output, p)) return error;
      if (cells) {
        if (int error = check_state(p.dc_n, p.dc_n_stride, p.hidden_size, p)) return error;
        if (int error = check_state(p.dc0, p.dc0_stride, p.hidden_size, p)) return error;
      }
    }
  }
  const int64_t element = p.dtype == PADLESS_FLOAT64 ? 8 : 4;
  const int64_t gate = p.narrow_gates ? 2 : element;
  if (p.gates && p.gates_bytes < p.rows * padless_saved_width(p.cell, p.hidden_size) * gate) return PADLESS_BAD_SAVED;
  if (p.cells && p.cells_bytes < p.rows * padless_cells_width(p.cell, p.hidden_size) * element) return PADLESS_BAD_SAVED;
  if (backward && cells && !p.cells && p.rows > 0) return PADLESS_BAD_SAVED;
  if (backward && p.rows > 0) {
    if (p.dy && (p.dy_stride < output || !fits(p.y_rows, p.dy_stride))) return PADLESS_BAD_STRIDE;
    if (p.dx && (p.dx_stride < p.input_size || !fits(p.x_rows, p.dx_stride))) return PADLESS_BAD_STRIDE;
  }
  return PADLESS_OK;
}

}  // namespace padless
