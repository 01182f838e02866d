// Forward pass of one layer in one direction, for inference and training.
//
// A worker owns either some slots with all columns (rank, rank + size, ...: balanced within one row, no barrier) or, where
// few rows are active, all slots with some columns (one barrier a step). Where other load makes barriers slow, rank 0 takes
// some steps alone (team.h). The input product is computed step by step or, where steps have few rows, for a chunk of steps
// at once. Results are the same to the bit either way: see tile.h.
//
// With a projection a step is two products: the cells of all hidden units, then h from them (with columns split, a barrier
// between). `unprojected` then holds o tanh(c), which is h itself without a projection.
#pragma once

// A step of at least kDirectRows rows computes its own input product. Smaller steps are gathered into chunks of about
// kChunkRows rows; and larger ones too, where a step that reads both matrices would leave nothing of them in the cache.
constexpr int64_t kDirectRows = 24, kChunkRows = 96;
constexpr int64_t kTileChunkRows = 128;  // both, where bfloat16 numbers are multiplied
// With fewer rows per thread the columns of a step are split instead of its slots.
constexpr int64_t kColumnRows = 6;

// Multiplications per thread and step from which a barrier in every step is worth its time.
constexpr int64_t kColumnWork = 4096;

struct Lane {  // what one worker does of a step
  int64_t slot, slot_step, panel, panel_end;
  int64_t count(int64_t active) const { return active > slot ? (active - slot + slot_step - 1) / slot_step : 0; }
};

// Steps in the order of processing: forward walks s = t, reverse walks t = steps - 1 - s, over the steps that have rows.
struct Steps {
  const int64_t* batch_sizes;
  int64_t count;
  bool down;
  Steps(const padless_problem& p, bool walk_down) : batch_sizes(p.batch_sizes), count(p.steps), down(walk_down) {
    while (count > 0 && batch_sizes[count - 1] == 0) --count;
  }
  int64_t time(int64_t s) const { return down ? count - 1 - s : s; }
  int64_t active(int64_t s) const { return s < 0 || s >= count ? 0 : batch_sizes[time(s)]; }
};

enum Mode { kByRows, kByColumns, kAlone };

PADLESS_INLINE Mode mode_of(int64_t active, const padless::Team& team, int64_t panels, int64_t weights) {
  const bool columns = active < kColumnRows * team.size && panels >= team.size && active * weights >= kColumnWork * team.size;
  return team.size > 1 && columns ? kByColumns : kByRows;
}
PADLESS_INLINE Lane lane_of(Mode mode, const padless::Team& team, int64_t panels) {
  if (mode == kByRows) return {team.rank, team.size, 0, panels};
  if (mode == kAlone) return {0, 1, 0, team.rank ? 0 : panels};
  return {0, 1, panels * team.rank / team.size, panels * (team.rank + 1) / team.size};
}
struct ScratchCursor {
  char* at;
  template <class T> T* take(int64_t count) {
    T* p = (T*)at;
    at += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
    return p;
  }
};

template <class T> PADLESS_INLINE int64_t state_stride_of(const padless_problem& p) {
  return round_up(maximum(p.hidden_size, p.projection_size), 16) + 16;
}

template <class T> PADLESS_INLINE void copy(T* to, const T* from, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) store(to + i, load(from + i));
  if (i < n) store_first(to + i, load_first(from + i, n - i), n - i);
}
template <class T> PADLESS_INLINE void copy_or_zero(T* to, const T* from, int64_t n) {
  if (from) copy(to, from, n);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = 0;
}

// The sums of GRU's n gate start at its hidden bias and not at the input product `in`. Where the gate shares vectors with
// others, the starts are assembled in `mixed`, which may be the buffer that the product is written to.
template <class T, int Parts>
PADLESS_INLINE void start_apart(Start<T>& start, const T* bias, const T* in, const Panels<T, Parts>& w, int64_t panel, int64_t rows,
                                T* mixed) {
  if (!w.shares(panel)) {
    start.at[2] = bias;
    start.stride[2] = 0;
    return;
  }
  const int64_t step = w.gate_step(panel), stride = w.tile(panel) * kWidth<T>;
  copy(mixed, in, rows * stride);
  for (int64_t r = 0; r < rows; ++r) copy(mixed + r * stride + 2 * step, bias, step);
  for (int v = 0; v < w.tile(panel); ++v) start.at[v] = mixed + v * kWidth<T>;
}

