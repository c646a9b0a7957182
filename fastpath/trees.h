/* Boosted trees over one row: the sum of their leaves, and exact Shapley values of it.
 *
 * A row is taken as keys, integers in the order of its floats: so a comparison is the one that IEEE 754 says, whatever
 * the processor does with tiny numbers, and what is missing is a key below or above all others, by where it goes.
 *
 * Shapley values are those of the path-dependent algorithm (Lundberg, Erion and Lee, "Consistent Individualized Feature
 * Attribution for Tree Ensembles", 2018). Knowing a feature, a leaf's conditions on it hold or do not (one: 1 or 0);
 * not knowing it, they hold with the share of the training data that went that way (zero). A feature's value over a leaf
 * is value (one - zero) times the sum over sets S of the n - 1 others of |S|! (n - |S| - 1)! / n! times the ones within S
 * and the zeros outside. These weights are the integrals of t^|S| (1 - t)^(n - |S| - 1) over [0, 1], so the sum is that of
 * prod (t one + (1 - t) zero): a polynomial, which eight points of Gauss and Legendre integrate exactly up to n = 16.
 * All factors are positive, nothing cancels; and a product along a path, a sum over leaves and a division for each edge
 * are enough for a whole tree. Where a feature comes again on a path, the lower edge takes the upper one's place.
 *
 * This depends on a row only by which conditions hold. So shallow trees are explained by tables: a unit is a node two
 * levels above the deepest leaves, with its two children and its ancestors; which of its conditions hold is an
 * index to what the leaves below it give to each of its nodes' features. Nothing here allocates. */
#ifndef TICKPATH_TREES_H
#define TICKPATH_TREES_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define HAS_AVX2 1
#endif

#define INLINE static inline __attribute__((always_inline))
#define TABLE_DEPTH_MIN 2
#define TABLE_DEPTH_MAX 6
#define UNIT_LANES 8    /* of ancestors, by depth: 0 to 3; of the unit's own three nodes: 4 to 6 */
#define UNIT_NODES 3
#define POINTS 8

typedef struct {
    int32_t key;  /* left when the row's is less */
    int32_t slot; /* of the row's keys */
    int32_t left; /* the right child comes after it; a leaf's is itself */
    float value;  /* of a leaf */
} node;

/* From a node to a child, counted by the child; parents come first, edge 0 is the root's and nobody's. */
typedef struct {
    int32_t parent;
    int32_t above;  /* the next edge towards the root with the same feature; 0: none */
    int32_t target; /* where its feature's value is summed */
    int32_t left;   /* 1: to the left child */
    double zero;    /* share of the training data, of the edges above too */
    double value;   /* of a leaf */
} edge;

typedef double points __attribute__((vector_size(8 * POINTS)));

typedef struct {
    points product, factor, sum;
    long held;
} step;

typedef struct {
    const node *nodes;
    long depth;
    const edge *edges;
    long count;
    long table_depth; /* 0: explained by its edges */
    const int32_t *keys, *slots, *features; /* as tables have the nodes: upper ones by level, then each unit's three */
    const float *table;
} tree;

typedef struct {
    points at, weight;
} quadrature;

/* Of a float, as an integer in the same order; -0 is 0, and NaN what is given for it. */
INLINE int32_t key_of(float x, int32_t missing) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    int32_t plain = bits & INT32_MAX;
    if (plain > 0x7f800000)
        return missing;
    return bits < 0 ? -plain : plain;
}

/* Keys of a row: where missing goes right, then where it goes left, then one for leaves. */
static void keys_of(const float *columns, const int64_t *chosen, long inputs, int32_t *keys) {
    for (long n = 0; n < inputs; n++) {
        float x = columns[chosen[n]];
        keys[n] = key_of(x, INT32_MAX);
        keys[inputs + n] = key_of(x, INT32_MIN);
    }
    keys[2 * inputs] = INT32_MIN;
}

