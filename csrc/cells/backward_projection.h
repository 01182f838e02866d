// Members of Backward (backward.h): the steps of an LSTM with a projection.

  // The product of n rows with the lane's panels, handed block by block to use(panel, first row, rows, product).
  template <class Use>
  void each_product(const Panels<T>& w, const Lane& lane, bool backwards, const T* rows, int64_t stride, int64_t n,
                    const Use& use) const {
    const int64_t panels = lane.panel_end - lane.panel;
    for (int64_t q = 0; q < panels; ++q) {
      const int64_t panel = backwards ? lane.panel_end - 1 - q : lane.panel + q, other = backwards ? panel - 1 : panel + 1;
      const int nv = (int)w.size(panel);
      if (n == 1 && q + 1 < panels && nv == 4 && w.size(other) == 4) {
        const Start<T> start = {{zeros, zeros, zeros, zeros}, {}};
        tile_pair<T, 4>(rows, w.at(panel), w.at(other), w.k_count, &start, &start, product, product + 4 * W);
        use(panel, 0, 1, product);
        use(other, 0, 1, product + 4 * W);
        ++q;
        continue;
      }
      const Blocks blocks = Blocks::of(n, tile_rows(nv));
      for (int64_t b = 0, i = 0; b < blocks.blocks; i += blocks.size(b++)) {
        multiply(w, panel, rows + i * stride, stride, blocks.size(b), zeros, 0, product);
        use(panel, i, blocks.size(b), product);
      }
    }
  }

  // Gradient of h at step u, for the lane's slots and columns; `from`: gradient rows of the step processed before it.
  void output_gradient(int64_t u, const Lane& lane, const Chunk& chunk, int64_t row0, const T* from) const {
    const int64_t t = steps.time(u), active = steps.active(u);
    const int64_t going = lane.count(minimum(active, steps.active(u - 1))), n = lane.count(active);
    const auto put = [&](int64_t panel, int64_t i, int64_t size, const T* later) {
      const int nv = (int)weights.hidden.size(panel);
      const int64_t column = weights.hidden.first(panel) * W;
      for (int64_t r = 0; r < size; ++r) {
        const int64_t slot = lane.slot + (i + r) * lane.slot_step;
        const T* dy = p.dy ? (const T*)p.dy + (p.y_step[t] + p.y_sequence[slot]) * p.dy_stride + column : nullptr;
        T* to = chunk.d_output + (row0 - chunk.base + slot) * state_stride + column;
        for (int v = 0; v < nv; ++v) {
          const Vec<T> sum = load(later + (r * nv + v) * W);
          store(to + v * W, dy ? sum + load_first(dy + v * W, output - column - v * W) : sum);
        }
      }
    };
    const int64_t stride = lane.slot_step * gradients_stride;
    if (going > 0) each_product(weights.hidden, lane, u & 1, from + lane.slot * gradients_stride, stride, going, put);
    for (int64_t panel = lane.panel; panel < lane.panel_end; ++panel)
      for (int64_t i = going; i < n; i += tile_rows(4)) {
        const int64_t size = minimum(tile_rows(4), n - i);
        begin(lane, panel, i, size);
        put(panel, i, size, product);
      }
  }

  // The cells of step u, for the lane's slots and columns, once d_output is complete.
  void step_projected(int64_t u, const Lane& lane, const Chunk& chunk, int64_t row0) const {
    const int64_t t = steps.time(u), active = steps.active(u), n = lane.count(active);
    begin_cells(lane, lane.count(minimum(active, steps.active(u - 1))), n);
    each_product(units, lane, u & 1, chunk.d_output + (row0 - chunk.base + lane.slot) * state_stride,
                 lane.slot_step * state_stride, n, [&](int64_t panel, int64_t i, int64_t size, const T* done) {
                   block(lane, chunk, t, row0, panel, i, size, done);
                 });
  }
