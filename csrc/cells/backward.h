// Backward pass of one layer in one direction, a chunk of steps at a time: [gates again,] the recurrence of the gradient, then
// that chunk's share of dx, dW and db. So gate gradients need only a buffer of chunk size instead of (N, 4H), and the products that
// sum over rows find their operands in the cache.
//
// The worker's lanes are those of steps.h. dW is split by its own rows and not by those of the batch: every thread sums
// over all rows in the same order, so the number of threads does not change it.
//
// With a projection a step is two products: the gradient of h, then that of o tanh(c) from it (with columns split, a barrier
// between). Both are stored in buffers of chunk size, whose product is the chunk's share of dW_hr.
#pragma once

// Rows of a chunk, unless one step has more; and rows added to dW at once, whose panel of 32 KB stays in the first-level cache.
constexpr int64_t chunk_rows_of(int parts) { return parts == 1 ? 256 : 384; }
constexpr int64_t sum_rows(int parts) { return parts == 1 ? 256 : 128; }
constexpr int64_t sum_stride(int parts) { return sum_rows(parts) + 32; }  // of transposed gradients: no power of two
static_assert(PADLESS_STEP_ROWS <= sum_rows(0), "the weights' gradients of a single step are written once, without other rows' sums");

template <class T, template <class, int> class Cell, int Parts> struct Backward {
  typedef typename ElementOf<T, Parts>::Type Element;
  static constexpr int64_t kind = Cell<T, Parts>::kind;
  static constexpr int W = kWidth<T>, gates = gate_count(kind);
  static constexpr int sum_tile = Parts ? kTileRows : kAccumulators / 4;  // rows of dW in a block

  const padless_problem& p;
  const padless::Team team;
  const Steps steps;
  const BackwardWeights<T, Parts> weights;
  const Panels<T, Parts> units;  // of hidden units
  const int64_t hidden, output, input, state_stride, gate_width, capacity;  // output: width of h
  T *dh, *dc, *zeros, *gates_again, *sum_ih, *sum_hh;                                         // shared
  T *unprojected[2], *sum_hr;                  // with a projection: o tanh(c) of the chunk's rows, state_stride apart
  T *product, *panel_rows;                     // this worker's, as all below
  int64_t* x_row;                              // of the chunk's rows
  StateRow* h_row;                             // h before them
  T* recompute_sums;                           // where gates are computed again: input products of a block of rows,
  Operand<T, Parts> recompute_x, recompute_h;  // and its x and h
  // What products read: gradients of the gates and, with a projection, of h, by chunk (shared); dW's operands (this worker's).
  Operand<T, Parts> gradient_rows[2], d_output_rows[2];
  Operand<T, Parts> sum_left;
  Element* sum_right;
  T* block_rows;             // a block of rows of dW
  T *step_sums, *step_rows;  // with unpacked weights: blocks of columns of sums, and of the rows that gradients are multiplied by
  bool sums_begun = false;  // whether dW and db hold the sums of earlier rows

  Backward(const padless_problem& problem, const padless::Team& t)
      : p(problem), team(t), steps(problem, problem.reverse == 0),
        weights(layer_of(problem), problem.backward_weights), units(projects() ? weights.projection : weights.hidden),
        hidden(problem.hidden_size), output(output_width(layer_of(problem))), input(problem.input_size),
        state_stride(state_stride_of(problem)),
        gate_width(padded_hidden(problem.hidden_size)), capacity(maximum(most_active(problem), minimum(chunk_rows_of(Parts), problem.rows))) {
    carve((uintptr_t)p.scratch, team.rank);
  }

  static int64_t scratch_bytes(const padless_problem& p) { return Backward(p, {0, 1, nullptr, 0}).carve(0, p.threads - 1); }

  // Lays out the team's buffers and those of one worker from an address on; returns the address after the worker's.
  int64_t carve(uintptr_t base, int64_t rank) {
    ScratchCursor cursor = {base};
    carve_shared(cursor);
    const uintptr_t shared_end = cursor.at;
    carve_own(cursor);
    const int64_t own_bytes = cursor.at - shared_end;
    cursor.at = shared_end + rank * own_bytes;
    carve_own(cursor);
    return cursor.at;
  }
  void carve_shared(ScratchCursor& cursor) {
    const int64_t spare = Parts ? kTileRows * p.threads : 0;  // AMX reads whole tiles of rows
    dh = cursor.take<T>((most_active(p) + spare) * state_stride);
    dc = cursor.take<T>((most_active(p) + spare) * state_stride);
    zeros = cursor.take<T>(kZeros);
    gates_again = recomputes() ? cursor.take<T>(capacity * saved_count(kind) * gate_width) : nullptr;
    sum_ih = take_sums(cursor, p.dw_ih, gates * hidden, input);
    sum_hh = take_sums(cursor, p.dw_hh, gates * hidden, output);
    for (T*& each : unprojected) each = projects() ? cursor.take<T>(capacity * state_stride) : nullptr;
    sum_hr = projects() ? take_sums(cursor, p.dw_hr, output, hidden) : nullptr;
    for (int i = 0; i < 2; ++i) {
      if constexpr (Parts > 0) {
        gradient_rows[i] = take_rows<T, Parts>(cursor, capacity + spare, gradient_count(kind) * hidden);
        d_output_rows[i] = projects() ? take_rows<T, Parts>(cursor, capacity + spare, output) : Operand<T, Parts>{};
      } else {
        const int64_t stride = round_up(gradient_count(kind) * hidden, 16) + 16;
        gradient_rows[i] = {cursor.take<T>(capacity * stride), stride, 0};
        d_output_rows[i] = {projects() ? cursor.take<T>(capacity * state_stride) : nullptr, state_stride, 0};
      }
    }
  }
  void carve_own(ScratchCursor& cursor) {
    product = cursor.take<T>(buffer_rows(Parts) * 4 * W);
    panel_rows = Parts ? nullptr : cursor.take<T>(sum_rows(0) * 4 * W);
    x_row = cursor.take<int64_t>(capacity);
    h_row = cursor.take<StateRow>(capacity);
    if (recomputes()) {
      recompute_sums = cursor.take<T>(buffer_rows(Parts) * 4 * W);
      recompute_x = take_rows<T, Parts>(cursor, buffer_rows(Parts), input);
      recompute_h = take_rows<T, Parts>(cursor, buffer_rows(Parts), output);
    }
    if constexpr (Parts > 0) {
      const int64_t rows = round_up(maximum(gradient_count(kind) * hidden, p.projection_size), 32) + 32;
      sum_left = {cursor.take<Element>(Parts * rows * sum_stride(Parts)), sum_stride(Parts), rows * sum_stride(Parts)};
      sum_right = cursor.take<Element>(Parts * sum_rows(Parts) * 4 * W);
    }
    const int64_t widest = maximum(maximum(input, output), projects() ? hidden : 0);
    block_rows = Parts ? cursor.take<T>(sum_tile * vectors_of<T>(widest) * W) : nullptr;
    step_sums = unpacked() ? cursor.take<T>(maximum(capacity, kStepSums) * kStepColumns) : nullptr;
    step_rows = unpacked() ? cursor.take<T>(capacity * kStepColumns) : nullptr;
  }
  static constexpr int kZeros = 4 * W;  // a row of a panel, for products that start at zero
  // Where dW is summed: in the caller's memory, or here if its rows are not whole vectors or, with products of bfloat16 numbers, not
  // whole blocks. GRU's two runs of rows have one block more.
  T* take_sums(ScratchCursor& cursor, void* dw, int64_t rows, int64_t columns) const {
    if (unpacked() || sums_in_place(rows, columns)) return (T*)dw;
    return cursor.take<T>((Parts ? (sum_blocks(rows) + 1) * sum_tile : rows) * vectors_of<T>(columns) * W);
  }
  static bool sums_in_place(int64_t rows, int64_t columns) {
    return columns % W == 0 && (!Parts || (kind == PADLESS_GRU ? rows / gates : rows) % sum_tile == 0);
  }
  static int64_t sum_blocks(int64_t rows) { return (rows + sum_tile - 1) / sum_tile; }

  bool projects() const { return kind == PADLESS_LSTM && p.projection_size > 0; }
  // Whether the weights are the caller's, for a single step.
  bool unpacked() const { return Parts == 0 && p.w_hh; }
  // Whether forward saved no gates.
  bool recomputes() const { return saved_count(kind) > 0 && !p.gates; }

  void wait_for_all() const {
    if (team.size > 1) padless::wait_for_team(team, false);
  }

  StateRow state_of(const void* base, int64_t stride, int64_t slot) const {
    return {state_row<T>(p, base, stride, slot), p.narrow_states != 0};
  }
  StateRow y_row(int64_t t, int64_t slot) const {
    return {element_of<T>(p.y, (p.y_step[t] + p.y_sequence[slot]) * p.y_stride, p.narrow_y), p.narrow_y != 0};
  }

  // A chunk: steps [begin, end) in the order of processing, rows [base, base + rows).
  struct Chunk {
    int64_t begin, end, base, rows;
    T* unprojected;
    Operand<T, Parts> gradient_rows, d_output_rows;
  };

  // The step before time t in the forward pass: `count` of the slots at t have rows there, the first of them row `row0`.
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
        h_row[i] = slot < b.count ? y_row(b.t, slot) : state_of(p.h0, p.h0_stride, slot);
      }
      if (!steps.down) row0 += active;
    }
  }

  // A step as one worker computes it.
  struct StepPart {
    const Chunk& chunk;
    int64_t u, t, row0;  // in the order of processing, in time; the row of its slot 0 in gates and cells
    Lane lane;
    int64_t count, going;  // slots of the lane, and those of them with a row in the step processed before, which follows in time
    int64_t chunk_row(int64_t slot) const { return row0 - chunk.base + slot; }
  };
  StepPart part_of(const Chunk& chunk, int64_t u, int64_t row0, const Lane& lane) const {
    const int64_t active = steps.active(u);
    return {chunk, u, steps.time(u), row0, lane, lane.count(active), lane.count(minimum(active, steps.active(u - 1)))};
  }

  // Where a product starts: at rows `stride` apart or, for null, at zero.
  Start<T> start_of(int nv, const T* at, int64_t stride) const {
    Start<T> start = {};
    if (!at && starts_empty(Parts)) return start;
    for (int v = 0; v < nv; ++v) {
      start.at[v] = (at ? at : zeros) + v * W;
      start.stride[v] = at ? stride : 0;
    }
    return start;
  }
  // Product of n rows with one panel.
  void multiply(const Panels<T, Parts>& w, int64_t panel, const Operand<T, Parts>& rows, int64_t n, const T* start_at,
                int64_t start_stride, T* out, const Prefetch& prefetch = {}) const {
    const int nv = (int)w.size(panel);
    Start<T> start = start_of(nv, start_at, start_stride);
    multiply_panel(w, panel, rows, n, start, out, nv * W, prefetch);
  }

  // Gradient of h before the step whose gradient rows begin at `later_rows` (slot 0), for the slots of a block, into `product`.
  void recurrent_product(int64_t panel, const Operand<T, Parts>& later_rows, const Lane& lane, int64_t slot, int64_t n,
                         const Prefetch& prefetch = {}) const {
    const bool passes_by = kind == PADLESS_GRU;  // a part of the gradient, in dh, reaches h without a product
    const Operand<T, Parts> rows = later_rows.from(slot, kind == PADLESS_GRU ? hidden : 0).every(lane.slot_step);
    const T* start = passes_by ? dh + slot * state_stride + weights.hidden.first(panel) * W : nullptr;
    multiply(weights.hidden, panel, rows, n, start, lane.slot_step * state_stride, product, prefetch);
  }

  void store_state(void* base, int64_t stride, int64_t slot, int64_t unit, const T* from, int64_t count) const {
    copy_stored<T>(state_row<T>(p, base, stride, slot, unit), p.narrow_states, from, false, count);
  }

  // The gradients of the initial states of the slots [staying, active), whose first step is the one with the gradient rows `later_rows`.
  void store_initial_gradients(const Lane& lane, const Lane& h_lane, int64_t staying, int64_t active,
                               const Operand<T, Parts>& later_rows) const {
    if (staying >= active) return;
    const int64_t n = lane.count(active), left = lane.count(staying);
    for (int64_t panel = h_lane.panel; p.dh0 && !unpacked() && panel < h_lane.panel_end; ++panel) {
      const int nv = (int)weights.hidden.size(panel);
      const int64_t unit = weights.hidden.first(panel) * W, count = minimum(nv * W, output - unit);
      for (int64_t i = left; i < n; i += most_rows(Parts, 4)) {
        const int64_t size = minimum(most_rows(Parts, 4), n - i), slot = lane.slot + i * lane.slot_step;
        recurrent_product(panel, later_rows, lane, slot, size);
        for (int64_t r = 0; r < size; ++r)
          store_state(p.dh0, p.dh0_stride, slot + r * lane.slot_step, unit, product + r * nv * W, count);
      }
    }
    if (kind != PADLESS_LSTM || !p.dc0 || lane.panel == lane.panel_end) return;
    const int64_t unit = units.first(lane.panel) * W, count = minimum(hidden, units.first(lane.panel_end) * W) - unit;
    for (int64_t i = left, slot = lane.slot + left * lane.slot_step; i < n; ++i, slot += lane.slot_step)
      store_state(p.dc0, p.dc0_stride, slot, unit, dc + slot * state_stride + unit, count);
  }

  // The cell's gradients of `size` rows of the lane, the i-th and those after it; `later`: gradients of their h from later steps.
  void process_block(const StepPart& part, int64_t panel, int64_t i, int64_t size, const T* later) const {
    const int nv = (int)units.size(panel);
    const int64_t slot_step = part.lane.slot_step, slot = part.lane.slot + i * slot_step;
    const int64_t row = part.row0 + slot, chunk_row = part.chunk_row(slot), saved = saved_count(kind) * gate_width;
    StateRow h_before[buffer_rows(Parts)];
    StateRow c_before[buffer_rows(Parts)];
    const Before b = before(part.t, part.row0);
    for (int64_t r = 0; r < size; ++r) {
      const int64_t own = slot + r * slot_step;
      h_before[r] = h_row[part.chunk_row(own)];
      if (kind == PADLESS_LSTM)
        c_before[r] = own < b.count ? StateRow{(const T*)p.cells + (b.row0 + own) * gate_width, false} : state_of(p.c0, p.c0_stride, own);
    }
    BackwardBlock<T> e;
    e.rows = size;
    e.product_stride = nv * W;
    e.narrow_y = p.narrow_y;
    e.dy_stride = p.dy_stride;
    e.y_stride = p.y_stride;
    e.y_sequence = p.y_sequence + slot;
    e.slot_step = slot_step;
    e.narrow_gates = p.narrow_gates && !gates_again;
    e.gates_stride = slot_step * saved;
    e.gate_width = gate_width;
    e.cells_stride = slot_step * gate_width;
    e.h_before = h_before;
    e.c_before = c_before;
    e.state_stride = slot_step * state_stride;
    const Operand<T, Parts> gradients = part.chunk.gradient_rows.from(chunk_row);
    e.gradients_stride = slot_step * gradients.stride;
    e.gradients_part = gradients.part;
    e.hidden = hidden;
    for (int v = 0; v < nv; ++v) {
      const int64_t unit = (units.first(panel) + v) * W;
      e.product = later + v * W;
      e.dy = p.dy && !projects() ? element_of<T>(p.dy, p.y_step[part.t] * p.dy_stride + unit, p.narrow_y) : nullptr;
      e.y = element_of<T>(p.y, p.y_step[part.t] * p.y_stride + unit, p.narrow_y);
      e.gates = gates_again ? gates_again + chunk_row * saved + unit : element_of<T>(p.gates, row * saved + unit, p.narrow_gates);
      e.cells = (const T*)p.cells + row * gate_width + unit;
      e.dh = dh + slot * state_stride + unit;
      e.dc = dc + slot * state_stride + unit;
      e.gradients = gradients.at + unit;
      e.unprojected = projects() ? part.chunk.unprojected + chunk_row * state_stride + unit : nullptr;
      e.unit = unit;
      e.units = hidden - unit;
      backward(e, Cell<T, Parts>());
    }
  }

  // `later_rows`: gradient rows of the step processed before this one.
  void step(const StepPart& part, const Operand<T, Parts>& later_rows) const {
    const Lane& lane = part.lane;
    if (lane.panel == lane.panel_end) return;
    const int64_t panels = lane.panel_end - lane.panel;
    const bool descending = part.u & 1;
    const bool prefetching = weights.hidden.bytes() > team.l2_bytes;  // as in the forward pass
    load_final_cell_gradients(part);
    for (int64_t q = 0; q < panels; ++q) {
      const int64_t panel = panel_at(lane, q, descending), other = panel_at(lane, q + 1, descending);
      const int nv = (int)weights.hidden.size(panel);
      const bool has_other = q + 1 < panels;
      if (Parts == 0 && part.going == 1 && has_other && nv == 4 && weights.hidden.size(other) == 4) {
        step_pair(part, panel, other, later_rows);
        process_ended_slots(part, panel);
        process_ended_slots(part, other);
        ++q;
        continue;
      }
      const Blocks blocks = blocks_of(part.going, Parts, nv);
      for (int64_t b = 0, i = 0; b < blocks.blocks; i += blocks.size(b++)) {
        const Prefetch prefetch = {prefetching && has_other ? weights.hidden.at(other) : nullptr, b, blocks.blocks};
        recurrent_product(panel, later_rows, lane, lane.slot + i * lane.slot_step, blocks.size(b), prefetch);
        process_block(part, panel, i, blocks.size(b), product);
      }
      process_ended_slots(part, panel);
    }
  }

  // One row of the lane, two panels at once.
  void step_pair(const StepPart& part, int64_t panel, int64_t other, const Operand<T, Parts>& later_rows) const {
    if constexpr (Parts == 0) {
      const T* rows = later_rows.from(part.lane.slot, kind == PADLESS_GRU ? hidden : 0).at;
      Start<T> start = {}, other_start = {};
      for (int v = 0; v < 4; ++v) {
        const T* state = dh + part.lane.slot * state_stride + v * W;
        start.at[v] = kind == PADLESS_GRU ? state + weights.hidden.first(panel) * W : zeros;
        other_start.at[v] = kind == PADLESS_GRU ? state + weights.hidden.first(other) * W : zeros;
      }
      T* other_product = product + 4 * W;
      tile_pair<T, 4>(rows, weights.hidden.at(panel), weights.hidden.at(other), weights.hidden.k_count, &start, &other_start,
                      product, other_product);
      process_block(part, panel, 0, 1, product);
      process_block(part, other, 0, 1, other_product);
    }
  }

  // Slots of the lane that end with this step: nothing but dh_n reaches their h.
  void process_ended_slots(const StepPart& part, int64_t panel) const {
    for (int64_t i = part.going; i < part.count; i += most_rows(Parts, 4)) {
      const int64_t size = minimum(most_rows(Parts, 4), part.count - i);
      load_final_gradients(part.lane, panel, i, size);
      process_block(part, panel, i, size, product);
    }
  }
  void load_final_gradients(const Lane& lane, int64_t panel, int64_t i, int64_t size) const {
    const int64_t nv = weights.hidden.size(panel), unit = weights.hidden.first(panel) * W;
    for (int64_t r = 0; r < size; ++r) {
      const StateRow h = state_of(p.dh_n, p.dh_n_stride, lane.slot + (i + r) * lane.slot_step);
      for (int64_t v = 0; v < nv; ++v) store(product + (r * nv + v) * W, load_row<T>(h, unit + v * W, output - unit - v * W));
    }
  }
  // Likewise nothing but dc_n reaches their cells.
  void load_final_cell_gradients(const StepPart& part) const {
    if (kind != PADLESS_LSTM) return;
    const Lane& lane = part.lane;
    const int64_t end = minimum(units.vectors, units.first(lane.panel_end)) * W;
    for (int64_t i = part.going; i < part.count; ++i) {
      const int64_t slot = lane.slot + i * lane.slot_step;
      const StateRow c = state_of(p.dc_n, p.dc_n_stride, slot);
      for (int64_t at = units.first(lane.panel) * W; at < end; at += W)
        store(dc + slot * state_stride + at, load_row<T>(c, at, hidden - at));
    }
  }

