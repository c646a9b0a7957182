"""The record of an accepted input in the `inputs` byte ring, as it is written and read: engine.records says what it is.

Owns nothing. Runs in ingress, which writes records, and in whoever reads one. What must stay true: every length is
checked against the record's own size before a byte is touched.
"""

from libc.stdint cimport UINT16_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8

from fastpath.items cimport items_address
from fastpath.layout cimport input_record, vector_decision
from fastpath.ring cimport ByteRing

cdef enum:
    TEXTS = 7


cdef class Head:
    """The fields of an `input_record`, a copy; 0 where none is given. Each is named here, in `give` and in `take`."""

    cdef public uint64_t bytes, position, requests, epoch, sequence
    cdef public int64_t received_ns, deadline_ns, received_unix_ns, timestamp
    cdef public uint32_t raw_bytes, stream, generation, missing
    cdef public uint16_t count, worker, reason
    cdef public uint16_t company_bytes, stream_bytes, user_bytes, correlation_bytes
    cdef public uint16_t traceparent_bytes, tracestate_bytes, detail_bytes
    cdef public uint8_t kind, tier, late, bus, expired, arrival, decisions, plan

    def __init__(self, **fields):
        for name, value in fields.items():
            setattr(self, name, value)

    def copy(self):
        cdef Head other = Head()
        cdef input_record record
        self.give(&record)
        other.take(&record)
        return other

    cdef void give(self, input_record *to) noexcept:
        memset(to, 0, sizeof(input_record))
        to.bytes, to.position, to.requests, to.epoch = self.bytes, self.position, self.requests, self.epoch
        to.sequence, to.received_ns, to.deadline_ns = self.sequence, self.received_ns, self.deadline_ns
        to.received_unix_ns, to.timestamp, to.raw_bytes = self.received_unix_ns, self.timestamp, self.raw_bytes
        to.stream, to.generation, to.missing, to.count = self.stream, self.generation, self.missing, self.count
        to.worker, to.reason, to.kind, to.tier, to.late = self.worker, self.reason, self.kind, self.tier, self.late
        to.bus, to.expired, to.arrival = self.bus, self.expired, self.arrival
        to.decisions, to.plan = self.decisions, self.plan
        to.company_bytes, to.stream_bytes, to.user_bytes = self.company_bytes, self.stream_bytes, self.user_bytes
        to.correlation_bytes, to.traceparent_bytes = self.correlation_bytes, self.traceparent_bytes
        to.tracestate_bytes, to.detail_bytes = self.tracestate_bytes, self.detail_bytes

    cdef void take(self, const input_record *of) noexcept:
        self.bytes, self.position, self.requests, self.epoch = of.bytes, of.position, of.requests, of.epoch
        self.sequence, self.received_ns, self.deadline_ns = of.sequence, of.received_ns, of.deadline_ns
        self.received_unix_ns, self.timestamp, self.raw_bytes = of.received_unix_ns, of.timestamp, of.raw_bytes
        self.stream, self.generation, self.missing, self.count = of.stream, of.generation, of.missing, of.count
        self.worker, self.reason, self.kind, self.tier, self.late = of.worker, of.reason, of.kind, of.tier, of.late
        self.bus, self.expired, self.arrival = of.bus, of.expired, of.arrival
        self.decisions, self.plan = of.decisions, of.plan
        self.company_bytes, self.stream_bytes, self.user_bytes = of.company_bytes, of.stream_bytes, of.user_bytes
        self.correlation_bytes, self.traceparent_bytes = of.correlation_bytes, of.traceparent_bytes
        self.tracestate_bytes, self.detail_bytes = of.tracestate_bytes, of.detail_bytes

    cdef void tell_lengths(self, uint64_t *lengths) noexcept:
        lengths[0], lengths[1], lengths[2] = self.company_bytes, self.stream_bytes, self.user_bytes
        lengths[3], lengths[4] = self.correlation_bytes, self.traceparent_bytes
        lengths[5], lengths[6] = self.tracestate_bytes, self.detail_bytes


def write(area, Head head not None, bytes decisions not None, list texts not None, bytes raw not None):
    """Fills a claimed area, of `engine.records.bytes_needed` bytes; the head learns the lengths of the parts.

    texts: UTF-8, in the order of `engine.records.TEXTS`. decisions: whole `vector_decision`s.
    """
    cdef uint64_t size = 0, end = sizeof(input_record)
    cdef uint8_t *begin = <uint8_t *> items_address(area, 1, "a record", True, &size)
    cdef uint8_t *at = begin + sizeof(input_record)
    cdef bytes part
    if len(texts) != TEXTS:
        raise ValueError(f"a record has {TEXTS} texts, found {len(texts)}")
    head.bytes, head.raw_bytes = size, len(raw)
    head.company_bytes, head.stream_bytes, head.user_bytes = len(texts[0]), len(texts[1]), len(texts[2])
    head.correlation_bytes, head.traceparent_bytes = len(texts[3]), len(texts[4])
    head.tracestate_bytes, head.detail_bytes = len(texts[5]), len(texts[6])
    for part in texts:
        if PyBytes_GET_SIZE(part) > UINT16_MAX:
            raise ValueError(f"a record's text has {UINT16_MAX} bytes at most, found {len(part)}")
    parts = (decisions, *texts, raw)
    for part in parts:
        end += <uint64_t> PyBytes_GET_SIZE(part)
    if end > size:
        raise ValueError(f"a record of {end} bytes does not fit the {size} that were claimed")
    for part in parts:
        memcpy(at, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
        at += PyBytes_GET_SIZE(part)
    head.give(<input_record *> begin)


def read(ByteRing inputs not None, uint64_t position, bint whole):
    """[head, decisions' bytes, each text, raw bytes] of the record there; not whole: no decisions and no raw bytes.

    RuntimeError: a length in the record does not fit the record, the arena is corrupt.
    """
    cdef uint64_t left = inputs.capacity - (position & inputs.mask), lengths[TEXTS], end, n
    if left < sizeof(input_record):
        raise ValueError(f"record at {position}: {left} bytes are left to the ring's end")
    cdef const char *begin = <const char *> inputs.data + (position & inputs.mask)
    cdef const char *at = begin + sizeof(input_record)
    cdef Head head = Head()
    head.take(<const input_record *> begin)
    head.tell_lengths(lengths)
    cdef uint64_t decided = head.decisions * sizeof(vector_decision)
    end = sizeof(input_record) + decided + head.raw_bytes
    for n in range(TEXTS):
        end += lengths[n]
    if not end <= head.bytes <= inputs.capacity or end > left:
        raise RuntimeError(
            f"record at {position} of `inputs`: its parts take {end} bytes of {head.bytes}; the arena is corrupt"
        )
    cdef list parts = [head, PyBytes_FromStringAndSize(at, decided) if whole else b""]
    at += decided
    for n in range(TEXTS):
        parts.append(PyUnicode_DecodeUTF8(at, lengths[n], NULL))
        at += lengths[n]
    parts.append(PyBytes_FromStringAndSize(at, head.raw_bytes) if whole else b"")
    return parts


def position_of(ByteRing inputs not None, uint64_t at):
    """The position of the record at a byte position."""
    if inputs.capacity - (at & inputs.mask) < sizeof(input_record):
        raise ValueError(f"record at {at}: less than a record is left to the ring's end")
    return (<const input_record *> (inputs.data + (at & inputs.mask))).position
