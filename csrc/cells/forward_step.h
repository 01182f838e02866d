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
      put_row(to, i, element_of<T>(p.x, at, p.narrow_x), p.input_size, p.narrow_x);
    }
  }

  // How many panels the product of unpacked weights takes at once: 1 or 2, or 0 where it does not apply, since it is for one row and
  // whole panels. `has_other`: there is a second panel.
  int unpacked_panels(int64_t rows, int64_t panel, int64_t other, bool has_other) const {
    if constexpr (Parts == 0) {
      const Panels<T, 0>& w = weights.hidden;
      if (unpacked() && rows == 1 && is_whole(w, panel, hidden))
        return has_other && is_whole(w, other, hidden) && w.tile(other) == w.tile(panel) ? 2 : 1;
    }
    return 0;
  }

  // One row times one or two panels (`count`) of weights as the caller holds them.
  void multiply_unpacked_panels(const Panels<T, Parts>& w, const void* unpacked_weights, const int64_t* panel, int count,
                                const Operand<T, Parts>& row, const Start<T>* start, T* const* out) const {
    if constexpr (Parts == 0)
      given(unpacked_weights).with_type([&](const auto* from) { multiply_unpacked(w, panel, count, from, hidden, row.at, start, out); });
  }

  Start<T> input_start(int64_t panel) const {
    Start<T> start = {};
    for (int v = 0; v < tile_width; ++v) start.at[v] = bias() + (weights.input.first(panel) * gates + v) * W;
    return start;
  }
  // `data`: where the panel is stored.
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
        multiply_unpacked_panels(weights.input, p.w_ih, both, count, x_rows, start, out);
        panel += count - 1;
        continue;
      }
      const Blocks blocks = blocks_of(rows, Parts, nv);
      T* out = chunk_panel(panel);
      const Element* data = panel_of(weights.input, panel, p.w_ih);
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++))
        input_product(data, panel, x_rows.from(row), blocks.size(b), out + row * nv * W);
    }
  }

  // Cells to be computed, whose products are complete: vectors of a panel, rows of a block. Rows before `done` are computed.
  struct CellWork {
    ForwardBlock<T> blocks[panel_vectors(kind)];
    int64_t count, rows, done;
    void advance_to(int64_t row) {
      if (row <= done) return;
      for (int64_t v = 0; v < count; ++v) Cell<T, Parts>::forward(blocks[v], done, row);
      done = row;
    }
    void finish() { advance_to(rows); }
    static void advance(void* work, int64_t done, int64_t of) {
      CellWork& own = *(CellWork*)work;
      own.advance_to(own.rows * done / of);
    }
  };

  void step(const StepPart& part) const {
    const Lane& lane = part.lane;
    const int64_t n = lane.count(steps.active(part.s)), panels = lane.panel_end - lane.panel;
    if (!part.in_chunk) gather_x(part.t, lane, n, x_rows);
    const bool prefetching = prefetches(!part.in_chunk);
    const bool descending = part.s & 1;
    // The block that is multiplied and, with AMX, the one before, whose cells are computed meanwhile. They take turns, because a copy of
    // what was just written piecemeal would wait for the writes.
    CellWork works[2];
    int which = 0;
    works[1].rows = works[1].done = 0;
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t panel = panel_at(lane, i, descending), other = panel_at(lane, i + 1, descending);
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
      const Blocks blocks = blocks_of(n, Parts, nv);
      const Element* data = nullptr;
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++)) {
        const int64_t size = blocks.size(b), slot = lane.slot + row * lane.slot_step;
        T *in = input_sums[which], *const sums = hidden_sums[which];
        CellWork& before = works[which ^ 1];
        if (part.in_chunk) in = chunk_panel(panel) + (part.chunk_row + row) * nv * W;
        else
          input_product(panel_of(weights.input, panel, p.w_ih), panel, x_rows.from(row), size, in,
                        {prefetches_other ? weights.input.at(other) : nullptr, b, blocks.blocks});
        if (b == 0 || !part.in_chunk) data = panel_of(weights.hidden, panel, p.w_hh);  // the input's panel may have overwritten it
        Start<T> start = hidden_start(panel, in, size, sums);
        multiply_panel_at(data, weights.hidden, panel, rows_before(part.s).from(slot).every(lane.slot_step), size, start, sums, nv * W,
                          {prefetches_other ? weights.hidden.at(other) : nullptr, b, blocks.blocks},
                          {before.done < before.rows ? CellWork::advance : nullptr, &before});
        if (!overlaps || n == 1) {  // a single row is faster without overlap
          finish_block(part, panel, slot, size, in, sums);
          continue;
        }
        before.finish();
        prepare(works[which], part, panel, slot, size, in, sums);
        which ^= 1;
      }
    }
    works[which ^ 1].finish();
    if (rounds_outputs()) write_outputs(part.s, lane, weights.hidden, hidden);
  }

  // A step with one row in the lane (in a chunk always), two panels at once.
  void step_pair(const StepPart& part, int64_t panel, int64_t other) const {
    if constexpr (Parts == 0) {
      const int64_t slot = part.lane.slot;
      const T *in = chunk_panel(panel) + part.chunk_row * tile_width * W, *other_in = chunk_panel(other) + part.chunk_row * tile_width * W;
      T *const out = hidden_sums[0], *const other_out = hidden_sums[1];
      const Start<T> start = hidden_start(panel, in, 1, out), other_start = hidden_start(other, other_in, 1, other_out);
      tile_pair<T, tile_width>(h_before(part.s) + slot * state_stride, weights.hidden.at(panel), weights.hidden.at(other), output,
                               &start, &other_start, out, other_out);
      finish_block(part, panel, slot, 1, in, out);
      finish_block(part, other, slot, 1, other_in, other_out);
    }
  }

  // A step with one row in the lane, in a chunk, where weights are unpacked: `panel`, and `other` where `count` is 2.
  void step_unpacked(const StepPart& part, int64_t panel, int64_t other, int count) const {
    const int nv = weights.hidden.tile(panel);
    const int64_t both[2] = {panel, other}, slot = part.lane.slot;
    const T* in[2];
    Start<T> start[2];
    for (int i = 0; i < count; ++i) {
      in[i] = chunk_panel(both[i]) + part.chunk_row * nv * W;
      start[i] = hidden_start(both[i], in[i], 1, hidden_sums[i]);
    }
    multiply_unpacked_panels(weights.hidden, p.w_hh, both, count, rows_before(part.s).from(slot), start, hidden_sums);
    for (int i = 0; i < count; ++i) finish_block(part, both[i], slot, 1, in[i], hidden_sums[i]);
  }

  Start<T> hidden_start(int64_t panel, const T* in, int64_t rows, T* mixed) const {
    const T* const bias = kind == PADLESS_GRU ? hidden_bias() + weights.hidden.first(panel) * W : nullptr;
    return hidden_start_of(weights.hidden, panel, in, bias, rows, mixed);
  }

  // The cells of vector v of a panel, on a finished product of rows of the lane, the first of them of `slot`.
  void set_block(ForwardBlock<T>& e, const StepPart& part, int64_t panel, int64_t v, int64_t slot, const T* in, const T* done) const {
    const int64_t slot_step = part.lane.slot_step, row = part.row0 + slot, unit = (weights.hidden.first(panel) + v) * W;
    e.product = done + v * gates * W;
    e.input = in + v * gates * W;
    e.product_stride = weights.hidden.tile(panel) * W;
    e.gate_step = weights.hidden.gate_step(panel);
    e.h = h_before(part.s) + slot * state_stride + unit;
    e.h_next = (Parts == 0 && projects() ? unprojected : h_after(part.s)) + slot * state_stride + unit;
    e.c = c + slot * state_stride + unit;
    e.state_stride = slot_step * state_stride;
    if constexpr (Parts > 0) {
      const Operand<T, Parts>& next = projects() ? unprojected_rows : rows_after(part.s);
      e.next = next.at + slot * next.stride + unit;
      e.next_stride = slot_step * next.stride;
      e.next_part = next.part;
      // Products read the operand rows, so h itself is needed only of slots that end, and where the next cell reads it.
      const int64_t going = steps.active(part.s + 1) - slot;
      e.h_from = projects() ? INT64_MAX : kind == PADLESS_GRU || going < 0 ? 0 : (going + slot_step - 1) / slot_step;
    }
    e.gates = p.gates && saved_count(kind) ? element_of<T>(p.gates, row * saved_stride + unit, p.narrow_gates) : nullptr;
    e.narrow_gates = p.narrow_gates;
    e.gates_stride = slot_step * saved_stride;
    e.gate_width = cells_stride;
    e.cells = p.cells && kind == PADLESS_LSTM ? (T*)p.cells + row * cells_stride + unit : nullptr;
    e.cells_stride = slot_step * cells_stride;
    e.y = projects() || rounds_outputs() ? nullptr : y_of(part.t, unit);
    e.narrow_y = p.narrow_y;
    e.y_stride = p.y_stride;
    e.y_sequence = p.y_sequence + slot;
    e.slot_step = slot_step;
    e.units = hidden - unit;
  }
  void prepare(CellWork& work, const StepPart& part, int64_t panel, int64_t slot, int64_t size, const T* in, const T* done) const {
    work.count = weights.hidden.size(panel);
    work.rows = size;
    work.done = 0;
    for (int64_t v = 0; v < work.count; ++v) set_block(work.blocks[v], part, panel, v, slot, in, done);
  }
  void finish_block(const StepPart& part, int64_t panel, int64_t slot, int64_t size, const T* in, const T* done) const {
    for (int64_t v = 0; v < weights.hidden.size(panel); ++v) {
      ForwardBlock<T> block;
      set_block(block, part, panel, v, slot, in, done);
      Cell<T, Parts>::forward(block, 0, size);
    }
  }

  // Whether y is bfloat16 and h is not. Then y is written after the step: a cell that rounds takes 4 % longer where it need not.
  bool rounds_outputs() const { return Parts == 0 && p.narrow_y && !projects(); }

  // The lane's slots and columns of y, `width` wide, from h after the step.
  void write_outputs(int64_t s, const Lane& lane, const Panels<T, Parts>& panels, int64_t width) const {
    const int64_t n = lane.count(steps.active(s)), t = steps.time(s), column = panels.first(lane.panel) * W;
    const int64_t count = minimum(width, panels.first(lane.panel_end) * W) - column;
    for (int64_t row = 0, slot = lane.slot; row < n; ++row, slot += lane.slot_step) {
      const T* const from = h_after(s) + slot * state_stride + column;
      const int64_t to = (p.y_step[t] + p.y_sequence[slot]) * p.y_stride + column;
      copy_stored<T>(element_of<T>(p.y, to, p.narrow_y), p.narrow_y, from, false, count);
    }
  }

  // Column `unit` of a step in the caller's y, of slot 0 but for its y_sequence: T*, or bfloat16.
  void* y_of(int64_t t, int64_t unit) const {
    return element_of<T>(p.y, p.y_step[t] * p.y_stride + unit, p.narrow_y);
  }
