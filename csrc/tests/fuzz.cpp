// Problems made of random bytes, most of them wrong in some way, on exact-size heap blocks: whatever a caller passes, the
// kernels either refuse it or stay inside. Run under AddressSanitizer (PADLESS_SANITIZE). LLVMFuzzerTestOneInput is the
// libFuzzer entry; the driver below needs no libFuzzer:   padless_fuzz [seconds] [set] [first seed]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../padless.h"

namespace {

struct Bytes {
  const uint8_t* at;
  size_t left;
  int64_t next(int64_t below) {  // in [0, below)
    if (!left) return 0;
    --left;
    return *at++ % below;
  }
};

struct Exact {  // malloc knows exact sizes
  void* p;
  explicit Exact(int64_t bytes) : p(calloc(1, (size_t)(bytes > 0 ? bytes : 1))) {}
  ~Exact() { free(p); }
  Exact(const Exact&) = delete;
};

long g_ran, g_refused;
const char* g_set = nullptr;  // this one alone

// Moves of rows between any two places, most of them forged, checked byte for byte where they ran.
void fuzz_move(Bytes& b) {
  padless_move m;
  memset(&m, 0, sizeof m);
  const bool forged = b.next(2);
  m.sequences = b.next(80), m.steps = b.next(90), m.row_bytes = 1 + b.next(150), m.threads = 1 + b.next(2);
  if (b.next(3) == 0) m.row_bytes = 4 << b.next(2);
  const int64_t count = m.sequences, longest = m.steps ? b.next(m.steps + 1) : 0;
  Exact lengths(count * 8), slots(count * 8), offsets(count * 8), sizes(longest * 8), pointers[2] = {Exact(count * 8), Exact(count * 8)};
  int64_t *const length = (int64_t*)lengths.p, *const size = (int64_t*)sizes.p, rows = 0;
  for (int64_t s = 0; s < count; ++s) {
    length[s] = longest ? b.next(longest + 1) : 0;
    ((int64_t*)offsets.p)[s] = rows;
    rows += length[s];
    for (int64_t t = 0; t < length[s]; ++t) ++size[t];
  }
  for (int64_t s = 0; s < count; ++s)  // its place by length
    for (int64_t other = 0; other < count; ++other)
      ((int64_t*)slots.p)[s] += length[other] > length[s] || (length[other] == length[s] && other < s);
  const int64_t cells = count * m.steps, bytes = m.row_bytes;
  Exact from(cells * bytes), to(cells * bytes), fill(bytes);  // as large as the largest place, a grid
  for (int64_t i = 0; i < cells * bytes; ++i) ((uint8_t*)from.p)[i] = (uint8_t)(i * 7 + i / 251);
  memset(fill.p, 0xee, bytes), memset(to.p, 0x11, cells * bytes);
  m.lengths = length, m.right_aligned = b.next(2);
  padless_rows* const sides[] = {&m.source, &m.target};
  int kinds[2];
  for (int side = 0; side < 2; ++side) {
    padless_rows& r = *sides[side];
    r.data = side ? to.p : from.p, r.rows = cells;
    switch (kinds[side] = b.next(5)) {
      case 0: r.first = (int64_t*)slots.p, r.batch_sizes = size, r.size_count = longest; break;
      case 1: r.first = (int64_t*)offsets.p, r.step = 1; break;
      case 2: r.step = 1, r.sequence = m.steps; break;
      case 3: r.step = count ? count : 1, r.sequence = 1; break;
      default:
        for (int64_t s = 0; s < count; ++s)
          ((char**)pointers[side].p)[s] = (char*)r.data + ((int64_t*)offsets.p)[s] * bytes;
        r.pieces = (void**)pointers[side].p;
    }
  }
  if ((kinds[1] == 2 || kinds[1] == 3) && b.next(2)) m.fill = fill.p;
  if (forged) {
    const int64_t values[] = {-1, 0, 1, 2, 5, -7, INT64_MAX, INT64_MIN, int64_t(1) << 33, 40};
    const int64_t value = values[b.next(10)];
    padless_rows& r = *sides[b.next(2)];
    switch (b.next(11)) {
      case 0: if (count && value > length[0]) length[0] = value; break;  // pieces hold as much as they did
      case 1: if (count) ((int64_t*)slots.p)[b.next(count)] = value; break;
      case 2: if (count) ((int64_t*)offsets.p)[b.next(count)] = value; break;
      case 3: if (longest) size[b.next(longest)] = value; break;
      case 4: r.rows = value < cells ? value : cells; break;
      case 5: r.step = value; break;
      case 6: r.sequence = value; break;
      case 7: r.size_count = value < longest ? value : longest; break;
      case 8: if (!r.pieces) r.data = nullptr; break;
      case 9: r.first = nullptr; break;
      default: m.fill = fill.p; break;
    }
    if (count && length[0] > longest && (kinds[0] == 4 || kinds[1] == 4)) return;  // nobody can check what pieces hold
  }
  if (padless_move_rows(&m) != PADLESS_OK) {
    ++g_refused;
    if (!forged) abort();
    return;
  }
  ++g_ran;
  if (forged) return;
  const auto row_of = [&](int side, int64_t s, int64_t t) {
    if (kinds[side] == 1 || kinds[side] == 4) return ((int64_t*)offsets.p)[s] + t;
    if (m.right_aligned && kinds[side] != 0) t += m.steps - length[s];
    if (kinds[side] == 2) return s * m.steps + t;
    if (kinds[side] == 3) return s + t * count;
    int64_t row = ((int64_t*)slots.p)[s];
    for (int64_t before = 0; before < t; ++before) row += size[before];
    return row;
  };
  int64_t filled = 0;
  for (int64_t i = 0; i < cells * bytes; ++i) filled += ((uint8_t*)to.p)[i] == 0xee;
  for (int64_t s = 0; s < count; ++s)
    for (int64_t t = 0; t < length[s]; ++t) {
      const uint8_t* const row = (uint8_t*)from.p + row_of(0, s, t) * bytes;
      if (memcmp((char*)to.p + row_of(1, s, t) * bytes, row, bytes)) abort();
      for (int64_t i = 0; i < bytes; ++i) filled -= row[i] == 0xee;
    }
  if (m.fill && filled != (cells - rows) * bytes) abort();
}

// Lengths to slots and batch sizes and back; forged ones are refused or written nowhere else.
void fuzz_arrangement(Bytes& b) {
  const int64_t batch = b.next(12), steps = b.next(12);
  Exact lengths(batch * 8), order(batch * 8), slots(batch * 8), offsets((batch + 1) * 8), sizes(steps * 8), back(batch * 8);
  int64_t *const length = (int64_t*)lengths.p, *const at = (int64_t*)order.p, longest = 0;
  for (int64_t s = 0; s < batch; ++s) {
    length[s] = b.next(steps + 1), at[s] = s;
    if (length[s] > longest) longest = length[s];
  }
  for (int64_t s = 1; s < batch; ++s)
    for (int64_t k = s; k > 0 && length[at[k]] > length[at[k - 1]]; --k) {
      const int64_t before = at[k - 1];
      at[k - 1] = at[k], at[k] = before;
    }
  const int64_t values[] = {-1, 0, 1, 2, 5, -7, INT64_MAX, INT64_MIN, int64_t(1) << 33, 40};
  const bool forged = b.next(2);
  if (forged && batch) (b.next(2) ? length : at)[b.next(batch)] = values[b.next(10)];
  const int64_t count = forged ? b.next(steps + 1) : longest;
  const int error = padless_arrange(length, batch, count, at, (int64_t*)slots.p, (int64_t*)offsets.p, (int64_t*)sizes.p);
  error ? ++g_refused : ++g_ran;
  if (error && !forged) abort();
  if (error) return;
  const int64_t rows = ((int64_t*)offsets.p)[batch];
  if (b.next(3) == 0 && batch) ((int64_t*)(b.next(2) ? slots.p : order.p))[b.next(batch)] = values[b.next(10)];
  if (b.next(3) == 0 && steps) ((int64_t*)sizes.p)[b.next(steps)] = values[b.next(10)];
  const bool ordered = b.next(4);
  const int refused = padless_lengths((int64_t*)sizes.p, count, rows, ordered ? at : nullptr, ordered ? (int64_t*)slots.p : nullptr,
                                      batch, (int64_t*)back.p);
  if (refused) ++g_refused;
  else if (ordered && !forged && memcmp(back.p, lengths.p, batch * 8))
    abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes b = {data, size};
  static const char* const sets[] = {"baseline", "avx2", "avx512", "avx512_bf16_emulated",
                                     "avx512_bf16", "amx_emulated", "amx"};
  if (padless_isa_force(g_set ? g_set : sets[b.next(7)]) != PADLESS_OK) return 0;
  if (!b.next(4)) {
    b.next(4) ? fuzz_move(b) : fuzz_arrangement(b);
    return 0;
  }
  padless_problem p;
  memset(&p, 0, sizeof p);
  const bool forged = b.next(3) != 0;
  p.cell = b.next(4);
  p.dtype = b.next(padless_computes(PADLESS_BFLOAT16_3) ? 4 : padless_computes(PADLESS_BFLOAT16) ? 3 : 2);
  int64_t* const narrow[] = {&p.narrow_x, &p.narrow_y, &p.narrow_states, &p.narrow_gates, &p.narrow_weights};
  for (int64_t* flag : narrow) *flag = (p.dtype == PADLESS_FLOAT32 || p.dtype == PADLESS_BFLOAT16) && b.next(2);
  const int narrow_weights = (int)p.narrow_weights;
  p.reverse = b.next(2);
  p.threads = b.next(4) == 0 ? 1 + b.next(3) : 1;
  p.batch = b.next(12);
  p.input_size = b.next(40);
  p.hidden_size = 1 + b.next(40);
  p.steps = p.batch ? b.next(10) : 0;
  if (p.steps > 5) p.steps = 1;  // the single steps of unpacked weights
  p.projection_size = p.cell == PADLESS_LSTM && b.next(2) ? b.next(48) : 0;
  const int64_t element = p.dtype == PADLESS_FLOAT64 ? 8 : 4, x_element = p.narrow_x ? 2 : element, y_element = p.narrow_y ? 2 : element;
  const int64_t weight = narrow_weights ? 2 : element;
  const int64_t h = p.hidden_size, in = p.input_size, projection = p.projection_size;
  const int64_t out = projection ? projection : h;
  const int64_t g = h * (p.cell == PADLESS_LSTM ? 4 : p.cell == PADLESS_GRU ? 3 : 1);
  Exact sizes(p.steps * 8), step(p.steps * 8), sequence(p.batch * 8), index(p.batch * 8);
  int64_t *batch_sizes = (int64_t*)sizes.p, most = p.batch;
  for (int64_t t = 0; t < p.steps; ++t) {
    most = batch_sizes[t] = b.next(most + 1);
    p.rows += most;
  }
  // Padded addressing; forging comes after, so that some problems are good.
  for (int64_t t = 0; t < p.steps; ++t) ((int64_t*)step.p)[t] = t * p.batch;
  for (int64_t s = 0; s < p.batch; ++s) ((int64_t*)sequence.p)[s] = s, ((int64_t*)index.p)[s] = p.batch - 1 - s;
  const int64_t cells = p.steps * p.batch, x_stride = in + b.next(3), y_stride = out + b.next(3);
  Exact x(cells * x_stride * x_element), y(cells * y_stride * y_element);
  Exact dx(cells * x_stride * x_element), dy(cells * y_stride * y_element);
  const int64_t state = p.narrow_states ? 2 : element, h_bytes = p.batch * out * state, c_bytes = p.batch * h * state;
  Exact h0(h_bytes), c0(c_bytes), h_n(h_bytes), c_n(c_bytes), dh_n(h_bytes), dc_n(c_bytes), dh0(h_bytes), dc0(c_bytes);
  Exact w_ih(g * in * weight), w_hh(g * out * weight), b_ih(g * weight), b_hh(g * weight), w_hr(projection * h * weight);
  const bool unpacked = !b.next(4);
  const int64_t dw = unpacked ? weight : element;
  Exact dw_ih(g * in * dw), dw_hh(g * out * dw), db_ih(g * dw), db_hh(g * dw), dw_hr(projection * h * element);
  p.batch_sizes = batch_sizes;
  p.x = x.p, p.x_rows = cells, p.x_stride = x_stride, p.x_step = (int64_t*)step.p, p.x_sequence = (int64_t*)sequence.p;
  p.y = y.p, p.y_rows = cells, p.y_stride = y_stride, p.y_step = p.x_step, p.y_sequence = p.x_sequence;
  if (!b.next(4)) p.x_step = p.x_sequence = nullptr;
  if (!b.next(4)) p.y_step = p.y_sequence = nullptr;
  p.state_index = b.next(2) ? (int64_t*)index.p : nullptr;
  p.state_rows = p.batch;
  p.h0 = b.next(4) ? h0.p : nullptr, p.c0 = b.next(4) ? c0.p : nullptr, p.h_n = b.next(4) ? h_n.p : nullptr;
  p.c_n = b.next(4) ? c_n.p : nullptr, p.dh_n = b.next(4) ? dh_n.p : nullptr, p.dc_n = b.next(4) ? dc_n.p : nullptr;
  p.dh0 = b.next(4) ? dh0.p : nullptr, p.dc0 = b.next(4) ? dc0.p : nullptr, p.dx = b.next(4) ? dx.p : nullptr;
  p.h0_stride = p.h_n_stride = p.dh_n_stride = p.dh0_stride = out;
  p.c0_stride = p.c_n_stride = p.dc_n_stride = p.dc0_stride = h;
  p.dy = b.next(4) ? dy.p : nullptr, p.dy_stride = y_stride, p.dx_stride = x_stride;
  p.dw_ih = b.next(4) ? dw_ih.p : nullptr, p.dw_hh = b.next(4) ? dw_hh.p : nullptr;
  p.db_ih = b.next(4) ? db_ih.p : nullptr, p.db_hh = b.next(4) ? db_hh.p : nullptr;
  p.dw_hr = b.next(4) ? dw_hr.p : nullptr;
  const int64_t values[] = {-1, 0, 1, 2, 5, -7, INT64_MAX, INT64_MIN, int64_t(1) << 33, 40};
  if (forged) {
    for (int i = 0; i < 2; ++i) {
      const int64_t value = values[b.next(10)];
      switch (b.next(12)) {
        case 0: if (p.steps) batch_sizes[b.next(p.steps)] = value; break;
        case 1: if (p.steps) ((int64_t*)step.p)[b.next(p.steps)] = value; break;
        case 2: if (p.batch) ((int64_t*)sequence.p)[b.next(p.batch)] = value; break;
        case 3: if (p.batch) ((int64_t*)index.p)[b.next(p.batch)] = value; break;
        case 4: p.x_stride = value < x_stride ? value : x_stride; break;
        case 5: p.y_stride = value < y_stride ? value : y_stride; break;
        case 6: p.h0_stride = value < out ? value : out; break;
        case 7: p.c0_stride = value < h ? value : h; break;
        case 8: p.projection_size = value; break;
        case 9: p.x_step = nullptr; break;
        case 10: if (value >> 1) *narrow[b.next(4)] = value; break;  // 0 and 1 say how large the elements are
        default: p.rows = value; break;
      }
    }
  }
  const int64_t forward_bytes = padless_pack_forward_bytes(p.cell, p.dtype, in, h, projection);
  const int64_t backward_bytes = padless_pack_backward_bytes(p.cell, p.dtype, in, h, projection);
  Exact forward(forward_bytes), backward(backward_bytes);
  padless_pack_forward(p.cell, p.dtype, in, h, projection, w_ih.p, w_hh.p, b.next(2) ? b_ih.p : nullptr, b_hh.p, w_hr.p,
                       narrow_weights, forward.p);
  padless_pack_backward(p.cell, p.dtype, in, h, projection, w_ih.p, w_hh.p, w_hr.p, narrow_weights, backward.p);
  p.forward_weights = forward.p, p.forward_weights_bytes = forward_bytes;
  p.backward_weights = backward.p, p.backward_weights_bytes = backward_bytes;
  if (unpacked) p.w_ih = b.next(8) ? w_ih.p : nullptr, p.w_hh = w_hh.p, p.b_ih = b_ih.p, p.b_hh = b.next(2) ? b_hh.p : nullptr;
  // Where batch_sizes are forged, rows may claim anything: saved buffers are of their true size.
  const bool saves = b.next(2);
  const int64_t gates_bytes = cells * padless_saved_width(p.cell, h) * (p.narrow_gates ? 2 : element);
  const int64_t cells_bytes = cells * padless_cells_width(p.cell, h) * element;
  Exact gates(gates_bytes), saved_cells(cells_bytes);
  p.gates = saves ? gates.p : nullptr, p.gates_bytes = gates_bytes;
  p.cells = saved_cells.p, p.cells_bytes = cells_bytes;
  for (int pass = 0; pass < 2; ++pass) {
    const int64_t bytes = padless_scratch_bytes(&p, pass);
    if (bytes < 0 || bytes > (int64_t(1) << 28)) {
      g_refused += (pass ? padless_backward(&p) : padless_forward(&p)) != PADLESS_OK;
      continue;
    }
    Exact scratch(bytes + 64);
    // The end of what the kernels may use is the end of the block.
    p.scratch = (void*)(((uintptr_t)scratch.p + 63) & ~uintptr_t(63)), p.scratch_bytes = bytes;
    (pass ? padless_backward(&p) : padless_forward(&p)) == PADLESS_OK ? ++g_ran : ++g_refused;
  }
  return 0;
}

#if !defined(PADLESS_LIBFUZZER)
int main(int count, char** arguments) {
  const time_t end = time(nullptr) + (count > 1 ? atol(arguments[1]) : 10);
  g_set = count > 2 ? arguments[2] : nullptr;
  uint64_t seed = count > 3 ? strtoull(arguments[3], nullptr, 10) : 1;
  if (g_set && !padless_isa_supported(g_set)) {
    printf("%s: not on this machine\n", g_set);
    return 0;
  }
  for (; time(nullptr) < end; ++seed) {
    uint8_t bytes[128];
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (uint8_t& byte : bytes) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      byte = (uint8_t)(state >> 32);
    }
    LLVMFuzzerTestOneInput(bytes, sizeof bytes);
  }
  printf("%s: %ld calls ran, %ld were refused\n", g_set ? g_set : "every set", g_ran, g_refused);
  return g_ran == 0;
}
#endif
