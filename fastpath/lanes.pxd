# The lanes of many keys over one network, as lanes.pyx moves them.

from libc.stdint cimport int32_t, int64_t, uint32_t

from fastpath.lstm cimport Network, network

cdef enum:
    NOBODY = -1
    TOGETHER = 3                        # lanes that read a weight at the same time
    KEPT_TURNS = 4                      # a block is given away after so many answers for each block without one of its own

cdef struct block:
    int64_t key                         # NOBODY: free
    int64_t open                        # step of the row that answers bring; all before it are closed
    int64_t ready                       # step whose recurrent half is there
    int64_t used                        # count of answers at its last one; 0: never
    int64_t guessed                     # step whose lane was run with a row that may still change
    uint32_t generation
    bint queued
    bint wanted                         # the guess is still to be made
    int32_t turn                        # which of its two recurrent halves is that of `ready`


cdef class Lanes:
    cdef readonly Network network
    cdef readonly long blocks
    cdef readonly int64_t made_up       # rows that answers had to run because no lane had
    cdef network *net
    cdef long floats, span, inputs
    cdef int64_t answers
    cdef int64_t taken_until            # count of answers up to which no block may be given away
    cdef list kept                      # what the pointers point into
    cdef block *of
    cdef float *memory
    cdef int64_t *done                  # of each lane: the next row that it has to run, as a step
    cdef int32_t *queue
    cdef long queue_first
    cdef readonly long waiting          # blocks for which something was put off
    cdef int32_t[::1] of_key
    cdef float *half                    # the first layer's input half of one row ...
    cdef int64_t half_step
    cdef long half_block                # ... and whose it is
    cdef float *spare
    cdef float *window
    cdef float *out
    cdef int64_t[::1] columns
    cdef bint bound
    cdef bint picked                    # columns are not all of a row in their order
    cdef const float[:, :, :] rows
    cdef const float[:, :] closing
    cdef const int64_t[:] key
    cdef const uint32_t[:] generation
    cdef const int64_t[:] step
    cdef double[:, :] plain
    cdef double[:, :] chances
    cdef float *_floats(self, long count)
    cdef void _answer(self, long i) noexcept nogil
    cdef const float *_picked_rows(self, const float *rows, long count, float *to) noexcept nogil
    cdef float *_lane(self, long b, int64_t step) noexcept nogil
    cdef int64_t *_done(self, long b, int64_t step) noexcept nogil
    cdef float *_guess(self, long b) noexcept nogil
    cdef float *_ahead(self, long b, long turn) noexcept nogil
    cdef float *_row(self, long b, int64_t step) noexcept nogil
    cdef float *_guessed_row(self, long b) noexcept nogil
    cdef long _block_of(self, int64_t key, uint32_t generation, int64_t step, const float *rows) noexcept nogil
    cdef long _oldest(self) noexcept nogil
    cdef void _begin(self, long b, int64_t key, uint32_t generation, int64_t step, const float *rows) noexcept nogil
    cdef bint _slide(self, long b, int64_t step, const float *rows) noexcept nogil
    cdef void _take_guess(self, long b, int64_t step) noexcept nogil
    cdef void _last(self, long b, int64_t step, const float *row) noexcept nogil
    cdef void _run_rows(self, long b, int64_t step) noexcept nogil
    cdef void _want(self, long b, const float *closing) noexcept nogil
    cdef bint _unit(self, long b) noexcept nogil
    cdef void _make_guess(self, long b) noexcept nogil
    cdef void _advance(self, long b, int64_t row) noexcept nogil
