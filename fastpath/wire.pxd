# Protocol buffers to structs and back. The rules are in wire.h and wire.pyx.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastpath.layout cimport CORRELATIONS_MAX, EXTRA_MAX, HISTORY_MAX, INDICATORS

cdef extern from "wire.h" nogil:
    enum:
        WIRE_VARINT
        WIRE_FIXED64
        WIRE_BYTES
    ctypedef struct wire_span:
        const uint8_t *at
        const uint8_t *end
    bint wire_varint(wire_span *span, uint64_t *value) noexcept
    bint wire_tag(wire_span *span, uint32_t *number, uint32_t *type) noexcept
    bint wire_bytes(wire_span *span, wire_span *out) noexcept
    bint wire_text(wire_span *span, wire_span *out) noexcept
    bint wire_fixed(wire_span *span, void *value, long size) noexcept
    bint wire_skip(wire_span *span, uint32_t number, uint32_t type) noexcept
    ctypedef struct wire_out:
        uint8_t *at
        uint8_t *begin
        bint full
    void wire_put(wire_out *out, const void *bytes, uint64_t size) noexcept
    void wire_put_number(wire_out *out, uint32_t number, uint64_t value) noexcept
    void wire_put_double(wire_out *out, uint32_t number, double value) noexcept
    void wire_put_float(wire_out *out, uint32_t number, float value) noexcept
    void wire_put_message(wire_out *out, uint32_t number, const uint8_t *end) noexcept
    void wire_put_bytes(wire_out *out, uint32_t number, const void *bytes, uint64_t size) noexcept

cdef enum:
    VECTORS_MAX = 64                    # of one message that are kept; more are only read and counted

cdef struct wire_vector:                # ml.v1.FeatureVector
    wire_span symbol
    int64_t event_ns
    double price[4]                     # bid, ask, spread, mid
    double indicators[INDICATORS]
    uint32_t given                      # bit n: indicators[n] was sent
    uint32_t correlation_count          # of those sent, where they found no room too
    uint32_t extra_count
    uint32_t history_count
    bint finite                         # all numbers of the three lists
    double correlations[CORRELATIONS_MAX]
    double extra[EXTRA_MAX]
    double history[HISTORY_MAX]         # oldest first

cdef struct wire_batch:                 # ml.v1.FeatureVectorBatch
    wire_span user
    wire_span company
    uint64_t count                      # of those sent; the first VECTORS_MAX are kept
    wire_vector vectors[VECTORS_MAX]

cdef struct envelope_spans:             # ml.v1.MLProcessingEnvelope
    wire_span message_type
    wire_span user
    wire_span company
    wire_span payload
    wire_span source
    wire_span correlation
    wire_span trace[3]                  # TraceContext: correlation_id, traceparent, tracestate
    wire_span model[4]                  # ModelInfo: only read, since what is bad in there is bad
    wire_span token[1]                  # AuthToken

cdef bint read_batch(wire_span span, wire_batch *out) noexcept nogil


cdef class Envelope:
    cdef readonly str message_type
    cdef readonly str user_id
    cdef readonly str company_id
    cdef readonly str service_source
    cdef readonly str correlation_id
    cdef readonly str traceparent
    cdef readonly str tracestate
    cdef readonly str token
    cdef readonly bytes payload
    cdef readonly int64_t timestamp
    cdef readonly uint64_t epoch
    cdef readonly uint64_t sequence
    cdef bytes _raw

    cdef bint _read(self, bytes raw, envelope_spans *found) noexcept
