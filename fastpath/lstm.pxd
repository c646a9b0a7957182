# A stack of LSTM layers with its weights packed, as lstm.h computes it.

from libc.stdint cimport int64_t

cdef extern from "lstm.h" nogil:
    enum:
        LAYERS_MAX

    ctypedef struct kernels:
        pass

    ctypedef struct layer:
        long inputs
        long units
        long vectors                    # of eight units
        const float *w
        const float *r
        const float *bias

    ctypedef struct network:
        long layers
        long inputs
        long span                       # closed rows of a window, before the last one
        layer layer[LAYERS_MAX]
        const float *head_w
        const float *head_bias
        long outputs
        long linear                     # outputs before those that are chances
        long state_floats               # of one lane
        long ahead_floats               # the recurrent half of its next step
        long vectors_max
        const kernels *run

    const kernels kernels_portable
    const kernels *best_kernels()
    long tile_width(long left)
    long scratch_floats(const network *net)
    void look_ahead(const network *net, const float *state, float *ahead)
    void input_halves(const network *net, const layer *each, const float *rows, long stride, long count, float *out)
    void run_rows(const network *net, float *state, const float *rows, long count, float *scratch)
    void run_three(const network *net, float **states, const float *half, float *scratch)
    void answer_row(const network *net, const float *state, const float *ahead, const float *row, float *scratch, float *out)


cdef class Network:
    cdef network net
    cdef readonly bint portable
    cdef list arrays                    # what `net` points into
    cdef float[::1] state
    cdef float[::1] ahead
    cdef float[::1] scratch
    cdef void whole(self, const float *rows, float *out) noexcept nogil
