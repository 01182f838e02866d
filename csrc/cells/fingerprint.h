// A 64-bit fingerprint of memory, at the speed of reading it: whether weights are still those that were packed. 32 lanes of
// 64 bits, each h = rotate(h ^ word) * odd: one changed word always changes its lane, and the position of a word counts. The
// rotation carries high bits down, so that two changed signs do not cancel. The same for every instruction set. Not cryptographic.
#pragma once

typedef uint64_t VecU64 __attribute__((vector_size(kVectorBytes)));

constexpr uint64_t kMix = 0x9e3779b97f4a7c15u;
constexpr int kStripe = 256, kStripeVectors = kStripe / kVectorBytes;

PADLESS_INLINE void mix_stripe(VecU64* h, const char* from) {
#pragma GCC unroll 16
  for (int v = 0; v < kStripeVectors; ++v) {
    VecU64 word;
    __builtin_memcpy(&word, from + v * kVectorBytes, sizeof word);
    word ^= h[v];
    h[v] = (word << 29 | word >> 35) * kMix;
  }
}

static uint64_t fingerprint(const void* data, int64_t bytes) {
  const char* from = (const char*)data;
  uint64_t lanes[kStripe / 8];
  for (int i = 0; i < kStripe / 8; ++i) lanes[i] = kMix * (uint64_t)(i + 1);
  VecU64 h[kStripeVectors];
  __builtin_memcpy(h, lanes, sizeof h);
  int64_t at = 0;
  for (; at + kStripe <= bytes; at += kStripe) mix_stripe(h, from + at);
  if (at < bytes) {
    char rest[kStripe] = {};
    __builtin_memcpy(rest, from + at, (size_t)(bytes - at));
    mix_stripe(h, rest);
  }
  __builtin_memcpy(lanes, h, sizeof h);
  uint64_t sum = (uint64_t)bytes;
  for (uint64_t lane : lanes) {
    sum = (sum ^ lane) * kMix;
    sum ^= sum >> 29;
  }
  return sum;
}
