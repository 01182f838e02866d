// The C ABI, except for index arithmetic (layout.cpp): picks the instruction set, checks arguments and runs kernels.
#include "kernels.h"

#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace padless {

#if defined(__x86_64__)
namespace amx {
extern const TypedKernels bfloat16_kernels[2];
bool tiles_work();
}
namespace avx512_bf16 { extern const TypedKernels bfloat16_kernels[1]; }
namespace avx512 { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
#endif
namespace baseline { extern const Kernels kernels; }
namespace amx_emulated {
extern const TypedKernels bfloat16_kernels[2];
bool tiles_work();
}
namespace avx512_bf16_emulated { extern const TypedKernels bfloat16_kernels[1]; }

namespace {

struct Isa {
  const char* name;
  const Kernels* kernels;
  const TypedKernels* bfloat16;  // for the first dtypes from PADLESS_BFLOAT16 on
  int bfloat16_count;
  bool (*supported)(), (*preferred)();  // preferred: to the sets before it, where it is supported
};

bool always() { return true; }
bool never() { return false; }
bool has_emulation() {
  static const bool works = amx_emulated::tiles_work();
  return works;
}
#if defined(__x86_64__)
// __builtin_cpu_supports asks cpuid and xgetbv: a set whose registers the system does not save is not supported.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
}
// vdpbf16ps does twice the work of an FMA on AMD's cores (Zen 5: 539 and 268 GFLOP/s), and half of it on Intel's.
bool is_amd() { return __builtin_cpu_is("amd"); }
// Where the system does not permit tiles, the next set is used.
bool has_amx() {
  static const bool works = has_avx512_bf16() && permit_tiles() && amx::tiles_work();
  return works;
}
#endif

const Isa kSets[] = {
    {"amx_emulated", &baseline::kernels, amx_emulated::bfloat16_kernels, 2, has_emulation, never},  // for tests: slow
    {"avx512_bf16_emulated", &baseline::kernels, avx512_bf16_emulated::bfloat16_kernels, 1, always, never},
    {"baseline", &baseline::kernels, nullptr, 0, always, always},
#if defined(__x86_64__)
    {"avx2", &avx2::kernels, nullptr, 0, has_avx2, always},
    {"avx512", &avx512::kernels, nullptr, 0, has_avx512, always},
    {"avx512_bf16", &avx512::kernels, avx512_bf16::bfloat16_kernels, 1, has_avx512_bf16, is_amd},
    {"amx", &avx512::kernels, amx::bfloat16_kernels, 2, has_amx, always},
#endif
};
constexpr int kSetCount = sizeof kSets / sizeof *kSets;

int best_set() {
  int best = 0;
  for (int i = 0; i < kSetCount; ++i)
    if (kSets[i].preferred() && kSets[i].supported()) best = i;
  return best;
}

int g_active = -1;  // index into kSets; read and written atomically

const Isa& active_set() {
  int set = __atomic_load_n(&g_active, __ATOMIC_RELAXED);
  if (set < 0) {
    set = best_set();
    __atomic_store_n(&g_active, set, __ATOMIC_RELAXED);
  }
  return kSets[set];
}

int find_set(const char* name) {
  for (int i = 0; i < kSetCount; ++i)
    if (name && strcmp(name, kSets[i].name) == 0) return i;
  return -1;
}

// The kernels of this dtype in the active set, or null if it has none. A call asks once: another thread may force another set.
const TypedKernels* kernels_of(int64_t dtype) {
  const Isa& set = active_set();
  if (dtype < 0 || dtype >= PADLESS_BFLOAT16 + set.bfloat16_count) return nullptr;
  return dtype < PADLESS_BFLOAT16 ? &set.kernels->of[dtype] : &set.bfloat16[dtype - PADLESS_BFLOAT16];
}

int64_t g_l2_bytes = 0;  // 0: not asked yet; read and written atomically

// Size of a core's second-level cache: kernels prefetch weights that exceed it (docs/decisions/kernels.md). Known on x86 only;
// elsewhere no weights exceed it.
int64_t l2_bytes() {
  int64_t bytes = __atomic_load_n(&g_l2_bytes, __ATOMIC_RELAXED);
  if (bytes) return bytes;
#if defined(__x86_64__) && defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  if (bytes <= 0) bytes = INT64_MAX;
  __atomic_store_n(&g_l2_bytes, bytes, __ATOMIC_RELAXED);
  return bytes;
}

}  // namespace
}  // namespace padless

using namespace padless;

