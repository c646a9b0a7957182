"""What comes: envelopes and batches of vectors, from bytes to structs.

Owns nothing; pure functions, and an envelope as an object. Runs in ingress, and in a replay. What must stay true: no
length or number in the bytes is trusted; what is read here google.protobuf reads to the same values, field by field
(the last of one that comes twice counts, submessages that come twice are one, lists go on, unknown fields are left
alone); `NotRead` says nothing about what google.protobuf would do, so who gets it asks that one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastpath.layout cimport CORRELATIONS_MAX, EXTRA_MAX, HISTORY_MAX

cdef uint64_t EXPONENT = 0x7ff0000000000000
vectors_max = VECTORS_MAX


class NotRead(ValueError):
    """These bytes are not read here."""


# -- feature vectors -------------------------------------------------------------------------------

cdef bint _doubles(wire_span *span, uint32_t type, double *room, uint32_t most, uint32_t *count, bint *finite) noexcept nogil:
    """One number, or packed ones, behind those that are there."""
    cdef wire_span numbers
    cdef uint64_t each = 0
    if type == WIRE_FIXED64:
        numbers.at = span.at
        if not wire_fixed(span, &each, 8):
            return False
        numbers.end = span.at
    elif not wire_bytes(span, &numbers) or (numbers.end - numbers.at) % 8:
        return False
    while numbers.at < numbers.end:
        wire_fixed(&numbers, &each, 8)
        finite[0] &= (each & EXPONENT) != EXPONENT
        if count[0] < most:
            memcpy(&room[count[0]], &each, 8)
        count[0] += 1
    return True


cdef bint _list_in(wire_span *span, double *room, uint32_t most, uint32_t *count, bint *finite) noexcept nogil:
    """A submessage whose field 1 is a list of numbers."""
    cdef wire_span part
    cdef uint32_t number = 0, type = 0
    if not wire_bytes(span, &part):
        return False
    while part.at < part.end:
        if not wire_tag(&part, &number, &type):
            return False
        if number == 1 and (type == WIRE_FIXED64 or type == WIRE_BYTES):
            if not _doubles(&part, type, room, most, count, finite):
                return False
        elif not wire_skip(&part, number, type):
            return False
    return True


cdef bint _numbers_in(wire_span *span, double *out, uint32_t most, uint32_t first, uint32_t *given) noexcept nogil:
    """A submessage whose fields 1 to `most` are numbers; bit `first` + n of `given`: field n + 1 was there."""
    cdef wire_span part
    cdef uint32_t number = 0, type = 0
    if not wire_bytes(span, &part):
        return False
    while part.at < part.end:
        if not wire_tag(&part, &number, &type):
            return False
        if number <= most and type == WIRE_FIXED64:
            if not wire_fixed(&part, &out[number - 1], 8):
                return False
            given[0] |= 1 << (first + number - 1)
        elif not wire_skip(&part, number, type):
            return False
    return True


cdef bint _technical(wire_span *span, wire_vector *out) noexcept nogil:
    cdef wire_span part
    cdef uint32_t number = 0, type = 0
    cdef bint read
    if not wire_bytes(span, &part):
        return False
    while part.at < part.end:
        if not wire_tag(&part, &number, &type):
            return False
        if number == 1 and type == WIRE_BYTES:
            read = _numbers_in(&part, &out.indicators[0], 4, 0, &out.given)
        elif number == 2 and type == WIRE_BYTES:
            read = _numbers_in(&part, &out.indicators[4], 1, 4, &out.given)
        elif number == 3 and type == WIRE_BYTES:
            read = _numbers_in(&part, &out.indicators[5], 1, 5, &out.given)
        else:
            read = wire_skip(&part, number, type)
        if not read:
            return False
    return True


cdef bint _vector(wire_span span, wire_vector *out) noexcept nogil:
    cdef uint32_t number = 0, type = 0, prices = 0
    cdef uint64_t value = 0
    cdef bint read
    memset(out, 0, <char *> &out.correlations - <char *> out)
    out.finite = True
    while span.at < span.end:
        if not wire_tag(&span, &number, &type):
            return False
        if type == WIRE_BYTES and number == 1:
            read = wire_text(&span, &out.symbol)
        elif type == WIRE_VARINT and number == 2:
            read = wire_varint(&span, &value)
            out.event_ns = <int64_t> value
        elif type == WIRE_BYTES and number == 3:
            read = _numbers_in(&span, &out.price[0], 4, 0, &prices)
        elif type == WIRE_BYTES and number == 4:
            read = _technical(&span, out)
        elif type == WIRE_BYTES and number == 5:
            read = _list_in(&span, out.correlations, CORRELATIONS_MAX, &out.correlation_count, &out.finite)
        elif type == WIRE_BYTES and number == 6:
            read = _list_in(&span, out.history, HISTORY_MAX, &out.history_count, &out.finite)
        elif number == 7 and (type == WIRE_BYTES or type == WIRE_FIXED64):
            read = _doubles(&span, type, out.extra, EXTRA_MAX, &out.extra_count, &out.finite)
        else:
            read = wire_skip(&span, number, type)
        if not read:
            return False
    return True


cdef bint read_batch(wire_span span, wire_batch *out) noexcept nogil:
    """The whole payload. Vectors beyond those that are kept are read all the same: one that is bad refuses all."""
    cdef uint32_t number = 0, type = 0
    cdef wire_span part
    cdef wire_vector beyond
    cdef bint read
    out.user.at = out.user.end = out.company.at = out.company.end = NULL
    out.count = 0
    while span.at < span.end:
        if not wire_tag(&span, &number, &type):
            return False
        if type == WIRE_BYTES and number == 1:
            read = wire_text(&span, &out.user)
        elif type == WIRE_BYTES and number == 2:
            read = wire_text(&span, &out.company)
        elif type == WIRE_BYTES and number == 3:
            read = wire_text(&span, &part)
        elif type == WIRE_BYTES and number == 5:
            read = wire_bytes(&span, &part)
            if read:
                read = _vector(part, &out.vectors[out.count] if out.count < VECTORS_MAX else &beyond)
            out.count += 1
        else:
            read = wire_skip(&span, number, type)
        if not read:
            return False
    return True


# -- envelopes -------------------------------------------------------------------------------------

cdef bint _texts_in(wire_span *span, wire_span *out, uint32_t most, uint32_t texts) noexcept nogil:
    """A submessage; bit n of `texts`: field n is a text, up to `most`."""
    cdef wire_span part
    cdef uint32_t number = 0, type = 0
    if not wire_bytes(span, &part):
        return False
    while part.at < part.end:
        if not wire_tag(&part, &number, &type):
            return False
        if type == WIRE_BYTES and number <= most and texts >> number & 1:
            if not wire_text(&part, &out[number - 1]):
                return False
        elif not wire_skip(&part, number, type):
            return False
    return True


cdef str _str(const wire_span *text):
    if text.at == text.end:
        return ""
    return PyUnicode_DecodeUTF8(<const char *> text.at, text.end - text.at, NULL)


cdef class Envelope:
    """ml.v1.MLProcessingEnvelope, as far as ingress reads it.

    Parameters
    ----------
    raw: the serialised message

    Raises
    ------
    NotRead
        See there.
    """

    def __init__(self, bytes raw not None):
        cdef envelope_spans found
        memset(&found, 0, sizeof(found))
        if not self._read(raw, &found):
            raise NotRead("not an envelope that is read here")
        self._raw = raw
        self.message_type, self.user_id, self.company_id = _str(&found.message_type), _str(&found.user), _str(&found.company)
        self.service_source, self.correlation_id = _str(&found.source), _str(&found.correlation)
        self.traceparent, self.tracestate = _str(&found.trace[1]), _str(&found.trace[2])
        self.token = _str(&found.token[0])
        self.payload = b""
        if found.payload.at < found.payload.end:
            self.payload = PyBytes_FromStringAndSize(<const char *> found.payload.at, found.payload.end - found.payload.at)

    cdef bint _read(self, bytes raw, envelope_spans *found) noexcept:
        cdef wire_span span
        cdef uint32_t number = 0, type = 0
        cdef uint64_t value = 0
        cdef bint read
        span.at = <const uint8_t *> PyBytes_AS_STRING(raw)
        span.end = span.at + PyBytes_GET_SIZE(raw)
        while span.at < span.end:
            if not wire_tag(&span, &number, &type):
                return False
            if type == WIRE_BYTES and number == 1:
                read = wire_text(&span, &found.message_type)
            elif type == WIRE_BYTES and number == 2:
                read = wire_text(&span, &found.user)
            elif type == WIRE_BYTES and number == 3:
                read = wire_text(&span, &found.company)
            elif type == WIRE_BYTES and number == 4:
                read = wire_bytes(&span, &found.payload)
            elif type == WIRE_VARINT and number == 5:
                read = wire_varint(&span, &value)
                self.timestamp = <int64_t> value
            elif type == WIRE_BYTES and number == 6:
                read = wire_text(&span, &found.source)
            elif type == WIRE_BYTES and number == 7:
                read = wire_text(&span, &found.correlation)
            elif type == WIRE_BYTES and number == 8:
                read = _texts_in(&span, found.trace, 3, 0b1110)
            elif type == WIRE_BYTES and number == 9:
                read = _texts_in(&span, found.model, 4, 0b10110)
            elif type == WIRE_BYTES and number == 10:
                read = _texts_in(&span, found.token, 1, 0b10)
            elif type == WIRE_VARINT and number == 11:
                read = wire_varint(&span, &self.epoch)
            elif type == WIRE_VARINT and number == 12:
                read = wire_varint(&span, &self.sequence)
            else:
                read = wire_skip(&span, number, type)
            if not read:
                return False
        return True

    def without_token(self):
        """The bytes as they came, less every token."""
        return _without(self._raw, 1 << 10)

    def leave_name(self):
        """Forgets the payload, and its bytes."""
        self._raw = _without(self._raw, 1 << 4 | 1 << 10)
        self.payload, self.token = b"", ""


cdef bytes _without(bytes raw, uint32_t fields):
    """A message's bytes less some of its fields; bit n: field n."""
    cdef wire_span span
    cdef uint32_t number = 0, type = 0
    cdef const uint8_t *begin
    cdef bytes kept = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(raw))
    cdef char *out = PyBytes_AS_STRING(kept)
    cdef Py_ssize_t size = 0
    span.at = <const uint8_t *> PyBytes_AS_STRING(raw)
    span.end = span.at + PyBytes_GET_SIZE(raw)
    while span.at < span.end:
        begin = span.at
        if not wire_tag(&span, &number, &type) or not wire_skip(&span, number, type):
            raise AssertionError("a message that was read once cannot be read again")
        if number >= 32 or not fields >> number & 1:
            memcpy(out + size, begin, span.at - begin)
            size += span.at - begin
    return kept[:size]
