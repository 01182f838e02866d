// Rows and weights as AMX and vdpbf16ps read them: bfloat16 numbers in whole tiles. Parts is the number of bfloat16 numbers whose
// sum represents a float32 number: 1 or 2. With Parts = 0 FMA reads rows as they are.
#pragma once

constexpr int kTileRows = 32;  // most rows of a block with AMX, and rows of the buffers in every bfloat16 product

#if defined(PADLESS_DOTS)
constexpr int most_rows(int parts, int nv) { return parts ? 24 : tile_rows(nv); }  // 4 products of 6 rows, 3 of 8, or 2 of 12
#else
constexpr int most_rows(int parts, int nv) { return parts ? kTileRows : tile_rows(nv); }
#endif
// Splits rows into the blocks of a product; with AMX into blocks of 32 or 16.
PADLESS_INLINE Blocks blocks_of(int64_t rows, int parts, int nv) {
#if defined(PADLESS_AMX)
  if (parts) return Blocks::of(rows, most_rows(parts, nv), 16);
#endif
  return Blocks::of(rows, most_rows(parts, nv));
}
constexpr int buffer_rows(int parts) { return parts ? kTileRows : kMaxRows; }

template <class T, int Parts> struct ElementOf { typedef uint16_t Type; };
template <class T> struct ElementOf<T, 0> { typedef T Type; };

// Rows as products read them: row r of part q at `at + q * part + r * stride`. AMX reads whole tiles, so columns past the last,
// up to a multiple of 32, are zeros (NaN times 0 would spread), and rows past the last may hold anything.
template <class T, int Parts> struct Operand {
  typename ElementOf<T, Parts>::Type* at;
  int64_t stride, part;
  Operand from(int64_t row, int64_t column = 0) const { return {at + row * stride + column, stride, part}; }
  Operand every(int64_t step) const { return {at, stride * step, part}; }
};

PADLESS_INLINE int64_t tiled(int64_t columns) { return round_up(columns, 32); }
// Scratch for `rows` rows of an operand.
template <class T, int Parts> PADLESS_INLINE Operand<T, Parts> take_rows(ScratchCursor& cursor, int64_t rows, int64_t columns) {
  const int64_t stride = Parts ? tiled(columns) + 32 : round_up(columns, 16) + 16;
  typename ElementOf<T, Parts>::Type* const at = cursor.take<typename ElementOf<T, Parts>::Type>((Parts ? Parts : 1) * rows * stride);
  return {at, stride, rows * stride};
}

typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));

// Nearest bfloat16, ties to even; NaN stays NaN. Where bfloat16 numbers are multiplied this is vcvtneps2bf16, or the same in plain
// C++, and subnormal numbers become zero, as they do in the products.
PADLESS_INLINE Halves narrowed(VecF x) {
#if (defined(PADLESS_DOTS) || defined(PADLESS_AMX)) && !defined(PADLESS_EMULATE)
  Halves half;
  asm("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(x));
  return half;
#else
  VecU32 bits = (VecU32)x;
#if defined(PADLESS_DOTS) || defined(PADLESS_AMX)
  bits = (bits & 0x7fffffffu) < 0x800000u ? bits & 0x80000000u : bits;
#endif
  const VecU32 rounded = bits + 0x7fffu + (bits >> 16 & 1u), chosen = x != x ? bits | 0x400000u : rounded;
  return __builtin_convertvector(chosen >> 16, Halves);
#endif
}
PADLESS_INLINE VecU32 extended(Halves x) {
#if defined(PADLESS_AVX512)
  return (VecU32)_mm512_cvtepu16_epi32((__m256i)x);  // GCC 12 converts the halves of the vector apart
#else
  return __builtin_convertvector(x, VecU32);
#endif
}
PADLESS_INLINE VecF widened(Halves x) { return (VecF)(extended(x) << 16); }

// The first n of a vector of them, the rest read as zero and not written. Without AVX-512 the vector goes through memory.
PADLESS_INLINE Halves load_halves(const uint16_t* from, int64_t n) {
  Halves v = {};
  if (n >= kWidth<float>) __builtin_memcpy(&v, from, sizeof v);
  else
#if defined(PADLESS_AVX512)
    v = (Halves)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), from);
#else
    for (int64_t i = 0; i < n; ++i) v[i] = from[i];
#endif
  return v;
}
PADLESS_INLINE void store_halves(uint16_t* to, Halves v, int64_t n) {
  if (n >= kWidth<float>) __builtin_memcpy(to, &v, sizeof v);
  else
#if defined(PADLESS_AVX512)
    _mm256_mask_storeu_epi16(to, (__mmask16)((1u << n) - 1), (__m256i)v);
#else
    for (int64_t i = 0; i < n; ++i) to[i] = v[i];
#endif
}

