// Forward pass of one layer in one direction, for inference and training.
//
// The input product is computed step by step or, where steps have few rows, for a chunk of steps at once. Results have the same
// bits either way, and whatever a worker's lane is (steps.h): see tile.h.
//
// With a projection a step is two products: the cells of all hidden units, then h from them (with columns split, a barrier
// between). `unprojected` then holds o tanh(c), which is h itself without a projection, or `unprojected_rows` as products read it.
#pragma once

// A step of at least kDirectRows rows computes its own input product. Smaller steps are gathered into chunks of about
// kChunkRows rows. Where both matrices together fill the cache, a step that read both would find neither there, so all steps of
// fewer than kChunkRows rows are gathered.
constexpr int64_t kDirectRows = 24, kChunkRows = 96;
constexpr int64_t kTileChunkRows = 128;  // both, where bfloat16 numbers are multiplied
constexpr int64_t kWideChunkRows = 512;  // a chunk with AMX, where the recurrent weights alone fill the cache

template <class T, template <class, int> class Cell, int Parts> struct Forward {
  typedef typename ElementOf<T, Parts>::Type Element;
  static constexpr int64_t kind = Cell<T, Parts>::kind;
  static constexpr int W = kWidth<T>, gates = gate_count(kind);
  static constexpr int64_t most_direct_rows = Parts ? kTileChunkRows : kChunkRows;
  static constexpr bool overlaps = adds_input(Parts);  // the cell of a block with the product of the next
  static constexpr int tile_width = gates * panel_vectors(kind);  // vectors of a whole panel

  const padless_problem& p;
  const padless::Team team;
  const Steps steps;
  const ForwardWeights<T, Parts> weights;
  const int64_t hidden, output, state_stride, saved_stride, cells_stride;  // output: width of h
  T *h[2], *c, *unprojected;  // [B, state_stride], shared by the team; the last only with a projection and Parts = 0
  Operand<T, Parts> h_rows[2], unprojected_rows;  // as products read them
  Operand<T, Parts> x_rows;
  T *chunk, *input_sums[2], *hidden_sums[2];  // this worker's, as x_rows: products of a chunk, of a block and of the one before
  T *panel_buffer, *bias_buffer;  // with unpacked weights: a panel, and the biases as packed weights have them
  int64_t chunk_rows;

  Forward(const padless_problem& problem, const padless::Team& t)
      : p(problem), team(t), steps(problem, problem.reverse != 0), weights(layer_of(problem), problem.forward_weights),
        hidden(problem.hidden_size), output(output_width(layer_of(problem))), state_stride(state_stride_of(problem)),
        saved_stride(saved_count(kind) * padded_hidden(problem.hidden_size)), cells_stride(padded_hidden(problem.hidden_size)) {
    carve((uintptr_t)p.scratch, team.rank, team.size);
  }

  static int64_t scratch_bytes(const padless_problem& p) {
    Forward layout(p, {0, 1, nullptr, 0});  // l2_bytes = 0: the widest chunks, so the result is enough for every cache size
    int64_t most = 0;  // OpenMP may grant fewer threads than were asked for
    for (int64_t size = 1; size <= p.threads; ++size) most = maximum(most, layout.carve(0, size - 1, size));
    return most;
  }

  // Lays out the buffers of a team of `size` and those of one worker from an address on; returns the address after the worker's.
  int64_t carve(uintptr_t base, int64_t rank, int64_t size) {
    ScratchCursor cursor = {base};
    carve_shared(cursor, size);
    const uintptr_t shared_end = cursor.at;
    carve_own(cursor, size);
    const int64_t own_bytes = cursor.at - shared_end;
    cursor.at = shared_end + rank * own_bytes;
    carve_own(cursor, size);
    return cursor.at;
  }
  void carve_shared(ScratchCursor& cursor, int64_t size) {
    const int64_t active = most_active(p);
    for (T*& each : h) each = cursor.take<T>(active * state_stride);
    c = cursor.take<T>(active * state_stride);
    unprojected = Parts == 0 && projects() ? cursor.take<T>(active * state_stride) : nullptr;
    if constexpr (Parts > 0) {
      const int64_t rows = active + kTileRows * size;  // AMX reads whole tiles of rows
      for (Operand<T, Parts>& each : h_rows) each = take_rows<T, Parts>(cursor, rows, output);
      unprojected_rows = projects() ? take_rows<T, Parts>(cursor, rows, hidden) : Operand<T, Parts>{};
    } else {
      for (int i = 0; i < 2; ++i) h_rows[i] = {h[i], state_stride, 0};
      unprojected_rows = {unprojected, state_stride, 0};
    }
  }
  void carve_own(ScratchCursor& cursor, int64_t size) {
    const int64_t spare = Parts ? kTileRows : 0;
    for (int i = 0; i < 2; ++i) input_sums[i] = i == 0 || overlaps ? cursor.take<T>(buffer_rows(Parts) * 4 * W) : nullptr;
    for (T*& each : hidden_sums) each = cursor.take<T>(buffer_rows(Parts) * 4 * W);
    panel_buffer = unpacked() ? cursor.take<T>(tile_width * W * maximum(p.input_size, hidden)) : nullptr;
    bias_buffer = unpacked() ? cursor.take<T>(weights.hidden.vectors * (gates + 1) * W) : nullptr;
    // A chunk ends with the step that fills it, and steps in chunks have fewer than most_direct_rows rows.
    chunk_rows = minimum(most_chunk_rows() + most_direct_rows, p.rows) + spare;
    chunk = cursor.take<T>(chunk_rows * weights.input.vectors * gates * W);
    // A step outside of chunks: the lane's slots or, where columns are split, all.
    const int64_t step_rows = maximum((most_active(p) + size - 1) / size, minimum(most_active(p), kColumnRows * size)) + spare;
    x_rows = take_rows<T, Parts>(cursor, maximum(chunk_rows, step_rows), p.input_size);
  }

  bool projects() const { return kind == PADLESS_LSTM && p.projection_size > 0; }

  // Whether the weights are the caller's. Panels are packed as they are needed, but for one row.
  bool unpacked() const { return Parts == 0 && p.w_hh; }
  const T* bias() const { return unpacked() ? bias_buffer : weights.bias; }
  const T* hidden_bias() const { return unpacked() ? bias_buffer + weights.hidden.vectors * gates * W : weights.hidden_bias; }
  Given<T> given(const void* unpacked_weights) const { return {unpacked_weights, p.narrow_weights != 0}; }
  // The data of a panel, valid until the next call.
  const Element* panel_of(const Panels<T, Parts>& panels, int64_t panel, const void* raw) const {
    if constexpr (Parts == 0)
      if (unpacked()) {
        given(raw).with_type([&](const auto* from) { pack_panel(panels, panel, from, hidden, panel_buffer); });
        return panel_buffer;
      }
    return panels.at(panel);
  }

  // Whether a step reads more weights than the second-level cache holds: panels are prefetched then.
  bool prefetches(bool has_input) const {
    return !unpacked() && weights.hidden.bytes() + (has_input ? weights.input.bytes() : 0) > team.l2_bytes;
  }
  // Whether both matrices together are at least as large as that cache. Unlike above, matrices of exactly its size count (LSTM with
  // I = H = 256 and 2 MB), because the rows that they are multiplied with need some of it too.
  bool fills_cache() const { return weights.input.bytes() + weights.hidden.bytes() >= team.l2_bytes; }
  // Rows of a step from which it computes its own input product.
  int64_t direct_rows() const { return Parts || fills_cache() ? most_direct_rows : kDirectRows; }
  int64_t most_chunk_rows() const {
    return overlaps && weights.hidden.bytes() >= team.l2_bytes ? kWideChunkRows : most_direct_rows;
  }

  // h is in one of two buffers before step s, and in the other after it.
  T* h_before(int64_t s) const { return h[s & 1]; }
  T* h_after(int64_t s) const { return h[~s & 1]; }
  const Operand<T, Parts>& rows_before(int64_t s) const { return h_rows[s & 1]; }
  const Operand<T, Parts>& rows_after(int64_t s) const { return h_rows[~s & 1]; }

  // The padding starts as 0: subnormal numbers would be slow. Cells may write to it, but no product reads it.
  void copy_state(T* to, const void* from, int64_t width) const {
    copy_stored<T>(to, false, from, p.narrow_states, width);
    for (int64_t i = width; i < state_stride; ++i) to[i] = 0;
  }

  // Copies the initial states of the slots that begin at step s, divided like rows unless rank 0 computes alone.
  void load_initial_states(int64_t s, Mode mode) const {
    const int64_t begin = steps.active(s - 1), end = steps.active(s);
    if (mode == kAlone && team.rank) return;
    const Lane own = lane_of(mode == kAlone ? kAlone : kByRows, team, 0);
    for (int64_t slot = own.slot + own.count(begin) * own.slot_step; slot < end; slot += own.slot_step) {
      T* const to = h_before(s) + slot * state_stride;
      copy_state(to, state_row<T>(p, p.h0, p.h0_stride, slot), output);
      if constexpr (Parts > 0) {
        put_row(rows_before(s), slot, to, output);
        put_row(rows_after(s), slot, nullptr, output);  // its columns past the last stay zeros
        if (projects()) put_row(unprojected_rows, slot, nullptr, hidden);
      }
      if (kind == PADLESS_LSTM) copy_state(c + slot * state_stride, state_row<T>(p, p.c0, p.c0_stride, slot), hidden);
    }
  }

  // Last state of the slots that end with step s, the lane's columns; h has a lane of its own.
  void store_final_states(int64_t s, const Lane& lane, const Lane& h_lane) const {
    const Panels<T, Parts>& h_panels = projects() ? weights.projection : weights.hidden;
    if (p.h_n) store_final_state(s, h_lane, h_panels, output, h_after(s), p.h_n, p.h_n_stride);
    if (kind == PADLESS_LSTM && p.c_n) store_final_state(s, lane, weights.hidden, hidden, c, p.c_n, p.c_n_stride);
  }
  void store_final_state(int64_t s, const Lane& lane, const Panels<T, Parts>& panels, int64_t width, const T* state, void* to,
                         int64_t to_stride) const {
    const int64_t active = steps.active(s), staying = minimum(active, steps.active(s + 1));
    if (staying == active || lane.panel == lane.panel_end) return;
    const int64_t unit = panels.first(lane.panel) * W, count = minimum(width, panels.first(lane.panel_end) * W) - unit;
    const int64_t skip = lane.count(staying);
    for (int64_t slot = lane.slot + skip * lane.slot_step; slot < active; slot += lane.slot_step)
      copy_stored<T>(state_row<T>(p, to, to_stride, slot, unit), p.narrow_states, state + slot * state_stride + unit, false, count);
  }

  // Sequences of length 0 keep their state.
  void pass_states_through() const {
    for (int64_t slot = most_active(p) + team.rank; slot < p.batch; slot += team.size) {
      if (p.h_n) copy_state_row<T>(p, p.h_n, p.h_n_stride, p.h0, p.h0_stride, slot, output);
      if (kind == PADLESS_LSTM && p.c_n) copy_state_row<T>(p, p.c_n, p.c_n_stride, p.c0, p.c0_stride, slot, hidden);
    }
  }

#include "forward_step.h"
#include "forward_projection.h"

  void run() const {
    const TileScope<Parts> scope;
    if constexpr (Parts == 0)
      if (unpacked())
        pack_biases(layer_of(p), weights.input, given(p.b_ih), given(p.b_hh), bias_buffer,
                    bias_buffer + weights.hidden.vectors * gates * W);
    pass_states_through();
    const int64_t panels = weights.hidden.count(), size = gates * hidden * output, direct = direct_rows();
    Mode mode = kByRows;
    int64_t chunk_end = 0, chunk_row = 0, row0 = steps.down ? p.rows : 0, alone_until = 0;
    for (int64_t s = 0; s < steps.count; ++s) {
      const int64_t active = steps.active(s);
      if (steps.down) row0 -= active;
      const Mode was = mode;
      mode = mode_of(active, team, panels, size);
      if (mode == kByColumns && s < alone_until) mode = kAlone;
      if (mode != was) chunk_end = s;
      Lane lane = lane_of(mode, team, panels);
      load_initial_states(s, mode);
      // If the last chunk is used up, begins one with step s, of steps that are too small for their own input product.
      const auto begin_chunk = [&] {
        if (lane.panel == lane.panel_end || s < chunk_end || lane.count(active) >= direct) return;
        int64_t rows = lane.count(active);
        for (chunk_end = s + 1; chunk_end < steps.count && rows < most_chunk_rows(); ++chunk_end) {
          const int64_t next = steps.active(chunk_end);
          if (lane.count(next) >= direct || mode_of(next, team, panels, size) != mode_of(active, team, panels, size)) break;
          rows += lane.count(next);
        }
        chunk_row = 0;
        multiply_chunk(s, chunk_end, lane);
      };
      begin_chunk();
      if (mode == kByColumns || mode != was) {
        const int64_t alone = padless::wait_for_team(team, mode == was && chunk_row > 0);
        if (alone > 0) {
          alone_until = s + alone;
          mode = kAlone;
          lane = lane_of(mode, team, panels);
          chunk_end = s;
          begin_chunk();
        }
      }
      const bool in_chunk = s < chunk_end;
      if (lane.panel < lane.panel_end) step({s, steps.time(s), row0, lane, in_chunk, chunk_row});
      if (in_chunk) chunk_row += lane.count(active);
      Lane h_lane = lane;
      if (projects()) {
        h_lane = lane_of(mode, team, weights.projection.count());
        if (mode == kByColumns) {
          const int64_t alone = padless::wait_for_team(team, true);
          if (alone > 0) alone_until = s + 1 + alone;
        }
        project(s, h_lane);
      }
      store_final_states(s, lane, h_lane);
      if (!steps.down) row0 += active;
    }
  }
};
