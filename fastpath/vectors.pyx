"""A message's vectors: what was sent, and what is decided about each.

Owns a batch, which is read again and again. Runs in ingress, and in a replay. Reads payloads, key rows and a stream's
state; writes decisions of its own. What must stay true: a decision follows from the batch and the tables alone and
holds the key's absolute new step, so that applying it twice is applying it once.
"""

from libc.math cimport fabs, isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8

from fastpath.arbiter cimport added, gaps_since, standing
from fastpath.items cimport item_address, items_address
from fastpath.layout cimport HISTORY_MAX, INDICATORS, SYMBOL_MAX, key_row, stream_state, vector_decision
from fastpath.wire cimport VECTORS_MAX, read_batch, wire_span, wire_vector

import numpy as np

from fastpath.layout import vector_decision_dtype
from fastpath.wire import NotRead

cdef int64_t MINUTE_NS = 60 * 1_000_000_000
cdef uint64_t U32_MAX = 0xffffffff
no_key = <uint32_t> NO_KEY
codes = {
    "OUT_OF_RANGE": REASON_OUT_OF_RANGE, "UNKNOWN_SYMBOL": REASON_UNKNOWN_SYMBOL, "NON_FINITE": REASON_NON_FINITE,
    "CROSSED": FLAG_CROSSED, "GAP": FLAG_GAP, "OLD": FLAG_OLD, "VECTOR": KIND_VECTOR,
}


cdef class Bounds:
    """Within what a vector's numbers must lie.

    Parameters
    ----------
    indicators: (lowest, highest) of each, in the order of a slot's
    correlations, history, extra: at most so many of each; `history` no more than a slot holds
    """

    def __init__(
        self, *, double price_max, double correlation_max, double crossed_max_bp, indicators, int64_t ahead_max_ns,
        uint32_t correlations, uint32_t history, uint32_t extra, uint32_t hole_steps_max,
    ):
        self.price_max, self.correlation_max, self.crossed_max_bp = price_max, correlation_max, crossed_max_bp
        self.ahead_max_ns, self.hole_steps_max = ahead_max_ns, hole_steps_max
        self.correlations, self.history, self.extra = correlations, min(history, <uint32_t> HISTORY_MAX), extra
        if len(indicators) != INDICATORS:
            raise ValueError(f"indicators: expected {INDICATORS} bounds, found {len(indicators)}")
        cdef int n
        for n in range(INDICATORS):
            self.low[n], self.high[n] = indicators[n]


# -- the values of one vector ----------------------------------------------------------------------

cdef double _crossed_bp(const wire_vector *sent) noexcept nogil:
    cdef double bid = sent.price[0], ask = sent.price[1]
    return (bid - ask) / (0.5 * (bid + ask)) * 1e4 if bid > 0 and ask > 0 else 0.0


cdef bint _is_finite(const wire_vector *sent) noexcept nogil:
    cdef int n
    for n in range(4):
        if not isfinite(sent.price[n]):
            return False
    for n in range(INDICATORS):
        if sent.given >> n & 1 and not isfinite(sent.indicators[n]):
            return False
    return sent.finite


cdef bint _is_in_range(const wire_vector *sent, int64_t envelope_ns, Bounds bounds) noexcept:
    cdef int n
    if sent.event_ns <= 0 or sent.event_ns - bounds.ahead_max_ns > envelope_ns:
        return False
    if sent.correlation_count > bounds.correlations or sent.history_count > bounds.history:
        return False
    if sent.extra_count > bounds.extra or _crossed_bp(sent) > bounds.crossed_max_bp:
        return False
    for n in range(2):
        if not 0 < sent.price[n] <= bounds.price_max:
            return False
    for n in range(<int> sent.history_count):
        if not 0 < sent.history[n] <= bounds.price_max:
            return False
    for n in range(<int> sent.correlation_count):
        if fabs(sent.correlations[n]) > bounds.correlation_max:
            return False
    for n in range(INDICATORS):
        if sent.given >> n & 1 and not bounds.low[n] <= sent.indicators[n] <= bounds.high[n]:
            return False
    return True


