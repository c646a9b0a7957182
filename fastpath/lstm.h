/* A stack of LSTM layers with heads on its last step: whole steps, and the last one alone.
 *
 * A state is what a window leaves behind after some of its rows: of each layer h, then c, padded to whole vectors. From
 * it follows `ahead`, the recurrent half of all gates of the next step. Nothing here allocates; a caller brings
 * `scratch` of scratch_floats(). Whatever way a window is taken, the order of every sum is that of lstm_kernels.h. */
#ifndef TICKPATH_LSTM_H
#define TICKPATH_LSTM_H

#include <string.h>

#include "lstm_vectors.h"

typedef struct {
    void (*product)(const float *w, long vectors, const float *in, long n, const float *first, float *sums);
    void (*product_of_three)(const float *w, long vectors, const float *const in[3], long n, const float *first,
                             float *const sums[3]);
    void (*cells)(long vectors, const float *recurrent, const float *input, const float *c, float *c_out, float *h_out);
    void (*last_step)(const float *w, long vectors, const float *in, long n, const float *recurrent, const float *c,
                      float *c_out, float *h_out);
    void (*heads)(const float *w, const float *bias, long units, const float *h, long outputs, long linear, float *out);
} kernels;

/* Vectors of units in the next tile: threes, and twos at the end where a lone one would be left. */
static inline long tile_width(long left) { return left == 4 ? 2 : left < 3 ? left : 3; }

#define LAYERS_MAX 8

typedef struct {
    long inputs, units, vectors;
    const float *w, *r, *bias;
} layer;

typedef struct {
    long layers, inputs, span; /* closed rows of a window, before the last one */
    layer layer[LAYERS_MAX];
    const float *head_w, *head_bias;
    long outputs, linear;
    long state_floats, ahead_floats, vectors_max;
    const kernels *run;
} network;

#define TARGET
#define NAME(name) name##_portable
#define VEC eight
#define LOAD(at) (*(const eight *)(at))
#define STORE(at, v) (*(eight *)(at) = (v))
#define SPLAT(x) ((eight){x, x, x, x, x, x, x, x})
#define FMA(a, b, c) fused(a, b, c)
#define ADD(a, b) ((a) + (b))
#define MUL(a, b) ((a) * (b))
#define DIV(a, b) ((a) / (b))
#define MIN(a, b) chosen((a) < (b), a, b)
#define MAX(a, b) chosen((a) > (b), a, b)
#include "lstm_kernels.h"

#ifdef HAS_AVX2
#undef TARGET
#undef NAME
#undef VEC
#undef LOAD
#undef STORE
#undef SPLAT
#undef FMA
#undef ADD
#undef MUL
#undef DIV
#undef MIN
#undef MAX
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(name) name##_avx2
#define VEC __m256
#define LOAD(at) _mm256_loadu_ps(at)
#define STORE(at, v) _mm256_storeu_ps(at, v)
#define SPLAT(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define DIV(a, b) _mm256_div_ps(a, b)
#define MIN(a, b) _mm256_min_ps(a, b)
#define MAX(a, b) _mm256_max_ps(a, b)
#include "lstm_kernels.h"
#endif

/* By what this processor and its system can do, whatever the compiler was told. */
static const kernels *best_kernels(void) {
#ifdef HAS_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &kernels_avx2;
#endif
    return &kernels_portable;
}

static long scratch_floats(const network *net) {
    long rows = net->span > 6 ? net->span : 6; /* run_three has six sums */
    return (rows + 1) * 40 * net->vectors_max;
}

/* The recurrent half of the next step of each layer. */
static void look_ahead(const network *net, const float *state, float *ahead) {
    for (long k = 0; k < net->layers; k++) {
        const layer *each = &net->layer[k];
        net->run->product(each->r, each->vectors, state, each->units, each->bias, ahead);
        state += 16 * each->vectors;
        ahead += 32 * each->vectors;
    }
}

/* Input halves of `count` rows, `stride` floats apart. */
static void input_halves(const network *net, const layer *each, const float *rows, long stride, long count, float *out) {
    long wide = 32 * each->vectors, n = 0;
    for (; n + 3 <= count; n += 3) {
        const float *const in[3] = {rows + n * stride, rows + (n + 1) * stride, rows + (n + 2) * stride};
        float *const at[3] = {out + n * wide, out + (n + 1) * wide, out + (n + 2) * wide};
        net->run->product_of_three(each->w, each->vectors, in, each->inputs, 0, at);
    }
    for (; n < count; n++)
        net->run->product(each->w, each->vectors, rows + n * stride, each->inputs, 0, out + n * wide);
}

/* Takes a state `count` rows further, at most `span` of them: layer by layer, because input halves need no turn. */
static void run_rows(const network *net, float *state, const float *rows, long count, float *scratch) {
    float *halves = scratch, *hidden = halves + net->span * 32 * net->vectors_max;
    float *recurrent = hidden + net->span * 8 * net->vectors_max;
    long stride = net->inputs;
    for (long k = 0; k < net->layers; k++) {
        const layer *each = &net->layer[k];
        long wide = 8 * each->vectors;
        float *h = state, *c = state + wide;
        input_halves(net, each, rows, stride, count, halves);
        for (long n = 0; n < count; n++) {
            net->run->product(each->r, each->vectors, h, each->units, each->bias, recurrent);
            net->run->cells(each->vectors, recurrent, halves + 4 * wide * n, c, c, h);
            memcpy(hidden + wide * n, h, wide * sizeof(float));
        }
        rows = hidden;
        stride = wide;
        state += 2 * wide;
    }
}

/* Takes three states one row further, whose first input half is already there; weights are read once for all three. */
static void run_three(const network *net, float *const states[3], const float *half, float *scratch) {
    long most = 32 * net->vectors_max, at = 0;
    float *const halves[3] = {scratch, scratch + most, scratch + 2 * most};
    float *const recurrent[3] = {scratch + 3 * most, scratch + 4 * most, scratch + 5 * most};
    for (long k = 0; k < net->layers; k++) {
        const layer *each = &net->layer[k];
        long wide = 8 * each->vectors;
        const float *const own[3] = {states[0] + at, states[1] + at, states[2] + at};
        if (k > 0) { /* `at - 16 * vectors` of the layer below: its new h */
            long below = at - 16 * net->layer[k - 1].vectors;
            const float *const in[3] = {states[0] + below, states[1] + below, states[2] + below};
            net->run->product_of_three(each->w, each->vectors, in, each->inputs, 0, halves);
        }
        net->run->product_of_three(each->r, each->vectors, own, each->units, each->bias, recurrent);
        for (long n = 0; n < 3; n++) {
            float *h = states[n] + at, *c = h + wide;
            net->run->cells(each->vectors, recurrent[n], k > 0 ? halves[n] : half, c, c, h);
        }
        at += 2 * wide;
    }
}

/* The last row of a window, and the outputs; the state stays as it was. */
static void answer_row(const network *net, const float *state, const float *ahead, const float *row, float *scratch,
                       float *out) {
    float *cell = scratch, *now = cell + 8 * net->vectors_max, *next = now + 8 * net->vectors_max;
    const layer *each = net->layer;
    for (long k = 0; k < net->layers; k++, each++) {
        long wide = 8 * each->vectors;
        net->run->last_step(each->w, each->vectors, row, each->inputs, ahead, state + wide, cell, now);
        float *free = now;
        row = now;
        now = next;
        next = free;
        state += 2 * wide;
        ahead += 4 * wide;
    }
    net->run->heads(net->head_w, net->head_bias, (each - 1)->units, row, net->outputs, net->linear, out);
}

#endif