// Element `at` of the saved gates, which are T or bfloat16.
template <int Parts, class T> PADLESS_INLINE void* saved_at(const T* gates, int64_t at, const padless_problem& p) {
  return Parts && p.narrow_gates ? (void*)((const uint16_t*)gates + at) : (void*)(gates + at);
}

template <class T, template <class> class Cell, int Parts> struct Forward {
  typedef typename ElementOf<T, Parts>::Type Element;
  static constexpr int64_t kind = Cell<T>::kind;
  static constexpr int W = kWidth<T>, gates = gate_count(kind);
  static constexpr int64_t most_chunk_rows = Parts ? kTileChunkRows : kChunkRows;
  static constexpr int tile_width = gates * panel_vectors(kind);  // vectors of a whole panel

  const padless_problem& p;
  const padless::Team team;
  const Steps steps;
  const ForwardWeights<T, Parts> weights;
  const int64_t hidden, output, state_stride, input_stride, saved_stride, cells_stride;  // output: width of h
  T *h[2], *c, *unprojected;        // [B, state_stride], shared by the team; the last with a projection only
  Operand<T, Parts> h_rows[2], unprojected_rows;  // the same as products read them
  Operand<T, Parts> x_rows;
  T *chunk, *input_sums, *hidden_sums;  // this worker's, as x_rows: products of a chunk, of a block
  T *panel_buffer, *bias_buffer;  // with unpacked weights: a panel, and the biases as packed weights have them
  int64_t chunk_rows;

  // Whether the weights that a step reads leave the second-level cache before the next step: panels are prefetched then.
  bool prefetches(bool has_input) const {
    return !unpacked() && weights.hidden.bytes() + (has_input ? weights.input.bytes() : 0) > team.l2_bytes;
  }

  // Rows of a step from which it computes its own input product.
  int64_t direct_rows() const {
    return Parts || weights.input.bytes() + weights.hidden.bytes() >= team.l2_bytes ? most_chunk_rows : kDirectRows;
  }

  // Whether panels are packed as they are needed.
  bool unpacked() const { return Parts == 0 && p.w_hh; }
  const T* bias() const { return unpacked() ? bias_buffer : weights.bias; }
  const T* hidden_bias() const { return unpacked() ? bias_buffer + weights.hidden.vectors * gates * W : weights.hidden_bias; }
  // The panel, to be used before the next one is asked for.
  const Element* panel_of(const Panels<T, Parts>& panels, int64_t panel, const void* raw) const {
    if constexpr (Parts == 0)
      if (unpacked()) {
        pack_panel(panels, panel, (const T*)raw, hidden, panel_buffer);
        return panel_buffer;
      }
    return panels.at(panel);
  }
  static int64_t unpacked_elements(const padless_problem& p) {  // of panel_buffer and bias_buffer
    if (Parts || !p.w_hh) return 0;
    const int64_t k = maximum(p.input_size, p.hidden_size);
    return round_up(tile_width * W * k, 16) + vectors_of<T>(p.hidden_size) * (gates + 1) * W;
  }

  bool projects() const { return kind == PADLESS_LSTM && p.projection_size > 0; }

  struct Sizes {
    int64_t shared, own, chunk_rows;
  };
  static Sizes sizes(const padless_problem& p, int64_t team) {
    const int64_t active = p.steps ? p.batch_sizes[0] : 0, stride = state_stride_of<T>(p), states = p.projection_size ? 4 : 3;
    const int64_t panels_width = vectors_of<T>(p.hidden_size) * gates * W;
    const int64_t chunk_rows = most_chunk_rows + maximum(most_chunk_rows, kColumnRows * team);  // a chunk, and one step more
    const int64_t rows = maximum(chunk_rows, (active + team - 1) / team);
    const int64_t tile = buffer_rows(Parts) * 4 * W, spare = Parts ? kTileRows : 0;
    const int64_t operands = operand_bytes<T, Parts>(active + spare * team, output_width(layer_of(p))) * 2 +
                             (p.projection_size ? operand_bytes<T, Parts>(active + spare * team, p.hidden_size) : 0);
    const int64_t element = Parts ? 2 * Parts : (int64_t)sizeof(T);
    return {(int64_t)sizeof(T) * states * active * stride + operands + 256,
            element * (rows + spare) * operand_stride<T, Parts>(p.input_size) +
                (int64_t)sizeof(T) * ((chunk_rows + spare) * panels_width + 2 * tile + unpacked_elements(p)) + 640,
            chunk_rows + spare};
  }
  static int64_t scratch_bytes(const padless_problem& p) {
    int64_t most = 0;  // OpenMP may grant fewer threads than were asked for
    for (int64_t team = 1; team <= p.threads; ++team) {
      const Sizes s = sizes(p, team);
      most = maximum(most, s.shared + team * s.own + 64);
    }
    return most;
  }

  Forward(const padless_problem& problem, const padless::Team& t)
      : p(problem), team(t), steps(problem, problem.reverse != 0),
        weights(layer_of(problem), problem.forward_weights),
        hidden(problem.hidden_size), output(output_width(layer_of(problem))), state_stride(state_stride_of<T>(problem)),
        input_stride(operand_stride<T, Parts>(problem.input_size)),
        saved_stride(saved_count(kind) * padded_hidden(problem.hidden_size)), cells_stride(padded_hidden(problem.hidden_size)) {
    const int64_t active = p.steps ? p.batch_sizes[0] : 0;
    const Sizes s = sizes(p, team.size);
    ScratchCursor shared = {(char*)p.scratch};
    h[0] = shared.take<T>(active * state_stride);
    h[1] = shared.take<T>(active * state_stride);
    c = shared.take<T>(active * state_stride);
    unprojected = projects() ? shared.take<T>(active * state_stride) : nullptr;
    if constexpr (Parts > 0) {
      const int64_t held = active + kTileRows * team.size;
      for (Operand<T, Parts>& each : h_rows) each = take_rows(shared, held, output);
      unprojected_rows = projects() ? take_rows(shared, held, hidden) : Operand<T, Parts>{};
    } else {
      for (int i = 0; i < 2; ++i) h_rows[i] = {h[i], state_stride, 0};
      unprojected_rows = {unprojected, state_stride, 0};
    }
    ScratchCursor own = {(char*)p.scratch + (s.shared + 63) / 64 * 64 + team.rank * (s.own / 64 * 64)};
    input_sums = own.take<T>(buffer_rows(Parts) * 4 * W);
    hidden_sums = own.take<T>(buffer_rows(Parts) * 4 * W);
    panel_buffer = bias_buffer = nullptr;
    if constexpr (Parts == 0)
      if (unpacked()) {
        panel_buffer = own.take<T>(round_up(tile_width * W * maximum(p.input_size, hidden), 16));
        bias_buffer = own.take<T>(weights.hidden.vectors * (gates + 1) * W);
        pack_biases(layer_of(p), weights.input, (const T*)p.b_ih, (const T*)p.b_hh, bias_buffer,
                    bias_buffer + weights.hidden.vectors * gates * W);
      }
    chunk_rows = s.chunk_rows;
    chunk = own.take<T>(chunk_rows * weights.input.vectors * gates * W);
    const int64_t most = maximum(most_chunk_rows + maximum(most_chunk_rows, kColumnRows * team.size),
                                 (active + team.size - 1) / team.size) + kTileRows;
    x_rows = {own.take<Element>(0), input_stride, most * input_stride};
  }
  static Operand<T, Parts> take_rows(ScratchCursor& cursor, int64_t rows, int64_t columns) {
    const int64_t stride = operand_stride<T, Parts>(columns);
    return {cursor.take<Element>(Parts * rows * stride), stride, rows * stride};
  }

  const T* state_row(const void* base, int64_t stride, int64_t slot) const {
    return base ? (const T*)base + (p.state_index ? p.state_index[slot] : slot) * stride : nullptr;
  }
  T* state_row(void* base, int64_t stride, int64_t slot) const {
    return base ? (T*)base + (p.state_index ? p.state_index[slot] : slot) * stride : nullptr;
  }

  void copy_state(T* to, const T* from, int64_t width) const {  // the padding is 0: subnormal numbers would be slow, and NaN would spread
    copy_or_zero(to, from, width);
    for (int64_t i = width; i < state_stride; ++i) to[i] = 0;
  }

  // Copies the initial states of the slots that begin at step s, shared out like rows unless rank 0 is alone.
  void load_initial_states(int64_t s, Mode mode) const {
    const int64_t begin = steps.active(s - 1), end = steps.active(s);
    if (mode == kAlone && team.rank) return;
    const Lane own = lane_of(mode == kAlone ? kAlone : kByRows, team, 0);
    for (int64_t slot = own.slot + own.count(begin) * own.slot_step; slot < end; slot += own.slot_step) {
      copy_state(h[s & 1] + slot * state_stride, state_row(p.h0, p.h0_stride, slot), output);
      if constexpr (Parts > 0) {
        put_row(h_rows[s & 1], slot, h[s & 1] + slot * state_stride, output);
        put_row(h_rows[~s & 1], slot, nullptr, output);  // its columns past the last stay zeros
        if (projects()) put_row(unprojected_rows, slot, nullptr, hidden);
      }
      if (kind == PADLESS_LSTM) copy_state(c + slot * state_stride, state_row(p.c0, p.c0_stride, slot), hidden);
    }
  }

  // Last state of the slots that end with step s, the lane's columns; h has a lane of its own.
  void store_final_states(int64_t s, const Lane& lane, const Lane& h_lane) const {
    if (p.h_n) store_final_state(s, h_lane, projects() ? weights.projection : weights.hidden, output, h[~s & 1], p.h_n, p.h_n_stride);
    if (kind == PADLESS_LSTM && p.c_n) store_final_state(s, lane, weights.hidden, hidden, c, p.c_n, p.c_n_stride);
  }
  void store_final_state(int64_t s, const Lane& lane, const Panels<T, Parts>& panels, int64_t width, const T* state, void* to,
                    int64_t to_stride) const {
    const int64_t active = steps.active(s), staying = minimum(active, steps.active(s + 1));
    if (staying == active || lane.panel == lane.panel_end) return;
    const int64_t unit = panels.first(lane.panel) * W, count = minimum(width, panels.first(lane.panel_end) * W) - unit;
    const int64_t skip = lane.count(staying);
    for (int64_t slot = lane.slot + skip * lane.slot_step; slot < active; slot += lane.slot_step)
      copy(state_row(to, to_stride, slot) + unit, state + slot * state_stride + unit, count);
  }

  void gather_x(int64_t t, const Lane& lane, int64_t n, const Operand<T, Parts>& to) const {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = (p.x_step[t] + p.x_sequence[lane.slot + i * lane.slot_step]) * p.x_stride;
      if constexpr (Parts == 0) copy(to.at + i * to.stride, (const T*)p.x + at, p.input_size);
      else if (p.narrow_rows) put_row(to, i, (const uint16_t*)p.x + at, p.input_size, true);
      else put_row(to, i, (const T*)p.x + at, p.input_size);
    }
  }

  Start<T> input_start(int64_t panel) const {
    Start<T> start = {};
    for (int v = 0; v < tile_width; ++v) start.at[v] = bias() + (weights.input.first(panel) * gates + v) * W;
    return start;
  }

  // How many of two panels a product of unpacked weights takes at once: it is for one row and whole panels. `has_other`: there is a second.
  int unpacked_panels(int64_t rows, int64_t panel, int64_t other, bool has_other) const {
    if constexpr (Parts == 0)
      if (unpacked() && rows == 1 && is_whole(weights.hidden, panel, hidden))
        return has_other && is_whole(weights.hidden, other, hidden) && weights.hidden.tile(other) == weights.hidden.tile(panel) ? 2 : 1;
    return 0;
  }

  // `data`: where the panel lies.
  void input_product(const Element* data, int64_t panel, const Operand<T, Parts>& x, int64_t n, T* out,
                     const Element* next = nullptr, int64_t b = 0, int64_t blocks = 1) const {
    const int nv = weights.input.tile(panel);
    Start<T> start = input_start(panel);
    multiply_panel_at(data, weights.input, panel, x, n, start, out, nv * W, next, b, blocks);
  }

  T* chunk_panel(int64_t panel) const { return chunk + weights.input.first(panel) * gates * W * chunk_rows; }

  // Input products of the steps [s, end) for the lane, into `chunk`.
  void input_chunk(int64_t s, int64_t end, const Lane& lane) const {
    int64_t rows = 0;
    for (int64_t i = s; i < end; ++i) {
      const int64_t n = lane.count(steps.active(i));
      gather_x(steps.time(i), lane, n, x_rows.from(rows));
      rows += n;
    }
    for (int64_t panel = lane.panel; panel < lane.panel_end; ++panel) {
      const int nv = weights.input.tile(panel);
      if (const int count = unpacked_panels(rows, panel, panel + 1, panel + 1 < lane.panel_end)) {
        const int64_t both[2] = {panel, panel + 1};
        const Start<T> start[2] = {input_start(panel), input_start(panel + 1)};
        T* const out[2] = {chunk_panel(panel), chunk_panel(panel + 1)};
        if constexpr (Parts == 0) multiply_unpacked(weights.input, both, count, (const T*)p.w_ih, hidden, x_rows.at, start, out);
        panel += count - 1;
        continue;
      }
      const Blocks blocks = Blocks::of(rows, most_rows(Parts, nv));
      T* out = chunk_panel(panel);
      const Element* data = panel_of(weights.input, panel, p.w_ih);
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++))
        input_product(data, panel, x_rows.from(row), blocks.size(b), out + row * nv * W);
    }
  }

  // Step s for the lane; row0: row of its slot 0 in gates and cells; at: its row in the chunk, or -1 where the step is in no chunk.
  void step(int64_t s, const Lane& lane, int64_t row0, int64_t at) const {
    const int64_t t = steps.time(s), n = lane.count(steps.active(s)), panels = lane.panel_end - lane.panel;
    if (at < 0) gather_x(t, lane, n, x_rows);
    const bool prefetching = prefetches(at < 0);
    const bool descending = s & 1;  // odd steps begin with the panels that are still in a cache
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t panel = descending ? lane.panel_end - 1 - i : lane.panel + i;
      const int nv = weights.hidden.tile(panel);
      const int64_t other = descending ? panel - 1 : panel + 1;
      if (const int count = at < 0 ? 0 : unpacked_panels(n, panel, other, i + 1 < panels)) {
        one_unpacked(s, t, lane, row0, panel, other, count, at);
        i += count - 1;
        continue;
      }
      if (Parts == 0 && n == 1 && i + 1 < panels && !unpacked()) {
        if (nv == tile_width && weights.hidden.tile(other) == nv) {
          pair(s, t, lane, row0, panel, other, at);
          ++i;
          continue;
        }
      }
      const Blocks blocks = Blocks::of(n, most_rows(Parts, nv));
      const Element* data = nullptr;
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++)) {
        const int64_t size = blocks.size(b);
        T* in = input_sums;
        const bool has_next = prefetching && i + 1 < panels;
        if (at < 0)
          input_product(panel_of(weights.input, panel, p.w_ih), panel, x_rows.from(row), size, input_sums,
                        has_next ? weights.input.at(other) : nullptr, b, blocks.blocks);
        else in = chunk_panel(panel) + (at + row) * nv * W;
        const int64_t slot = lane.slot + row * lane.slot_step;
        Start<T> start = hidden_start(panel, nv, in, size);
        const Element* next = has_next ? weights.hidden.at(other) : nullptr;
        if (b == 0 || at < 0) data = panel_of(weights.hidden, panel, p.w_hh);  // the input's panel may have taken its place
        multiply_panel_at(data, weights.hidden, panel, h_rows[s & 1].from(slot).every(lane.slot_step), size, start, hidden_sums,
                          nv * W, next, b, blocks.blocks);
        finish_block(s, t, lane, row0, panel, nv, slot, size, in, hidden_sums);
      }
    }
  }

  // Step s where it has one row in the lane (in a chunk always), two panels at once.
  void pair(int64_t s, int64_t t, const Lane& lane, int64_t row0, int64_t panel, int64_t other, int64_t at) const {
    if constexpr (Parts == 0) {
      const T *in = chunk_panel(panel) + at * tile_width * W, *other_in = chunk_panel(other) + at * tile_width * W;
      const Start<T> start = hidden_start(panel, tile_width, in, 1), other_start = hidden_start(other, tile_width, other_in, 1);
      T* other_out = hidden_sums + tile_width * W;
      tile_pair<T, tile_width>(h[s & 1] + lane.slot * state_stride, weights.hidden.at(panel), weights.hidden.at(other), output,
                               &start, &other_start, hidden_sums, other_out);
      finish_block(s, t, lane, row0, panel, tile_width, lane.slot, 1, in, hidden_sums);
      finish_block(s, t, lane, row0, other, tile_width, lane.slot, 1, other_in, other_out);
    }
  }

  // Step s where it has one row in the lane and weights are unpacked: `panel`, and `other` where `count` is 2.
  void one_unpacked(int64_t s, int64_t t, const Lane& lane, int64_t row0, int64_t panel, int64_t other, int count, int64_t at) const {
    if constexpr (Parts == 0) {
      const int nv = weights.hidden.tile(panel);
      const int64_t both[2] = {panel, other};
      const T* in[2];
      Start<T> start[2];
      T* const out[2] = {hidden_sums, hidden_sums + nv * W};
      for (int i = 0; i < count; ++i) {
        in[i] = chunk_panel(both[i]) + at * nv * W;
        start[i] = hidden_start(both[i], nv, in[i], 1);
      }
      multiply_unpacked(weights.hidden, both, count, (const T*)p.w_hh, hidden, h[s & 1] + lane.slot * state_stride, start, out);
      for (int i = 0; i < count; ++i) finish_block(s, t, lane, row0, both[i], nv, lane.slot, 1, in[i], out[i]);
    }
  }

  // The hidden product continues the chain of the input product; GRU's n gate starts one of its own.
  Start<T> hidden_start(int64_t panel, int nv, const T* in, int64_t rows) const {
    Start<T> start = {};
    for (int v = 0; v < nv; ++v) {
      start.at[v] = in + v * W;
      start.stride[v] = nv * W;
    }
    if (kind == PADLESS_GRU)
      start_apart(start, hidden_bias() + weights.hidden.first(panel) * W, in, weights.hidden, panel, rows, hidden_sums);
    return start;
  }

  // The cell on a finished product of the rows from `slot` on.
  void finish_block(int64_t s, int64_t t, const Lane& lane, int64_t row0, int64_t panel, int nv, int64_t slot, int64_t size,
                    const T* in, const T* done) const {
    const int64_t stride = lane.slot_step * state_stride;
    for (int64_t v = 0; v < weights.hidden.size(panel); ++v) {
      const int64_t unit = (weights.hidden.first(panel) + v) * W;
      ForwardBlock<T> e;
      e.rows = size;
      e.product = done + v * gates * W;
      e.gate_step = nv == tile_width ? W : weights.hidden.gate_step(panel);
      e.product_stride = nv * W;
      e.input_n = in + 2 * e.gate_step;
      e.input_n_stride = nv * W;
      e.h = h[s & 1] + slot * state_stride + unit;
      e.h_next = (projects() ? unprojected : h[~s & 1]) + slot * state_stride + unit;
      e.c = c + slot * state_stride + unit;
      e.state_stride = stride;
      e.gates = p.gates && saved_count(kind) ? saved_at<Parts>((const T*)p.gates, (row0 + slot) * saved_stride + unit, p) : nullptr;
      e.narrow_gates = Parts && p.narrow_gates;
      e.gates_stride = lane.slot_step * saved_stride;
      e.gate_width = cells_stride;
      e.cells = p.cells && kind == PADLESS_LSTM ? (T*)p.cells + (row0 + slot) * cells_stride + unit : nullptr;
      e.cells_stride = lane.slot_step * cells_stride;
      e.y = projects() || (Parts && p.narrow_rows) ? nullptr : (T*)p.y + p.y_step[t] * p.y_stride + unit;
      e.y_stride = p.y_stride;
      e.y_sequence = p.y_sequence + slot;
      e.slot_step = lane.slot_step;
      e.units = hidden - unit;
      Cell<T>::forward(e);
      if constexpr (Parts > 0)
        put_hidden_parts(projects() ? unprojected_rows : h_rows[~s & 1], e.h_next, stride, slot, lane.slot_step, size, unit, hidden,
                         projects() ? -1 : t);
    }
  }

  // The vector of columns from `column` on of `size` new rows of h, for the next product; and for the caller's bfloat16 y of
  // step `t` (-1: not that).
  void put_hidden_parts(const Operand<T, Parts>& to, const T* from, int64_t stride, int64_t slot, int64_t slot_step, int64_t size,
                        int64_t column, int64_t columns, int64_t t) const {
    if constexpr (Parts > 0)
      for (int64_t r = 0; r < size; ++r) {
        const int64_t own = slot + r * slot_step;
        const Vec<T> v = load(from + r * stride);
        const Halves halves = put_parts<Parts>(to.at + own * to.stride + column, to.part, v, columns - column, true);
        if (p.narrow_rows && t >= 0)
          store_halves((uint16_t*)p.y + (p.y_step[t] + p.y_sequence[own]) * p.y_stride + column, halves, columns - column);
      }
  }

