// A member of Forward (forward.h): the second half of a step of an LSTM with a projection.

  // Vector v of a panel of `size` new rows of h, from `sums` on: as states, as products read them and, where it is bfloat16, in y.
  void put_projected(int64_t s, int64_t panel, int v, int64_t slot, int64_t slot_step, int64_t size, const T* sums,
                     int64_t stride) const {
    if constexpr (Parts > 0) {
      const int64_t unit = (weights.projection.first(panel) + v) * W;
      ForwardBlock<T> e;
      e.h_next = h_after(s) + slot * state_stride + unit;
      e.h_from = 0;
      e.state_stride = slot_step * state_stride;
      e.next = rows_after(s).at + slot * rows_after(s).stride + unit;
      e.next_stride = slot_step * rows_after(s).stride;
      e.next_part = rows_after(s).part;
      e.y = p.narrow_y ? y_of(steps.time(s), unit) : nullptr;  // else it is copied below
      e.narrow_y = true;
      e.y_stride = p.y_stride;
      e.y_sequence = p.y_sequence + slot;
      e.slot_step = slot_step;
      e.units = output - unit;
      for (int64_t r = 0; r < size; ++r) put_hidden<Parts>(e, r, load(sums + r * stride));
    }
  }

  // h and y of the lane's slots and columns from `unprojected`, which is complete.
  void project(int64_t s, const Lane& lane) const {
    const int64_t n = lane.count(steps.active(s)), panels = lane.panel_end - lane.panel, stride = lane.slot_step * state_stride;
    const bool descending = s & 1;
    static constexpr T zeros[W] = {};
    const Start<T> start = {{zeros, zeros, zeros, zeros}, {}};
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t panel = panel_at(lane, i, descending);
      const int nv = (int)weights.projection.size(panel);
      T* to = h_after(s) + lane.slot * state_stride + weights.projection.first(panel) * W;
      if constexpr (Parts == 0) {
        const int64_t other = panel_at(lane, i + 1, descending);
        if (n == 1 && i + 1 < panels && nv == 4 && weights.projection.size(other) == 4) {
          T* other_to = h_after(s) + lane.slot * state_stride + weights.projection.first(other) * W;
          tile_pair<T, 4>(unprojected + lane.slot * state_stride, weights.projection.at(panel), weights.projection.at(other), hidden,
                          &start, &start, to, other_to);
          ++i;
          continue;
        }
      }
      const Blocks blocks = blocks_of(n, Parts, nv);
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++)) {
        const int64_t slot = lane.slot + row * lane.slot_step, size = blocks.size(b);
        Start<T> from_zero = start;
        const Operand<T, Parts> rows = unprojected_rows.from(slot).every(lane.slot_step);
        if constexpr (Parts == 0) {
          multiply_panel(weights.projection, panel, rows, size, from_zero, to + row * stride, stride);
        } else {
          multiply_panel(weights.projection, panel, rows, size, from_zero, hidden_sums[0], nv * W);
          for (int v = 0; v < nv; ++v) put_projected(s, panel, v, slot, lane.slot_step, size, hidden_sums[0] + v * W, nv * W);
        }
      }
    }
    if (panels > 0 && !(Parts && p.narrow_y)) write_outputs(s, lane, weights.projection, output);
  }
