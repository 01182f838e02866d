/* C ABI of the padless kernels: recurrent layers over ragged batches, on the CPU.
 *
 * Vocabulary: B sequences, N rows (sum of the lengths), T steps (longest length), I input width, H hidden width,
 * P width of the output and of h: that of the projection where there is one, else H.
 * Every sequence has a slot, 0..B-1, longest first. At step t the slots 0..batch_sizes[t]-1 are active. A row (t, slot) of x is
 *     x + (x_step[t] + x_sequence[slot]) * x_stride                      (strides in elements, unit column stride)
 * and y likewise, so time-major packed, back-to-back and padded tensors are read and written in place.
 * One call is one layer in one direction. Nothing here allocates, throws, prints or reads the environment.
 */
#ifndef PADLESS_H
#define PADLESS_H

#include <stdint.h>

#if defined(_WIN32)
#define PADLESS_API __declspec(dllexport)
#else
#define PADLESS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { PADLESS_ABI_VERSION = 11 };

enum padless_cell { PADLESS_LSTM = 0, PADLESS_GRU = 1, PADLESS_RNN_TANH = 2, PADLESS_RNN_RELU = 3 };
/* Arithmetic of products. BFLOAT16: bfloat16 factors with float32 sums; sigmoid and tanh are accurate to 2e-5. BFLOAT16_3: each
 * factor is split into two bfloat16 numbers, and three products are added. Everything else is float32, but in both modes db sums
 * gradients that are rounded like the factors of dW. Not every instruction set has them (padless_computes). */
enum padless_dtype { PADLESS_FLOAT32 = 0, PADLESS_FLOAT64 = 1, PADLESS_BFLOAT16 = 2, PADLESS_BFLOAT16_3 = 3 };

enum { PADLESS_STEP_ROWS = 128 }; /* most rows of a backward pass with unpacked weights */

/* Every field is 8 bytes, so that a caller can fill the struct as one array of 64-bit words. */
typedef struct padless_problem {
  int64_t cell;        /* enum padless_cell */
  int64_t dtype;       /* enum padless_dtype; "T*" below is double* for FLOAT64, else float* */
  int64_t reverse;     /* 0 or 1: walk absolute time from T-1 down; a slot joins at its own last step */
  int64_t threads;     /* 1 to 1024; 1 opens no OpenMP region */
  int64_t batch;       /* B; B > batch_sizes[0] means sequences of length 0, which keep their state */
  int64_t rows;        /* N == sum(batch_sizes) */
  int64_t steps;       /* T */
  int64_t input_size;  /* I: 0 (no input product) to 2^30 */
  int64_t hidden_size; /* H: 1 to 2^20, as P */
  const int64_t* batch_sizes; /* [T] >= 0, non-increasing */

  const void* x;             /* T*, rows as above, read-only */
  int64_t x_rows;            /* rows that x holds: every addressed row lies in [0, x_rows) */
  int64_t x_stride;          /* >= I */
  const int64_t* x_step;     /* [T] in rows; null, as x_sequence: time-major, row (t, slot) follows row (t, slot - 1) */
  const int64_t* x_sequence; /* [B] in rows */

  void* y;                   /* T*, forward: written; backward: read. Does not alias x. */
  int64_t y_rows;
  int64_t y_stride;          /* >= P; 2P when two directions share a buffer */
  const int64_t* y_step;     /* [T]; null, as y_sequence: time-major */
  const int64_t* y_sequence; /* [B] */

  const int64_t* state_index; /* [B] row of slot b in every state tensor, no row twice; or null for b */
  int64_t state_rows;         /* rows that every state tensor holds */
  const void* h0;             /* T*, [state_rows, P], or null for zeros */
  int64_t h0_stride;
  const void* c0;             /* LSTM only, [state_rows, H], as h0 */
  int64_t c0_stride;
  void* h_n;                  /* T*, forward: written, or null */
  int64_t h_n_stride;
  void* c_n;                  /* LSTM only, [state_rows, H], as h_n */
  int64_t c_n_stride;

  const void* forward_weights;  /* from padless_pack_forward */
  int64_t forward_weights_bytes;
  const void* backward_weights; /* from padless_pack_backward; backward only */
  int64_t backward_weights_bytes;

  void* gates;          /* T*, [N, padless_saved_width]: forward writes it for backward; null: inference. */
  int64_t gates_bytes;  /* backward: null means recompute from x and y (needs forward_weights) */
  void* cells;          /* LSTM: T*, [N, H rounded up to 16]: forward writes, backward reads; null in inference */
  int64_t cells_bytes;
  void* scratch;        /* at least padless_scratch_bytes, 64-byte aligned, contents do not matter */
  int64_t scratch_bytes;

  /* backward only */
  const void* dy;      /* T*, addressed as y, or null for zeros */
  int64_t dy_stride;
  const void* dh_n;    /* T*, [state_rows, P], or null for zeros; dc_n and dc0 are H wide */
  int64_t dh_n_stride;
  const void* dc_n;
  int64_t dc_n_stride;
  void* dh0;           /* T*, written, or null */
  int64_t dh0_stride;
  void* dc0;
  int64_t dc0_stride;
  void* dx;            /* T*, addressed as x; only addressed rows are written. Null: not wanted. */
  int64_t dx_stride;
  void* dw_ih;         /* T*, [G, I] contiguous, overwritten; null: not wanted. G = 4H, 3H or H as in torch. */
  void* dw_hh;         /* T*, [G, P] */
  void* db_ih;         /* T*, [G] */
  void* db_hh;         /* T*, [G]; differs from db_ih in GRU only */

  /* LSTM with a projection: h = W_hr (o tanh(c)) */
  int64_t projection_size; /* P; 0: none, P is H */
  void* dw_hr;             /* T*, [P, H] contiguous, as the other weights' gradients */

  int64_t narrow_x; /* 1: x and dx are bfloat16 (uint16_t*), with FLOAT32 and BFLOAT16; else 0 */
  int64_t narrow_y; /* 1: y and dy are bfloat16, with the same; else 0 */
  int64_t narrow_states; /* 1: every state and gradient of a state is bfloat16, with the same; else 0 */
  int64_t narrow_gates; /* 1: gates are bfloat16, with the same; else 0 */

  /* FLOAT32 and FLOAT64, no projection: where w_hh is set, weights as padless_pack_forward takes them, read instead of packed ones.
   * Results have the same bits. Meant for a single step of few rows, where packing all weights costs more than the product. Forward
   * multiplies one row by them as they are; for several rows it packs each panel just before it multiplies it. Backward multiplies
   * all rows by them as they are, and takes a single step of 1 to PADLESS_STEP_ROWS rows; it does not read the biases. */
  const void* w_ih;
  const void* w_hh;
  const void* b_ih; /* or null */
  const void* b_hh; /* or null */
  int64_t narrow_weights; /* 1: these four, dw_ih, dw_hh, db_ih and db_hh are bfloat16; no effect without w_hh */
} padless_problem;