#include "forward_projection.h"

  void run() const {
    const TileScope<Parts> scope;
    for (int64_t slot = steps.active(steps.down ? steps.count - 1 : 0) + team.rank; slot < p.batch; slot += team.size) {
      // Sequences of length 0 keep their state.
      if (p.h_n) copy_or_zero(state_row(p.h_n, p.h_n_stride, slot), state_row(p.h0, p.h0_stride, slot), output);
      if (kind == PADLESS_LSTM && p.c_n) copy_or_zero(state_row(p.c_n, p.c_n_stride, slot), state_row(p.c0, p.c0_stride, slot), hidden);
    }
    const int64_t panels = weights.hidden.count(), size = gates * hidden * output, direct = direct_rows();
    Mode mode = kByRows;
    int64_t chunk_end = 0, at = 0, row0 = steps.down ? p.rows : 0, alone_until = 0;
    for (int64_t s = 0; s < steps.count; ++s) {
      const int64_t active = steps.active(s);
      if (steps.down) row0 -= active;
      const Mode was = mode;
      mode = mode_of(active, team, panels, size);
      if (mode == kByColumns && s < alone_until) mode = kAlone;
      if (mode != was) chunk_end = s;
      Lane lane = lane_of(mode, team, panels);
      load_initial_states(s, mode);
      const auto multiply_input = [&] {
        if (lane.panel == lane.panel_end || s < chunk_end || lane.count(active) >= direct) return;
        int64_t rows = lane.count(active);
        for (chunk_end = s + 1; chunk_end < steps.count && rows < most_chunk_rows; ++chunk_end) {
          const int64_t next = steps.active(chunk_end);
          if (lane.count(next) >= direct || mode_of(next, team, panels, size) != mode_of(active, team, panels, size)) break;
          rows += lane.count(next);
        }
        at = 0;
        input_chunk(s, chunk_end, lane);
      };
      multiply_input();
      if (mode == kByColumns || mode != was) {
        const int64_t alone = padless::wait_for_team(team, mode == was && at > 0);
        if (alone > 0) {
          alone_until = s + alone;
          mode = kAlone;
          lane = lane_of(mode, team, panels);
          chunk_end = s;
          multiply_input();
        }
      }
      if (lane.panel < lane.panel_end) step(s, lane, row0, s < chunk_end ? at : -1);
      if (s < chunk_end) at += lane.count(active);
      Lane h_lane = lane;
      if (projects()) {
        h_lane = lane_of(mode, team, weights.projection.count());
        if (mode == kByColumns) {
          const int64_t alone = padless::wait_for_team(team, true);
          if (alone > 0) alone_until = s + 1 + alone;
        }
        project(s, h_lane);
      }
      store_final_states(s, lane, h_lane);
      if (!steps.down) row0 += active;
    }
  }
};
