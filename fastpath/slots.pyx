"""What follows from an accepted record: its request slots, and the rows of its keys.

Owns nothing; pure functions. Runs in ingress, and in a replay. Reads a record with its decisions and the batch of its
payload; writes slots that were claimed, and key rows. What must stay true: both follow from the record alone, so that
a restarted ingress writes the same again; nobody may compute with the numbers of a rejected vector, so they are left
out; a count is compared with its room before a byte is written.
"""

from libc.math cimport NAN
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath.items cimport item_address, items_address
from fastpath.layout cimport (
    CORRELATIONS_MAX, EXTRA_MAX, HISTORY_MAX, INDICATORS, SYMBOL_MAX, input_record, key_row, request_slot,
    vector_decision,
)
from fastpath.ring cimport ByteRing, Ring
from fastpath.vectors cimport KIND_VECTOR, NO_KEY, Batch
from fastpath.wire cimport wire_vector


# -- slots -----------------------------------------------------------------------------------------

def fill_slots(Ring requests not None, ByteRing inputs not None, uint64_t position, Batch batch not None):
    """All slots of one input, which were claimed; the ring's head is left to the caller.

    Parameters
    ----------
    position: of the input's record in `inputs`; it says where its first slot is
    batch: of the record's payload, where it carries vectors
    """
    cdef const input_record *record = <const input_record *> item_address(
        inputs.view(position, sizeof(input_record)), 0, sizeof(input_record), "a record", False)
    cdef const vector_decision *decisions = NULL
    cdef request_slot *slot
    cdef bint with_vectors = record.kind == KIND_VECTOR
    cdef uint64_t n, count = record.count
    if with_vectors:
        decisions = <const vector_decision *> item_address(
            inputs.view(position + sizeof(input_record), count * sizeof(vector_decision)),
            0, sizeof(vector_decision), "decisions", False)
    if count > requests.capacity or (with_vectors and not _fit(record, decisions, batch)):
        raise RuntimeError(f"record {record.position}: its {count} slots do not fit its vectors; the arena is corrupt")
    for n in range(count):
        slot = <request_slot *> (requests.data + ((record.requests + n) & requests.mask) * requests.unit_bytes)
        slot.input, slot.record, slot.index, slot.count = record.position, position, n, record.count
        slot.received_ns, slot.deadline_ns = record.received_ns, record.deadline_ns
        slot.kind, slot.tier, slot.plan, slot.expired = record.kind, record.tier, record.plan, record.expired
        if with_vectors:
            _take_over(slot, &decisions[n])
            _fill(slot, &batch.sent.vectors[n])
        else:
            slot.reason, slot.flags, slot.window_gaps, slot.event_ns, slot.symbol_bytes = record.reason, 0, 0, 0, 0


cdef bint _fit(const input_record *record, const vector_decision *decisions, Batch batch) noexcept:
    """Whether the record's decisions are of this batch, as far as its slots' room is at stake."""
    cdef const wire_vector *sent
    cdef uint64_t n
    if record.count != record.decisions or record.count != batch.kept():
        return False
    for n in range(record.count):
        sent = &batch.sent.vectors[n]
        if decisions[n].reason == 0 and (
            sent.correlation_count > CORRELATIONS_MAX or sent.extra_count > EXTRA_MAX
            or sent.history_count > HISTORY_MAX or decisions[n].history_count > sent.history_count
        ):
            return False
    return True


cdef void _take_over(request_slot *slot, const vector_decision *decision) noexcept nogil:
    slot.event_ns, slot.minute = decision.event_ns, decision.minute
    slot.key, slot.generation, slot.step = decision.key, decision.generation, decision.step
    slot.flags, slot.window_gaps, slot.reason = decision.flags, decision.window_gaps, decision.reason
    slot.depth, slot.skipped, slot.history_count = decision.depth, decision.skipped, decision.history_count
    slot.opens, slot.outside, slot.symbol_bytes = decision.opens, decision.outside, decision.symbol_bytes
    memcpy(slot.symbol, decision.symbol, SYMBOL_MAX)


cdef void _fill(request_slot *slot, const wire_vector *sent) noexcept nogil:
    cdef double bid = sent.price[0], ask = sent.price[1]
    cdef int n
    if slot.reason:
        slot.history_count = slot.correlation_count = slot.extra_count = 0
        slot.bid = slot.ask = slot.mid = slot.spread = NAN
        return
    slot.bid, slot.ask, slot.mid = bid, ask, 0.5 * (bid + ask)
    slot.spread = ask - bid if ask > bid else NAN
    for n in range(INDICATORS):
        slot.indicators[n] = sent.indicators[n] if sent.given >> n & 1 else NAN
    slot.correlation_count, slot.extra_count = sent.correlation_count, sent.extra_count
    memcpy(slot.correlations, sent.correlations, sent.correlation_count * sizeof(double))
    memcpy(slot.extra, sent.extra, sent.extra_count * sizeof(double))
    memcpy(slot.history, &sent.history[sent.history_count - slot.history_count], slot.history_count * sizeof(double))


# -- keys ------------------------------------------------------------------------------------------

def newest_of(decisions):
    """The newest minute of the vectors that may enter their windows, 0 where none may."""
    cdef uint64_t count = 0, n
    cdef const vector_decision *decided = <const vector_decision *> items_address(
        decisions, sizeof(vector_decision), "decisions", False, &count)
    cdef int64_t newest = 0
    for n in range(count):
        if decided[n].reason == 0 and decided[n].minute > newest:
            newest = decided[n].minute
    return newest


def apply_keys(decisions, keys, uint32_t stream, uint32_t generation, int64_t received_ns):
    """Writes key rows as decided; twice is once. Gives the indexes of decisions whose key took its row by it."""
    cdef uint64_t count = 0, known = 0, n
    cdef const vector_decision *decision = <const vector_decision *> items_address(
        decisions, sizeof(vector_decision), "decisions", False, &count)
    cdef key_row *rows = <key_row *> items_address(keys, sizeof(key_row), "key rows", True, &known)
    cdef key_row *row
    cdef list taken = []
    for n in range(count):
        if decision.reason == 0 and decision.generation != NO_KEY:
            if decision.key >= known:
                raise IndexError(f"key rows: row {decision.key} of {known}")
            row = &rows[decision.key]
            if not row.taken or row.generation != decision.generation:
                memcpy(row.symbol, decision.symbol, SYMBOL_MAX)
                row.stream, row.stream_generation = stream, generation
                row.generation, row.taken = decision.generation, 1
                taken.append(n)
            if not decision.outside:
                row.last_ns, row.minute = decision.event_ns, decision.minute
                row.step, row.depth = decision.step, decision.depth
            row.used_ns = received_ns
        decision += 1
    return taken
