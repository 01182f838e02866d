// Every kernel for one instruction set: compiled once per set with its flags and -DPADLESS_ISA=<namespace>.
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../padless.h"
#include "../kernels.h"
#include "../team.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bfloat16 numbers are read in pairs, the first in the low half");

namespace padless {
namespace PADLESS_ISA {
namespace {

#include "simd.h"
#include "activations.h"
#include "tile.h"
#if defined(PADLESS_EMULATE)
#include "emulation.h"
#endif
#if defined(PADLESS_AMX)
#include "amx.h"
#elif defined(PADLESS_DOTS)
#include "dots.h"
#endif
#include "scratch.h"
#include "operand.h"
#include "pack.h"
#include "products.h"
#include "unpacked.h"
#include "steps.h"
#include "forward_cells.h"
#include "forward.h"
#include "backward_cells.h"
#include "backward.h"
#if !defined(PADLESS_AMX) && !defined(PADLESS_DOTS)
#include "fingerprint.h"
#include "rows.h"
#endif

template <class T, int Parts> struct Typed {
  static int64_t pack_forward_bytes(const Layer& layer) { return ForwardWeights<T, Parts>(layer, nullptr).bytes; }
  static int64_t pack_backward_bytes(const Layer& layer) { return BackwardWeights<T, Parts>(layer, nullptr).bytes; }
  static void pack_forward(const Layer& layer, const void* w_ih, const void* w_hh, const void* b_ih, const void* b_hh,
                           const void* w_hr, bool narrow, void* packed) {
    const auto given = [&](const void* at) { return Given<T>{at, narrow}; };
    PADLESS_ISA::pack_forward<T, Parts>(layer, given(w_ih), given(w_hh), given(b_ih), given(b_hh), given(w_hr), packed);
  }
  static void pack_backward(const Layer& layer, const void* w_ih, const void* w_hh, const void* w_hr, bool narrow, void* packed) {
    const auto given = [&](const void* at) { return Given<T>{at, narrow}; };
    PADLESS_ISA::pack_backward<T, Parts>(layer, given(w_ih), given(w_hh), given(w_hr), packed);
  }
  static bool weights_fit(const padless_problem& p, bool backward) {
    const void* packed = backward ? p.backward_weights : p.forward_weights;
    const int64_t bytes = backward ? p.backward_weights_bytes : p.forward_weights_bytes;
    const Layer layer = layer_of(p);
    const int64_t need = backward ? pack_backward_bytes(layer) : pack_forward_bytes(layer);
    return bytes >= need && header_fits<T, Parts>(packed, backward ? kBackwardPack : kForwardPack, layer);
  }
  template <template <class, int> class Cell> static int64_t scratch(const padless_problem& p, bool backward) {
    return backward ? Backward<T, Cell, Parts>::scratch_bytes(p) : Forward<T, Cell, Parts>::scratch_bytes(p);
  }
  static int64_t scratch_bytes(const padless_problem& p, bool backward) {
    switch (p.cell) {
      case PADLESS_LSTM: return scratch<Lstm>(p, backward);
      case PADLESS_GRU: return scratch<Gru>(p, backward);
      case PADLESS_RNN_TANH: return scratch<RnnTanh>(p, backward);
      default: return scratch<RnnRelu>(p, backward);
    }
  }
  static void forward(const padless_problem& p, const Team& team) {
    switch (p.cell) {
      case PADLESS_LSTM: return Forward<T, Lstm, Parts>(p, team).run();
      case PADLESS_GRU: return Forward<T, Gru, Parts>(p, team).run();
      case PADLESS_RNN_TANH: return Forward<T, RnnTanh, Parts>(p, team).run();
      default: return Forward<T, RnnRelu, Parts>(p, team).run();
    }
  }
  static void backward(const padless_problem& p, const Team& team) {
    switch (p.cell) {
      case PADLESS_LSTM: return Backward<T, Lstm, Parts>(p, team).run();
      case PADLESS_GRU: return Backward<T, Gru, Parts>(p, team).run();
      case PADLESS_RNN_TANH: return Backward<T, RnnTanh, Parts>(p, team).run();
      default: return Backward<T, RnnRelu, Parts>(p, team).run();
    }
  }
  static void sigmoid_of(const void* in, void* out, int64_t n) {
    for (int64_t i = 0; i < n; i += kWidth<T>) store((T*)out + i, sigmoid_for<Parts>(load((const T*)in + i)));
  }
  static void tanh_of(const void* in, void* out, int64_t n) {
    for (int64_t i = 0; i < n; i += kWidth<T>) store((T*)out + i, tanh_for<Parts>(load((const T*)in + i)));
  }
};

template <class T, int Parts = 0> constexpr TypedKernels typed() {
  typedef Typed<T, Parts> Of;
  return {Of::pack_forward_bytes, Of::pack_backward_bytes, Of::pack_forward, Of::pack_backward, Of::weights_fit,
          Of::scratch_bytes, Of::forward, Of::backward, Of::sigmoid_of, Of::tanh_of};
}

}  // namespace

#if defined(PADLESS_AMX)
bool tiles_work();
bool tiles_work() { return tiles::pass_self_test(); }
extern const TypedKernels bfloat16_kernels[2];  // of one product and of three
const TypedKernels bfloat16_kernels[2] = {typed<float, 1>(), typed<float, 2>()};
#elif defined(PADLESS_DOTS)
extern const TypedKernels bfloat16_kernels[1];
const TypedKernels bfloat16_kernels[1] = {typed<float, 1>()};
#else
extern const Kernels kernels;
const Kernels kernels = {{typed<float>(), typed<double>()}, fingerprint, move_rows};
#endif

}  // namespace PADLESS_ISA
}  // namespace padless
