"""NATS messages out of a connection's bytes: MSG and HMSG here, every other line to whoever keeps the connection.

Owns the bytes that were read and not handed on. Runs in the process that reads the connection. What must
stay true: each byte goes to one of the two, in order; no size is believed that is beyond the bound; nothing
is handed on once something made no sense.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr, memmove
from libc.stdint cimport int64_t

cdef enum:
    ROOM = 1 << 16                      # bytes that are read at once
    LINE_MAX = 1 << 16                  # of a line that is no message's; INFO of a large cluster has some thousands
    WORDS_MAX = 6                       # HMSG subject sid reply header-bytes bytes

cdef struct word:
    const char *at
    Py_ssize_t size


cdef int _words(const char *line, Py_ssize_t size, word *words) noexcept nogil:
    """Splits at blanks; how many there are, -1: too many."""
    cdef Py_ssize_t at = 0, begin
    cdef int count = 0
    while True:
        while at < size and (line[at] == c' ' or line[at] == c'\t'):
            at += 1
        if at == size:
            return count
        if count == WORDS_MAX:
            return -1
        begin = at
        while at < size and line[at] != c' ' and line[at] != c'\t':
            at += 1
        words[count].at, words[count].size = line + begin, at - begin
        count += 1


cdef int64_t _number(word digits) noexcept nogil:
    """-1: not one of at most ten digits."""
    cdef int64_t value = 0
    cdef Py_ssize_t at
    if digits.size == 0 or digits.size > 10:
        return -1
    for at in range(digits.size):
        if digits.at[at] < c'0' or digits.at[at] > c'9':
            return -1
        value = 10 * value + (digits.at[at] - c'0')
    return value


cdef int _kind(const char *line, Py_ssize_t size) noexcept nogil:
    """1: MSG, 2: HMSG, 0: neither. In any case, as the protocol has it."""
    cdef int with_headers = size > 0 and (line[0] | 0x20) == c'h'
    line += with_headers
    size -= with_headers
    if size < 4 or (line[0] | 0x20) != c'm' or (line[1] | 0x20) != c's' or (line[2] | 0x20) != c'g':
        return 0
    return 1 + with_headers if line[3] == c' ' or line[3] == c'\t' else 0


cdef class Messages:
    """`room` and `came` are `get_buffer` and `buffer_updated` of an asyncio.BufferedProtocol.

    Parameters
    ----------
    take
        Called with (body, subject) of each message; headers are left out.
    other
        Called with each other line, its end included.
    bytes_max
        The largest message that is believed.
    """

    cdef object take
    cdef object other
    cdef Py_ssize_t bytes_max
    cdef bytearray memory
    cdef Py_ssize_t start, end          # of what was read and not handed on
    cdef Py_ssize_t seen                # up to here there is no end of a line
    cdef Py_ssize_t needed              # bytes from `start` on without which there is nothing to do
    cdef readonly str broken            # why nothing is handed on any more, empty: it is

    def __init__(self, take, other, Py_ssize_t bytes_max):
        self.take, self.other, self.bytes_max = take, other, bytes_max
        self.memory = bytearray(ROOM)
        self.start = self.end = self.seen = self.needed = 0
        self.broken = ""

    def room(self, hint):
        """Where the next bytes are to be written: a writable memoryview."""
        cdef Py_ssize_t have = self.end - self.start, size = len(self.memory)
        cdef Py_ssize_t wanted = max(self.needed, have + 1)
        cdef bytearray memory = self.memory
        if self.start > 0 and (have == 0 or self.start + wanted > size):
            memmove(PyByteArray_AS_STRING(memory), PyByteArray_AS_STRING(memory) + self.start, have)
            self.seen -= self.start
            self.start, self.end = 0, have
        if wanted > size or (size > ROOM and wanted <= ROOM and have == 0):
            memory = bytearray(max(ROOM, wanted))
            memory[:have] = self.memory[:have]
            self.memory = memory
        return memoryview(memory)[self.end:]

    def came(self, Py_ssize_t count):
        """So many bytes were written there."""
        if not 0 <= count <= len(self.memory) - self.end:
            raise ValueError(f"expected at most {len(self.memory) - self.end} bytes, found {count}")
        self.end += count
        if not self.broken and self.end - self.start >= self.needed:
            self.broken = self._hand_on()
        if self.broken:
            self.start = self.end = self.seen = self.needed = 0

    cdef str _hand_on(self):
        """All that is whole. Why the rest makes no sense, empty: it may."""
        cdef const char *bytes_ = PyByteArray_AS_STRING(self.memory)
        cdef const char *found
        cdef Py_ssize_t line, body, size, headers
        cdef int kind, count
        cdef word words[WORDS_MAX]
        while self.start < self.end:
            self.needed = 0
            self.seen = max(self.seen, self.start)
            found = <const char *> memchr(bytes_ + self.seen, c'\n', self.end - self.seen)
            if found == NULL:
                self.seen = self.end
                return "" if self.end - self.start <= LINE_MAX else f"a line of more than {LINE_MAX} bytes"
            body = found - bytes_ + 1
            line = body - self.start - 1
            kind = _kind(bytes_ + self.start, line)
            if kind == 0:
                self.other(PyBytes_FromStringAndSize(bytes_ + self.start, body - self.start))
                self.start = body
                continue
            count = _words(bytes_ + self.start, line - 1, words) if bytes_[body - 2] == c'\r' else -1
            if not 3 + kind <= count <= 4 + kind:
                return "a message's line without its words"
            size = _number(words[count - 1])
            headers = _number(words[count - 2]) if kind == 2 else 0
            if not 0 <= headers <= size or size > self.bytes_max:
                return f"a message's line with a size that is none, or beyond {self.bytes_max} bytes"
            if self.end - body < size + 2:
                self.needed = body - self.start + size + 2
                return ""
            if bytes_[body + size] != c'\r' or bytes_[body + size + 1] != c'\n':
                return "a message whose end is not where its size says"
            self.start = self.seen = body + size + 2
            self.take(
                PyBytes_FromStringAndSize(bytes_ + body + headers, size - headers),
                PyUnicode_DecodeUTF8(words[1].at, words[1].size, "replace"),
            )
        return ""
