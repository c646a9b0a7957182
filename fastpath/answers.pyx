"""What leaves: answer slots to the bytes of an envelope, in one pass from its end to its beginning.

Owns room for one answer. Runs in egress, and in a replay. Reads slots and the texts that go with them. What must stay
true: the bytes are those that google.protobuf would write of the same message, fields by number and zeros left out; a
slot's counts are never trusted beyond its arrays.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize

from fastpath.items cimport items_address
from fastpath.layout cimport CONTRIBUTIONS_MAX, HORIZONS, PATTERNS_MAX, SHAP_MAX, SYMBOL_MAX, answer_slot
from fastpath.ring cimport Ring
from fastpath.wire cimport (
    wire_out, wire_put, wire_put_bytes, wire_put_double, wire_put_float, wire_put_message, wire_put_number,
)

cdef enum:
    STATUS_MIN = 1                      # ml.v1.PredictionStatus
    STATUS_EXPIRED = 4
    STATUS_REJECTED = 5
    ROOM_FIRST = 1 << 16
    ROOM_MAX = 1 << 28


cdef void _text(wire_out *out, uint32_t number, str text) except *:
    cdef Py_ssize_t size = 0
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    wire_put_bytes(out, number, utf8, size)


cdef void _bytes(wire_out *out, uint32_t number, bytes content) noexcept:
    wire_put_bytes(out, number, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))


cdef void _message(wire_out *out, uint32_t number, bytes content) noexcept:
    """One that was serialised before; an empty one too."""
    cdef const uint8_t *end = out.at
    wire_put(out, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
    wire_put_message(out, number, end)


cdef const answer_slot *_slot(object held) except NULL:
    """Of one answer slot; whoever holds the object keeps it."""
    cdef uint64_t size = 0
    cdef const answer_slot *slot = <const answer_slot *> items_address(held, 1, "an answer slot", False, &size)
    if size < sizeof(answer_slot):
        raise ValueError(f"an answer slot has {sizeof(answer_slot)} bytes, found {size}")
    return slot


def words(Ring answers not None, uint64_t position):
    """Of an answer's slot: its request, its place among its input's slots, how many these are, where the input's
    record is, the input's position, when it was taken and answered, and its reason."""
    if answers.unit_bytes < sizeof(answer_slot):
        raise ValueError(f"an answer slot has {sizeof(answer_slot)} bytes, found {answers.unit_bytes}")
    cdef const answer_slot *slot = <const answer_slot *> (
        answers.data + (position & answers.mask) * answers.unit_bytes)
    return (slot.request, slot.index, slot.count, slot.record, slot.input, slot.taken_ns, slot.answered_ns, slot.reason)


