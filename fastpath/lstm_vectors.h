/* Eight floats at a time, twice: by AVX2 and FMA, and in plain C with the same bits.
 *
 * Each operation rounds once, as IEEE 754 says, in both; `fused` is one rounding of a * b + c. So a sum in a
 * given order is the same number on every processor. MIN and MAX give their second operand where one is NaN. */
#ifndef TICKPATH_LSTM_VECTORS_H
#define TICKPATH_LSTM_VECTORS_H

#include <math.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

typedef float eight __attribute__((vector_size(32), aligned(4)));
typedef int32_t eight_bits __attribute__((vector_size(32)));
typedef double eight_wide __attribute__((vector_size(64)));
typedef int64_t eight_wide_bits __attribute__((vector_size(64)));

INLINE eight chosen(eight_bits first, eight a, eight b) {
    return (eight)((first & (eight_bits)a) | (~first & (eight_bits)b));
}

#ifdef __FP_FAST_FMAF
INLINE eight fused(eight a, eight b, eight c) {
    for (int n = 0; n < 8; n++)
        c[n] = fmaf(a[n], b[n], c[n]);
    return c;
}
#else
/* Without the instruction: the product of two floats is exact in double; the sum is rounded to odd there, so that
 * rounding it again to float rounds as if once (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums",
 * IEEE Transactions on Computers 57, 2008). */
INLINE eight fused(eight a, eight b, eight c) {
    eight_wide product = __builtin_convertvector(a, eight_wide) * __builtin_convertvector(b, eight_wide);
    eight_wide addend = __builtin_convertvector(c, eight_wide);
    eight_wide sum = product + addend, part = sum - product;
    eight_wide lost = (product - (sum - part)) + (addend - part); /* exact (Knuth); NaN beside infinities */
    eight_wide_bits up = lost > 0.0, inexact = up | (lost < 0.0);
    eight_wide_bits bits = (eight_wide_bits)sum;
    eight_wide_bits even = (bits & 1) - 1;
    eight_wide_bits inwards = up ^ (sum > 0.0); /* the odd neighbour is the smaller one */
    bits += inexact & even & (inwards | 1);
    return __builtin_convertvector((eight_wide)bits, eight);
}
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#define HAS_AVX2 1
#endif

#endif
