// sigmoid and tanh on whole vectors, no branches; errors are stated and tested over all float32 in tests/ulp.cpp.
//
// Both rest on 2^t = 2^n (1 + f q(f)), n = round(t), |f| <= 1/2. Adding 1.5 * 2^23 + bias rounds to an integer and leaves
// n + bias in the low bits, which one shift turns into the float 2^n. That factor is multiplied, not added to the
// exponent, so that a NaN stays a NaN. Bounds are compared constant first for the same reason: a NaN fails both.
#pragma once

template <class T> PADLESS_INLINE Vec<T> clamp(Vec<T> x, T low, T high) { return smaller(splat(high), larger(splat(low), x)); }

// q(f) = (2^f - 1) / f on |f| <= 1/2, minimax by Lawson iteration, relative error 1.1e-8.
PADLESS_INLINE VecF exp2_slope(VecF f) {
  VecF q = splat(0x1.4308fap-13f);
  q = fma(q, f, splat(0x1.5f07b4p-10f));
  q = fma(q, f, splat(0x1.3b2ba0p-7f));
  q = fma(q, f, splat(0x1.c6af6ep-5f));
  q = fma(q, f, splat(0x1.ebfbdep-3f));
  return fma(q, f, splat(0x1.62e430p-1f));
}

PADLESS_INLINE VecF sigmoid(VecF x) {
  // 1 / (1 + e^-x). Below -87.33 the result would be subnormal and is 0: an absolute error under 1.2e-38.
  const VecF magic = splat(12582912.0f + 127.0f), tiny = splat(-0x1.5d589ep6f);
  const VecF c = clamp(x, -0x1.5d589ep6f, 0x1.5d589ep6f);
  const VecF t = fma(c, splat(-1.44269502f), magic), n = t - magic;
  VecF f;
  if (kFused) f = fma(c, splat(-1.92596303e-08f), fma(c, splat(-1.44269502f), -n));
  // Unfused, c / ln 2 - n would lose 45 ulp at -77: n times the first 9 bits of ln 2 is exact instead.
  else f = ((c + n * 0.693359375f) - n * 2.12194440e-4f) * -1.44269502f;
  const VecF scale = (VecF)((VecI32)t << 23);
  const VecF e = fma(f * exp2_slope(f), scale, scale);
  const VecF s = reciprocal(e + 1.0f);
  return tiny > x ? VecF{} : s;
}

PADLESS_INLINE VecF tanh(VecF x) {
  // (e - 1) / (e + 1), e = e^2x, with e - 1 = 2^n f q + (2^n - 1) free of cancellation. Above 9.02 it is 1 in float32.
  const VecF magic = splat(12582912.0f + 127.0f);
  const VecF c = clamp(x, -9.02f, 9.02f);
  const VecF t = fma(c, splat(2.88539004f), magic), n = t - magic;
  const VecF f = fma(c, splat(2.88539004f), -n);
  const VecF scale = (VecF)((VecI32)t << 23);
  const VecF m = fma(f * exp2_slope(f), scale, scale - 1.0f);
  return m * reciprocal(m + 2.0f);
}

// The same within 2e-5 of the result, for products of bfloat16 numbers, whose rounding is a hundred times as coarse.
//
// 1 - sigmoid is within 2e-5 too, as far as float32 can tell a number from 1: a cell whose forget gate is near 1 is kept for
// thousands of steps. sigmoid is never 0: below -87 it keeps its value at -87. tanh is never above 1.
PADLESS_INLINE VecF coarse_exp2_slope(VecF f) {  // relative error 1.5e-5
  VecF q = splat(0x1.3b2a8ep-7f);
  q = fma(q, f, splat(0x1.c96b48p-5f));
  q = fma(q, f, splat(0x1.ebff08p-3f));
  return fma(q, f, splat(0x1.62e2d6p-1f));
}

PADLESS_INLINE VecF coarse_sigmoid(VecF x) {
  const VecF magic = splat(12582912.0f + 127.0f), c = clamp(x, -87.0f, 87.0f);
  const VecF t = fma(c, splat(-1.44269502f), magic), f = fma(c, splat(-1.44269502f), magic - t);
  const VecF scale = (VecF)((VecI32)t << 23);
  return reciprocal(fma(f * coarse_exp2_slope(f), scale, scale) + 1.0f);
}

PADLESS_INLINE VecF coarse_tanh(VecF x) {
  const VecF magic = splat(12582912.0f + 127.0f), c = clamp(x, -9.02f, 9.02f);
  const VecF t = fma(c, splat(2.88539004f), magic), f = fma(c, splat(2.88539004f), magic - t);
  const VecF scale = (VecF)((VecI32)t << 23);
  const VecF m = fma(f * coarse_exp2_slope(f), scale, scale - 1.0f);
  return m * reciprocal(m + 2.0f);
}

// e^r - 1 = r q(r) on |r| <= ln(2) / 2: Taylor to r^13, remainder 4e-18.
PADLESS_INLINE VecD exp_slope(VecD r) {
  VecD q = splat(1.0 / 6227020800.0);
  q = fma(q, r, splat(1.0 / 479001600.0));
  q = fma(q, r, splat(1.0 / 39916800.0));
  q = fma(q, r, splat(1.0 / 3628800.0));
  q = fma(q, r, splat(1.0 / 362880.0));
  q = fma(q, r, splat(1.0 / 40320.0));
  q = fma(q, r, splat(1.0 / 5040.0));
  q = fma(q, r, splat(1.0 / 720.0));
  q = fma(q, r, splat(1.0 / 120.0));
  q = fma(q, r, splat(1.0 / 24.0));
  q = fma(q, r, splat(1.0 / 6.0));
  q = fma(q, r, splat(0.5));
  return fma(q, r, splat(1.0));
}

PADLESS_INLINE VecD reduce(VecD t, VecD c, VecD magic) {
  const VecD n = t - magic;  // ln 2 in two parts: the first has 21 trailing zero bits, so n * first is exact
  return fma(n, splat(-1.90821492927058770002e-10), fma(n, splat(-6.93147180369123816490e-01), c));
}

PADLESS_INLINE VecD sigmoid(VecD x) {
  const VecD magic = splat(6755399441055744.0 + 1023.0), tiny = splat(-708.0);
  const VecD c = clamp(-x, -708.0, 708.0);
  const VecD t = fma(c, splat(1.44269504088896340736), magic), r = reduce(t, c, magic);
  const VecD scale = (VecD)((VecI64)t << 52);
  const VecD e = fma(r * exp_slope(r), scale, scale);
  const VecD s = reciprocal(e + 1.0);
  return tiny > x ? VecD{} : s;
}

PADLESS_INLINE VecD tanh(VecD x) {
  const VecD magic = splat(6755399441055744.0 + 1023.0);
  const VecD c = clamp(x + x, -40.0, 40.0);
  const VecD t = fma(c, splat(1.44269504088896340736), magic), r = reduce(t, c, magic);
  const VecD scale = (VecD)((VecI64)t << 52);
  const VecD m = fma(r * exp_slope(r), scale, scale - 1.0);
  return m / (m + 2.0);
}

// The functions that the cells use, by Parts (operand.h).
template <int Parts, class V> PADLESS_INLINE V sigmoid_for(V x) {
  if constexpr (Parts == 1) return coarse_sigmoid(x);
  else return sigmoid(x);
}
template <int Parts, class V> PADLESS_INLINE V tanh_for(V x) {
  if constexpr (Parts == 1) return coarse_tanh(x);
  else return tanh(x);
}
