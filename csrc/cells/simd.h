// Vectors of one instruction set, by GCC/Clang vector extensions. Included only from cells/kernels.cpp, inside
// PADLESS_ISA, a namespace of its own per instruction set: nothing here may be shared between object files, or the linker
// would hand AVX-512 code to a baseline machine. For the same reason no std template is used below this point.
#pragma once

#define PADLESS_INLINE static inline __attribute__((always_inline))

// The instructions of this set. Emulated sets are plain C++, whatever the compiler's flags allow.
#if defined(PADLESS_EMULATE)
#elif defined(__AVX512F__)
#define PADLESS_AVX512
#elif defined(__AVX2__) && defined(__FMA__)
#define PADLESS_AVX2
#elif defined(__aarch64__)
#define PADLESS_NEON
#endif

#if defined(PADLESS_AVX512)
constexpr int kVectorBytes = 64;
#define PADLESS_VECTOR_REGISTER "v"
#elif defined(PADLESS_EMULATE)
constexpr int kVectorBytes = 64;  // a row of a tile or a vector of pairs: the compiler makes them of shorter vectors
#elif defined(PADLESS_AVX2)
constexpr int kVectorBytes = 32;
#define PADLESS_VECTOR_REGISTER "x"
#else
constexpr int kVectorBytes = 16;
#if defined(__x86_64__)
#define PADLESS_VECTOR_REGISTER "x"
#elif defined(PADLESS_NEON)
#define PADLESS_VECTOR_REGISTER "w"
#endif
#endif

// Accumulators that a product tile may hold in registers: 24 of 32 (measured best on AVX-512; 8 spill), 12 of 16.
#if defined(PADLESS_AVX512) || defined(PADLESS_NEON)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

typedef float VecF __attribute__((vector_size(kVectorBytes)));
typedef double VecD __attribute__((vector_size(kVectorBytes)));
typedef int32_t VecI32 __attribute__((vector_size(kVectorBytes)));
typedef int64_t VecI64 __attribute__((vector_size(kVectorBytes)));
typedef uint32_t VecU32 __attribute__((vector_size(kVectorBytes)));

template <class T> struct Simd;
template <> struct Simd<float> {
  typedef VecF Vec;
  typedef VecI32 Int;
  static constexpr int width = kVectorBytes / 4;
};
template <> struct Simd<double> {
  typedef VecD Vec;
  typedef VecI64 Int;
  static constexpr int width = kVectorBytes / 8;
};
template <class T> using Vec = typename Simd<T>::Vec;
template <class T> constexpr int kWidth = Simd<T>::width;

template <class T> PADLESS_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T> PADLESS_INLINE void store(T* p, Vec<T> v) { __builtin_memcpy(p, &v, sizeof v); }
template <class T> PADLESS_INLINE Vec<T> splat(T x) { return x - Vec<T>{}; }  // x - 0 keeps -0 and folds to a broadcast

// First n of a vector, the rest read as zero and not written; memory past n is not touched.
template <class T> PADLESS_INLINE Vec<T> load_first(const T* p, int64_t n) {
  if (n >= kWidth<T>) return load(p);
#if defined(PADLESS_AVX512)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
  else return (Vec<T>)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#else
  T lanes[kWidth<T>] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
#endif
}
template <class T> PADLESS_INLINE void store_first(T* p, Vec<T> v, int64_t n) {
  if (n >= kWidth<T>) return store(p, v);
#if defined(PADLESS_AVX512)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
  else _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#else
  T lanes[kWidth<T>];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}

// The first n of a vector's elements, the rest zero.
PADLESS_INLINE VecF first_lanes(VecF v, int64_t n) {
#if defined(PADLESS_AVX512)
  return (VecF)_mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), (__m512)v);
#else
  float lanes[kWidth<float>] = {};
  store_first(lanes, v, n);
  return load(lanes);
#endif
}

template <class T> constexpr int kLane = 16 / sizeof(T);  // elements of 16 bytes, within which every set shuffles fastest

// A vector of the 16 bytes at p, at p + stride_bytes, ...
template <class T> PADLESS_INLINE Vec<T> load_lanes(const char* p, int64_t stride_bytes) {
#if defined(PADLESS_AVX512)
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float*)p));
  v = _mm512_insertf32x4(v, _mm_loadu_ps((const float*)(p + stride_bytes)), 1);
  v = _mm512_insertf32x4(v, _mm_loadu_ps((const float*)(p + 2 * stride_bytes)), 2);
  return (Vec<T>)_mm512_insertf32x4(v, _mm_loadu_ps((const float*)(p + 3 * stride_bytes)), 3);
#elif defined(PADLESS_AVX2)
  const __m256 v = _mm256_castps128_ps256(_mm_loadu_ps((const float*)p));
  return (Vec<T>)_mm256_insertf128_ps(v, _mm_loadu_ps((const float*)(p + stride_bytes)), 1);
#else
  Vec<T> v;
  for (int i = 0; i < kVectorBytes / 16; ++i) __builtin_memcpy((char*)&v + 16 * i, p + i * stride_bytes, 16);
  return v;
#endif
}

