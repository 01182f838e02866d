// Members of Backward (backward.h): the steps of an LSTM with a projection.

  // The product of n rows with the lane's panels, handed block by block to use(panel, first row, rows, product).
  template <class Use>
  void each_product(const Panels<T, Parts>& w, const Lane& lane, bool descending, const Operand<T, Parts>& rows, int64_t n,
                    const Use& use) const {
    const int64_t panels = lane.panel_end - lane.panel;
    for (int64_t q = 0; q < panels; ++q) {
      const int64_t panel = panel_at(lane, q, descending);
      const int nv = (int)w.size(panel);
      if constexpr (Parts == 0) {
        const int64_t other = panel_at(lane, q + 1, descending);
        if (n == 1 && q + 1 < panels && nv == 4 && w.size(other) == 4) {
          const Start<T> start = {{zeros, zeros, zeros, zeros}, {}};
          tile_pair<T, 4>(rows.at, w.at(panel), w.at(other), w.k_count, &start, &start, product, product + 4 * W);
          use(panel, 0, 1, product);
          use(other, 0, 1, product + 4 * W);
          ++q;
          continue;
        }
      }
      const Blocks blocks = blocks_of(n, Parts, nv);
      for (int64_t b = 0, i = 0; b < blocks.blocks; i += blocks.size(b++)) {
        multiply(w, panel, rows.from(i), blocks.size(b), nullptr, 0, product);
        use(panel, i, blocks.size(b), product);
      }
    }
  }

  // Gradient of h, for the lane's slots and columns; `later_rows`: gradient rows of the step processed before this one.
  void write_output_gradient(const StepPart& part, const Operand<T, Parts>& later_rows) const {
    const Lane& lane = part.lane;
    const Chunk& chunk = part.chunk;
    const auto put = [&](int64_t panel, int64_t i, int64_t size, const T* later) {
      const int nv = (int)weights.hidden.size(panel);
      const int64_t column = weights.hidden.first(panel) * W;
      for (int64_t r = 0; r < size; ++r) {
        const int64_t slot = lane.slot + (i + r) * lane.slot_step;
        const int64_t at = (p.y_step[part.t] + p.y_sequence[slot]) * p.dy_stride;
        for (int v = 0; v < nv; ++v) {
          const int64_t unit = column + v * W;
          const Operand<T, Parts> to = chunk.d_output_rows.from(part.chunk_row(slot), unit);
          Vec<T> sum = load(later + (r * nv + v) * W);
          if (p.dy) sum += load_row<T>({p.dy, p.narrow_y != 0}, at + unit, output - unit);
          if constexpr (Parts > 0) put_parts<Parts>(to.at, to.part, sum, minimum(output - unit, W), false);
          else store(to.at, sum);
        }
      }
    };
    if (part.going > 0)
      each_product(weights.hidden, lane, part.u & 1, later_rows.from(lane.slot).every(lane.slot_step), part.going, put);
    for (int64_t panel = lane.panel; panel < lane.panel_end; ++panel)
      for (int64_t i = part.going; i < part.count; i += most_rows(Parts, 4)) {
        const int64_t size = minimum(most_rows(Parts, 4), part.count - i);
        load_final_gradients(lane, panel, i, size);
        put(panel, i, size, product);
      }
  }

  // The cells of a step, for the lane's slots and columns, once d_output is complete.
  void step_projected(const StepPart& part) const {
    const Lane& lane = part.lane;
    load_final_cell_gradients(part);
    const Operand<T, Parts> rows = part.chunk.d_output_rows.from(part.chunk_row(lane.slot)).every(lane.slot_step);
    each_product(units, lane, part.u & 1, rows, part.count,
                 [&](int64_t panel, int64_t i, int64_t size, const T* later) { process_block(part, panel, i, size, later); });
  }