/* base + the leaves, tree after tree. */
static double sum_of_leaves(const tree *trees, long count, const int32_t *keys, double sum) {
    for (const tree *each = trees; each < trees + count; each++) {
        const node *nodes = each->nodes, *at = nodes;
        for (long level = each->depth; level > 0; level--)
            at = nodes + at->left + (keys[at->slot] >= at->key);
        sum += at->value;
    }
    return sum;
}

INLINE points over(points sum, points factor, points weight) { return weight * sum / factor; }

INLINE double total(points p) { return ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7])); }

/* Adds each edge's part to its target; `goes_left` is of the nodes, counted as edges to them. */
static void add_by_edges(const edge *edges, long count, const uint8_t *goes_left, const quadrature *rule, step *steps,
                         double *out) {
    steps[0].product = rule->at - rule->at + 1.0;
    for (long n = 1; n < count; n++) {
        const edge *each = edges + n;
        step *now = steps + n, *above = steps + each->above;
        now->held = goes_left[each->parent] == each->left && (each->above == 0 || above->held);
        now->factor = (1.0 - rule->at) * each->zero;
        if (now->held)
            now->factor += rule->at;
        now->product = steps[each->parent].product * now->factor;
        if (each->above && (above->held || edges[each->above].zero > 0.0))
            now->product /= above->factor;
        now->sum = now->product * each->value;
    }
    steps[0].sum = rule->at - rule->at;
    for (long n = count - 1; n > 0; n--) {
        const edge *each = edges + n;
        const step *now = steps + n, *above = steps + each->above;
        steps[each->parent].sum += now->sum;
        if (!now->held && !(each->zero > 0.0))
            continue; /* nobody went there, in training or now: the product is nil */
        double part = ((double)now->held - each->zero) * total(over(now->sum, now->factor, rule->weight));
        if (each->above)
            part -= ((double)above->held - edges[each->above].zero) * total(over(now->sum, above->factor, rule->weight));
        out[each->target] += part;
    }
}

/* What the leaves below a unit give to its lanes, for each set of its conditions; `bit` is of the nodes. */
static void fill_table(const edge *edges, long count, const int32_t *bit, long bits, const quadrature *rule,
                       step *steps, uint8_t *goes_left, float *table) {
    for (long held = 0; held < 1L << bits; held++) {
        double lanes[UNIT_LANES] = {0.0};
        for (long n = 0; n < count; n++)
            goes_left[n] = held >> bit[n] & 1;
        add_by_edges(edges, count, goes_left, rule, steps, lanes);
        for (long lane = 0; lane < UNIT_LANES; lane++)
            table[UNIT_LANES * held + lane] = (float)lanes[lane];
    }
}

/* Bit n: whether a row goes left at place n of a tree with tables; there is room for whole eights of places. */
typedef uint64_t ways(const int32_t *keys, const int32_t *slots, const int32_t *below, long count);

static uint64_t ways_portable(const int32_t *keys, const int32_t *slots, const int32_t *below, long count) {
    uint64_t left = 0;
    for (long n = 0; n < count; n++)
        left |= (uint64_t)(keys[slots[n]] < below[n]) << n;
    return left;
}

#ifdef HAS_AVX2
__attribute__((target("avx2"))) static uint64_t ways_avx2(const int32_t *keys, const int32_t *slots,
                                                          const int32_t *below, long count) {
    uint64_t left = 0;
    for (long n = 0; n < count; n += 8) {
        __m256i found = _mm256_i32gather_epi32(keys, _mm256_load_si256((const __m256i *)(slots + n)), 4);
        __m256i less = _mm256_cmpgt_epi32(_mm256_load_si256((const __m256i *)(below + n)), found);
        left |= (uint64_t)(uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less)) << n;
    }
    return left;
}
#endif

/* By what this processor and its system can do, whatever the compiler was told; the bits are the same. */
static ways *best_ways(void) {
#ifdef HAS_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        return ways_avx2;
#endif
    return ways_portable;
}

typedef float four __attribute__((vector_size(16)));
#define UNROLL _Pragma("GCC unroll 16")