cdef class Encoder:
    """Writes answers.

    Parameters
    ----------
    models: ml.v1.ModelInfo of each row of the version table, serialised; None: not taken
    features: names of each row's features, in UTF-8
    rejections: what a rejected vector's `reason` says, by its code
    flagged: what `reason` says for each value of a slot's flags
    """

    cdef dict models
    cdef dict features
    cdef dict rejections
    cdef list flagged
    cdef uint8_t *room
    cdef uint64_t room_bytes

    def __cinit__(self, dict models not None, dict features not None, dict rejections not None, list flagged not None):
        self.models, self.features, self.rejections, self.flagged = models, features, rejections, flagged
        self._make_room(ROOM_FIRST)

    def __dealloc__(self):
        free(self.room)

    cdef int _make_room(self, uint64_t size) except -1:
        if size > ROOM_MAX:
            raise MemoryError(f"an answer of more than {ROOM_MAX} bytes")
        free(self.room)
        self.room = <uint8_t *> malloc(size)
        if self.room == NULL:
            raise MemoryError
        self.room_bytes = size
        return 0

    def encode(
        self, str message_type not None, int64_t timestamp_ns, str engine not None, str user not None,
        str company not None, str correlation not None, str traceparent not None, str tracestate not None,
        uint64_t epoch, uint64_t sequence, payload,
    ):
        """An ml.v1.MLProcessingEnvelope.

        Parameters
        ----------
        payload: its bytes, or an `Answers` to be written as the payload
        """
        cdef wire_out out
        cdef const uint8_t *end
        cdef Answers answers = payload if isinstance(payload, Answers) else None
        while True:
            out.begin, out.at, out.full = self.room, self.room + self.room_bytes, False
            wire_put_number(&out, 12, sequence)
            wire_put_number(&out, 11, epoch)
            if answers is not None:
                self._decided(&out, answers)
            end = out.at
            _text(&out, 3, tracestate)
            _text(&out, 2, traceparent)
            _text(&out, 1, correlation)
            wire_put_message(&out, 8, end)
            _text(&out, 7, correlation)
            _text(&out, 6, engine)
            wire_put_number(&out, 5, <uint64_t> timestamp_ns)
            if answers is not None:
                end = out.at
                self._batch(&out, answers, user, company, correlation, epoch, sequence)
                wire_put_message(&out, 4, end)
            else:
                _bytes(&out, 4, payload)
            _text(&out, 3, company)
            _text(&out, 2, user)
            _text(&out, 1, message_type)
            if not out.full:
                return PyBytes_FromStringAndSize(<char *> out.at, self.room + self.room_bytes - out.at)
            self._make_room(2 * self.room_bytes)

    cdef int _decided(self, wire_out *out, Answers answers) except -1:
        """Who made the first decision that there is."""
        cdef Py_ssize_t n
        for n in range(answers.count):
            if _status(answers.at[n], answers.expired) < STATUS_EXPIRED:
                _message(out, 9, self.models[answers.at[n].final_version])
                break
        return 0

    cdef int _batch(
        self, wire_out *out, Answers answers, str user, str company, str correlation, uint64_t epoch, uint64_t sequence,
    ) except -1:
        cdef const uint8_t *end
        cdef Py_ssize_t n
        wire_put_number(out, 10, answers.late)
        wire_put_number(out, 8, sequence)
        wire_put_number(out, 7, epoch)
        _text(out, 6, answers.stream)
        end = out.at
        wire_put_float(out, 3, <float> answers.engine_ms)
        wire_put_number(out, 2, answers.model_count())
        wire_put_float(out, 1, <float> answers.inference_ms())
        wire_put_message(out, 5, end)
        for n in range(answers.count - 1, -1, -1):
            end = out.at
            self._prediction(out, answers.at[n], answers.expired)
            wire_put_message(out, 4, end)
        _text(out, 3, correlation)
        _text(out, 2, company)
        _text(out, 1, user)
        return 0

    cdef int _prediction(self, wire_out *out, const answer_slot *slot, bint expired) except -1:
        cdef int status = _status(slot, expired)
        cdef const uint8_t *end = out.at
        cdef bint is_predicted = status < STATUS_EXPIRED
        if is_predicted:
            wire_put_float(out, 2, slot.trend_strength)
            wire_put_number(out, 1, slot.trend_signal)
            wire_put_message(out, 13, end)
        wire_put_number(out, 12, slot.window_gaps)
        if is_predicted:
            wire_put_float(out, 11, slot.ensemble_confidence)
            wire_put_double(out, 10, slot.price[0])
            _message(out, 9, self.models[slot.final_version])
            self._ensemble(out, slot)
            if slot.has_direction:
                self._direction(out, slot)
            if slot.has_pattern:
                _pattern(out, slot)
            _price(out, slot)
        _bytes(out, 4, self.rejections[slot.reason] if status == STATUS_REJECTED else self.flagged[slot.flags & (len(self.flagged) - 1)])
        wire_put_number(out, 3, status)
        wire_put_number(out, 2, <uint64_t> slot.event_ns)
        _symbol(out, slot)
        return 0

    cdef int _ensemble(self, wire_out *out, const answer_slot *slot) except -1:
        cdef const uint8_t *whole = out.at
        cdef const uint8_t *end
        cdef int n
        for n in range(min(<int> slot.contribution_count, CONTRIBUTIONS_MAX) - 1, -1, -1):
            end = out.at
            wire_put_number(out, 5, slot.contribution_fallback[n] != 0)
            wire_put_float(out, 4, slot.contribution_confidence[n])
            wire_put_number(out, 3, slot.contribution_signal[n])
            wire_put_float(out, 2, slot.weight[n])
            _message(out, 1, self.models[slot.contribution_version[n]])
            wire_put_message(out, 4, end)
        wire_put_float(out, 3, slot.ensemble_score)
        wire_put_float(out, 2, slot.ensemble_confidence)
        wire_put_number(out, 1, slot.ensemble_signal)
        wire_put_message(out, 8, whole)
        return 0

    cdef int _direction(self, wire_out *out, const answer_slot *slot) except -1:
        cdef const uint8_t *whole = out.at
        cdef const uint8_t *end
        cdef int n, count = min(<int> slot.shap_count, SHAP_MAX)
        cdef list names = self.features[slot.direction_version] if count else []
        if len(names) < count - 1:
            raise ValueError(f"version {slot.direction_version} has {len(names)} features, its answer {count - 1}")
        for n in range(count - 1, -1, -1):
            end = out.at
            wire_put_float(out, 2, slot.shap[n])
            _bytes(out, 1, b"bias" if n == count - 1 else names[n])
            wire_put_message(out, 7, end)
        wire_put_float(out, 6, slot.direction_confidence)
        wire_put_number(out, 5, slot.primary)
        wire_put_float(out, 4, slot.sell)
        wire_put_float(out, 3, slot.hold)
        wire_put_float(out, 2, slot.buy)
        _symbol(out, slot)
        wire_put_message(out, 7, whole)
        return 0


