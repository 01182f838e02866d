// What one instruction set offers to the front door (dispatch.cpp).
#pragma once

#include <stdint.h>

#include "padless.h"
#include "team.h"

namespace padless {

struct TypedKernels {
  int64_t (*pack_forward_bytes)(int64_t cell, int64_t input, int64_t hidden);
  int64_t (*pack_backward_bytes)(int64_t cell, int64_t input, int64_t hidden);
  void (*pack_forward)(int64_t cell, int64_t input, int64_t hidden, const void* w_ih, const void* w_hh, const void* b_ih,
                       const void* b_hh, void* packed);
  void (*pack_backward)(int64_t cell, int64_t input, int64_t hidden, const void* w_ih, const void* w_hh, void* packed);
  bool (*weights_fit)(const padless_problem&, bool backward);
  int64_t (*scratch_bytes)(const padless_problem&, bool backward);
  void (*forward)(const padless_problem&, const Team&);
  void (*backward)(const padless_problem&, const Team&);
  void (*sigmoid)(const void* in, void* out, int64_t n);
  void (*tanh)(const void* in, void* out, int64_t n);
};

struct Kernels {
  TypedKernels of[2];  // by enum padless_dtype
  uint64_t (*fingerprint)(const void* data, int64_t bytes);
};

// Checks sizes, strides, offsets and pointers; PADLESS_OK or the first error. It reads nothing but the index arrays.
// The part of it that padless_scratch_bytes needs: sizes and batch_sizes.
int check_shape(const padless_problem& problem);
int check_problem(const padless_problem& problem, bool backward);

}  // namespace padless