cdef bint _is_symbol(const wire_span *text) noexcept nogil:
    cdef const uint8_t *at = text.at
    if not 1 <= text.end - text.at <= SYMBOL_MAX:
        return False
    while at < text.end:
        if not (c'a' <= at[0] <= c'z' or c'A' <= at[0] <= c'Z' or c'-' <= at[0] <= c'9' or at[0] == c'_'):
            return False
        at += 1
    return True


cdef str _str(const wire_span *text):
    return "" if text.at == text.end else PyUnicode_DecodeUTF8(<const char *> text.at, text.end - text.at, NULL)


# -- a message's vectors ---------------------------------------------------------------------------

cdef class Batch:
    """ml.v1.FeatureVectorBatch: `read`, then `check`, then `place`; each overwrites what was there of an earlier one."""

    def __cinit__(self):
        self.sent = <wire_batch *> calloc(1, sizeof(wire_batch))
        if self.sent == NULL:
            raise MemoryError
        self._decisions = np.zeros(VECTORS_MAX, vector_decision_dtype)
        self.decided = <vector_decision *> item_address(self._decisions, 0, sizeof(vector_decision), "decisions", True)

    def __dealloc__(self):
        free(self.sent)

    def read(self, bytes payload not None):
        """Raises `wire.NotRead`, and is empty then."""
        cdef wire_span span
        span.at = <const uint8_t *> PyBytes_AS_STRING(payload)
        span.end = span.at + PyBytes_GET_SIZE(payload)
        self._payload = payload
        if not read_batch(span, self.sent):
            self.sent.count = 0
            raise NotRead("not a batch of feature vectors that is read here")

    def __len__(self):
        """Vectors that were sent; the first `vectors_max` are kept."""
        return self.sent.count

    cdef uint64_t kept(self) noexcept:
        return min(self.sent.count, <uint64_t> VECTORS_MAX)

    @property
    def user_id(self):
        return _str(&self.sent.user)

    @property
    def company_id(self):
        return _str(&self.sent.company)

    @property
    def decisions(self):
        """`vector_decision` of each vector that is kept, until the next `check`."""
        return self._decisions[:self.kept()]

    @property
    def rejected(self):
        """Vectors that may not enter their windows, as the last `check` found."""
        cdef uint64_t n, count = 0
        for n in range(self.kept()):
            count += self.decided[n].reason != 0
        return count

    def has_good_symbols(self):
        """Whether each may become a name."""
        cdef uint64_t n
        for n in range(self.kept()):
            if not _is_symbol(&self.sent.vectors[n].symbol):
                return False
        return True

    def repeats_itself(self):
        """Whether two vectors have the same symbol and event time."""
        cdef const wire_vector *one
        cdef const wire_vector *other
        cdef long n, k
        for n in range(<long> self.kept()):
            one = &self.sent.vectors[n]
            for k in range(n):
                other = &self.sent.vectors[k]
                if one.event_ns == other.event_ns and one.symbol.end - one.symbol.at == other.symbol.end - other.symbol.at \
                        and memcmp(one.symbol.at, other.symbol.at, one.symbol.end - one.symbol.at) == 0:
                    return True
        return False

    def check(self, int64_t envelope_ns, frozenset symbols not None, Bounds bounds not None):
        """Decides which vectors may enter their windows. Their symbols, "" where one may not.

        Parameters
        ----------
        symbols: those that are answered; empty: any
        """
        cdef list found = []
        cdef const wire_vector *sent
        cdef vector_decision *decision
        cdef uint64_t n
        memset(self.decided, 0, self.kept() * sizeof(vector_decision))
        for n in range(self.kept()):
            sent, decision = &self.sent.vectors[n], &self.decided[n]
            symbol = _str(&sent.symbol)
            decision.symbol_bytes = <uint8_t> (sent.symbol.end - sent.symbol.at)
            memcpy(decision.symbol, sent.symbol.at, min(decision.symbol_bytes, SYMBOL_MAX))
            decision.event_ns = sent.event_ns
            if symbols and symbol not in symbols:
                decision.reason = REASON_UNKNOWN_SYMBOL
            elif not _is_finite(sent):
                decision.reason = REASON_NON_FINITE
            elif not _is_in_range(sent, envelope_ns, bounds):
                decision.reason = REASON_OUT_OF_RANGE
            else:
                decision.minute = sent.event_ns // MINUTE_NS
                decision.flags = FLAG_CROSSED if _crossed_bp(sent) > 0 else 0
            found.append("" if decision.reason else symbol)
        return found

    def place(self, list rows not None, keys, states, streams, uint64_t stream, uint64_t missing, bint late, Bounds bounds not None):
        """The contract's minute rule, for each vector that may enter its window.

        Parameters
        ----------
        rows: of each vector's key in `keys`, an array of key_row; -1: late, and unknown
        states, streams, stream: the stream's, as the arbiter has it
        missing: sequences found missing just before this message; they are not in the stream's state yet
        """
        cdef key_place places[VECTORS_MAX]
        cdef const stream_state *state = standing(states, streams, stream)
        cdef vector_decision *decision
        cdef long n, known = 0, k
        cdef uint64_t gaps
        cdef uint64_t known_rows = 0
        cdef const key_row *table = <const key_row *> items_address(keys, sizeof(key_row), "key rows", False, &known_rows)
        cdef int64_t row
        cdef bint is_first
        if <uint64_t> len(rows) != self.kept():
            raise ValueError(f"rows: expected one for each of {self.kept()} vectors, found {len(rows)}")
        for n in range(<long> self.kept()):
            decision, row = &self.decided[n], rows[n]
            if decision.reason:
                continue
            if row < 0:
                decision.generation, decision.outside, decision.step = NO_KEY, 1, HISTORY_MAX
                continue
            k = 0
            while k < known and places[k].row != row:
                k += 1
            if k == known:
                if <uint64_t> row >= known_rows:
                    raise IndexError(f"key rows: row {row} of {known_rows}")
                _find(&places[k], &table[row], row)
                known += 1
            is_first = places[k].fresh
            _place(decision, &places[k], self.sent.vectors[n].history_count, late, bounds.hole_steps_max)
            gaps = 0  # where the window begins with this vector
            if not (is_first and decision.opens):
                gaps = added(missing, gaps_since(state, decision.minute - places[k].depth))
            decision.window_gaps = <uint32_t> min(gaps, U32_MAX)
            if gaps:
                decision.flags |= FLAG_GAP