cdef class Answers:
    """An input's answer slots, all of them and in order, to be written as ml.v1.MLPredictionBatch.

    Parameters
    ----------
    expired: the verdict on the whole input
    stream: of the input
    engine_ms: from bytes received to now
    """

    cdef list slots                     # keeps them
    cdef readonly bint expired
    cdef readonly bint late
    cdef readonly str stream
    cdef readonly double engine_ms
    cdef const answer_slot **at         # of each of them
    cdef Py_ssize_t count

    def __cinit__(self, list slots not None, bint expired, bint late, str stream not None, double engine_ms):
        self.slots, self.expired, self.late, self.stream, self.engine_ms = list(slots), expired, late, stream, engine_ms
        self.count, self.at = 0, <const answer_slot **> malloc(max(len(slots), 1) * sizeof(void *))
        if self.at == NULL:
            raise MemoryError
        for each in self.slots:
            self.at[self.count] = _slot(each)
            self.count += 1

    def __dealloc__(self):
        free(self.at)

    cdef uint64_t model_count(self) noexcept:
        cdef uint64_t most = 0
        cdef Py_ssize_t n
        for n in range(self.count):
            most = max(most, self.at[n].model_count)
        return 0 if self.expired else most

    cdef double inference_ms(self) noexcept:
        """Of all microbatches that the input's vectors were in, each once, by its last word."""
        cdef double total = 0.0
        cdef Py_ssize_t n, k
        cdef const answer_slot *first
        cdef const answer_slot *last
        for n in range(self.count):
            first = last = self.at[n]
            k = 0
            while k < n and self.at[k].taken_ns != first.taken_ns:
                k += 1
            if k < n:
                continue
            for k in range(n + 1, self.count):
                if self.at[k].taken_ns == first.taken_ns:
                    last = self.at[k]
            total += last.inference_ms
        return total


cdef int _status(const answer_slot *slot, bint expired) except -1:
    if not STATUS_MIN <= slot.status <= STATUS_REJECTED:
        raise ValueError(f"an answer's status is from {STATUS_MIN} to {STATUS_REJECTED}, found {slot.status}")
    return STATUS_EXPIRED if expired and slot.status != STATUS_REJECTED else slot.status


cdef void _symbol(wire_out *out, const answer_slot *slot) noexcept nogil:
    wire_put_bytes(out, 1, slot.symbol, min(<int> slot.symbol_bytes, SYMBOL_MAX))


cdef void _price(wire_out *out, const answer_slot *slot) noexcept nogil:
    cdef const uint8_t *whole = out.at
    cdef const uint8_t *end
    cdef int n
    for n in range(min(<int> slot.horizon_count, HORIZONS) - 1, -1, -1):
        end = out.at
        wire_put_double(out, 6, slot.upper[n])
        wire_put_double(out, 5, slot.lower[n])
        wire_put_number(out, 4, slot.horizon_direction[n])
        wire_put_float(out, 3, slot.horizon_confidence[n])
        wire_put_double(out, 2, slot.price[n])
        wire_put_number(out, 1, slot.horizon_minutes[n])
        wire_put_message(out, 3, end)
    wire_put_double(out, 2, slot.base_price)
    _symbol(out, slot)
    wire_put_message(out, 5, whole)


cdef void _pattern(wire_out *out, const answer_slot *slot) noexcept nogil:
    cdef const uint8_t *whole = out.at
    cdef const uint8_t *end
    cdef int n
    wire_put_float(out, 5, slot.pattern_confidence)
    wire_put_number(out, 4, slot.pattern_signal)
    for n in range(min(<int> slot.pattern_count, PATTERNS_MAX) - 1, -1, -1):
        end = out.at
        wire_put_float(out, 5, slot.pattern_minutes[n])
        wire_put_double(out, 4, slot.pattern_target[n])
        wire_put_float(out, 3, slot.pattern_chance[n])
        wire_put_float(out, 2, slot.pattern_probability[n])
        wire_put_number(out, 1, slot.pattern_type[n])
        wire_put_message(out, 3, end)
    wire_put_number(out, 2, <uint64_t> slot.event_ns)
    _symbol(out, slot)
    wire_put_message(out, 6, whole)
