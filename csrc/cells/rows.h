// Copies of rows between layouts: packed by step, back to back, padded, or every sequence in memory of its own.
#pragma once

typedef uint8_t VecBytes __attribute__((vector_size(kVectorBytes), aligned(1), may_alias));

// Copies of one row: of 4 or 8 bytes, of a vector or more (the last vector may overlap the one before), or of any size.
struct Row4 {
  PADLESS_INLINE void copy(char* to, const char* from, int64_t) { __builtin_memcpy(to, from, 4); }
};
struct Row8 {
  PADLESS_INLINE void copy(char* to, const char* from, int64_t) { __builtin_memcpy(to, from, 8); }
};
struct RowOfVectors {
  PADLESS_INLINE void copy(char* to, const char* from, int64_t bytes) {
    constexpr int64_t v = kVectorBytes;
    int64_t at = 0;
    for (; at + 4 * v <= bytes; at += 4 * v) {
      const VecBytes a = load(from + at), b = load(from + at + v), c = load(from + at + 2 * v), d = load(from + at + 3 * v);
      store(to + at, a), store(to + at + v, b), store(to + at + 2 * v, c), store(to + at + 3 * v, d);
    }
    for (; at + v <= bytes; at += v) store(to + at, load(from + at));
    if (at < bytes) store(to + bytes - v, load(from + bytes - v));
  }
  PADLESS_INLINE VecBytes load(const char* from) { return *(const VecBytes*)from; }
  PADLESS_INLINE void store(char* to, VecBytes vector) { *(VecBytes*)to = vector; }
};
struct AnyRow {
  PADLESS_INLINE void copy(char* to, const char* from, int64_t bytes) { __builtin_memcpy(to, from, (size_t)bytes); }
};

// A tile has few enough sequences for the cache lines of both sides to stay in the first-level cache, even where each step
// touches only a part of a line.
constexpr int64_t kTileSequences = 64, kTileSteps = 64;

// The rows of one side in bytes: those of (t, b) are at first(b) + step(t), and t only grows.
struct Side {
  const padless_move& m;
  const padless_rows& rows;
  int64_t bytes;  // of a row
  int64_t seen = 0, start = 0;  // the first row of step `seen`, packed by step

  char* first(int64_t b) const {
    if (rows.pieces) return (char*)rows.pieces[b];
    if (rows.first) return (char*)rows.data + rows.first[b] * bytes;
    const int64_t before = m.right_aligned ? m.steps - m.lengths[b] : 0;
    return (char*)rows.data + (b * rows.sequence + before * rows.step) * bytes;
  }
  int64_t step(int64_t t) {
    if (rows.pieces) return t * bytes;
    if (!rows.batch_sizes) return t * rows.step * bytes;
    while (seen < t && seen < rows.size_count) start += rows.batch_sizes[seen++];  // a grid may go on after the last
    return start * bytes;
  }
  bool is_dense() const { return rows.pieces || (!rows.batch_sizes && rows.step == 1); }
};

template <class Row> struct Move {
  const padless_move& m;
  const int64_t bytes;  // of a row
  Side source = {m, m.source, bytes}, target = {m, m.target, bytes};

  // Step after step. Copying one sequence after the other takes up to a quarter longer.
  void copy_by_step(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const char* from[kTileSequences];
    char* to[kTileSequences];
    Side source = this->source, target = this->target;  // copies: other tiles begin at the same step
    for (int64_t t = begin; t < end;) {
      int64_t running = 0, until = end;  // the number of sequences with rows in all steps [t, until)
      for (int64_t b = first; b < last; ++b) {
        const int64_t length = m.lengths[b];
        if (length <= t) continue;
        from[running] = source.first(b), to[running++] = target.first(b);
        if (length < until) until = length;
      }
      if (!running) return;
      for (; t < until; ++t) {
        const int64_t read = source.step(t), write = target.step(t);
        for (int64_t i = 0; i < running; ++i) Row::copy(to[i] + write, from[i] + read, bytes);
      }
    }
  }

  void copy_by_sequence(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    for (int64_t b = first; b < last; ++b) {
      const int64_t stop = m.lengths[b] < end ? m.lengths[b] : end;
      if (begin < stop)
        __builtin_memcpy(target.first(b) + begin * bytes, source.first(b) + begin * bytes, (size_t)((stop - begin) * bytes));
    }
  }

  // The cells after each sequence. Right-aligned: the same number of cells before it, counted backwards from step -1.
  void fill(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const int64_t step = m.target.step * bytes;
    for (int64_t b = first; b < last; ++b) {
      const int64_t length = m.lengths[b];
      char* const to = target.first(b);
      for (int64_t t = begin > length ? begin : length; t < end; ++t)
        Row::copy(to + (m.right_aligned ? length - 1 - t : t) * step, (const char*)m.fill, bytes);
    }
  }

  void run(const Team& team) {
    const bool dense = source.is_dense() && target.is_dense();
    int64_t steps = kTileSteps;
    if (dense && steps * bytes < (1 << 16)) steps = (1 << 16) / bytes;
    const int64_t across = (m.sequences + kTileSequences - 1) / kTileSequences, down = (m.steps + steps - 1) / steps;
    for (int64_t tile = team.rank; tile < across * down; tile += team.size) {
      const int64_t begin = tile / across * steps, end = begin + steps < m.steps ? begin + steps : m.steps;
      const int64_t first = tile % across * kTileSequences;
      const int64_t last = first + kTileSequences < m.sequences ? first + kTileSequences : m.sequences;
      if (dense) copy_by_sequence(first, last, begin, end);
      else source.step(begin), target.step(begin), copy_by_step(first, last, begin, end);
      if (m.fill) fill(first, last, begin, end);
    }
  }
};

static void move_rows(const padless_move& m, const Team& team) {
  if (m.row_bytes == 4) return Move<Row4>{m, 4}.run(team);
  if (m.row_bytes == 8) return Move<Row8>{m, 8}.run(team);
  if (m.row_bytes >= kVectorBytes) return Move<RowOfVectors>{m, m.row_bytes}.run(team);
  Move<AnyRow>{m, m.row_bytes}.run(team);
}