cdef void _find(key_place *key, const key_row *found, int64_t row) noexcept nogil:
    key.row, key.fresh = row, not found.taken
    key.generation = found.generation + 1 if key.fresh else found.generation
    key.last_ns = 0 if key.fresh else found.last_ns
    key.minute = 0 if key.fresh else found.minute
    key.step = HISTORY_MAX if key.fresh else found.step  # a first vector has room for a full price history before it
    key.depth = 0 if key.fresh else found.depth


cdef void _place(vector_decision *decision, key_place *key, uint32_t history, bint late, uint32_t hole_steps_max) noexcept nogil:
    cdef int64_t empty
    if key.fresh:
        decision.opens, decision.history_count = 1, min(history, <uint32_t> HISTORY_MAX)
        key.depth = decision.history_count
        key.fresh = False
    elif late or decision.event_ns <= key.last_ns:
        decision.outside = 1
        if decision.event_ns <= key.last_ns:
            decision.flags |= FLAG_OLD
    elif decision.minute != key.minute:
        empty = decision.minute - key.minute - 1
        decision.opens, decision.skipped = 1, empty if empty <= hole_steps_max else 1
        key.step += 1 + decision.skipped
        key.depth = min(key.depth + 1 + decision.skipped, <uint32_t> HISTORY_MAX)
    if not decision.outside:
        key.last_ns, key.minute = decision.event_ns, decision.minute
    decision.key, decision.generation = <uint32_t> key.row, key.generation
    decision.step, decision.depth = key.step, key.depth
