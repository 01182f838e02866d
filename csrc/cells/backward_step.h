// Members of Backward (backward.h): the products of a single step with unpacked weights, and the gradients of these weights.

  // Columns that are computed at once: 8 rows of them and the sums of 8 rows stay in the first-level cache.
  static constexpr int64_t kStepColumns = 2048 / sizeof(T), kStepSums = 8;

  // Whether the gradients of the weights are bfloat16.
  bool has_narrow_sums() const { return unpacked() && p.narrow_weights; }

  // Products of the first n gradient rows with this worker's share of the columns of a weight. `begin` writes the start of `count` sums
  // of a row from a column on, `end` takes them.
  template <class Begin, class End>
  void multiply_step(const Operand<T, Parts>& rows, int64_t n, const void* unpacked_weights, Operands of, const Begin& begin,
                     const End& end) const {
    if constexpr (Parts == 0) {
      const int64_t columns = columns_of(of);
      const Share own = share(columns, W);
      for (int64_t column = own.begin; column < own.end; column += kStepColumns) {
        const int64_t count = minimum(kStepColumns, own.end - column);
        for (int64_t r = 0; r < n; ++r) begin(r, column, round_up(count, W), step_sums + r * kStepColumns);
        Given<T>{unpacked_weights, p.narrow_weights != 0}.with_type([&](const auto* weights_at) {
          for (int i = 0; i < runs_of(of); ++i) {
            const Run run = run_in(of, i);
            add_all_terms(Factors<T>{rows.at + run.column, rows.stride, 1}, n, weights_at + run.row * columns + column, columns, run.count,
                          count, step_sums, kStepColumns, false);
          }
        });
        for (int64_t r = 0; r < n; ++r) end(r, column, count, step_sums + r * kStepColumns);
      }
    }
  }

  void write_step_input_gradient(const Chunk& chunk) const {
    const auto begin = [](int64_t, int64_t, int64_t count, T* sums) { copy_or_zero<T>(sums, nullptr, count); };
    multiply_step(chunk.gradient_rows, chunk.rows, p.w_ih, kX, begin, [&](int64_t r, int64_t column, int64_t count, const T* sums) {
      void* const to = element_of<T>(p.dx, x_row[r] * p.dx_stride + column, p.narrow_x);
      copy_stored<T>(to, p.narrow_x, sums, false, count);
    });
  }

  // dh0 of the n slots of the step, whose gradient rows are `rows`. GRU: `dh` is a part of it.
  void store_step_gradient(const Operand<T, Parts>& rows, int64_t n) const {
    if (!p.dh0) return;
    const auto begin = [&](int64_t slot, int64_t column, int64_t count, T* sums) {
      copy_or_zero<T>(sums, kind == PADLESS_GRU ? dh + slot * state_stride + column : nullptr, count);
    };
    multiply_step(rows, n, p.w_hh, kHidden, begin, [&](int64_t slot, int64_t column, int64_t count, const T* sums) {
      store_state(p.dh0, p.dh0_stride, slot, column, sums, count);
    });
  }

  // The gradient of a weight, row after row of this worker's share: the rows of a step are few, so writing it takes the most time.
  void write_step_weight_gradient(const Chunk& chunk, Operands of) const {
    void* const to = of == kX ? p.dw_ih : p.dw_hh;
    if constexpr (Parts == 0) {
      const int64_t columns = columns_of(of), n = chunk.rows;
      const Operand<T, Parts>& from = chunk.gradient_rows;
      for (int64_t column = 0; to && column < columns; column += kStepColumns) {
        const int64_t count = minimum(kStepColumns, columns - column);
        for (int64_t k = 0; k < n; ++k)
          for (int64_t c = 0; c < count; c += W)
            store(step_rows + k * kStepColumns + c, load_row<T>(operand_row(chunk, of, k), column + c, count - c));
        const bool direct = !has_narrow_sums() && count % W == 0;
        for (int i = 0; i < runs_of(of); ++i) {
          const Run run = run_in(of, i);
          const Share own = share(run.count, kStepSums);
          for (int64_t g = own.begin; g < own.end; g += kStepSums) {
            const int64_t size = minimum(kStepSums, own.end - g), at = (run.row + g) * columns + column;
            T* const sums = direct ? (T*)to + at : step_sums;
            const int64_t stride = direct ? columns : kStepColumns;
            add_all_terms(Factors<T>{from.at + run.column + g, 1, from.stride}, size, (const T*)step_rows, kStepColumns, n,
                          round_up(count, W), sums, stride, true);
            for (int64_t r = 0; !direct && r < size; ++r)
              copy_stored<T>(element_of<T>(to, at + r * columns, has_narrow_sums()), has_narrow_sums(), sums + r * stride, false, count);
          }
        }
      }
    }
  }
