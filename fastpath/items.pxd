# Addresses of items of an array, or of anything else with a buffer. The caller holds it, so they outlive the look.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t


cdef inline uint64_t items_address(array, uint64_t item_bytes, str what, bint writable, uint64_t *count) except? 0:
    """Of the first one, and how many there are."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE | (PyBUF_WRITABLE if writable else 0))
    cdef uint64_t address = <uint64_t> view.buf
    cdef uint64_t size = <uint64_t> view.len
    PyBuffer_Release(&view)
    if size % item_bytes:
        raise ValueError(f"{what}: expected items of {item_bytes} bytes, found {size // item_bytes * item_bytes} bytes and a rest")
    count[0] = size // item_bytes
    return address


cdef inline uint64_t item_address(array, uint64_t index, uint64_t item_bytes, str what, bint writable) except 0:
    """Of the one at `index`."""
    cdef uint64_t count = 0
    cdef uint64_t first = items_address(array, item_bytes, what, writable, &count)
    if index >= count:
        raise IndexError(f"{what}: row {index} of {count}")
    return first + index * item_bytes
