// Members of Backward (backward.h): what a chunk adds to dx, dW and db, and the gates computed again.

  // This worker's share [begin, end) of `count` things, in whole units.
  struct Share {
    int64_t begin, end;
  };
  Share share(int64_t count, int64_t unit) const {
    const int64_t units = (count + unit - 1) / unit;
    return {minimum(count, units * team.rank / team.size * unit), minimum(count, units * (team.rank + 1) / team.size * unit)};
  }

  void input_gradient(const Chunk& chunk) const {
    if (!p.dx) return;
    const Share rows = share(chunk.rows, tile_rows(4));
    for (int64_t panel = 0; panel < weights.input.count(); ++panel) {
      const int nv = (int)weights.input.size(panel);
      const int64_t column = weights.input.first(panel) * W, count = minimum(nv * W, input - column);
      const Blocks blocks = Blocks::of(rows.end - rows.begin, tile_rows(nv));
      for (int64_t b = 0, i = rows.begin; b < blocks.blocks; i += blocks.size(b++)) {
        multiply(weights.input, panel, chunk.gradients + i * gradients_stride, gradients_stride, blocks.size(b), zeros, 0, product);
        for (int64_t r = 0; r < blocks.size(b); ++r) {
          T* to = (T*)p.dx + x_row[i + r] * p.dx_stride + column;
          for (int v = 0; v < nv; ++v) store_first(to + v * W, load(product + (r * nv + v) * W), count - v * W);
        }
      }
    }
  }

  // Gradient columns [column, column + count) belong to rows [row, row + count) of a weight.
  struct Run {
    int64_t column, row, count;
  };
  static constexpr int kRunsIn = kind == PADLESS_GRU ? 2 : 1;
  Run run_in(int i) const {
    if (kind != PADLESS_GRU) return {0, 0, gates * hidden};
    return i == 0 ? Run{0, 2 * hidden, hidden} : Run{hidden, 0, 2 * hidden};
  }
  Run run_hidden() const { return {kind == PADLESS_GRU ? hidden : 0, 0, gates * hidden}; }

  // sums[row, :] += from^T rows for one run, one panel of nv vectors of columns and n rows, which stand in panel_rows.
  template <int NV>
  void sum_panel(const T* from, int64_t from_stride, const Run& run, int64_t n, T* sums, int64_t sums_stride, bool first) const {
    const Share own = share(run.count, kSumTile);
    for (int64_t g = own.begin; g < own.end;) {
      Start<T> start;
      T* to = sums + (run.row + g) * sums_stride;
      for (int v = 0; v < NV; ++v) {
        start.at[v] = first ? zeros : to + v * W;
        start.stride[v] = first ? 0 : sums_stride;
      }
      if (own.end - g >= kSumTile) {
        tile<T, NV, kSumTile, true>(from + run.column + g, from_stride, panel_rows, n, &start, to, sums_stride);
        g += kSumTile;
      } else {
        tile<T, NV, 1, true>(from + run.column + g, from_stride, panel_rows, n, &start, to, sums_stride);
        g += 1;
      }
    }
  }
  void sum_panel(int nv, const T* from, int64_t from_stride, const Run& run, int64_t n, T* sums, int64_t stride, bool first) const {
    switch (nv) {
      case 1: return sum_panel<1>(from, from_stride, run, n, sums, stride, first);
      case 2: return sum_panel<2>(from, from_stride, run, n, sums, stride, first);
      case 3: return sum_panel<3>(from, from_stride, run, n, sums, stride, first);
      default: return sum_panel<4>(from, from_stride, run, n, sums, stride, first);
    }
  }

  // What stands beside the gradients in a sum over rows: x, h before, or (against d_output) o tanh(c).
  enum Operand { kX, kHidden, kUnprojected };

  // Columns of the rows i, i + 1, ... of an operand, `nv` vectors, into panel_rows.
  void gather(const Chunk& chunk, Operand of, int64_t i, int64_t n, int64_t column, int nv, int64_t columns) const {
    for (int64_t k = 0; k < n; ++k) {
      const T* row = of == kX        ? (const T*)p.x + x_row[i + k] * p.x_stride
                     : of == kHidden ? h_row[i + k]
                                     : chunk.unprojected + (i + k) * state_stride;
      for (int v = 0; v < nv; ++v) {
        const int64_t at = column + v * W;
        store(panel_rows + (k * nv + v) * W, row ? load_first(row + at, columns - at) : Vec<T>{});
      }
    }
  }

  void sum_products(const Chunk& chunk, int64_t i, int64_t n, Operand of, bool first) const {
    const int64_t columns = of == kX ? input : of == kHidden ? output : hidden, vectors = vectors_of<T>(columns);
    const int64_t stride = of == kUnprojected ? state_stride : gradients_stride;
    const T* from = (of == kUnprojected ? chunk.d_output : chunk.gradients) + i * stride;
    T* sums = of == kX ? sum_ih : of == kHidden ? sum_hh : sum_hr;
    for (int64_t v = 0; v < vectors; v += 4) {
      const int nv = (int)minimum(4, vectors - v);
      gather(chunk, of, i, n, v * W, nv, columns);
      for (int r = 0; r < (of == kX ? kRunsIn : 1); ++r) {
        const Run run = of == kX ? run_in(r) : of == kHidden ? run_hidden() : Run{0, 0, output};
        sum_panel(nv, from, stride, run, n, sums + v * W, vectors * W, first);
      }
    }
  }

  void sum_bias(const T* from, const Run& run, int64_t n, T* db, bool first) const {
    if (!db) return;
    const Share own = share(run.count, W);
    for (int64_t g = own.begin; g < own.end; g += W) {
      Vec<T> sum = {};
      const int64_t count = own.end - g;
      for (int64_t k = 0; k < n; ++k) sum += load_first(from + k * gradients_stride + run.column + g, count);
      T* to = db + run.row + g;
      store_first(to, first ? sum : load_first(to, count) + sum, count);
    }
  }

  void weight_gradients(const Chunk& chunk) const {
    for (int64_t i = 0; i < chunk.rows; i += kSumRows) {
      const int64_t n = minimum(kSumRows, chunk.rows - i);
      const T* from = chunk.gradients + i * gradients_stride;
      for (int r = 0; r < kRunsIn; ++r) sum_bias(from, run_in(r), n, (T*)p.db_ih, !any);
      sum_bias(from, run_hidden(), n, (T*)p.db_hh, !any);
      if (p.dw_ih) sum_products(chunk, i, n, kX, !any);
      if (p.dw_hh) sum_products(chunk, i, n, kHidden, !any);
      if (projects() && p.dw_hr) sum_products(chunk, i, n, kUnprojected, !any);
      any = true;
    }
  }

  // Sums that stand in padded rows go to the caller's; where there was no row at all, sums are 0.
  void finish_sum(T* to, const T* sums, int64_t columns, const Run& run) const {
    if (!to || (any && !padded(columns))) return;
    const Share own = share(run.count, kSumTile);
    for (int64_t g = run.row + own.begin; g < run.row + own.end; ++g)
      copy_or_zero(to + g * columns, any ? sums + g * vectors_of<T>(columns) * W : nullptr, columns);
  }
  void finish_sums() const {
    for (int r = 0; r < kRunsIn; ++r) finish_sum((T*)p.dw_ih, sum_ih, input, run_in(r));
    finish_sum((T*)p.dw_hh, sum_hh, output, run_hidden());
    if (projects()) finish_sum((T*)p.dw_hr, sum_hr, hidden, {0, 0, output});
    if (!any && team.rank == 0) {
      if (p.db_ih) copy_or_zero<T>((T*)p.db_ih, nullptr, gates * hidden);
      if (p.db_hh) copy_or_zero<T>((T*)p.db_hh, nullptr, gates * hidden);
    }
  }

  // The gates of the chunk's rows from x and h before, bit for bit those of the forward pass.
  void recompute(const Chunk& chunk) const {
    const ForwardWeights<T> w(layer_of(p), p.forward_weights);
    const int64_t x_stride = input_stride_of<T>(input);
    T *x = (T*)(h_row + round_up(capacity, 8)), *h = x + kMaxRows * x_stride, *in = recompute_in;
    const int64_t most = tile_rows(gates);
    const Share rows = share(chunk.rows, most);
    for (int64_t i = rows.begin; i < rows.end; i += most) {
      const int64_t n = minimum(most, rows.end - i);
      for (int64_t r = 0; r < n; ++r) {
        copy(x + r * x_stride, (const T*)p.x + x_row[i + r] * p.x_stride, input);
        copy_or_zero(h + r * state_stride, h_row[i + r], output);
      }
      for (int64_t panel = 0; panel < w.hidden.count(); ++panel) {
        const int64_t unit = panel * W, step = w.hidden.gate_step(panel);  // cells with saved gates have one vector a panel
        const int nv = w.hidden.tile(panel);
        Start<T> start = {};
        for (int v = 0; v < nv; ++v) start.at[v] = w.bias + (panel * gates + v) * W;
        find_tile<T>(nv, (int)n)(x, x_stride, w.input.at(panel), input, &start, in, nv * W);
        for (int v = 0; v < nv; ++v) {
          start.at[v] = in + v * W;
          start.stride[v] = nv * W;
        }
        if (kind == PADLESS_GRU) start_apart(start, w.hidden_bias + unit, in, w.hidden, panel, n, product);
        find_tile<T>(nv, (int)n)(h, state_stride, w.hidden.at(panel), output, &start, product, nv * W);
        for (int64_t r = 0; r < n; ++r)
          activate(product + r * nv * W, in + r * nv * W + 2 * step, step,
                   gates_again + (i + r) * saved_count(kind) * gate_width + unit, gate_width, Cell<T>());
      }
    }
  }
