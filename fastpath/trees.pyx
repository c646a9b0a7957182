"""Boosted trees: chances of classes from the sums of their leaves, and exact SHAP values.

Owns the packed trees, the tables that explain the shallow ones, and one row's scratch; used by workers, one thread at
a time. Reads arrays that its caller brings, writes the bound outputs. What must stay true: a row's answer depends on
nothing but the row; sums are taken tree after tree; nothing is allocated after `bind`.
"""

from libc.math cimport INFINITY, exp, isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

import numpy as np

from fastpath import packing

cdef extern from "trees.h" nogil:
    enum:
        TABLE_DEPTH_MIN
        TABLE_DEPTH_MAX
        UNIT_LANES
        UNIT_NODES
        POINTS

    ctypedef struct node:
        pass

    ctypedef struct edge:
        pass

    ctypedef struct tree:
        const node *nodes
        long depth
        const edge *edges
        long count
        long table_depth
        const int32_t *keys
        const int32_t *slots
        const int32_t *features
        const float *table

    ctypedef struct quadrature:
        pass

    ctypedef struct step:
        pass

    ctypedef uint64_t ways(const int32_t *keys, const int32_t *slots, const int32_t *below, long count) noexcept

    ways ways_portable
    ways *best_ways()
    void keys_of(const float *columns, const int64_t *chosen, long inputs, int32_t *keys)
    double sum_of_leaves(const tree *trees, long count, const int32_t *keys, double sum)
    void explain(const tree *trees, long count, const int32_t *keys, ways *find_ways, const quadrature *rule,
                 step *steps, uint8_t *goes_left, double *out)
    void fill_table(const edge *edges, long count, const int32_t *bit, long bits, const quadrature *rule, step *steps,
                    uint8_t *goes_left, float *table)

TABLES_BYTES_MAX = 32 << 20             # of all trees together; those that find no room are explained by their edges
ALIGNED = 64
assert (packing.NODE.itemsize, packing.EDGE.itemsize) == (sizeof(node), sizeof(edge))
assert (packing.DEPTH_MIN, packing.DEPTH_MAX) == (TABLE_DEPTH_MIN, TABLE_DEPTH_MAX)
assert (packing.OWN, packing.LANES, packing.PATH_MAX) == (UNIT_NODES, UNIT_LANES, 2 * POINTS)