/* Results of the int-returning functions: 0 or one of these; padless_error_text describes it. */
enum padless_error {
  PADLESS_OK = 0,
  PADLESS_BAD_NULL,
  PADLESS_BAD_ENUM,
  PADLESS_BAD_SIZE,
  PADLESS_BAD_BATCH_SIZES,
  PADLESS_BAD_ROW,
  PADLESS_BAD_STRIDE,
  PADLESS_BAD_STATE_INDEX,
  PADLESS_BAD_WEIGHTS,
  PADLESS_BAD_SAVED,
  PADLESS_BAD_SCRATCH,
  PADLESS_BAD_ISA,
  PADLESS_BAD_THREADS,
  PADLESS_ERROR_COUNT
};

PADLESS_API int64_t padless_abi_version(void);
PADLESS_API int64_t padless_problem_bytes(void); /* sizeof(padless_problem), for bindings to check */
PADLESS_API int64_t padless_move_bytes(void);    /* sizeof(padless_move), likewise */
PADLESS_API const char* padless_error_text(int error);

/* Instruction sets: "baseline", "avx2", "avx512", "avx512_bf16" (vdpbf16ps), "amx"; and, in plain C++ for tests, "amx_emulated" and
 * "avx512_bf16_emulated", which are used only when forced. The best set that processor and system support is chosen at first use;
 * "avx512_bf16" only on AMD's processors, since Intel's multiply faster without it. */
PADLESS_API const char* padless_isa_active(void);
PADLESS_API const char* padless_isa_compiled(int index);  /* names from worst to best, null past the end */
PADLESS_API int padless_isa_supported(const char* name);  /* 1 when this machine can run it */
PADLESS_API int padless_computes(int64_t dtype);          /* 1 when the set in use has the kernels of this dtype */
PADLESS_API int padless_isa_force(const char* name);      /* null: back to the best. Packed weights are per set: pack again. */

/* Where the weights that a step reads exceed the second-level cache of a core, kernels prefetch the next panel and multiply the
 * input of several steps at once. This sets the size that they assume (0: the machine's own, the default), for tests and
 * measurements. Results do not depend on it. */
PADLESS_API void padless_assume_l2_bytes(int64_t bytes);

/* Weights as torch stores them, contiguous: w_ih [G, I], w_hh [G, P], b_ih and b_hh [G] or null, w_hr [P, H] where there is a
 * projection. `packed` has the size that the *_bytes function returns (negative: bad arguments). Forward
 * weights are for inference, training and recomputation; backward weights for dx and the recurrence of the gradient. With
 * `narrow_weights`, which FLOAT32 and BFLOAT16 allow, the given weights are bfloat16. */