// kLane columns of as many rows as a vector has elements, from p on: element r of column k is element k of row r.
template <class T> PADLESS_INLINE void transpose_lanes(const char* p, int64_t stride_bytes, Vec<T>* columns) {
  constexpr int E = kLane<T>, W = kWidth<T>;
  Vec<T> lines[E];
#pragma GCC unroll 4
  for (int r = 0; r < E; ++r) lines[r] = load_lanes<T>(p + r * stride_bytes, E * stride_bytes);
#if defined(__GNUC__) && !defined(__clang__)
  typename Simd<T>::Int low, high;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    low[i] = i / E * E + i % E / 2 + i % 2 * W;
    high[i] = low[i] + E / 2;
  }
  // log2(E) interleavings of the lines transpose every 16 bytes.
#pragma GCC unroll 2
  for (int stage = 1; stage < E; stage *= 2) {
    Vec<T> next[E];
#pragma GCC unroll 2
    for (int i = 0; i < E / 2; ++i) {
      next[2 * i] = __builtin_shuffle(lines[i], lines[i + E / 2], low);
      next[2 * i + 1] = __builtin_shuffle(lines[i], lines[i + E / 2], high);
    }
#pragma GCC unroll 4
    for (int i = 0; i < E; ++i) lines[i] = next[i];
  }
#pragma GCC unroll 4
  for (int k = 0; k < E; ++k) columns[k] = lines[k];
#else
#pragma GCC unroll 4
  for (int k = 0; k < E; ++k)
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) columns[k][i] = lines[i % E][i / E * E + k];
#endif
}
// The same for rows that are `stride` numbers apart. Of bfloat16 numbers it loads eight columns, and widens them: they are transposed
// in pairs, whose low half is the first of the two.
template <class T> PADLESS_INLINE void load_columns(const T* p, int64_t stride, Vec<T>* columns) {
  transpose_lanes<T>((const char*)p, stride * (int64_t)sizeof(T), columns);
}
PADLESS_INLINE void load_columns(const uint16_t* p, int64_t stride, VecF* columns) {
  VecF pairs[4];
  transpose_lanes<float>((const char*)p, stride * 2, pairs);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    columns[2 * i] = (VecF)((VecU32)pairs[i] << 16);
    columns[2 * i + 1] = (VecF)((VecU32)pairs[i] & 0xffff0000u);
  }
}

#if defined(PADLESS_AVX512) || defined(PADLESS_AVX2) || defined(PADLESS_NEON)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

// a * b + c, fused where the set has it. Contraction is off (-ffp-contract=off), so that a formula has the same bits
// wherever the compiler inlines it: fused is what says fused here.
PADLESS_INLINE VecF fma(VecF a, VecF b, VecF c) {
#if defined(PADLESS_AVX512)
  return (VecF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PADLESS_AVX2)
  return (VecF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(PADLESS_NEON)
  return (VecF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
PADLESS_INLINE VecD fma(VecD a, VecD b, VecD c) {
#if defined(PADLESS_AVX512)
  return (VecD)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(PADLESS_AVX2)
  return (VecD)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(PADLESS_NEON)
  return (VecD)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// The larger and the smaller of a bound and x; x where x is NaN.
template <class V> PADLESS_INLINE V larger(V bound, V x) { return bound > x ? bound : x; }
template <class V> PADLESS_INLINE V smaller(V bound, V x) { return bound < x ? bound : x; }
// GCC 12 does not combine the comparison and the selection into one instruction.
#if defined(PADLESS_AVX512)
PADLESS_INLINE VecF larger(VecF bound, VecF x) { return (VecF)_mm512_max_ps((__m512)bound, (__m512)x); }
PADLESS_INLINE VecF smaller(VecF bound, VecF x) { return (VecF)_mm512_min_ps((__m512)bound, (__m512)x); }
PADLESS_INLINE VecD larger(VecD bound, VecD x) { return (VecD)_mm512_max_pd((__m512d)bound, (__m512d)x); }
PADLESS_INLINE VecD smaller(VecD bound, VecD x) { return (VecD)_mm512_min_pd((__m512d)bound, (__m512d)x); }
#elif defined(PADLESS_AVX2)
PADLESS_INLINE VecF larger(VecF bound, VecF x) { return (VecF)_mm256_max_ps((__m256)bound, (__m256)x); }
PADLESS_INLINE VecF smaller(VecF bound, VecF x) { return (VecF)_mm256_min_ps((__m256)bound, (__m256)x); }
PADLESS_INLINE VecD larger(VecD bound, VecD x) { return (VecD)_mm256_max_pd((__m256d)bound, (__m256d)x); }
PADLESS_INLINE VecD smaller(VecD bound, VecD x) { return (VecD)_mm256_min_pd((__m256d)bound, (__m256d)x); }
#endif

// 1 / d for d in [1, 2^126]; NaN stays NaN.
PADLESS_INLINE VecF reciprocal(VecF d) {
#if defined(PADLESS_AVX512)
  // 14 bits and one Newton step (two FMAs): about a third of the time of vdivps.
  const VecF y = (VecF)_mm512_rcp14_ps((__m512)d);
  return fma(fma(-d, y, splat<float>(1)), y, y);
#else
  return 1.0f / d;
#endif
}
PADLESS_INLINE VecD reciprocal(VecD d) { return 1.0 / d; }

PADLESS_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
PADLESS_INLINE int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
PADLESS_INLINE int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }

template <class T> PADLESS_INLINE void copy(T* to, const T* from, int64_t n) {
  int64_t i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) store(to + i, load(from + i));
  if (i < n) store_first(to + i, load_first(from + i, n - i), n - i);
}
template <class T> PADLESS_INLINE void copy_or_zero(T* to, const T* from, int64_t n) {
  if (from) copy(to, from, n);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = 0;
}