extern "C" {

int64_t padless_abi_version(void) { return PADLESS_ABI_VERSION; }
int64_t padless_problem_bytes(void) { return sizeof(padless_problem); }
int64_t padless_move_bytes(void) { return sizeof(padless_move); }

const char* padless_error_text(int error) {
  switch (error) {
    case PADLESS_OK: return "no error";
    case PADLESS_BAD_NULL: return "a required pointer is null";
    case PADLESS_BAD_ENUM: return "unknown cell, dtype or flag, a dtype that this instruction set does not have, or a flag that this dtype does not allow";
    case PADLESS_BAD_SIZE:
      return "a size is negative or too large, a cell other than LSTM has a projection, or a backward pass with unpacked weights is not "
             "of a single step of few rows";
    case PADLESS_BAD_BATCH_SIZES: return "batch_sizes must be non-increasing, lie in [0, B] and sum to the number of rows";
    case PADLESS_BAD_ROW: return "a row lies outside of its data, or a target that is not a grid is to be filled";
    case PADLESS_BAD_STRIDE: return "a row stride is smaller than the row";
    case PADLESS_BAD_STATE_INDEX:
      return "an index of states or sequences lies outside of the batch or is there twice, or order and slots are not each other's "
             "inverse";
    case PADLESS_BAD_WEIGHTS: return "packed weights are missing or were packed for another cell, dtype, size or instruction set";
    case PADLESS_BAD_SAVED: return "saved gates or cells are missing or too small";
    case PADLESS_BAD_SCRATCH: return "scratch is missing, too small or not aligned to 64 bytes";
    case PADLESS_BAD_THREADS: return "the number of threads must lie in [1, 1024]";
    case PADLESS_BAD_ISA: return "unknown instruction set, or one that this machine cannot run";
    default: return "unknown error";
  }
}

const char* padless_isa_active(void) { return active_set().name; }
const char* padless_isa_compiled(int index) { return index >= 0 && index < kSetCount ? kSets[index].name : nullptr; }
int padless_isa_supported(const char* name) {
  const int set = find_set(name);
  return set >= 0 && kSets[set].supported();
}
int padless_computes(int64_t dtype) { return kernels_of(dtype) != nullptr; }
int padless_isa_force(const char* name) {
  if (name && !padless_isa_supported(name)) return PADLESS_BAD_ISA;
  __atomic_store_n(&g_active, name ? find_set(name) : best_set(), __ATOMIC_RELAXED);
  return PADLESS_OK;
}

void padless_assume_l2_bytes(int64_t bytes) { __atomic_store_n(&g_l2_bytes, bytes > 0 ? bytes : 0, __ATOMIC_RELAXED); }

int64_t padless_saved_width(int64_t cell, int64_t hidden) { return saved_count(cell) * padded_hidden(hidden); }
int64_t padless_cells_width(int64_t cell, int64_t hidden) { return cell == PADLESS_LSTM ? padded_hidden(hidden) : 0; }

int64_t padless_pack_forward_bytes(int64_t cell, int64_t dtype, int64_t input, int64_t hidden, int64_t projection) {
  const Layer layer = {cell, input, hidden, projection};
  const TypedKernels* const kernels = kernels_of(dtype);
  return check_layer(layer, dtype) || !kernels ? -1 : kernels->pack_forward_bytes(layer);
}
int64_t padless_pack_backward_bytes(int64_t cell, int64_t dtype, int64_t input, int64_t hidden, int64_t projection) {
  const Layer layer = {cell, input, hidden, projection};
  const TypedKernels* const kernels = kernels_of(dtype);
  return check_layer(layer, dtype) || !kernels ? -1 : kernels->pack_backward_bytes(layer);
}
int padless_pack_forward(int64_t cell, int64_t dtype, int64_t input, int64_t hidden, int64_t projection, const void* w_ih,
                         const void* w_hh, const void* b_ih, const void* b_hh, const void* w_hr, int narrow, void* packed) {
  const Layer layer = {cell, input, hidden, projection};
  if (const int error = check_layer(layer, dtype)) return error;
  const TypedKernels* const kernels = kernels_of(dtype);
  if (!kernels || (narrow && !takes_narrow(dtype))) return PADLESS_BAD_ENUM;
  if ((!w_ih && input > 0) || !w_hh || (!w_hr && projection > 0) || !packed) return PADLESS_BAD_NULL;
  kernels->pack_forward(layer, w_ih, w_hh, b_ih, b_hh, w_hr, narrow != 0, packed);
  return PADLESS_OK;
}
int padless_pack_backward(int64_t cell, int64_t dtype, int64_t input, int64_t hidden, int64_t projection, const void* w_ih,
                          const void* w_hh, const void* w_hr, int narrow, void* packed) {
  const Layer layer = {cell, input, hidden, projection};
  if (const int error = check_layer(layer, dtype)) return error;
  const TypedKernels* const kernels = kernels_of(dtype);
  if (!kernels || (narrow && !takes_narrow(dtype))) return PADLESS_BAD_ENUM;
  if ((!w_ih && input > 0) || !w_hh || (!w_hr && projection > 0) || !packed) return PADLESS_BAD_NULL;
  kernels->pack_backward(layer, w_ih, w_hh, w_hr, narrow != 0, packed);
  return PADLESS_OK;
}

// The index arrays of time-major rows, which callers do not pass, are stored at the start of the scratch, in whole cache lines.
static int64_t index_bytes(const padless_problem& p) {
  return p.x_step && p.y_step ? 0 : (8 * (p.steps + p.batch) + 63) / 64 * 64;
}
static void address_time_major(padless_problem& p) {
  int64_t *step = (int64_t*)p.scratch, *sequence = step + p.steps;
  for (int64_t t = 0, row = 0; t < p.steps; row += p.batch_sizes[t++]) step[t] = row;
  for (int64_t slot = 0; slot < p.batch; ++slot) sequence[slot] = slot;
  if (!p.x_step) p.x_step = step, p.x_sequence = sequence;
  if (!p.y_step) p.y_step = step, p.y_sequence = sequence;
}

int64_t padless_scratch_bytes(const padless_problem* p, int backward) {
  if (!p || check_shape(*p) != PADLESS_OK) return -1;
  const TypedKernels* const kernels = kernels_of(p->dtype);
  return kernels ? index_bytes(*p) + kernels->scratch_bytes(*p, backward != 0) : -1;
}

static int check_and_run(const padless_problem* problem, bool backward) {
  if (!problem) return PADLESS_BAD_NULL;
  padless_problem p = *problem;
  if (const int error = check_problem(p, backward)) return error;
  const TypedKernels* const kernels = kernels_of(p.dtype);
  if (!kernels) return PADLESS_BAD_ENUM;
  const bool recomputes = backward && !p.gates && saved_count(p.cell) > 0;
  if (!backward || recomputes)
    if ((backward || !p.w_hh) && (!p.forward_weights || !kernels->weights_fit(p, false))) return PADLESS_BAD_WEIGHTS;
  if (backward && !p.w_hh && (!p.backward_weights || !kernels->weights_fit(p, true))) return PADLESS_BAD_WEIGHTS;
  const int64_t indices = index_bytes(p);
  if (!p.scratch || p.scratch_bytes < indices + kernels->scratch_bytes(p, backward) || (uintptr_t)p.scratch % 64)
    return PADLESS_BAD_SCRATCH;
  if (indices) {
    address_time_major(p);
    p.scratch = (char*)p.scratch + indices, p.scratch_bytes -= indices;
  }
  run_team(backward ? kernels->backward : kernels->forward, p, l2_bytes());
  return PADLESS_OK;
}

int padless_forward(const padless_problem* problem) { return check_and_run(problem, false); }
int padless_backward(const padless_problem* problem) { return check_and_run(problem, true); }

int padless_move_rows(const padless_move* move) {
  if (!move) return PADLESS_BAD_NULL;
  if (const int error = check_move(*move)) return error;
  run_team(active_set().kernels->move_rows, *move, l2_bytes());
  return PADLESS_OK;
}

uint64_t padless_fingerprint(const void* data, int64_t bytes) {
  return data && bytes > 0 ? active_set().kernels->fingerprint(data, bytes) : 0;
}

void padless_advise_large_pages(void* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  static const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + bytes) / page * page;
  if (data && bytes > 0 && begin < end) madvise((void*)begin, end - begin, MADV_HUGEPAGE);  // may fail: it is advice
#else
  (void)data, (void)bytes;
#endif
}

int padless_sigmoid(int64_t dtype, const void* in, void* out, int64_t n) {
  const TypedKernels* const kernels = kernels_of(dtype);
  if (!kernels) return PADLESS_BAD_ENUM;
  if (n < 0 || n % 16) return PADLESS_BAD_SIZE;
  if (!in || !out) return PADLESS_BAD_NULL;
  kernels->sigmoid(in, out, n);
  return PADLESS_OK;
}
int padless_tanh(int64_t dtype, const void* in, void* out, int64_t n) {
  const TypedKernels* const kernels = kernels_of(dtype);
  if (!kernels) return PADLESS_BAD_ENUM;
  if (n < 0 || n % 16) return PADLESS_BAD_SIZE;
  if (!in || !out) return PADLESS_BAD_NULL;
  kernels->tanh(in, out, n);
  return PADLESS_OK;
}

}  // extern "C"
