"""LSTM layers with heads on the last step: weights packed once, and whole windows through them.

Owns the packed weights and one lane's scratch; used by workers, one thread at a time. Reads arrays that its caller
brings. What must stay true: a window gives the same bits by AVX2 and by the portable code, taken whole or in parts
(`fastpath.lanes`); NaN in gives NaN out; nothing is allocated after the constructor.
"""

import numpy as np

UNITS_MAX = 4096                        # of a layer, and inputs of the first one
SPAN_MAX = 1024
ALIGNED = 64


def aligned(floats):
    """float32 zeros that begin at a cache line; memory that is never touched is never taken."""
    whole = np.zeros(floats + ALIGNED // 4, np.float32)
    begin = (-whole.ctypes.data % ALIGNED) // 4
    return whole[begin : begin + floats]


def _found(name, array, shape):
    array = np.asarray(array, np.float32)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
    return array


def _by_gate(array, vectors):
    """(4 * units, ...) in ONNX's order i, o, f, g -> (4, 8 * vectors, ...), with half of i, o and f."""
    units = len(array) // 4
    out = np.zeros((4, 8 * vectors, *array.shape[1:]), np.float32)
    out[:, :units] = array.reshape(4, units, *array.shape[1:])
    out[:3] *= np.float32(0.5)
    return out


def _packed(matrix, vectors):
    """(4 * units, inputs) -> tiles, each [input][vector of units][gate][8]."""
    inputs = matrix.shape[1]
    gates = _by_gate(matrix, vectors).reshape(4, vectors, 8, inputs).transpose(3, 1, 0, 2)
    out, first, at = aligned(32 * vectors * inputs), 0, 0
    while first < vectors:
        width = tile_width(vectors - first)
        tile = gates[:, first : first + width].ravel()
        out[at : at + len(tile)] = tile
        first, at = first + width, at + len(tile)
    return out


cdef class Network:
    """A network over windows of `window` rows.

    Parameters
    ----------
    layers : for each layer (w, r, bias) as ONNX has them: (4 * units, inputs), (4 * units, units), (4 * units,), gates
        in the order input, output, forget, cell; both of ONNX's biases in one sum
    head_w, head_bias : (outputs, units of the last layer), (outputs,)
    linear : how many of the outputs are given as they are; the others are chances, through a sigmoid
    window : rows, the last one included
    portable : by plain C even where the processor has AVX2 and FMA

    Sigmoids and tanh are within 1e-6 of the exact ones (lstm_kernels.h has the formula and its source).
    """

    def __init__(self, layers, head_w, head_bias, long linear, long window, bint portable=False):
        cdef float[::1] packed
        cdef layer *each
        if not 1 <= len(layers) <= LAYERS_MAX:
            raise ValueError(f"layers: expected 1 to {LAYERS_MAX}, found {len(layers)}")
        if not 2 <= window <= SPAN_MAX + 1:
            raise ValueError(f"window: expected 2 to {SPAN_MAX + 1} rows, found {window}")
        self.arrays = []
        self.net.layers, self.net.span = len(layers), window - 1
        inputs = np.shape(layers[0][0])[1] if np.ndim(layers[0][0]) == 2 else 0
        self.net.inputs = inputs
        for k, (w, r, bias) in enumerate(layers):
            units = len(r) // 4 if np.ndim(r) == 2 else 0
            if not (1 <= units <= UNITS_MAX and 1 <= inputs <= UNITS_MAX):
                raise ValueError(f"layer {k}: expected 1 to {UNITS_MAX} inputs and units, found {inputs} and {units}")
            w = _found(f"layer {k}: w", w, (4 * units, inputs))
            r = _found(f"layer {k}: r", r, (4 * units, units))
            bias = _found(f"layer {k}: bias", bias, (4 * units,))
            each = &self.net.layer[k]
            each.inputs, each.units, each.vectors = inputs, units, (units + 7) // 8
            packed = self._keep(_packed(w, each.vectors))
            each.w = &packed[0]
            packed = self._keep(_packed(r, each.vectors))
            each.r = &packed[0]
            packed = self._keep(_packed(bias[:, None], each.vectors)[: 32 * each.vectors])
            each.bias = &packed[0]
            self.net.state_floats += 16 * each.vectors
            self.net.ahead_floats += 32 * each.vectors
            self.net.vectors_max = max(self.net.vectors_max, each.vectors)
            inputs = units
        outputs = len(head_bias)
        if not (1 <= outputs <= UNITS_MAX and 0 <= linear <= outputs):
            raise ValueError(f"heads: expected 1 to {UNITS_MAX} outputs, at most as many linear ones, "
                             f"found {outputs} and {linear}")
        self.net.outputs, self.net.linear = outputs, linear
        wide = -(-outputs // 8)
        heads, biases = np.zeros((wide * 8, inputs), np.float32), aligned(wide * 8)
        heads[:outputs] = _found("head_w", head_w, (outputs, inputs))
        biases[:outputs] = _found("head_bias", head_bias, (outputs,))
        weights = aligned(wide * 8 * inputs)
        weights[:] = heads.reshape(wide, 8, inputs).transpose(0, 2, 1).ravel()
        packed = self._keep(weights)
        self.net.head_w = &packed[0]
        packed = self._keep(biases)
        self.net.head_bias = &packed[0]
        self.net.run = &kernels_portable if portable else best_kernels()
        self.portable = self.net.run == &kernels_portable
        self.state, self.ahead = aligned(self.net.state_floats), aligned(self.net.ahead_floats)
        self.scratch = aligned(scratch_floats(&self.net))

    def _keep(self, array):
        self.arrays.append(array)
        return array

    @property
    def inputs(self):
        return self.net.inputs

    @property
    def outputs(self):
        return self.net.outputs

    @property
    def linear(self):
        return self.net.linear

    @property
    def window(self):
        return self.net.span + 1

    cdef void whole(self, const float *rows, float *out) noexcept nogil:
        self.state[:] = 0.0
        run_rows(&self.net, &self.state[0], rows, self.net.span, &self.scratch[0])
        look_ahead(&self.net, &self.state[0], &self.ahead[0])
        answer_row(&self.net, &self.state[0], &self.ahead[0], rows + self.net.span * self.net.inputs,
                   &self.scratch[0], out)

    def run(self, const float[:, ::1] rows not None, float[::1] out not None):
        """The whole window, from a state of nothing.

        rows: (window, inputs), oldest first. out: (outputs,).
        """
        if rows.shape[0] != self.window or rows.shape[1] != self.net.inputs or out.shape[0] != self.net.outputs:
            raise ValueError(
                f"run: expected rows of shape {(self.window, self.inputs)} and {self.outputs} outputs, "
                f"found {(rows.shape[0], rows.shape[1])} and {out.shape[0]}"
            )
        with nogil:
            self.whole(&rows[0, 0], &out[0])
