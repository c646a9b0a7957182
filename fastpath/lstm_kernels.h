/* What a step of an LSTM costs, over vectors of eight floats. Included by lstm.h once for each kind of vector.
 *
 * Owns the order of accumulation, and there is one: a gate is (bias + its recurrent products, in the order of the
 * units) + (its input products, in the order of the inputs), each product added by one fused operation. How rows are
 * cut into tiles, and how many lanes are taken together, changes none of it.
 *
 * Weights are packed in tiles of one to three vectors of units; a tile holds for each input in turn, for each of its
 * vectors, the gates i, o, f, g of eight units. i, o and f have half their weight, because their sigmoid is
 * 0.5 + 0.5 tanh(x / 2). Gates, biases and sums lie in the same order: [vector of units][gate][8]. */

/* tanh(x) = p / q. Minimax in absolute error over [0, 9], degrees 5 and 4 in the square of x: fitted by differential
 * correction (Barrodale, Powell and Roberts, SIAM Journal on Numerical Analysis 9, 1972), 2.9e-8, with float32's
 * rounding 3.0e-7 at most; 1 - tanh(9) = 3.0e-8. */
INLINE TARGET void NAME(tanh_parts)(VEC x, VEC *p, VEC *q) {
    x = MAX(SPLAT(-9.0f), MIN(SPLAT(9.0f), x)); /* NaN stays NaN */
    VEC s = MUL(x, x);
    VEC up = FMA(SPLAT(-0x1.617c32p-37f), s, SPLAT(0x1.d4f23cp-26f));
    VEC down = FMA(SPLAT(0x1.3e8ad4p-20f), s, SPLAT(0x1.8eb958p-12f));
    up = FMA(up, s, SPLAT(0x1.bc9f4cp-16f));
    down = FMA(down, s, SPLAT(0x1.b997fp-6f));
    up = FMA(up, s, SPLAT(0x1.f0ac6ep-9f));
    down = FMA(down, s, SPLAT(0x1.e0c1cap-2f));
    up = FMA(up, s, SPLAT(0x1.16d918p-3f));
    *q = FMA(down, s, SPLAT(1.0f));
    *p = MUL(FMA(up, s, SPLAT(0x1.fffffcp-1f)), x);
}

/* Eight units: their gates are recurrent + input; sigmoid(a) tanh(b) is one division, (qa + pa) pb / 2 qa qb. */
INLINE TARGET void NAME(update)(const float *recurrent, const float *input, const float *c, float *c_out, float *h_out) {
    VEC half = SPLAT(0.5f), pi, qi, po, qo, pf, qf, pg, qg, pc, qc;
    NAME(tanh_parts)(ADD(LOAD(recurrent), LOAD(input)), &pi, &qi);
    NAME(tanh_parts)(ADD(LOAD(recurrent + 24), LOAD(input + 24)), &pg, &qg);
    VEC fresh = DIV(MUL(MUL(half, ADD(qi, pi)), pg), MUL(qi, qg));
    NAME(tanh_parts)(ADD(LOAD(recurrent + 16), LOAD(input + 16)), &pf, &qf);
    VEC cell = FMA(DIV(MUL(half, ADD(qf, pf)), qf), LOAD(c), fresh);
    STORE(c_out, cell);
    NAME(tanh_parts)(ADD(LOAD(recurrent + 8), LOAD(input + 8)), &po, &qo);
    NAME(tanh_parts)(cell, &pc, &qc);
    STORE(h_out, DIV(MUL(MUL(half, ADD(qo, po)), pc), MUL(qo, qc)));
}

#define EACH_4(X) X(0) X(1) X(2) X(3)
#define EACH_8(X) EACH_4(X) X(4) X(5) X(6) X(7)
#define EACH_12(X) EACH_8(X) X(8) X(9) X(10) X(11)
#define BEGIN(n) VEC a##n = first ? LOAD(first + 8 * n) : SPLAT(0.0f);
#define ADD_PRODUCT(n) a##n = FMA(x, LOAD(w + 8 * n), a##n);
#define KEEP(n) STORE(sums + 8 * n, a##n);
#define AHEAD 4 /* inputs */
#define SUMS_OF_A_TILE(name, EACH, floats)                                                                             \
    static TARGET void NAME(name)(const float *w, const float *in, long n, const float *first, float *sums) {          \
        EACH(BEGIN)                                                                                                    \
        for (long j = 0; j < n; j++, w += floats) {                                                                    \
            VEC x = SPLAT(in[j]);                                                                                      \
            for (long line = 0; line < floats; line += 16)                                                             \
                __builtin_prefetch(w + AHEAD * floats + line); /* a matrix lies in L2, and is read once */             \
            EACH(ADD_PRODUCT)                                                                                          \
        }                                                                                                              \
        EACH(KEEP)                                                                                                     \
    }
SUMS_OF_A_TILE(sums_1, EACH_4, 32)
SUMS_OF_A_TILE(sums_2, EACH_8, 64)
SUMS_OF_A_TILE(sums_3, EACH_12, 96)

INLINE TARGET void NAME(sums_of_tile)(long width, const float *w, const float *in, long n, const float *first,
                                      float *sums) {
    (width == 3 ? NAME(sums_3) : width == 2 ? NAME(sums_2) : NAME(sums_1))(w, in, n, first, sums);
}

