// Largest error of sigmoid and tanh against the C library in double, over every float32 and every instruction set: in ulp those
// of float32 and float64, relative those that go with products of bfloat16 numbers.
//
//     padless_ulp [stride] [set]     every stride-th bit pattern; 1, the default, is all 2^32
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../padless.h"

namespace {

constexpr int kBlock = 4096;
// The bounds that padless states. Results below the smallest normal float may be 0.
constexpr double kSigmoidUlp = 4, kTanhUlp = 5;

double ulp_of(double exact) {
  int exponent;
  frexp(exact, &exponent);
  return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

struct Worst {
  double ulp = 0;
  float at = 0;
  long wrong = 0;  // NaN and infinity not as torch has them
};

void check(Worst& worst, float x, float got, double exact) {
  if (isnan(x)) {
    worst.wrong += !isnan(got);
    return;
  }
  if (isinf(x) || isnan(got)) {
    worst.wrong += !((double)got == exact);
    return;
  }
  if (fabs(exact) < 1.17549435e-38) {
    worst.wrong += fabs(got - exact) > 1.17549435e-38;
    return;
  }
  const double ulp = fabs((double)got - exact) / ulp_of(exact);
  if (ulp > worst.ulp) {
    worst.ulp = ulp;
    worst.at = x;
  }
}

// Of the functions that go with products of bfloat16 numbers. Relative to the distance from 1 too: a forget gate near 1 is close to it.
constexpr double kCoarse = 2e-5;

void check_coarse(Worst& worst, float x, float got, double exact, bool is_sigmoid) {
  if (isnan(x)) {
    worst.wrong += !isnan(got);
    return;
  }
  worst.wrong += isnan(got) || fabs(got) > 1;
  const double scale = is_sigmoid ? fmin(exact, 1 - exact) : fabs(exact);
  const double excess = fabs(got - exact) - (is_sigmoid && x > 0 ? 1.2e-7 : 2e-38);  // what float32 cannot tell apart
  if (excess > worst.ulp * scale) {
    worst.ulp = excess / scale;
    worst.at = x;
  }
}

}  // namespace

int main(int count, char** arguments) {
  const uint64_t stride = count > 1 ? strtoull(arguments[1], nullptr, 10) : 1;
  int failed = 0;
  alignas(64) static float in[kBlock], s[kBlock], t[kBlock];
  for (int set = 0; padless_isa_compiled(set); ++set) {
    const char* name = padless_isa_compiled(set);
    if (!padless_isa_supported(name) || (count > 2 && strcmp(arguments[2], name) != 0)) continue;
    padless_isa_force(name);
    Worst sigmoid, tangent, coarse_sigmoid, coarse_tangent;
    const bool coarse = padless_computes(PADLESS_BFLOAT16);
    for (uint64_t bits = 0; bits < (uint64_t(1) << 32);) {
      int n = 0;
      for (; n < kBlock; ++n, bits += stride) {
        const uint32_t pattern = (uint32_t)(bits < (uint64_t(1) << 32) ? bits : 0);
        memcpy(&in[n], &pattern, 4);
      }
      padless_sigmoid(PADLESS_FLOAT32, in, s, kBlock);
      padless_tanh(PADLESS_FLOAT32, in, t, kBlock);
      for (int i = 0; i < n; ++i) {
        const double x = in[i];
        check(sigmoid, in[i], s[i], x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)));
        check(tangent, in[i], t[i], tanh(x));
      }
      if (!coarse) continue;
      padless_sigmoid(PADLESS_BFLOAT16, in, s, kBlock);
      padless_tanh(PADLESS_BFLOAT16, in, t, kBlock);
      for (int i = 0; i < n; ++i) {
        const double x = in[i];
        check_coarse(coarse_sigmoid, in[i], s[i], x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)), true);
        check_coarse(coarse_tangent, in[i], t[i], tanh(x), false);
      }
    }
    const bool good = sigmoid.ulp <= kSigmoidUlp && tangent.ulp <= kTanhUlp && !sigmoid.wrong && !tangent.wrong;
    failed += !good;
    printf("%-8s float32 sigmoid %.3f ulp at %g, tanh %.3f ulp at %g, %ld wrong  %s\n", name, sigmoid.ulp, sigmoid.at,
           tangent.ulp, tangent.at, sigmoid.wrong + tangent.wrong, good ? "ok" : "FAILED");
    if (coarse) {
      const long wrong = coarse_sigmoid.wrong + coarse_tangent.wrong;
      const bool close = coarse_sigmoid.ulp <= kCoarse && coarse_tangent.ulp <= kCoarse && !wrong;
      failed += !close;
      printf("%-8s bfloat16 sigmoid %.2e at %g, tanh %.2e at %g, %ld wrong  %s\n", name, coarse_sigmoid.ulp, coarse_sigmoid.at,
             coarse_tangent.ulp, coarse_tangent.at, wrong, close ? "ok" : "FAILED");
    }
    double worst_s = 0, worst_t = 0;
    alignas(64) static double din[16], ds[16], dt[16];
    for (int i = -400000; i < 400000; i += 16) {
      for (int j = 0; j < 16; ++j) din[j] = (i + j) * fabs(i + j) / 2.5e8;  // -640 to 640
      padless_sigmoid(PADLESS_FLOAT64, din, ds, 16);
      padless_tanh(PADLESS_FLOAT64, din, dt, 16);
      for (int j = 0; j < 16; ++j) {
        const long double x = din[j], es = 1 / (1 + expl(-x)), et = tanhl(x);
        int e;
        frexpl(es, &e);
        worst_s = fmax(worst_s, (double)(fabsl(ds[j] - es) / ldexpl(1, e - 53)));
        if (et == 0) continue;
        frexpl(et, &e);
        worst_t = fmax(worst_t, (double)(fabsl(dt[j] - et) / ldexpl(1, e - 53)));
      }
    }
    const bool fine = worst_s <= 4 && worst_t <= 5;
    failed += !fine;
    printf("%-8s float64 (800,000 points) sigmoid %.3f ulp, tanh %.3f ulp  %s\n", name, worst_s, worst_t, fine ? "ok" : "FAILED");
  }
  return failed ? 1 : 0;
}
