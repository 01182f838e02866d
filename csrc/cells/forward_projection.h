// A member of Forward (forward.h): the second half of a step of an LSTM with a projection.

  // h and y of the lane's slots and columns from `unprojected`, which is complete.
  void project(int64_t s, const Lane& lane) const {
    const int64_t n = lane.count(steps.active(s)), panels = lane.panel_end - lane.panel, stride = lane.slot_step * state_stride;
    const bool descending = s & 1;
    static constexpr T zeros[W] = {};
    const Start<T> start = {{zeros, zeros, zeros, zeros}, {}};
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t panel = descending ? lane.panel_end - 1 - i : lane.panel + i;
      const int nv = (int)weights.projection.size(panel);
      T* to = h_after(s) + lane.slot * state_stride + weights.projection.first(panel) * W;
      if constexpr (Parts == 0) {
        const int64_t other = descending ? panel - 1 : panel + 1;
        if (n == 1 && i + 1 < panels && nv == 4 && weights.projection.size(other) == 4) {
          T* other_to = h_after(s) + lane.slot * state_stride + weights.projection.first(other) * W;
          tile_pair<T, 4>(unprojected + lane.slot * state_stride, weights.projection.at(panel), weights.projection.at(other), hidden,
                          &start, &start, to, other_to);
          ++i;
          continue;
        }
      }
      const Blocks blocks = Blocks::of(n, most_rows(Parts, nv));
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++)) {
        const int64_t slot = lane.slot + row * lane.slot_step, size = blocks.size(b);
        Start<T> from_zero = start;
        const Operand<T, Parts> rows = unprojected_rows.from(slot).every(lane.slot_step);
        if constexpr (Parts == 0) {
          multiply_panel(weights.projection, panel, rows, size, from_zero, to + row * stride, stride);
        } else {
          multiply_panel(weights.projection, panel, rows, size, from_zero, hidden_sums, nv * W);
          for (int v = 0; v < nv; ++v) {
            T* column = to + row * stride + v * W;
            for (int64_t r = 0; r < size; ++r) store(column + r * stride, load(hidden_sums + (r * nv + v) * W));
            put_parts_of_rows(rows_after(s), column, slot, lane.slot_step, size, (weights.projection.first(panel) + v) * W, output,
                              narrow_y(steps.time(s)));
          }
        }
      }
    }
    if (panels == 0 || (Parts && p.narrow_rows)) return;
    const int64_t t = steps.time(s), column = weights.projection.first(lane.panel) * W;
    const int64_t count = minimum(output, weights.projection.first(lane.panel_end) * W) - column;
    for (int64_t row = 0, slot = lane.slot; row < n; ++row, slot += lane.slot_step)
      copy((T*)p.y + (p.y_step[t] + p.y_sequence[slot]) * p.y_stride + column, h_after(s) + slot * state_stride + column, count);
  }