typedef const float *unit_rows[1 << (TABLE_DEPTH_MAX - TABLE_DEPTH_MIN)];

/* Where each unit's row of its table is; a cache does not hold all tables, so they are asked for ahead. */
INLINE void find_rows(const tree *each, uint64_t left, const long depth, const float **rows) {
    const long levels = depth - TABLE_DEPTH_MIN, units = 1L << levels, uppers = units - 1;
    long held[1 << (TABLE_DEPTH_MAX - TABLE_DEPTH_MIN)];
    held[0] = 0;
    UNROLL
    for (long level = 0; level < levels; level++) {
        UNROLL
        for (long n = (1L << level) - 1; n >= 0; n--)
            held[2 * n] = held[2 * n + 1] = held[n] | (left >> ((1L << level) - 1 + n) & 1) << level;
    }
    left >>= uppers;
    UNROLL
    for (long unit = 0; unit < units; unit++) {
        long index = unit << (depth + 1) | (left >> UNIT_NODES * unit & 7) << levels | held[unit];
        rows[unit] = each->table + UNIT_LANES * index;
        __builtin_prefetch(rows[unit]);
    }
}

INLINE void add_rows(const tree *each, const float *const *rows, const long depth, double *out) {
    const long levels = depth - TABLE_DEPTH_MIN, units = 1L << levels, uppers = units - 1;
    const int32_t *features = each->features;
    four sums[1 << (TABLE_DEPTH_MAX - TABLE_DEPTH_MIN)];
    UNROLL
    for (long unit = 0; unit < units; unit++) {
        const float *row = rows[unit];
        sums[unit] = *(const four *)row;
        out[features[uppers + UNIT_NODES * unit]] += row[4];
        out[features[uppers + UNIT_NODES * unit + 1]] += row[5];
        out[features[uppers + UNIT_NODES * unit + 2]] += row[6];
    }
    UNROLL
    for (long level = levels - 1; level >= 0; level--) {
        UNROLL
        for (long n = 0; n < 1L << level; n++) {
            sums[n] = sums[2 * n] + sums[2 * n + 1];
            out[features[(1L << level) - 1 + n]] += sums[n][level];
        }
    }
}

#define AHEAD 8 /* trees */

/* Adds the trees' Shapley values to out, one a feature; `goes_left` and `steps` have room for the largest tree. */
static void explain(const tree *trees, long count, const int32_t *keys, ways *find_ways, const quadrature *rule,
                    step *steps, uint8_t *goes_left, double *out) {
    unit_rows rows[AHEAD];
    for (long first = 0; first < count; first += AHEAD) {
        long some = count - first < AHEAD ? count - first : AHEAD;
        for (long n = 0; n < some; n++) {
            const tree *each = trees + first + n;
            long depth = each->table_depth;
            uint64_t left = depth ? find_ways(keys, each->slots, each->keys, (1L << depth) - 1) : 0;
            switch (depth) {
            case 2: find_rows(each, left, 2, rows[n]); break;
            case 3: find_rows(each, left, 3, rows[n]); break;
            case 4: find_rows(each, left, 4, rows[n]); break;
            case 5: find_rows(each, left, 5, rows[n]); break;
            case 6: find_rows(each, left, 6, rows[n]); break;
            }
        }
        for (long n = 0; n < some; n++) {
            const tree *each = trees + first + n;
            switch (each->table_depth) {
            case 2: add_rows(each, rows[n], 2, out); break;
            case 3: add_rows(each, rows[n], 3, out); break;
            case 4: add_rows(each, rows[n], 4, out); break;
            case 5: add_rows(each, rows[n], 5, out); break;
            case 6: add_rows(each, rows[n], 6, out); break;
            default:
                for (long at = 0; at < each->count; at++)
                    goes_left[at] = keys[each->nodes[at].slot] < each->nodes[at].key;
                add_by_edges(each->edges, each->count, goes_left, rule, steps, out);
            }
        }
    }
}

#endif