/* One vector of units for three lanes at a time: a weight is loaded once for all of them. */
#define BEGIN_THREE(g)                                                                                                 \
    VEC a##g = first ? LOAD(first + 8 * g) : SPLAT(0.0f);                                                              \
    VEC b##g = a##g, c##g = a##g;
#define ADD_THREE(g)                                                                                                   \
    {                                                                                                                  \
        VEC each = LOAD(w + 8 * g);                                                                                    \
        a##g = FMA(x, each, a##g);                                                                                     \
        b##g = FMA(y, each, b##g);                                                                                     \
        c##g = FMA(z, each, c##g);                                                                                     \
    }
#define KEEP_THREE(g)                                                                                                  \
    STORE(sums[0] + 8 * g, a##g);                                                                                      \
    STORE(sums[1] + 8 * g, b##g);                                                                                      \
    STORE(sums[2] + 8 * g, c##g);
static TARGET void NAME(sums_of_three)(const float *w, long stride, const float *const in[3], long n,
                                       const float *first, float *const sums[3]) {
    const float *one = in[0], *two = in[1], *three = in[2];
    EACH_4(BEGIN_THREE)
    for (long j = 0; j < n; j++, w += stride) {
        VEC x = SPLAT(one[j]), y = SPLAT(two[j]), z = SPLAT(three[j]);
        EACH_4(ADD_THREE)
    }
    EACH_4(KEEP_THREE)
}

/* first + weights in, for all gates of a layer. */
static TARGET void NAME(product)(const float *w, long vectors, const float *in, long n, const float *first, float *sums) {
    for (long v = 0, width; v < vectors; v += width) {
        width = tile_width(vectors - v);
        NAME(sums_of_tile)(width, w + 32 * n * v, in, n, first ? first + 32 * v : 0, sums + 32 * v);
    }
}

static TARGET void NAME(product_of_three)(const float *w, long vectors, const float *const in[3], long n,
                                          const float *first, float *const sums[3]) {
    for (long v = 0, width; v < vectors; v += width) {
        width = tile_width(vectors - v);
        for (long u = 0; u < width; u++) {
            float *const at[3] = {sums[0] + 32 * (v + u), sums[1] + 32 * (v + u), sums[2] + 32 * (v + u)};
            NAME(sums_of_three)(w + 32 * n * v + 32 * u, 32 * width, in, n, first ? first + 32 * (v + u) : 0, at);
        }
    }
}

static TARGET void NAME(cells)(long vectors, const float *recurrent, const float *input, const float *c, float *c_out,
                               float *h_out) {
    for (long v = 0; v < vectors; v++)
        NAME(update)(recurrent + 32 * v, input + 32 * v, c + 8 * v, c_out + 8 * v, h_out + 8 * v);
}

/* The input half and the cells behind it, tile by tile, so that divisions of one overlap with sums of the next. */
static TARGET void NAME(last_step)(const float *w, long vectors, const float *in, long n, const float *recurrent,
                                   const float *c, float *c_out, float *h_out) {
    float sums[96];
    for (long v = 0, width; v < vectors; v += width) {
        width = tile_width(vectors - v);
        NAME(sums_of_tile)(width, w + 32 * n * v, in, n, 0, sums);
        NAME(cells)(width, recurrent + 32 * v, sums, c + 8 * v, c_out + 8 * v, h_out + 8 * v);
    }
}

/* Up to eight outputs of the last layer's units, in four sums by turns; those from `linear` on through a sigmoid. */
static TARGET void NAME(heads)(const float *w, const float *bias, long units, const float *h, long outputs, long linear,
                               float *out) {
    for (long first = 0; first < outputs; first += 8, w += 8 * units) {
        VEC a = LOAD(bias + first), b = SPLAT(0.0f), c = b, d = b, p, q;
        long j = 0;
        for (; j + 4 <= units; j += 4) {
            a = FMA(SPLAT(h[j]), LOAD(w + 8 * j), a);
            b = FMA(SPLAT(h[j + 1]), LOAD(w + 8 * j + 8), b);
            c = FMA(SPLAT(h[j + 2]), LOAD(w + 8 * j + 16), c);
            d = FMA(SPLAT(h[j + 3]), LOAD(w + 8 * j + 24), d);
        }
        for (; j < units; j++)
            a = FMA(SPLAT(h[j]), LOAD(w + 8 * j), a);
        float sums[8], chances[8];
        a = ADD(ADD(a, b), ADD(c, d));
        STORE(sums, a);
        NAME(tanh_parts)(MUL(SPLAT(0.5f), a), &p, &q);
        a = MAX(SPLAT(-1.0f), MIN(SPLAT(1.0f), DIV(p, q))); /* rounding may take it beyond, and a chance is at most 1 */
        STORE(chances, FMA(SPLAT(0.5f), a, SPLAT(0.5f)));
        for (long n = first; n < outputs && n < first + 8; n++)
            out[n] = n < linear ? sums[n - first] : chances[n - first];
    }
}

static const kernels NAME(kernels) = {NAME(product), NAME(product_of_three), NAME(cells), NAME(last_step), NAME(heads)};
