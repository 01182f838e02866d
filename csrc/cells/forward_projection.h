// A member of Forward (forward.h): the second half of a step of an LSTM with a projection.

  // h and y of the lane's slots and columns from `unprojected`, which is complete.
  void project(int64_t s, const Lane& lane) const {
    const int64_t n = lane.count(steps.active(s)), panels = lane.panel_end - lane.panel, stride = lane.slot_step * state_stride;
    static constexpr T zeros[W] = {};
    const Start<T> start = {{zeros, zeros, zeros, zeros}, {}};
    const T* from = unprojected + lane.slot * state_stride;
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t panel = s & 1 ? lane.panel_end - 1 - i : lane.panel + i, other = s & 1 ? panel - 1 : panel + 1;
      const int nv = (int)weights.projection.size(panel);
      T* to = h[~s & 1] + lane.slot * state_stride + weights.projection.first(panel) * W;
      if (n == 1 && i + 1 < panels && nv == 4 && weights.projection.size(other) == 4) {
        T* other_to = h[~s & 1] + lane.slot * state_stride + weights.projection.first(other) * W;
        tile_pair<T, 4>(from, weights.projection.at(panel), weights.projection.at(other), hidden, &start, &start, to, other_to);
        ++i;
        continue;
      }
      const Blocks blocks = Blocks::of(n, tile_rows(nv));
      for (int64_t b = 0, row = 0; b < blocks.blocks; row += blocks.size(b++))
        find_tile<T>(nv, (int)blocks.size(b))(from + row * stride, stride, weights.projection.at(panel), hidden, &start,
                                              to + row * stride, stride);
    }
    if (panels == 0) return;
    const int64_t t = steps.time(s), column = weights.projection.first(lane.panel) * W;
    const int64_t count = minimum(output, weights.projection.first(lane.panel_end) * W) - column;
    for (int64_t row = 0, slot = lane.slot; row < n; ++row, slot += lane.slot_step)
      copy((T*)p.y + (p.y_step[t] + p.y_sequence[slot]) * p.y_stride + column, h[~s & 1] + slot * state_stride + column, count);
  }