PADLESS_API int64_t padless_pack_forward_bytes(int64_t cell, int64_t dtype, int64_t input_size, int64_t hidden_size,
                                               int64_t projection_size);
PADLESS_API int64_t padless_pack_backward_bytes(int64_t cell, int64_t dtype, int64_t input_size, int64_t hidden_size,
                                                int64_t projection_size);
PADLESS_API int padless_pack_forward(int64_t cell, int64_t dtype, int64_t input_size, int64_t hidden_size,
                                     int64_t projection_size, const void* w_ih, const void* w_hh, const void* b_ih,
                                     const void* b_hh, const void* w_hr, int narrow_weights, void* packed);
PADLESS_API int padless_pack_backward(int64_t cell, int64_t dtype, int64_t input_size, int64_t hidden_size,
                                      int64_t projection_size, const void* w_ih, const void* w_hh, const void* w_hr,
                                      int narrow_weights, void* packed);

/* Elements in a row of `gates` and of `cells` (0: the cell saves none). The layout does not depend on the instruction set. */
PADLESS_API int64_t padless_saved_width(int64_t cell, int64_t hidden_size);
PADLESS_API int64_t padless_cells_width(int64_t cell, int64_t hidden_size);
/* Bytes of scratch for one call (negative: bad arguments), from cell, dtype, threads, batch, rows, steps, sizes and batch_sizes of
 * the problem, and from which of its x_step, y_step, gates and w_hh are null. */
PADLESS_API int64_t padless_scratch_bytes(const padless_problem* problem, int backward);

PADLESS_API int padless_forward(const padless_problem* problem);
PADLESS_API int padless_backward(const padless_problem* problem);

/* Where the rows of B sequences are stored. There are four layouts; pointers that a layout does not name are null:
 *   data, first, batch_sizes   packed by step: row t of sequence b is number first[b], its slot, of the rows of step t
 *   data, first, step          row first[b] + t * step
 *   data, step, sequence       cells of a padded grid: row b * sequence + t * step, T steps per sequence
 *   pieces                     row t of pieces[b], memory of lengths[b] rows
 * Rows are contiguous. */
typedef struct padless_rows {
  void* data;
  int64_t rows;               /* that data holds */
  const int64_t* first;       /* [B] */
  const int64_t* batch_sizes; /* [size_count] >= 0, non-increasing */
  int64_t size_count;         /* at least the longest length */
  int64_t step;               /* > 0 */
  int64_t sequence;           /* > 0 */
  void* const* pieces;        /* [B] */
} padless_rows;

/* A copy of every row from `source` to `target`, which share no memory. */
typedef struct padless_move {
  int64_t sequences;      /* B */
  int64_t steps;          /* T: at least the longest length; the steps of a grid */
  int64_t row_bytes;      /* >= 1 */
  int64_t threads;        /* 1 to 1024 */
  const int64_t* lengths; /* [B] 0 to T */
  padless_rows source, target;
  int64_t right_aligned;  /* 1: in a grid every sequence ends at the last step; 0: it begins at the first */
  const void* fill;       /* one row, copied to all other cells of the target, which is a grid; or null */
} padless_move;

PADLESS_API int padless_move_rows(const padless_move* move);

/* Writes, from B lengths of 0 to T and the order of the sequences by length, the slot of each sequence (slots, [B]), where each
 * starts back to back (offsets, [B + 1]), and how many have not ended at each step (batch_sizes, [T]). */
PADLESS_API int padless_arrange(const int64_t* lengths, int64_t batch, int64_t steps, const int64_t* order, int64_t* slots,
                                int64_t* offsets, int64_t* batch_sizes);
/* The inverse: writes lengths [B] from batch_sizes [T], which are positive and non-increasing and sum to `rows`. `order` and `slots`
 * [B] are each other's inverse, or both null where slot b is sequence b. Slots from batch_sizes[0] on have length 0. */
PADLESS_API int padless_lengths(const int64_t* batch_sizes, int64_t steps, int64_t rows, const int64_t* order, const int64_t* slots,
                                int64_t batch, int64_t* lengths);

/* A hash of memory, the same for every instruction set. A single changed word always changes it. Much cheaper than packing: packed weights may be kept as long as the hash stays the same. 0 for null or no bytes. */
PADLESS_API uint64_t padless_fingerprint(const void* data, int64_t bytes);
/* Asks the system to back this memory, not yet written, by large pages: fewer page faults when it is first written. Only advice. */
PADLESS_API void padless_advise_large_pages(void* data, int64_t bytes);

/* The gate functions alone, for tests of their accuracy: out[i] = f(in[i]), n a multiple of 16. */
PADLESS_API int padless_sigmoid(int64_t dtype, const void* in, void* out, int64_t n);
PADLESS_API int padless_tanh(int64_t dtype, const void* in, void* out, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
