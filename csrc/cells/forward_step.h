// Members of Forward (forward.h): the input products of a chunk, and a step.

  // A step as one worker computes it.
  struct StepPart {
    int64_t s, t, row0;  // in the order of processing, in time; the row of its slot 0 in gates and cells
    Lane lane;
    bool in_chunk;  // its input product is in `chunk`, from row chunk_row on; else it computes that itself
    int64_t chunk_row;
  };

  void gather_x(int64_t t, const Lane& lane, int64_t n, const Operand<T, Parts>& to) const {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = (p.x_step[t] + p.x_sequence[lane.slot + i * lane.slot_step]) * p.x_stride;
      if constexpr (Parts == 0) copy(to.at + i * to.stride, (const T*)p.x + at, p.input_size);
      else if (p.narrow_rows) put_row(to, i, (const uint16_t*)p.x + at, p.input_size, true);
      else put_row(to, i, (const T*)p.x + at, p.input_size);
    }
  }

  // How many of two panels a product of unpacked weights takes at once: it is for one row and whole panels. `has_other`: there
  // is a second.
  int unpacked_panels(int64_t rows, int64_t panel, int64_t other, bool has_other) const {
    if constexpr (Parts == 0) {
      const Panels<T, 0>& w = weights.hidden;
      if (unpacked() && rows == 1 && is_whole(w, panel, hidden))
        return has_other && is_whole(w, other, hidden) && w.tile(other) == w.tile(panel) ? 2 : 1;
    }
    return 0;
  }

  Start<T> input_start(int64_t panel) const {
    Start<T> start = {};
    for (int v = 0; v < tile_width; ++v) start.at[v] = bias() + (weights.input.first(panel) * gates + v) * W;
    return start;
  }
  // `data`: where the panel lies.
  void input_product(const Element* data, int64_t panel, const Operand<T, Parts>& x, int64_t n, T* out,
                     const Prefetch& prefetch = {}) const {
    Start<T> start = input_start(panel);
    multiply_panel_at(data, weights.input, panel, x, n, start, out, weights.input.tile(panel) * W, prefetch);
  }

  T* chunk_panel(int64_t panel) const { return chunk + weights.input.first(panel) * gates * W * chunk_rows; }

  // Input products of the steps [s, end) for the lane, into `chunk`.
  void multiply_chunk(int64_t s, int64_t end, const Lane& lane) const {
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

  void step(const StepPart& part) const {
    const Lane& lane = part.lane;
    const int64_t n = lane.count(steps.active(part.s)), panels = lane.panel_end - lane.panel;
    if (!part.in_chunk) gather_x(part.t, lane, n, x_rows);
    const bool prefetching = prefetches(!part.in_chunk);
    const bool descending = part.s & 1;  // odd steps begin with the panels that are still in a cache
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t panel = descending ? lane.panel_end - 1 - i : lane.panel + i;
      const int64_t other = descending ? panel - 1 : panel + 1;
      const int nv = weights.hidden.tile(panel);
      const bool has_other = i + 1 < panels;
      if (const int count = part.in_chunk ? unpacked_panels(n, panel, other, has_other) : 0) {
        step_unpacked(part, panel, other, count);
        i += count - 1;
        continue;
      }
      if (Parts == 0 && n == 1 && has_other && !unpacked())
        if (nv == tile_width && weights.hidden.tile(other) == nv) {
          step_pair(part, panel, other);
          ++i;
          continue;
        }
      const bool prefetches_other = prefetching && has_other;
      const Blocks blocks = Blocks::of(n, most_rows(Parts, nv));
      const Element* data = nullptr;
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++)) {
        const int64_t size = blocks.size(b), slot = lane.slot + row * lane.slot_step;
        T* in = input_sums;
        if (part.in_chunk) in = chunk_panel(panel) + (part.chunk_row + row) * nv * W;
        else
          input_product(panel_of(weights.input, panel, p.w_ih), panel, x_rows.from(row), size, in,
                        {prefetches_other ? weights.input.at(other) : nullptr, b, blocks.blocks});
        if (b == 0 || !part.in_chunk) data = panel_of(weights.hidden, panel, p.w_hh);  // the input's panel may have taken its place
        Start<T> start = hidden_start(panel, in, size);
        multiply_panel_at(data, weights.hidden, panel, rows_before(part.s).from(slot).every(lane.slot_step), size, start, hidden_sums,
                          nv * W, {prefetches_other ? weights.hidden.at(other) : nullptr, b, blocks.blocks});
        finish_block(part, panel, slot, size, in, hidden_sums);
      }
    }
  }

  // A step with one row in the lane (in a chunk always), two panels at once.
  void step_pair(const StepPart& part, int64_t panel, int64_t other) const {
    if constexpr (Parts == 0) {
      const int64_t slot = part.lane.slot;
      const T *in = chunk_panel(panel) + part.chunk_row * tile_width * W, *other_in = chunk_panel(other) + part.chunk_row * tile_width * W;
      const Start<T> start = hidden_start(panel, in, 1), other_start = hidden_start(other, other_in, 1);
      T* other_out = hidden_sums + tile_width * W;
      tile_pair<T, tile_width>(h_before(part.s) + slot * state_stride, weights.hidden.at(panel), weights.hidden.at(other), output,
                               &start, &other_start, hidden_sums, other_out);
      finish_block(part, panel, slot, 1, in, hidden_sums);
      finish_block(part, other, slot, 1, other_in, other_out);
    }
  }

  // A step with one row in the lane, in a chunk, where weights are unpacked: `panel`, and `other` where `count` is 2.
  void step_unpacked(const StepPart& part, int64_t panel, int64_t other, int count) const {
    if constexpr (Parts == 0) {
      const int nv = weights.hidden.tile(panel);
      const int64_t both[2] = {panel, other}, slot = part.lane.slot;
      const T* in[2];
      Start<T> start[2];
      T* const out[2] = {hidden_sums, hidden_sums + nv * W};
      for (int i = 0; i < count; ++i) {
        in[i] = chunk_panel(both[i]) + part.chunk_row * nv * W;
        start[i] = hidden_start(both[i], in[i], 1);
      }
      multiply_unpacked(weights.hidden, both, count, (const T*)p.w_hh, hidden, h_before(part.s) + slot * state_stride, start, out);
      for (int i = 0; i < count; ++i) finish_block(part, both[i], slot, 1, in[i], out[i]);
    }
  }

  // The hidden product continues the chain of the input product; GRU's n gate starts one of its own.
  Start<T> hidden_start(int64_t panel, const T* in, int64_t rows) const {
    const int nv = weights.hidden.tile(panel);
    Start<T> start = {};
    for (int v = 0; v < nv; ++v) {
      start.at[v] = in + v * W;
      start.stride[v] = nv * W;
    }
    if (kind == PADLESS_GRU)
      start_apart(start, hidden_bias() + weights.hidden.first(panel) * W, in, weights.hidden, panel, rows, hidden_sums);
    return start;
  }

  // The cell on a finished product of `size` rows of the lane, the first of them of `slot`.
  void finish_block(const StepPart& part, int64_t panel, int64_t slot, int64_t size, const T* in, const T* done) const {
    const int64_t slot_step = part.lane.slot_step, row = part.row0 + slot;
    for (int64_t v = 0; v < weights.hidden.size(panel); ++v) {
      const int64_t unit = (weights.hidden.first(panel) + v) * W;
      ForwardBlock<T> e;
      e.rows = size;
      e.product = done + v * gates * W;
      e.product_stride = e.input_n_stride = weights.hidden.tile(panel) * W;
      e.gate_step = weights.hidden.gate_step(panel);
      e.input_n = in + 2 * e.gate_step;
      e.h = h_before(part.s) + slot * state_stride + unit;
      e.h_next = (projects() ? unprojected : h_after(part.s)) + slot * state_stride + unit;
      e.c = c + slot * state_stride + unit;
      e.state_stride = slot_step * state_stride;
      e.gates = p.gates && saved_count(kind) ? saved_at<Parts>((const T*)p.gates, row * saved_stride + unit, p) : nullptr;
      e.narrow_gates = Parts && p.narrow_gates;
      e.gates_stride = slot_step * saved_stride;
      e.gate_width = cells_stride;
      e.cells = p.cells && kind == PADLESS_LSTM ? (T*)p.cells + row * cells_stride + unit : nullptr;
      e.cells_stride = slot_step * cells_stride;
      e.y = projects() || (Parts && p.narrow_rows) ? nullptr : (T*)p.y + p.y_step[part.t] * p.y_stride + unit;
      e.y_stride = p.y_stride;
      e.y_sequence = p.y_sequence + slot;
      e.slot_step = slot_step;
      e.units = hidden - unit;
      Cell<T>::forward(e);
      if constexpr (Parts > 0) {
        if (projects()) put_parts_of_rows(unprojected_rows, e.h_next, slot, slot_step, size, unit, hidden, nullptr);
        else put_parts_of_rows(rows_after(part.s), e.h_next, slot, slot_step, size, unit, hidden, narrow_y(part.t));
      }
    }
  }

  // The rows of a step in the caller's bfloat16 y; null where y is not bfloat16.
  uint16_t* narrow_y(int64_t t) const { return p.narrow_rows ? (uint16_t*)p.y + p.y_step[t] * p.y_stride : nullptr; }

  // The vector of columns from `column` on of `size` new rows of states, for the next product, and for narrow_y's result where
  // that is not null.
  void put_parts_of_rows(const Operand<T, Parts>& to, const T* from, int64_t slot, int64_t slot_step, int64_t size, int64_t column,
                         int64_t columns, uint16_t* y) const {
    if constexpr (Parts > 0)
      for (int64_t r = 0; r < size; ++r) {
        const int64_t own = slot + r * slot_step;
        const Vec<T> v = load(from + r * slot_step * state_stride);
        const Halves halves = put_parts<Parts>(to.at + own * to.stride + column, to.part, v, columns - column, true);
        if (y) store_halves(y + p.y_sequence[own] * p.y_stride + column, halves, columns - column);
      }
  }
