// Index arithmetic of the C ABI: lengths to slots and batch sizes, and back. Arguments are checked while results are written.
#include "padless.h"

extern "C" {

int padless_arrange(const int64_t* lengths, int64_t batch, int64_t steps, const int64_t* order, int64_t* slots, int64_t* offsets,
                    int64_t* batch_sizes) {
  if (batch < 0 || steps < 0) return PADLESS_BAD_SIZE;
  if (!offsets || (batch > 0 && (!lengths || !order || !slots)) || (steps > 0 && !batch_sizes)) return PADLESS_BAD_NULL;
  for (int64_t t = 0; t < steps; ++t) batch_sizes[t] = 0;
  for (int64_t b = 0; b < batch; ++b) slots[b] = -1;
  offsets[0] = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = lengths[b], at = order[b];
    if (length < 0 || length > steps) return PADLESS_BAD_SIZE;
    if (at < 0 || at >= batch || slots[at] >= 0) return PADLESS_BAD_STATE_INDEX;
    offsets[b + 1] = offsets[b] + length;
    if (length > 0) ++batch_sizes[length - 1];  // so far the number of sequences that end with this step
    slots[at] = b;
  }
  for (int64_t t = steps - 1; t > 0; --t) batch_sizes[t - 1] += batch_sizes[t];
  return PADLESS_OK;
}

int padless_lengths(const int64_t* batch_sizes, int64_t steps, int64_t rows, const int64_t* order, const int64_t* slots, int64_t batch,
                    int64_t* lengths) {
  if (batch < 0 || steps < 0 || rows < 0) return PADLESS_BAD_SIZE;
  if ((steps > 0 && !batch_sizes) || (batch > 0 && !lengths) || !order != !slots) return PADLESS_BAD_NULL;
  int64_t sum = 0, running = 0;
  for (int64_t t = steps - 1; t >= 0; --t) {
    const int64_t active = batch_sizes[t];
    if (active <= 0 || active < running || active > batch || (sum += active) > rows) return PADLESS_BAD_BATCH_SIZES;
    for (; running < active; ++running) {  // slots whose last step is t
      const int64_t b = order ? order[running] : running;
      if (b < 0 || b >= batch) return PADLESS_BAD_STATE_INDEX;
      lengths[b] = t + 1;
    }
  }
  if (sum != rows) return PADLESS_BAD_BATCH_SIZES;
  for (; running < batch; ++running) {
    const int64_t b = order ? order[running] : running;
    if (b < 0 || b >= batch) return PADLESS_BAD_STATE_INDEX;
    lengths[b] = 0;
  }
  for (int64_t slot = 0; order && slot < batch; ++slot) {
    const int64_t b = order[slot];
    if (b < 0 || b >= batch || slots[b] != slot) return PADLESS_BAD_STATE_INDEX;  // so order names no sequence twice
  }
  return PADLESS_OK;
}

}  // extern "C"
