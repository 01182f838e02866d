// Members of Backward (backward.h): what a chunk adds to dx, dW and db, and the gates computed again.

  // This worker's share [begin, end) of `count` items, in whole units.
  struct Share {
    int64_t begin, end;
  };
  Share share(int64_t count, int64_t unit) const {
    const int64_t units = (count + unit - 1) / unit;
    return {minimum(count, units * team.rank / team.size * unit), minimum(count, units * (team.rank + 1) / team.size * unit)};
  }

  void write_input_gradient(const Chunk& chunk) const {
    if (!p.dx) return;
    if (unpacked()) return write_step_input_gradient(chunk);
    const Share rows = share(chunk.rows, most_rows(Parts, 4));
    for (int64_t panel = 0; panel < weights.input.count(); ++panel) {
      const int nv = (int)weights.input.size(panel);
      const int64_t column = weights.input.first(panel) * W, count = minimum(nv * W, input - column);
      const Blocks blocks = blocks_of(rows.end - rows.begin, Parts, nv);
      for (int64_t b = 0, i = rows.begin; b < blocks.blocks; i += blocks.size(b++)) {
        multiply(weights.input, panel, chunk.gradient_rows.from(i), blocks.size(b), nullptr, 0, product);
        for (int64_t r = 0; r < blocks.size(b); ++r) {
          const int64_t to = x_row[i + r] * p.dx_stride + column;
          for (int v = 0; v < nv; ++v) {
            const Vec<T> sum = load(product + (r * nv + v) * W);
            store_stored<T>(element_of<T>(p.dx, to + v * W, p.narrow_x), sum, count - v * W, p.narrow_x);
          }
        }
      }
    }
  }

  // Gradient columns [column, column + count) belong to rows [row, row + count) of a weight, whose sums begin with block `block`.
  struct Run {
    int64_t column, row, count, block;
  };
  static constexpr int kRunsIn = kind == PADLESS_GRU ? 2 : 1;
  Run run_in(int i) const {
    if (kind != PADLESS_GRU) return {0, 0, gates * hidden, 0};
    return i == 0 ? Run{0, 2 * hidden, hidden, sum_blocks(2 * hidden)} : Run{hidden, 0, 2 * hidden, 0};
  }
  Run run_hidden() const { return {kind == PADLESS_GRU ? hidden : 0, 0, gates * hidden, 0}; }

  // sums[row, :] += from^T rows for one run, one panel of nv vectors of columns and n rows, which are stored in panel_rows.
  template <int NV>
  void sum_panel(const T* from, int64_t from_stride, const Run& run, int64_t n, T* sums, int64_t sums_stride, bool first) const {
    const Share own = share(run.count, sum_tile);
    for (int64_t g = own.begin; g < own.end;) {
      Start<T> start;
      T* to = sums + (run.row + g) * sums_stride;
      for (int v = 0; v < NV; ++v) {
        start.at[v] = first ? zeros : to + v * W;
        start.stride[v] = first ? 0 : sums_stride;
      }
      if (!first)  // the next block's sums, which the processor does not prefetch by itself
        for (int64_t r = 0; r < sum_tile; ++r)
          for (int v = 0; v < NV; ++v) __builtin_prefetch(to + (sum_tile + r) * sums_stride + v * W, 1);
      if (own.end - g >= sum_tile) {
        tile<T, NV, sum_tile, true>(from + run.column + g, from_stride, panel_rows, n, &start, to, sums_stride);
        g += sum_tile;
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

  // Where bfloat16 numbers are multiplied: `sum_left` has the gradients of the run transposed, `sum_right` the rows as a panel.
  void transpose_run(const Operand<T, Parts>& from, const Run& run, int64_t n) const {
    if constexpr (Parts > 0) {
      const Share own = share(run.count, sum_tile);
      for (int64_t g = own.begin; g < own.end; g += 16)
        for (int q = 0; q < Parts; ++q)
          for (int64_t k = 0; k < n; k += 32) {
            uint32_t lines[16][16];  // [pair of rows][gate]
            for (int64_t r = 0; r < 16; ++r) {
              const Element* row = from.at + q * from.part + (k + 2 * r) * from.stride + run.column + g;
              const Halves even = k + 2 * r < n ? load_halves(row, W) : Halves{};
              const Halves odd = k + 2 * r + 1 < n ? load_halves(row + from.stride, W) : Halves{};
              store_pairs((uint16_t*)lines[r], paired(even, odd));
            }
            transpose((const T*)lines, 16, 16, 16, (T*)(sum_left.at + q * sum_left.part + (g - own.begin) * sum_stride(Parts) + k),
                      sum_stride(Parts) / 2, 16);
          }
    }
  }
  // The sums of a run with one panel of columns, from vector v on, are added to blocks of `sum_tile` rows (`sums_of`): rows of dW are
  // too far apart to be read and written once a chunk.
  void sum_panel_of_tiles(int64_t v, int nv, int64_t vectors, const Run& run, int64_t n, T* sums, bool first) const {
    if constexpr (Parts > 0) {
      const Share own = share(run.count, sum_tile);
      const Panels<T, Parts> panel = {sum_right, tiled(n), nv, 4, 1};
      for (int64_t g = own.begin; g < own.end; g += sum_tile) {
        T* const block = sums_of(sums, run, g, v, vectors);
        Start<T> start = start_of(nv, first ? nullptr : block, nv * W);
        const bool reads_next = !first && g + sum_tile < own.end;
        LinesAhead ahead = {reads_next ? (const char*)sums_of(sums, run, g + sum_tile, v, vectors) : nullptr, sum_tile * nv * W / 16, 0};
        multiply_panel(panel, 0, sum_left.from(g - own.begin), minimum(sum_tile, own.end - g), start, block, nv * W, {},
                       ahead.meanwhile());
      }
    }
  }
  // Where the sums of the block of rows g of a run begin, for the panel of columns from vector v on.
  T* sums_of(T* sums, const Run& run, int64_t g, int64_t v, int64_t vectors) const {
    return sums + (run.block + g / sum_tile) * sum_tile * vectors * W + v * W * sum_tile;
  }

  // The rows that gradients are multiplied by in a sum over rows: x, h before or, with gradients of h, o tanh(c).
  enum Operands { kX, kHidden, kUnprojected };

  int64_t columns_of(Operands of) const { return of == kX ? input : of == kHidden ? output : hidden; }
  int runs_of(Operands of) const { return of == kX ? kRunsIn : 1; }
  Run run_in(Operands of, int i) const { return of == kX ? run_in(i) : of == kHidden ? run_hidden() : Run{0, 0, output, 0}; }

  StateRow operand_row(const Chunk& chunk, Operands of, int64_t i) const {
    if (of == kHidden) return h_row[i];
    if (of == kUnprojected) return {chunk.unprojected + i * state_stride, false};
    return {element_of<T>(p.x, x_row[i] * p.x_stride, p.narrow_x), p.narrow_x != 0};
  }

  // Columns [column, column + nv vectors) of n rows of an operand, `columns` wide, from row i on, as a panel: of tiles, with zeros
  // below the last row, where bfloat16 numbers are multiplied.
  void gather(const Chunk& chunk, Operands of, int64_t i, int64_t n, int64_t column, int nv, int64_t columns) const {
    if constexpr (Parts == 0) {
      for (int64_t k = 0; k < n; ++k) {
        const StateRow row = operand_row(chunk, of, i + k);
        for (int v = 0; v < nv; ++v) {
          const int64_t at = column + v * W;
          store(panel_rows + (k * nv + v) * W, load_row<T>(row, at, columns - at));
        }
      }
    } else {
      const auto row_at = [&](int64_t k) { return k < n ? operand_row(chunk, of, i + k) : StateRow{nullptr, false}; };
      for (int64_t k = 0; k < tiled(n); k += 2) {
        const StateRow even = row_at(k), odd = row_at(k + 1);
        for (int v = 0; v < nv; ++v) {
          const int64_t at = column + v * W;
          const Halved<Parts> a = load_halved<Parts>(even.at, at, columns - at, even.narrow);
          const Halved<Parts> b = load_halved<Parts>(odd.at, at, columns - at, odd.narrow);
          for (int q = 0; q < Parts; ++q)
            store_pairs(sum_right + ((k / 32 * nv + v) * Parts + q) * 512 + k % 32 / 2 * 32, paired(a.part[q], b.part[q]));
        }
      }
    }
  }

  // `transposed`: where bfloat16 numbers are multiplied, whether `sum_left` has the gradients already.
  void sum_products(const Chunk& chunk, int64_t i, int64_t n, Operands of, bool first, bool transposed = false) const {
    const int64_t columns = columns_of(of), vectors = vectors_of<T>(columns);
    T* sums = of == kX ? sum_ih : of == kHidden ? sum_hh : sum_hr;
    const Operand<T, Parts> from = (of == kUnprojected ? chunk.d_output_rows : chunk.gradient_rows).from(i);
    const int runs = runs_of(of);
    const auto run_of = [&](int r) { return run_in(of, r); };
    if constexpr (Parts == 0) {
      for (int64_t v = 0; v < vectors; v += 4) {
        const int nv = (int)minimum(4, vectors - v);
        gather(chunk, of, i, n, v * W, nv, columns);
        for (int r = 0; r < runs; ++r) sum_panel(nv, from.at, from.stride, run_of(r), n, sums + v * W, vectors * W, first);
      }
    } else {
      for (int r = 0; r < runs; ++r) {
        if (!transposed) transpose_run(from, run_of(r), n);
        for (int64_t v = 0; v < vectors; v += 4) {
          const int nv = (int)minimum(4, vectors - v);
          gather(chunk, of, i, n, v * W, nv, columns);
          sum_panel_of_tiles(v, nv, vectors, run_of(r), n, sums, first);
        }
      }
    }
  }

  // The sum of one run for a bias and, if it is not null, for another with the same gradient.
  void sum_bias(const Operand<T, Parts>& from, const Run& run, int64_t n, void* db, void* other_db, bool first) const {
    if (!db && !other_db) return;
    const Share own = share(run.count, W);
    for (int64_t g = own.begin; g < own.end; g += W) {
      Vec<T> sum = {};
      const int64_t count = own.end - g;
      const Element* column = from.at + run.column + g;
      for (int64_t k = 0; k < n; ++k, column += from.stride) {
        if constexpr (Parts == 0) sum += load_first(column, count);
        else
          for (int q = 0; q < Parts; ++q) sum += widened(load_halves(column + q * from.part, count));
      }
      const bool narrow = has_narrow_sums();
      void* const both[2] = {db, other_db};
      for (void* each : both) {
        if (!each) continue;
        void* const to = element_of<T>(each, run.row + g, narrow);
        store_stored<T>(to, first ? sum : load_stored<T>(to, count, narrow) + sum, count, narrow);
      }
    }
  }

  void add_weight_gradients(const Chunk& chunk) {
    for (int64_t i = 0; i < chunk.rows; i += sum_rows(Parts)) {
      const int64_t n = minimum(sum_rows(Parts), chunk.rows - i);
      const Operand<T, Parts> from = chunk.gradient_rows.from(i);
      const bool shares = kind != PADLESS_GRU;  // both weights' and both biases' gradients are sums of the same
      for (int r = 0; r < kRunsIn; ++r) sum_bias(from, run_in(r), n, p.db_ih, shares ? p.db_hh : nullptr, !sums_begun);
      if (!shares) sum_bias(from, run_hidden(), n, p.db_hh, nullptr, !sums_begun);
      if (unpacked()) {
        write_step_weight_gradient(chunk, kX);
        write_step_weight_gradient(chunk, kHidden);
        return;
      }
      if (p.dw_ih) sum_products(chunk, i, n, kX, !sums_begun);
      if (p.dw_hh) sum_products(chunk, i, n, kHidden, !sums_begun, shares && p.dw_ih);
      if (projects() && p.dw_hr) sum_products(chunk, i, n, kUnprojected, !sums_begun);
      sums_begun = true;
    }
  }

  // Brings sums into the caller's rows; if there was no row at all, sums are 0. `rows` of the whole matrix.
  void finish_sum(T* to, T* sums, int64_t rows, int64_t columns, const Run& run) const {
    if (!to) return;
    const Share own = share(run.count, sum_tile);
    if (Parts && sums_begun) return finish_blocks(to, sums, sums_in_place(rows, columns), columns, run, own);
    if (sums_begun && sums_in_place(rows, columns)) return;
    for (int64_t g = run.row + own.begin; g < run.row + own.end; ++g)
      copy_or_zero(to + g * columns, sums_begun ? sums + g * vectors_of<T>(columns) * W : nullptr, columns);
  }
  // The same from blocks, which take as much memory as their rows where they are in the caller's memory.
  void finish_blocks(T* to, T* sums, bool in_place, int64_t columns, const Run& run, const Share& own) const {
    const int64_t vectors = vectors_of<T>(columns);
    for (int64_t g = own.begin; g < own.end; g += sum_tile) {
      const T* block = sums_of(sums, run, g, 0, vectors);
      if (in_place) {
        copy(block_rows, block, sum_tile * columns);
        block = block_rows;
      }
      for (int64_t v = 0; v < vectors; v += 4) {
        const int64_t width = minimum(4, vectors - v) * W, count = minimum(width, columns - v * W);
        for (int64_t r = 0; r < minimum(sum_tile, own.end - g); ++r)
          copy(to + (run.row + g + r) * columns + v * W, block + v * W * sum_tile + r * width, count);
      }
    }
  }
  void finish_sums() const {
    if (unpacked()) return;
    for (int r = 0; r < kRunsIn; ++r) finish_sum((T*)p.dw_ih, sum_ih, gates * hidden, input, run_in(r));
    finish_sum((T*)p.dw_hh, sum_hh, gates * hidden, output, run_hidden());
    if (projects()) finish_sum((T*)p.dw_hr, sum_hr, output, hidden, {0, 0, output, 0});
    if (!sums_begun && team.rank == 0) {
      if (p.db_ih) copy_or_zero<T>((T*)p.db_ih, nullptr, gates * hidden);
      if (p.db_hh) copy_or_zero<T>((T*)p.db_hh, nullptr, gates * hidden);
    }
  }

  // The gates of the chunk's rows from x and h before: the forward pass's, bit for bit unless y holds h rounded to bfloat16.
  void recompute(const Chunk& chunk) const {
    const ForwardWeights<T, Parts> w(layer_of(p), p.forward_weights);
    const Operand<T, Parts>&x = recompute_x, &h = recompute_h;
    T* const in = recompute_sums;
    const int64_t most = most_rows(Parts, gates);
    const Share rows = share(chunk.rows, most);
    for (int64_t i = rows.begin; i < rows.end; i += most) {
      const int64_t n = minimum(most, rows.end - i);
      for (int64_t r = 0; r < n; ++r) {
        const StateRow before = h_row[i + r];
        put_row(h, r, before.at, output, before.narrow);
        put_row(x, r, element_of<T>(p.x, x_row[i + r] * p.x_stride, p.narrow_x), input, p.narrow_x);
      }
      for (int64_t panel = 0; panel < w.hidden.count(); ++panel) {
        const int64_t unit = panel * W, step = w.hidden.gate_step(panel);  // cells with saved gates have one vector a panel
        const int nv = w.hidden.tile(panel);
        Start<T> start = {};
        for (int v = 0; v < nv; ++v) start.at[v] = w.bias + (panel * gates + v) * W;
        multiply_panel(w.input, panel, x, n, start, in, nv * W);
        start = hidden_start_of(w.hidden, panel, in, kind == PADLESS_GRU ? w.hidden_bias + unit : nullptr, n, product);
        multiply_panel(w.hidden, panel, h, n, start, product, nv * W);
        for (int64_t r = 0; r < n; ++r)
          activate(product + r * nv * W, in + r * nv * W, step,
                   gates_again + (i + r) * saved_count(kind) * gate_width + unit, gate_width, Cell<T, Parts>());
      }
    }
  }
