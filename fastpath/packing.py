"""Boosted trees as flat arrays: what `fastpath.trees` runs, made once at load.

Owns the order of nodes and edges, and how a shallow tree is cut into units (`trees.h` says what these are); no state.
Reads the arrays of one tree. What must stay true: what is no tree, or asks for what a row does not have, is refused
here, because the kernels trust their numbers.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

DEPTH_MIN = 2  # of trees with tables: a unit is a node with its children
DEPTH_MAX = 6
OWN = 3  # nodes of a unit beside its ancestors
LANES = 8  # of a unit: one for each ancestor by depth, then from 4 one for each of its own
PATH_MAX = 16  # distinct features, for the quadrature to be exact
EIGHT = 8  # places are looked at together
LAST = (1 << 31) - 1  # a leaf's key: the row's is always less
NODE = np.dtype([("key", "i4"), ("slot", "i4"), ("left", "i4"), ("value", "f4")])
EDGE = np.dtype([("parent", "i4"), ("above", "i4"), ("target", "i4"), ("left", "i4"), ("zero", "f8"), ("value", "f8")])


class Nodes(NamedTuple):
    """One tree, a number for each node; its root is node 0."""

    left: Sequence[int]  # child; -1: a leaf
    right: Sequence[int]
    feature: Sequence[int]
    below: Sequence[float]  # left when the feature is less, as float32
    missing_left: Sequence[int]
    value: Sequence[float]  # of a leaf
    cover: Sequence[float]  # training data that came here, by its weight


class Packed(NamedTuple):
    """Nodes with the parents first and children side by side; edges to them, counted alike."""

    nodes: np.ndarray
    edges: np.ndarray
    feature: list[int]  # -1: a leaf
    depth: int
    expected: float  # value when nothing is known


def _in_order(of: Nodes, number: int) -> list[tuple[int, int, int]]:
    """(node, its parent's place, whether it is the left child); ValueError where it is no tree."""
    size = len(of.left)
    if size < 1 or {len(each) for each in of} != {size}:
        raise ValueError(f"tree {number}: expected arrays of one length, found {[len(each) for each in of]}")
    order, at, met = [(0, 0, 0)], 0, {0}
    while at < len(order):
        here = order[at][0]
        left, right = of.left[here], of.right[here]
        if left >= 0 or right >= 0:
            if not (0 < left < size and 0 < right < size) or left == right or met & {left, right}:
                raise ValueError(
                    f"tree {number}: node {here}: expected two children of its own, found {left} and {right}"
                )
            met |= {left, right}
            order += [(left, at, 1), (right, at, 0)]
        at += 1
    return order


def _keys(below: Sequence[float]) -> list[int]:
    """As `key_of` in trees.h; a threshold that is NaN has none below it but what is missing."""
    bits = np.array(below, "f4").view("i4").astype("i8")
    plain = bits & LAST
    return np.where(plain > 0x7F800000, -LAST, np.where(bits < 0, -plain, plain)).tolist()


def pack(of: Nodes, number: int, inputs: int) -> Packed:
    """Tree `number` over rows of `inputs` numbers; ValueError where it cannot be run."""
    order = _in_order(of, number)
    keys, values = _keys(of.below), np.array(of.value, "f4").tolist()
    nodes: list[tuple[int, int, int, float]] = []
    edges: list[tuple[int, int, int, int, float, float]] = []
    feature: list[int] = []
    depths: list[int] = []
    paths: list[dict[int, int]] = []
    expected, children = 0.0, 1
    for place, (here, parent, is_left) in enumerate(order):
        leaf = of.left[here] < 0
        depth, target, above, zero, path = 0, 0, 0, 1.0, dict[int, int]()
        if place:
            depth, target, whole = depths[parent] + 1, feature[parent], of.cover[order[parent][0]]
            above = paths[parent].get(target, 0)
            zero = (of.cover[here] / whole if whole > 0.0 else 0.0) * edges[above][4]
            path = {**paths[parent], target: place}
        if len(path) > PATH_MAX:
            raise ValueError(f"tree {number}: expected at most {PATH_MAX} features on a path, found {len(path)}")
        if not leaf and not 0 <= of.feature[here] < inputs:
            raise ValueError(
                f"tree {number}: node {here}: expected a feature from 0 to {inputs - 1}, found {of.feature[here]}"
            )
        depths.append(depth)
        paths.append(path)
        feature.append(-1 if leaf else of.feature[here])
        edges.append((parent, above, target, is_left, zero, values[here] if leaf else 0.0))
        if leaf:
            nodes.append((LAST, 2 * inputs, place, values[here]))
            expected += values[here] * math.prod(edges[each][4] for each in path.values())
        else:
            slot = feature[place] + (inputs if of.missing_left[here] else 0)
            nodes.append((keys[here], slot, children, 0.0))
            children += 2
    return Packed(np.array(nodes, NODE), np.array(edges, EDGE), feature, max(depths), expected)


class Unit(NamedTuple):
    edges: np.ndarray
    bit: np.ndarray  # int32, of each edge's end


class Units(NamedTuple):
    """A shallow tree as the tables have it: upper nodes by level, then three of each unit."""

    depth: int
    keys: np.ndarray  # int32; of a place where no node is, whatever
    slots: np.ndarray
    features: np.ndarray  # `inputs` where no node is
    each: list[Unit]

    @property
    def bits(self) -> int:
        return self.depth + 1

    @property
    def floats(self) -> int:
        return len(self.each) * LANES << self.bits


def cut(packed: Packed, inputs: int) -> Units | None:
    """None where the tree is too deep for tables."""
    depth = max(packed.depth, DEPTH_MIN)
    if depth > DEPTH_MAX:
        return None
    stands = _stands(packed, depth)
    units = list(_units(depth))
    upper = 2 ** (depth - DEPTH_MIN) - 1
    places = [*range(upper), *(each for unit in units for each in unit[-OWN:])]
    asks = [stands[each] for each in places]
    asks += [-1] * (-len(asks) % EIGHT)
    given = set[int]()
    return Units(
        depth,
        np.array([packed.nodes["key"][each] if each >= 0 else LAST for each in asks], "i4"),
        np.array([packed.nodes["slot"][each] if each >= 0 else 2 * inputs for each in asks], "i4"),
        np.array([packed.feature[each] if each >= 0 else inputs for each in asks], "i4"),
        [_part(packed, [stands[each] for each in unit], given) for unit in units],
    )


def _stands(packed: Packed, depth: int) -> list[int]:
    """The node at each place of a complete tree, level by level; -1 where there is none with children."""
    left, found = packed.nodes["left"].tolist(), [0 if packed.feature[0] >= 0 else -1]
    for place in range(1, 2**depth - 1):
        parent = found[(place - 1) // 2]
        child = left[parent] + (place % 2 == 0) if parent >= 0 else 0
        found.append(child if parent >= 0 and packed.feature[child] >= 0 else -1)
    return found


def _units(depth: int) -> Iterator[list[int]]:
    """Places of a unit's nodes in the complete tree: its ancestors from the root on, itself, its children."""
    upper = 2 ** (depth - DEPTH_MIN) - 1
    for top in range(upper, 2 * upper + 1):
        path = [top]
        while path[0]:
            path.insert(0, (path[0] - 1) // 2)
        yield [*path, 2 * top + 1, 2 * top + 2]


def _part(packed: Packed, asks: list[int], given: set[int]) -> Unit:
    """Edges from these nodes (-1: none) to each other and to leaves; a leaf below a common ancestor is given once."""
    upper = len(asks) - OWN
    bits = {each: n for n, each in enumerate(asks) if each >= 0}
    left = packed.nodes["left"].tolist()
    ends = sorted(child for each in bits for child in (left[each], left[each] + 1))
    edges, new = [(0, 0, 0, 0, 1.0, 0.0)], {0: 0}
    for old in ends:
        leaf = packed.feature[old] < 0
        if old in given or not (leaf or old in bits):
            continue
        parent, above, _, is_left, zero, value = packed.edges[old].tolist()
        lane = bits[parent] if bits[parent] < upper else bits[parent] - upper + LANES // 2
        target = edges[new[above]][2] if above else lane
        new[old] = len(edges)
        edges.append((new[parent], new[above], target, is_left, zero, value))
        if leaf:
            given.add(old)
    return Unit(np.array(edges, EDGE), np.array([bits.get(old, 0) for old in new], "i4"))