cdef class Trees:
    """Trees of one or more classes over rows of `inputs` numbers, NaN where one is missing.

    Parameters
    ----------
    trees : `packing.Nodes` of each
    of_class : of each, the number of the class to whose margin its leaf is added
    base : margin of each class before any tree
    inputs : features
    tables_bytes : of tables, at most
    portable : by plain C even where the processor has AVX2
    """

    cdef tree *trees
    cdef ways *find_ways
    cdef quadrature *rule
    cdef step *steps
    cdef uint8_t *goes_left
    cdef readonly long inputs
    cdef readonly long classes
    cdef readonly long count
    cdef readonly bint portable
    cdef readonly long without_table    # trees that are explained by their edges
    cdef int64_t[::1] first             # tree of each class
    cdef double[::1] base
    cdef double[::1] unknown            # margins when nothing is known
    cdef int64_t[::1] every
    cdef int32_t[::1] keys
    cdef double[::1] values
    cdef list arrays                    # what the pointers point into
    cdef bint bound
    cdef const float[:, :] columns
    cdef const int64_t[::1] chosen
    cdef double slope
    cdef const double[::1] bias
    cdef const uint8_t[:] plan
    cdef uint8_t[::1] has_values        # of each slot, whether its chances were explained
    cdef double[:, :] chances
    cdef float[:, :] shap

    def __init__(self, trees, of_class, base, long inputs, long tables_bytes=TABLES_BYTES_MAX,
                 bint portable=False):
        cdef long place = 0
        if inputs < 1 or len(base) < 1:
            raise ValueError(f"trees: expected 1 input and 1 class or more, found {inputs} and {len(base)}")
        if len(of_class) != len(trees) or not all(0 <= each < len(base) for each in of_class):
            raise ValueError(f"of_class: expected {len(trees)} numbers from 0 to {len(base) - 1}, found others")
        self.inputs, self.classes, self.count, self.without_table = inputs, len(base), len(trees), 0
        self.arrays, self.bound = [], False
        self.base, self.unknown = np.array(base, np.float64), np.array(base, np.float64)
        self.find_ways = ways_portable if portable else best_ways()
        self.portable = self.find_ways == ways_portable
        self.every, self.keys = np.arange(inputs), np.zeros(2 * inputs + 1, np.int32)
        self.values = np.zeros(inputs + 1)  # the last one is of places where no node is
        at, weight = np.polynomial.legendre.leggauss(POINTS)
        self.rule = <quadrature *> self._keep(np.concatenate([(at + 1.0) / 2.0, weight / 2.0]))
        packed = [packing.pack(each, n, inputs) for n, each in enumerate(trees)]
        most = max([len(each.edges) for each in packed], default=1)
        self.steps = <step *> self._keep(np.zeros(most * sizeof(step), np.uint8))
        self.goes_left = <uint8_t *> self._keep(np.zeros(most, np.uint8))
        self.trees = <tree *> self._keep(np.zeros(max(len(trees), 1) * sizeof(tree), np.uint8))
        by_class = sorted(range(len(trees)), key=of_class.__getitem__)
        self.first = np.searchsorted([of_class[n] for n in by_class], np.arange(len(base) + 1)).astype(np.int64)
        for n in by_class:
            tables_bytes -= self._enter(&self.trees[place], packed[n], tables_bytes)
            self.unknown[<long> of_class[n]] += packed[n].expected
            place += 1

    cdef void *_keep(self, array) except NULL:
        """A copy that begins at a cache line and stays as long as this does."""
        cdef uint8_t[::1] memory = np.zeros(array.nbytes + ALIGNED, np.uint8)
        cdef long begin = (ALIGNED - <size_t> &memory[0] % ALIGNED) % ALIGNED
        np.asarray(memory)[begin : begin + array.nbytes] = array.view(np.uint8)
        self.arrays.append(memory)
        return &memory[begin]

    cdef long _enter(self, tree *each, packed, long room) except -1:
        """How many bytes of the room its table takes."""
        cdef float *table
        cdef edge *edges
        cdef int32_t *bit
        cdef long of_unit
        each.nodes, each.depth = <node *> self._keep(packed.nodes), packed.depth
        each.edges, each.count = <edge *> self._keep(packed.edges), len(packed.edges)
        units = packing.cut(packed, self.inputs)
        if units is None or 4 * units.floats > room:
            self.without_table += 1
            return 0
        table = <float *> self._keep(np.zeros(units.floats, np.float32))
        each.table, each.table_depth = table, units.depth
        each.keys, each.slots = <int32_t *> self._keep(units.keys), <int32_t *> self._keep(units.slots)
        each.features = <int32_t *> self._keep(units.features)
        of_unit = units.floats // len(units.each)
        for unit in units.each:
            edges, bit = <edge *> self._keep(unit.edges), <int32_t *> self._keep(unit.bit)
            fill_table(edges, len(unit.edges), bit, units.bits, self.rule, self.steps, self.goes_left, table)
            table += of_unit
            self.arrays.pop()
            self.arrays.pop()
        return 4 * units.floats

    cdef double _margin(self, long k) noexcept nogil:
        return sum_of_leaves(self.trees + self.first[k], self.first[k + 1] - self.first[k], &self.keys[0], self.base[k])

    cdef void _explain(self, long k, float *out) noexcept nogil:
        cdef long n
        for n in range(self.inputs):
            self.values[n] = 0.0
        explain(self.trees + self.first[k], self.first[k + 1] - self.first[k], &self.keys[0], self.find_ways,
                self.rule, self.steps, self.goes_left, &self.values[0])
        for n in range(self.inputs):
            out[n] = <float> self.values[n]
        out[self.inputs] = <float> self.unknown[k]

    def margins(self, const float[::1] row not None, double[::1] out not None):
        """row: (inputs,). out: (classes,)."""
        cdef long k
        if row.shape[0] != self.inputs or out.shape[0] != self.classes:
            raise ValueError(f"margins: expected {self.inputs} inputs and {self.classes} outputs, "
                             f"found {row.shape[0]} and {out.shape[0]}")
        keys_of(&row[0], &self.every[0], self.inputs, &self.keys[0])
        for k in range(self.classes):
            out[k] = self._margin(k)

    def explain(self, const float[::1] row not None, long k, float[::1] out not None):
        """SHAP values of the margin of class k, one a feature, then the bias; they sum to it.

        row: (inputs,). out: (inputs + 1,).
        """
        if row.shape[0] != self.inputs or out.shape[0] != self.inputs + 1 or not 0 <= k < self.classes:
            raise ValueError(f"explain: expected {self.inputs} inputs, {self.inputs + 1} outputs and a class from 0 to "
                             f"{self.classes - 1}, found {row.shape[0]}, {out.shape[0]} and {k}")
        keys_of(&row[0], &self.every[0], self.inputs, &self.keys[0])
        self._explain(k, &out[0])

    def bind(self, columns, chosen, double slope, bias, plan, chances, shap):
        """The arrays of a microbatch, whose n-th entries are those of its n-th slot, at any distance.

        columns: (slots, columns) float32. chosen: int64, which columns are the inputs. slope, bias (classes,): chances
        are the softmax of slope * margin + bias. plan: (slots,) uint8. chances: (slots, classes) float64, and
        shap: (slots, more than inputs) float32, the outputs.
        """
        wide, chosen = np.shape(columns)[1], np.ascontiguousarray(chosen, np.int64)
        if len(chosen) != self.inputs or not all(0 <= each < wide for each in chosen):
            raise ValueError(f"bind: expected {self.inputs} columns from 0 to {wide - 1}, found {chosen.tolist()}")
        found = len(bias), np.shape(chances)[1], np.shape(shap)[1] > self.inputs
        if found != (self.classes, self.classes, True):
            raise ValueError(f"bind: expected a bias and a chance of each of {self.classes} classes and room for "
                             f"{self.inputs + 1} values, found {len(bias)}, {found[1]} and {np.shape(shap)[1]}")
        if {len(each) for each in (plan, chances, shap)} != {len(columns)}:
            raise ValueError(f"bind: expected {len(columns)} slots in every array")
        for each in (columns, chances, shap):
            if not np.asarray(each)[:1].flags.c_contiguous:
                raise ValueError("bind: expected what belongs to a slot in one piece, found strides within it")
        self.bound = False
        self.columns, self.chosen, self.slope, self.bias = columns, chosen, slope, bias
        self.plan, self.chances, self.shap, self.has_values = plan, chances, shap, np.zeros(len(plan), np.uint8)
        self.bound = True

    def run(self, list slots not None, const uint8_t[:] explained not None):
        """Answers these slots of the bound arrays; explained: by plan, whether the likeliest class is explained."""
        cdef long i
        for i in slots:
            self._check(i)
            if self.plan[i] >= explained.shape[0]:
                raise IndexError(f"run: slot {i}: expected a plan below {explained.shape[0]}, found {self.plan[i]}")
            self._answer(i, explained[self.plan[i]] != 0)

    def sound(self, list slots not None):
        """Whether all chances in these slots are chances, and all values finite."""
        cdef long i, n
        for i in slots:
            self._check(i)
            for n in range(self.classes):
                if not 0.0 <= self.chances[i, n] <= 1.0:
                    return False
            for n in range(self.inputs + 1 if self.has_values[i] else 0):
                if not isfinite(self.shap[i, n]):
                    return False
        return True

    cdef _check(self, long i):
        if not self.bound:
            raise ValueError("trees: expected bound arrays, found none; call bind")
        if not 0 <= i < self.columns.shape[0]:
            raise IndexError(f"trees: expected slots from 0 to {self.columns.shape[0] - 1}, found {i}")

    cdef void _answer(self, long i, bint explained) noexcept nogil:
        cdef double *chance = &self.chances[i, 0]
        cdef double high = -INFINITY, total = 0.0
        cdef long k, likeliest = 0
        self.has_values[i] = explained
        keys_of(&self.columns[i, 0], &self.chosen[0], self.inputs, &self.keys[0])
        for k in range(self.classes):
            chance[k] = self.slope * self._margin(k) + self.bias[k]
            high = max(high, chance[k])
        for k in range(self.classes):
            chance[k] = exp(chance[k] - high)
            total += chance[k]
        for k in range(self.classes):
            chance[k] /= total
            if chance[k] > chance[likeliest]:
                likeliest = k
        if explained:
            self._explain(likeliest, &self.shap[i, 0])
