// Backward pass of one layer in one direction, a chunk of steps at a time: [gates again,] the recurrence of the gradient, then
// that chunk's share of dx, dW and db. Gate gradients thus live in a buffer of chunk size, (N, 4H) is never written, and the
// products that sum over rows find their operands in cache.
//
// The worker's lanes are those of forward.h. dW is split by its own rows and not by those of the batch: every thread sums
// over all rows in the same order, so the number of threads does not change it.
//
// With a projection a step is two products: the gradient of h, then that of o tanh(c) from it (with columns split, a barrier
// between). Both stand in buffers of chunk size, whose product is the chunk's share of dW_hr.
#pragma once

constexpr int64_t kGradientRows = 384;  // rows of a chunk, unless one step has more
constexpr int64_t kSumStride = 160;     // row stride of transposed gradients (AMX): no power of two
constexpr int64_t kSumRows = 128;       // rows that dW takes up at once: its operand panel, 32 KB, stays in the first cache

template <class T, template <class> class Cell, int Parts> struct Backward {
  typedef typename ElementOf<T, Parts>::Type Element;
  static constexpr int64_t kind = Cell<T>::kind;
  static constexpr int W = kWidth<T>, gates = gate_count(kind);
  static constexpr int sum_tile = Parts ? most_rows(Parts, 4) : kAccumulators / 4;  // rows of dW in a tile

  struct StateRow {
    const void* at;  // null: zeros
    bool narrow;     // bfloat16, as the caller's y may be
  };

  const padless_problem& p;
  const padless::Team team;
  const Steps steps;
  const BackwardWeights<T, Parts> weights;
  const Panels<T, Parts> units;  // in which hidden units are walked
  const int64_t hidden, output, input, state_stride, gradients_stride, gate_width, capacity;  // output: width of h
  T *gradients[2], *dh, *dc, *zeros, *gates_again, *sum_ih, *sum_hh;                          // shared
  T *d_output[2], *unprojected[2], *sum_hr;  // with a projection: [capacity, state_stride] gradients of h, and o tanh(c)
  char* recompute_rows;
  T *product, *panel_rows, *recompute_in;                             // this worker's
  int64_t* x_row;                                                     // of the chunk's rows
  StateRow* h_row;                                                    // h before them
  // What products read: gradients and d_output by chunk (shared), dW's operands (this worker's).
  Operand<T, Parts> gradient_rows[2], d_output_rows[2];
  Operand<T, Parts> sum_left;
  Element* sum_right;
  mutable bool any = false;

  bool projects() const { return kind == PADLESS_LSTM && p.projection_size > 0; }

  struct Sizes {
    int64_t capacity, shared, own;
  };
  static int64_t gradients_stride_of(int64_t hidden) { return round_up(gradient_count(kind) * hidden, 16) + 16; }
  // dW goes to the caller's memory directly where its rows are whole vectors, else to padded rows here.
  static bool padded(int64_t columns) { return columns % W != 0; }
  static int64_t bytes(int64_t elements) { return round_up(elements * (int64_t)sizeof(T), 64); }
  static Sizes sizes(const padless_problem& p) {
    const int64_t active = p.steps ? p.batch_sizes[0] : 0, capacity = maximum(active, minimum(kGradientRows, p.rows));
    const int64_t h = p.hidden_size, i = p.input_size, state = state_stride_of<T>(p), out = output_width(layer_of(p));
    const int64_t spare = Parts ? kTileRows * p.threads : 0;  // AMX reads whole tiles of rows
    int64_t shared = 2 * bytes(capacity * gradients_stride_of(h)) + 2 * bytes((active + spare) * state) + bytes(zero_count(p));
    shared += 2 * operand_bytes<T, Parts>(capacity + spare, gradient_count(kind) * h);
    if (p.projection_size) shared += 2 * operand_bytes<T, Parts>(capacity + spare, out);
    if (!p.gates) shared += bytes(capacity * saved_count(kind) * padded_hidden(h));
    if (padded(i)) shared += bytes(gates * h * vectors_of<T>(i) * W);
    if (padded(out)) shared += bytes(gates * h * vectors_of<T>(out) * W);
    if (p.projection_size) shared += 4 * bytes(capacity * state);
    if (p.projection_size && padded(h)) shared += bytes(out * vectors_of<T>(h) * W);
    const int64_t own = 2 * bytes(buffer_rows(Parts) * 4 * W) + bytes(kSumRows * 4 * W) + round_up(8 * capacity, 64) +
                        round_up(sizeof(StateRow) * capacity, 64) + recompute_bytes(p) +
                        (Parts ? 2 * Parts * (sum_left_rows(p) * kSumStride + kSumRows * 4 * W) + 128 : 0);
    return {capacity, shared, own};
  }
  // x and h of a block of rows, where gates are computed again.
  static int64_t recompute_bytes(const padless_problem& p) {
    const int64_t columns = operand_stride<T, Parts>(p.input_size) + operand_stride<T, Parts>(maximum(p.hidden_size, p.projection_size));
    return bytes(Parts ? Parts * buffer_rows(Parts) * columns : kMaxRows * columns);
  }
  static int64_t sum_left_rows(const padless_problem& p) {
    return round_up(maximum(gradient_count(kind) * p.hidden_size, p.projection_size), 32) + 32;
  }
  static int64_t zero_count(const padless_problem& p) { return maximum(state_stride_of<T>(p), 4 * W); }
  static int64_t scratch_bytes(const padless_problem& p) {
    const Sizes s = sizes(p);
    return s.shared + p.threads * s.own;
  }

  Backward(const padless_problem& problem, const padless::Team& t)
      : p(problem), team(t), steps(problem, problem.reverse == 0),
        weights(layer_of(problem), problem.backward_weights), units(projects() ? weights.projection : weights.hidden),
        hidden(problem.hidden_size), output(output_width(layer_of(problem))), input(problem.input_size),
        state_stride(state_stride_of<T>(problem)), gradients_stride(gradients_stride_of(problem.hidden_size)),
        gate_width(padded_hidden(problem.hidden_size)), capacity(sizes(problem).capacity) {
    const Sizes s = sizes(p);
    const int64_t active = p.steps ? p.batch_sizes[0] : 0;
    ScratchCursor shared = {(char*)p.scratch};
    for (T*& g : gradients) g = shared.take<T>(capacity * gradients_stride);
    const int64_t spare = Parts ? kTileRows * p.threads : 0;
    dh = shared.take<T>((active + spare) * state_stride);
    dc = shared.take<T>((active + spare) * state_stride);
    zeros = shared.take<T>(zero_count(p));
    gates_again = p.gates ? nullptr : shared.take<T>(capacity * saved_count(kind) * gate_width);
    sum_ih = padded(input) ? shared.take<T>(gates * hidden * vectors_of<T>(input) * W) : (T*)p.dw_ih;
    sum_hh = padded(output) ? shared.take<T>(gates * hidden * vectors_of<T>(output) * W) : (T*)p.dw_hh;
    for (T*& d : d_output) d = projects() ? shared.take<T>(capacity * state_stride) : nullptr;
    for (T*& h : unprojected) h = projects() ? shared.take<T>(capacity * state_stride) : nullptr;
    sum_hr = projects() && padded(hidden) ? shared.take<T>(output * vectors_of<T>(hidden) * W) : (T*)p.dw_hr;
    for (int i = 0; i < 2; ++i) {
      if constexpr (Parts > 0) {
        gradient_rows[i] = Forward<T, Cell, Parts>::take_rows(shared, capacity + spare, gradient_count(kind) * hidden);
        d_output_rows[i] =
            projects() ? Forward<T, Cell, Parts>::take_rows(shared, capacity + spare, output) : Operand<T, Parts>{};
      } else {
        gradient_rows[i] = {gradients[i], gradients_stride, 0};
        d_output_rows[i] = {d_output[i], state_stride, 0};
      }
    }
    ScratchCursor own = {(char*)p.scratch + s.shared + team.rank * s.own};
    product = own.take<T>(buffer_rows(Parts) * 4 * W);
    panel_rows = own.take<T>(kSumRows * 4 * W);
    recompute_in = own.take<T>(buffer_rows(Parts) * 4 * W);
    x_row = own.take<int64_t>(capacity);
    h_row = own.take<StateRow>(capacity);
    recompute_rows = own.take<char>(recompute_bytes(p));
    if constexpr (Parts > 0) {
      const int64_t rows = sum_left_rows(p);
      sum_left = {own.take<Element>(Parts * rows * kSumStride), kSumStride, rows * kSumStride};
      sum_right = own.take<Element>(Parts * kSumRows * 4 * W);
    }
  }

  void wait_for_all() const {
    if (team.size > 1) padless::wait_for_team(team, false);
  }

  const T* state_row(const void* base, int64_t stride, int64_t slot) const {
    return base ? (const T*)base + (p.state_index ? p.state_index[slot] : slot) * stride : nullptr;
  }
  T* state_row(void* base, int64_t stride, int64_t slot) const {
    return base ? (T*)base + (p.state_index ? p.state_index[slot] : slot) * stride : nullptr;
  }
  StateRow y_row(int64_t t, int64_t slot) const {
    const int64_t at = (p.y_step[t] + p.y_sequence[slot]) * p.y_stride;
    if (Parts && p.narrow_rows) return {(const uint16_t*)p.y + at, true};
    return {(const T*)p.y + at, false};
  }

  // A chunk: steps [begin, end) in the order of processing, rows [base, base + rows).
  struct Chunk {
    int64_t begin, end, base, rows;
    T *gradients, *d_output, *unprojected;
    Operand<T, Parts> gradient_rows, d_output_rows;
  };

  // The step that came before time t in the forward pass has rows for `count` slots, the first of them at row `row0`.
  struct Before {
    int64_t t, count, row0;
  };
  Before before(int64_t t, int64_t row0) const {
    if (p.reverse) return {t + 1, t + 1 < p.steps ? p.batch_sizes[t + 1] : 0, row0 + p.batch_sizes[t]};
    return {t - 1, t > 0 ? p.batch_sizes[t] : 0, t > 0 ? row0 - p.batch_sizes[t - 1] : 0};
  }

  void address_rows(const Chunk& chunk) const {
    int64_t row0 = steps.down ? chunk.base + chunk.rows : chunk.base;
    for (int64_t u = chunk.begin; u < chunk.end; ++u) {
      const int64_t t = steps.time(u), active = steps.active(u);
      if (steps.down) row0 -= active;
      const Before b = before(t, row0);
      for (int64_t slot = 0; slot < active; ++slot) {
        const int64_t i = row0 - chunk.base + slot;
        x_row[i] = p.x_step[t] + p.x_sequence[slot];
        h_row[i] = slot < b.count ? y_row(b.t, slot) : StateRow{state_row(p.h0, p.h0_stride, slot), false};
      }
      if (!steps.down) row0 += active;
    }
  }

  // Product of n rows with one panel.
  // `next`: the panel to prefetch meanwhile, or null; this is block `b` of `blocks`.
  void multiply(const Panels<T, Parts>& w, int64_t panel, const Operand<T, Parts>& rows, int64_t n, const T* start_at,
                int64_t start_stride, T* out, const Element* next = nullptr, int64_t b = 0, int64_t blocks = 1) const {
    const int nv = (int)w.size(panel);
    Start<T> start = {};
    for (int v = 0; v < nv; ++v) {
      start.at[v] = start_at + v * W;
      start.stride[v] = start_stride;
    }
    multiply_panel(w, panel, rows, n, start, out, nv * W, next, b, blocks);
  }

  // Gradient of h before the step whose gradient rows begin at `from` (slot 0), for the slots of a block, into `product`.
  void recurrent_product(int64_t panel, const Operand<T, Parts>& from, const Lane& lane, int64_t slot, int64_t n,
                         const Element* next = nullptr, int64_t b = 0, int64_t blocks = 1) const {
    const Operand<T, Parts> rows = from.from(slot, kind == PADLESS_GRU ? hidden : 0).every(lane.slot_step);
    const bool direct = kind == PADLESS_GRU;
    const T* start = direct ? dh + slot * state_stride + weights.hidden.first(panel) * W : zeros;
    multiply(weights.hidden, panel, rows, n, start, direct ? lane.slot_step * state_stride : 0, product, next, b,
             blocks);
  }

  // Slots [staying, active) begin after the step whose gradients are at `from`: their initial state gets its gradient.
  void leave(const Lane& lane, const Lane& h_lane, int64_t staying, int64_t active, const Operand<T, Parts>& from) const {
    if (staying >= active) return;
    const int64_t n = lane.count(active), left = lane.count(staying);
    for (int64_t panel = h_lane.panel; p.dh0 && panel < h_lane.panel_end; ++panel) {
      const int nv = (int)weights.hidden.size(panel);
      const int64_t unit = weights.hidden.first(panel) * W, count = minimum(nv * W, output - unit);
      for (int64_t i = left; i < n; i += most_rows(Parts, 4)) {
        const int64_t size = minimum(most_rows(Parts, 4), n - i), slot = lane.slot + i * lane.slot_step;
        recurrent_product(panel, from, lane, slot, size);
        for (int64_t r = 0; r < size; ++r)
          copy(state_row(p.dh0, p.dh0_stride, slot + r * lane.slot_step) + unit, product + r * nv * W, count);
      }
    }
    if (kind != PADLESS_LSTM || !p.dc0 || lane.panel == lane.panel_end) return;
    const int64_t unit = units.first(lane.panel) * W, count = minimum(hidden, units.first(lane.panel_end) * W) - unit;
    for (int64_t i = left, slot = lane.slot + left * lane.slot_step; i < n; ++i, slot += lane.slot_step)
      copy(state_row(p.dc0, p.dc0_stride, slot) + unit, dc + slot * state_stride + unit, count);
  }

  void block(const Lane& lane, const Chunk& chunk, int64_t t, int64_t row0, int64_t panel, int64_t i, int64_t size,
             const T* done) const {
    const int nv = (int)units.size(panel);
    const int64_t slot = lane.slot + i * lane.slot_step;
    const T *h_before[buffer_rows(Parts)], *c_before[buffer_rows(Parts)];
    const Before b = before(t, row0);
    for (int64_t r = 0; r < size; ++r) {
      const int64_t own = slot + r * lane.slot_step;
      h_before[r] = (const T*)h_row[row0 - chunk.base + own].at;
      if (kind == PADLESS_LSTM)
        c_before[r] = own < b.count ? (const T*)p.cells + (b.row0 + own) * gate_width : state_row(p.c0, p.c0_stride, own);
    }
    BackwardBlock<T> e;
    e.rows = size;
    e.product_stride = nv * W;
    e.dy_stride = p.dy_stride;
    e.y_stride = p.y_stride;
    e.y_sequence = p.y_sequence + slot;
    e.slot_step = lane.slot_step;
    e.gates_stride = lane.slot_step * saved_count(kind) * gate_width;
    e.gate_width = gate_width;
    e.cells_stride = lane.slot_step * gate_width;
    e.h_before = h_before;
    e.c_before = c_before;
    e.state_stride = lane.slot_step * state_stride;
    e.gradients_stride = lane.slot_step * gradients_stride;
    e.hidden = hidden;
    for (int v = 0; v < nv; ++v) {
      const int64_t unit = (units.first(panel) + v) * W, saved = saved_count(kind) * gate_width;
      e.product = done + v * W;
      e.dy = p.dy && !projects() ? (const T*)p.dy + p.y_step[t] * p.dy_stride + unit : nullptr;
      e.y = (const T*)p.y + p.y_step[t] * p.y_stride + unit;
      e.gates = gates_again ? gates_again + (row0 - chunk.base + slot) * saved + unit
                            : saved_at<Parts>((const T*)p.gates, (row0 + slot) * saved + unit, p);
      e.narrow_gates = Parts && p.narrow_gates && !gates_again;
      e.cells = (const T*)p.cells + (row0 + slot) * gate_width + unit;
      e.dh = dh + slot * state_stride + unit;
      e.dc = dc + slot * state_stride + unit;
      e.gradients = chunk.gradients + (row0 - chunk.base + slot) * gradients_stride + unit;
      e.unprojected = projects() ? chunk.unprojected + (row0 - chunk.base + slot) * state_stride + unit : nullptr;
      e.unit = unit;
      e.units = hidden - unit;
      if constexpr (Parts > 0) {
        if (p.narrow_rows) {
          widened_block(e, h_before, chunk, t, row0, slot, lane.slot_step);
          put_gradients(chunk.gradient_rows.from(row0 - chunk.base + slot).every(lane.slot_step), e);
          continue;
        }
      }
      backward(e, Cell<T>());
      if constexpr (Parts > 0) put_gradients(chunk.gradient_rows.from(row0 - chunk.base + slot).every(lane.slot_step), e);
    }
  }

  // The block where the caller's rows are bfloat16: what the cell reads of them is widened here.
  void widened_block(BackwardBlock<T>& e, const T** h_before, const Chunk& chunk, int64_t t, int64_t row0, int64_t slot,
                     int64_t slot_step) const {
    static constexpr int64_t in_turn[kTileRows] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                   16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    T dy[kTileRows][W], y[kTileRows][W], h[kTileRows][W];
    for (int64_t r = 0; r < e.rows; ++r) {
      const int64_t own = slot + r * slot_step, at = p.y_step[t] + p.y_sequence[own];
      if (e.dy) store(dy[r], load_stored((const uint16_t*)p.dy + at * p.dy_stride, e.unit, e.units, true));
      if (saved_count(kind) == 0) store(y[r], load_stored((const uint16_t*)p.y + at * p.y_stride, e.unit, e.units, true));
      if (kind == PADLESS_GRU) {
        const StateRow before = h_row[row0 - chunk.base + own];
        store(h[r], before.at ? load_stored(before.at, e.unit, e.units, before.narrow) : Vec<T>{});
        h_before[r] = h[r];
      }
    }
    if (e.dy) e.dy = dy[0];
    e.y = y[0];
    e.dy_stride = e.y_stride = W;
    e.y_sequence = in_turn;
    e.slot_step = 1;
    if (kind == PADLESS_GRU) e.unit = 0;
    const int64_t unit = e.unit;
    backward(e, Cell<T>());
    e.unit = unit;
  }

  // The gradients of a block as products read them.
  void put_gradients(const Operand<T, Parts>& to, const BackwardBlock<T>& e) const {
    if constexpr (Parts > 0)
      for (int64_t r = 0; r < e.rows; ++r)
        for (int g = 0; g < gradient_count(kind); ++g) {
          const int64_t column = hidden - e.units + g * hidden;
          put_parts<Parts>(to.at + r * to.stride + column, to.part,
                           load_first(e.gradients + r * e.gradients_stride + g * hidden, e.units), minimum(e.units, W), false);
        }
  }

  // Step u; `from`: gradient rows of the step processed before it.
  void step(int64_t u, const Lane& lane, const Chunk& chunk, int64_t row0, const Operand<T, Parts>& from) const {
    if (lane.panel == lane.panel_end) return;
    const int64_t t = steps.time(u), active = steps.active(u), panels = lane.panel_end - lane.panel;
    const int64_t going = lane.count(minimum(active, steps.active(u - 1))), n = lane.count(active);
    const bool descending = u & 1;  // odd steps begin with the panels that are still in a cache
    const bool prefetching = weights.hidden.bytes() > team.l2_bytes;  // as in the forward pass
    begin_cells(lane, going, n);
    for (int64_t q = 0; q < panels; ++q) {
      const int64_t panel = descending ? lane.panel_end - 1 - q : lane.panel + q;
      const int nv = (int)weights.hidden.size(panel);
      if (Parts == 0 && going == 1 && q + 1 < panels) {
        const int64_t other = descending ? panel - 1 : panel + 1;
        if (nv == 4 && weights.hidden.size(other) == 4) {
          pair(lane, chunk, t, row0, panel, other, from);
          ++q;
          begin_all(lane, chunk, t, row0, panel, going, n);
          begin_all(lane, chunk, t, row0, other, going, n);
          continue;
        }
      }
      const Blocks blocks = Blocks::of(going, most_rows(Parts, nv));
      for (int64_t b = 0, i = 0; b < blocks.blocks; i += blocks.size(b++)) {
        const Element* next = prefetching && q + 1 < panels ? weights.hidden.at(descending ? panel - 1 : panel + 1) : nullptr;
        recurrent_product(panel, from, lane, lane.slot + i * lane.slot_step, blocks.size(b), next, b, blocks.blocks);
        block(lane, chunk, t, row0, panel, i, blocks.size(b), product);
      }
      begin_all(lane, chunk, t, row0, panel, going, n);
    }
  }

  // Slots of the lane whose last step in the forward pass this was: nothing but dh_n reaches them.
  void begin_all(const Lane& lane, const Chunk& chunk, int64_t t, int64_t row0, int64_t panel, int64_t going, int64_t n) const {
    for (int64_t i = going; i < n; i += most_rows(Parts, 4)) {
      const int64_t size = minimum(most_rows(Parts, 4), n - i);
      begin(lane, panel, i, size);
      block(lane, chunk, t, row0, panel, i, size, product);
    }
  }

  // One row of the lane, two panels at once.
  void pair(const Lane& lane, const Chunk& chunk, int64_t t, int64_t row0, int64_t panel, int64_t other,
            const Operand<T, Parts>& from) const {
    if constexpr (Parts == 0) {
      const T* rows = from.from(lane.slot, kind == PADLESS_GRU ? hidden : 0).at;
      Start<T> start = {}, other_start = {};
      for (int v = 0; v < 4; ++v) {
        const T* state = dh + lane.slot * state_stride + v * W;
        start.at[v] = kind == PADLESS_GRU ? state + weights.hidden.first(panel) * W : zeros;
        other_start.at[v] = kind == PADLESS_GRU ? state + weights.hidden.first(other) * W : zeros;
      }
      T* other_product = product + 4 * W;
      tile_pair<T, 4>(rows, weights.hidden.at(panel), weights.hidden.at(other), weights.hidden.k_count, &start, &other_start,
                      product, other_product);
      block(lane, chunk, t, row0, panel, 0, 1, product);
      block(lane, chunk, t, row0, other, 0, 1, other_product);
    }
  }

  void begin(const Lane& lane, int64_t panel, int64_t i, int64_t size) const {
    const int64_t nv = weights.hidden.size(panel), unit = weights.hidden.first(panel) * W;
    for (int64_t r = 0; r < size; ++r) {
      const T* h = state_row(p.dh_n, p.dh_n_stride, lane.slot + (i + r) * lane.slot_step);
      for (int64_t v = 0; v < nv; ++v)
        store(product + (r * nv + v) * W, h ? load_first(h + unit + v * W, output - unit - v * W) : Vec<T>{});
    }
  }
  // Likewise nothing but dc_n reaches the cells of the lane's slots from the going-th to the n-th.
  void begin_cells(const Lane& lane, int64_t going, int64_t n) const {
    if (kind != PADLESS_LSTM) return;
    const int64_t end = minimum(units.vectors, units.first(lane.panel_end)) * W;
    for (int64_t i = going, slot = lane.slot + going * lane.slot_step; i < n; ++i, slot += lane.slot_step) {
      const T* c = state_row(p.dc_n, p.dc_n_stride, slot);
      for (int64_t at = units.first(lane.panel) * W; at < end; at += W)
        store(dc + slot * state_stride + at, c ? load_first(c + at, hidden - at) : Vec<T>{});
    }
  }

#include "backward_projection.h"
#include "backward_sums.h"

  void clear_end(const Operand<T, Parts>& rows, int64_t columns) const {
    if constexpr (Parts > 0)
      for (int64_t q = 0; q < Parts; ++q)
        for (int64_t r = team.rank; r < rows.part / rows.stride; r += team.size)
          for (int64_t c = columns; c < rows.stride; ++c) rows.at[q * rows.part + r * rows.stride + c] = 0;
  }

  void run() const {
    const TileScope<Parts> scope;
    const int64_t active0 = p.steps ? p.batch_sizes[0] : 0;
    for (int64_t slot = active0 + team.rank; slot < p.batch; slot += team.size) {  // length 0: the state passed through
      if (p.dh0) copy_or_zero(state_row(p.dh0, p.dh0_stride, slot), state_row(p.dh_n, p.dh_n_stride, slot), output);
      if (kind == PADLESS_LSTM && p.dc0)
        copy_or_zero(state_row(p.dc0, p.dc0_stride, slot), state_row(p.dc_n, p.dc_n_stride, slot), hidden);
    }
    if (team.rank == 0)
      for (int64_t i = 0; i < zero_count(p); ++i) zeros[i] = 0;
    if constexpr (Parts > 0)
      for (int i = 0; i < 2; ++i) {  // columns past the last are never written again
        clear_end(gradient_rows[i], gradient_count(kind) * hidden);
        if (projects()) clear_end(d_output_rows[i], output);
      }
    wait_for_all();
    const int64_t panels = units.count(), h_panels = weights.hidden.count();
    Operand<T, Parts> from = {};
    Mode mode = kByRows;
    int64_t row0 = steps.down ? p.rows : 0, which = 0, alone_until = 0;
    for (int64_t u = 0; u < steps.count;) {
      Chunk chunk = {u, u, row0, 0, gradients[which], d_output[which], unprojected[which], gradient_rows[which], d_output_rows[which]};
      which ^= 1;
      while (chunk.end < steps.count && (chunk.rows == 0 || chunk.rows + steps.active(chunk.end) <= capacity))
        chunk.rows += steps.active(chunk.end++);
      if (steps.down) chunk.base -= chunk.rows;
      address_rows(chunk);
      if (gates_again && saved_count(kind)) {
        recompute(chunk);
        wait_for_all();
      }
      for (; u < chunk.end; ++u) {
        const int64_t active = steps.active(u);
        if (steps.down) row0 -= active;
        const Mode was = mode;
        mode = mode_of(active, team, minimum(panels, h_panels), gates * hidden * output);
        if (mode == kByColumns && u < alone_until) mode = kAlone;
        if (u > 0 && (mode == kByColumns || mode != was)) {
          const int64_t alone = padless::wait_for_team(team, mode == was && u > chunk.begin);
          if (alone > 0) {
            alone_until = u + alone;
            mode = kAlone;
          }
        }
        const Lane lane = lane_of(mode, team, panels), h_lane = lane_of(mode, team, h_panels);
        if (projects()) {
          output_gradient(u, h_lane, chunk, row0, from);
          if (mode == kByColumns) {
            const int64_t alone = padless::wait_for_team(team, true);
            if (alone > 0) alone_until = u + 1 + alone;
          }
          step_projected(u, lane, chunk, row0);
        } else {
          step(u, lane, chunk, row0, from);
        }
        leave(lane, h_lane, active, steps.active(u - 1), from);
        from = chunk.gradient_rows.from(row0 - chunk.base);
        if (!steps.down) row0 += active;
      }
      wait_for_all();
      input_gradient(chunk);
      weight_gradients(chunk);
    }
    leave(lane_of(mode, team, panels), lane_of(mode, team, h_panels), 0, steps.active(steps.count - 1), from);
    finish_sums();
  }
};