#include "backward_projection.h"
#include "backward_sums.h"
#include "backward_step.h"

  // Zeros in the columns past the last, which are never written again: AMX reads them.
  void clear_end(const Operand<T, Parts>& rows, int64_t columns) const {
    if constexpr (Parts > 0)
      for (int64_t q = 0; q < Parts; ++q)
        for (int64_t r = team.rank; r < rows.part / rows.stride; r += team.size)
          for (int64_t c = columns; c < rows.stride; ++c) rows.at[q * rows.part + r * rows.stride + c] = 0;
  }

  // Sequences of length 0: gradients of initial states are those of final states.
  void pass_gradients_through() const {
    for (int64_t slot = most_active(p) + team.rank; slot < p.batch; slot += team.size) {
      if (p.dh0) copy_state_row<T>(p, p.dh0, p.dh0_stride, p.dh_n, p.dh_n_stride, slot, output);
      if (kind == PADLESS_LSTM && p.dc0) copy_state_row<T>(p, p.dc0, p.dc0_stride, p.dc_n, p.dc_n_stride, slot, hidden);
    }
  }

  void run() {
    const TileScope<Parts> scope;
    pass_gradients_through();
    if (team.rank == 0) copy_or_zero<T>(zeros, nullptr, kZeros);
    if constexpr (Parts > 0)
      for (int i = 0; i < 2; ++i) {
        clear_end(gradient_rows[i], gradient_count(kind) * hidden);
        if (projects()) clear_end(d_output_rows[i], output);
      }
    wait_for_all();
    const int64_t panels = units.count(), h_panels = weights.hidden.count();
    Operand<T, Parts> later_rows = {};
    Mode mode = kByRows;
    int64_t row0 = steps.down ? p.rows : 0, which = 0, alone_until = 0;
    for (int64_t u = 0; u < steps.count;) {
      Chunk chunk = {u, u, row0, 0, unprojected[which], gradient_rows[which], d_output_rows[which]};
      which ^= 1;
      while (chunk.end < steps.count && (chunk.rows == 0 || chunk.rows + steps.active(chunk.end) <= capacity))
        chunk.rows += steps.active(chunk.end++);
      if (steps.down) chunk.base -= chunk.rows;
      address_rows(chunk);
      if (recomputes()) {
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
          write_output_gradient(part_of(chunk, u, row0, h_lane), later_rows);
          if (mode == kByColumns) {
            const int64_t alone = padless::wait_for_team(team, true);
            if (alone > 0) alone_until = u + 1 + alone;
          }
          step_projected(part_of(chunk, u, row0, lane));
        } else {
          step(part_of(chunk, u, row0, lane), later_rows);
        }
        store_initial_gradients(lane, h_lane, active, steps.active(u - 1), later_rows);
        later_rows = chunk.gradient_rows.from(row0 - chunk.base);
        if (!steps.down) row0 += active;
      }
      wait_for_all();
      write_input_gradient(chunk);
      add_weight_gradients(chunk);
    }
    const int64_t left = steps.active(steps.count - 1);
    if (unpacked()) store_step_gradient(later_rows, left);
    store_initial_gradients(lane_of(mode, team, panels), lane_of(mode, team, h_panels), 0, left, later_rows);
    finish_sums();
  }
};
