// The kernels of one instruction set, as dispatch.cpp calls them, and the checks before them.
#pragma once

#include <stdint.h>

#include "padless.h"
#include "team.h"

namespace padless {

// What packed weights depend on, besides the type of their numbers.
struct Layer {
  int64_t cell, input, hidden, projection;
};

// Shared by the checks and all instruction sets. `static`: these are compiled with the flags of each set, and the linker must not
// pick one copy for all.
static inline Layer layer_of(const padless_problem& p) { return {p.cell, p.input_size, p.hidden_size, p.projection_size}; }
// Width of h, which the hidden weights are multiplied by.
static inline int64_t output_width(const Layer& layer) { return layer.projection ? layer.projection : layer.hidden; }
// Rows of gates and cells are padded to 16 elements for every instruction set: their layout must not depend on it.
static constexpr int64_t padded_hidden(int64_t hidden) { return (hidden + 15) / 16 * 16; }
// Whether rows, states, gates and weights may be bfloat16.
static constexpr bool takes_narrow(int64_t dtype) { return dtype == PADLESS_FLOAT32 || dtype == PADLESS_BFLOAT16; }
// Gates that forward saves for each hidden unit.
static constexpr int saved_count(int64_t cell) { return cell == PADLESS_LSTM || cell == PADLESS_GRU ? 4 : 0; }

struct TypedKernels {
  int64_t (*pack_forward_bytes)(const Layer&);
  int64_t (*pack_backward_bytes)(const Layer&);
  void (*pack_forward)(const Layer&, const void* w_ih, const void* w_hh, const void* b_ih, const void* b_hh, const void* w_hr,
                       bool narrow, void* packed);
  void (*pack_backward)(const Layer&, const void* w_ih, const void* w_hh, const void* w_hr, bool narrow, void* packed);
  bool (*weights_fit)(const padless_problem&, bool backward);
  int64_t (*scratch_bytes)(const padless_problem&, bool backward);
  void (*forward)(const padless_problem&, const Team&);
  void (*backward)(const padless_problem&, const Team&);
  void (*sigmoid)(const void* in, void* out, int64_t n);
  void (*tanh)(const void* in, void* out, int64_t n);
};

struct Kernels {
  TypedKernels of[2];  // float32 and float64
  uint64_t (*fingerprint)(const void* data, int64_t bytes);
  void (*move_rows)(const padless_move&, const Team&);
};

// Whether this process may use AMX's tiles.
bool permit_tiles();

// Checks sizes, strides, offsets and pointers; PADLESS_OK or the first error. It reads nothing but the index arrays.
int check_problem(const padless_problem& problem, bool backward);
// The parts of it that padless_scratch_bytes (sizes and batch_sizes) and packing need.
int check_shape(const padless_problem& problem);
int check_layer(const Layer& layer, int64_t dtype);

// Checks sizes, lengths and rows; PADLESS_OK or the first error. It reads nothing but the index arrays.
int check_move(const padless_move& move);

}  // namespace padless