// Element `at` of the caller's rows, states or gates, which are T or, with `narrow` and for T = float alone, bfloat16.
template <class T> PADLESS_INLINE const void* element_of(const void* rows, int64_t at, bool narrow) {
  return sizeof(T) == 4 && narrow ? (const void*)((const uint16_t*)rows + at) : (const void*)((const T*)rows + at);
}
template <class T> PADLESS_INLINE void* element_of(void* rows, int64_t at, bool narrow) {
  return const_cast<void*>(element_of<T>((const void*)rows, at, narrow));
}
// A vector of such numbers: the first n from `row` on.
template <class T> PADLESS_INLINE Vec<T> load_stored(const void* row, int64_t n, bool narrow) {
  if constexpr (sizeof(T) == 4)
    if (narrow) return widened(load_halves((const uint16_t*)row, n));
  return load_first((const T*)row, n);
}
template <class T> PADLESS_INLINE void store_stored(void* row, Vec<T> v, int64_t n, bool narrow) {
  if constexpr (sizeof(T) == 4)
    if (narrow) return store_halves((uint16_t*)row, narrowed(v), n);
  store_first((T*)row, v, n);
}

// n such numbers from one row to another, or zeros where `from` is null.
template <class T> PADLESS_INLINE void copy_stored(void* to, bool to_narrow, const void* from, bool from_narrow, int64_t n) {
  constexpr int W = kWidth<T>;
  if (sizeof(T) != 4 || (!to_narrow && !from_narrow)) return copy_or_zero((T*)to, (const T*)from, n);
  if (to_narrow && from_narrow && from) {
    __builtin_memcpy(to, from, (size_t)(2 * n));
    return;
  }
  for (int64_t i = 0; i < n; i += W) {
    const Vec<T> v = from ? load_stored<T>(element_of<T>(from, i, from_narrow), n - i, from_narrow) : Vec<T>{};
    store_stored<T>(element_of<T>(to, i, to_narrow), v, n - i, to_narrow);
  }
}

// The bfloat16 numbers whose sum represents each number of a vector.
template <int Parts> struct Halved {
  Halves part[Parts];
};
template <int Parts> PADLESS_INLINE Halved<Parts> halved(VecF v) {
  Halved<Parts> h;
  h.part[0] = narrowed(v);
#pragma GCC unroll 2
  for (int q = 1; q < Parts; ++q) {
    v -= widened(h.part[q - 1]);
    h.part[q] = narrowed(v);
  }
  return h;
}
// The same of n numbers in memory, which may be bfloat16 already, and zeros after them; zeros alone where `row` is null.
template <int Parts> PADLESS_INLINE Halved<Parts> load_halved(const void* row, int64_t at, int64_t n, bool narrow) {
  if (!row || n <= 0) return {};
  if (Parts == 1 && narrow) return {{load_halves((const uint16_t*)row + at, n)}};
  return halved<Parts>(load_stored<float>(element_of<float>(row, at, narrow), n, narrow));
}

// Two rows of a matrix, interleaved as in a row of a tile.
PADLESS_INLINE VecU32 paired(Halves even, Halves odd) {
  return extended(even) | extended(odd) << 16;
}
PADLESS_INLINE void store_pairs(uint16_t* to, VecU32 pairs) { __builtin_memcpy(to, &pairs, sizeof pairs); }

// Writes the first `n` of a vector to columns of an operand row and, if `zeros`, zeros to the rest of the vector's columns.
// Returns the first part.
template <int Parts> PADLESS_INLINE Halves put_parts(uint16_t* to, int64_t part, VecF v, int64_t n, bool zeros) {
  if (n < kWidth<float>) v = first_lanes(v, n);
  const Halved<Parts> h = halved<Parts>(v);
#pragma GCC unroll 2
  for (int q = 0; q < Parts; ++q) store_halves(to + q * part, h.part[q], zeros ? kWidth<float> : n);
  return h.part[0];
}

// Writes a row of `n` columns, or zeros for null, to an operand.
template <class T, int Parts>
PADLESS_INLINE void put_row(const Operand<T, Parts>& to, int64_t row, const void* from, int64_t n, bool narrow = false) {
  if constexpr (Parts == 0) {
    copy_stored<T>(to.at + row * to.stride, false, from, narrow, n);
  } else {
    constexpr int W = kWidth<T>;
    uint16_t* at = to.at + row * to.stride;
    int64_t i = 0;
    if (Parts == 1 && from && narrow)
      for (; i + 2 * W <= n; i += 2 * W) store((float*)(at + i), load((const float*)((const uint16_t*)from + i)));
    for (; i < tiled(n); i += W) {
      const Halved<Parts> h = load_halved<Parts>(from, i, n - i, narrow);
      for (int q = 0; q < Parts; ++q) store_halves(at + q * to.part + i, h.part[q], W);
    }
  }
}
