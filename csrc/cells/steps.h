// What forward and backward share: the order of the steps, the part of a step that each worker computes, and rows of states.
//
// A worker owns either some slots with all columns (rank, rank + size, ...: balanced within one row, no barrier) or, where
// few rows are active, all slots with some columns (one barrier a step). Where other load makes barriers slow, rank 0 computes
// some steps alone (team.h).
#pragma once

// With fewer rows per thread the columns of a step are split instead of its slots.
constexpr int64_t kColumnRows = 6;
// Multiplications per thread and step from which a barrier in every step is worth its time; measured: docs/decisions/kernels.md.
constexpr int64_t kColumnWork = 4096;

// Steps in the order of processing: forward walks s = t, reverse walks t = steps - 1 - s, over the steps that have rows.
struct Steps {
  const int64_t* batch_sizes;
  int64_t count;
  bool down;
  Steps(const padless_problem& p, bool walk_down) : batch_sizes(p.batch_sizes), count(p.steps), down(walk_down) {
    while (count > 0 && batch_sizes[count - 1] == 0) --count;
  }
  int64_t time(int64_t s) const { return down ? count - 1 - s : s; }
  int64_t active(int64_t s) const { return s < 0 || s >= count ? 0 : batch_sizes[time(s)]; }
};
PADLESS_INLINE int64_t most_active(const padless_problem& p) { return p.steps ? p.batch_sizes[0] : 0; }

// The part of a step that one worker computes: the slots slot, slot + slot_step, ... and the panels [panel, panel_end).
struct Lane {
  int64_t slot, slot_step, panel, panel_end;
  int64_t count(int64_t active) const { return active > slot ? (active - slot + slot_step - 1) / slot_step : 0; }
};

// Panel q of a lane. Odd steps go backwards, to begin with the panels that are still in a cache.
PADLESS_INLINE int64_t panel_at(const Lane& lane, int64_t q, bool descending) {
  return descending ? lane.panel_end - 1 - q : lane.panel + q;
}

enum Mode { kByRows, kByColumns, kAlone };

PADLESS_INLINE Mode mode_of(int64_t active, const padless::Team& team, int64_t panels, int64_t weights) {
  const bool columns = active < kColumnRows * team.size && panels >= team.size && active * weights >= kColumnWork * team.size;
  return team.size > 1 && columns ? kByColumns : kByRows;
}
PADLESS_INLINE Lane lane_of(Mode mode, const padless::Team& team, int64_t panels) {
  if (mode == kByRows) return {team.rank, team.size, 0, panels};
  if (mode == kAlone) return {0, 1, 0, team.rank ? 0 : panels};
  return {0, 1, panels * team.rank / team.size, panels * (team.rank + 1) / team.size};
}

// Row stride of states in scratch, h and c alike.
PADLESS_INLINE int64_t state_stride_of(const padless_problem& p) {
  return round_up(maximum(p.hidden_size, p.projection_size), 16) + 16;
}

// The row of a slot in one of the caller's state tensors, from a unit on; null where there is none.
template <class T>
PADLESS_INLINE const void* state_row(const padless_problem& p, const void* base, int64_t stride, int64_t slot, int64_t unit = 0) {
  return base ? element_of<T>(base, (p.state_index ? p.state_index[slot] : slot) * stride + unit, p.narrow_states) : nullptr;
}
template <class T> PADLESS_INLINE void* state_row(const padless_problem& p, void* base, int64_t stride, int64_t slot, int64_t unit = 0) {
  return const_cast<void*>(state_row<T>(p, (const void*)base, stride, slot, unit));
}
// Copies the row of a slot from one state tensor to another.
template <class T>
PADLESS_INLINE void copy_state_row(const padless_problem& p, void* to, int64_t to_stride, const void* from, int64_t from_stride,
                                   int64_t slot, int64_t width) {
  const bool narrow = p.narrow_states;
  copy_stored<T>(state_row<T>(p, to, to_stride, slot), narrow, state_row<T>(p, from, from_stride, slot), narrow, width);
}
