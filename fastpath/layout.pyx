"""The shared structs as NumPy dtypes, derived from the C compiler's own view of layout.pxd.

Owns nothing at run time; every process imports it. What must stay true, or the import fails: a
struct has no hidden padding, a slot fits its ring, and related limits agree.
"""

import numpy as np

slot_bytes = SLOT_BYTES
extra_max = EXTRA_MAX
history_max = HISTORY_MAX
horizons = HORIZONS
patterns_max = PATTERNS_MAX
contributions_max = CONTRIBUTIONS_MAX
shap_max = SHAP_MAX
window = WINDOW
features = FEATURES
plans_max = PLANS_MAX
ranges_max = RANGES_MAX
gaps_max = GAPS_MAX
detail_max = DETAIL_MAX
shards = SHARDS
children_max = CHILDREN_MAX
counters = COUNTERS
buckets = BUCKETS
stages = STAGES
causes = CAUSES


def _check_dense(name, dtype):
    """A gap between two fields would be bytes that nobody named."""
    end = 0
    for field in dtype.names:
        if dtype.fields[field][1] != end:
            raise ImportError(f"fastpath.layout: {name}.{field} begins at {dtype.fields[field][1]}, expected {end}: order fields by falling size")
        end += dtype.fields[field][0].itemsize
    if dtype.itemsize - end >= 8:
        raise ImportError(f"fastpath.layout: {name} ends with {dtype.itemsize - end} bytes of padding")


def _native(dtype):
    """The dtype with `char` arrays as bytes strings, so that a symbol reads as b"EURUSD"."""
    fields = {}
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        base, shape = field.base, field.shape
        if base.names:
            base = _native(base)
        elif base == np.dtype("S1") or (base == np.dtype("i1") and shape):
            base, shape = np.dtype(f"S{int(np.prod(shape))}"), ()
        fields[name] = (np.dtype((base, shape)) if shape else base, offset)
    return np.dtype({
        "names": list(fields),
        "formats": [each[0] for each in fields.values()],
        "offsets": [each[1] for each in fields.values()],
        "itemsize": dtype.itemsize,
    })


def _dtype(name, view):
    dtype = np.asarray(view).dtype
    _check_dense(name, dtype)
    return _native(dtype)


def _slot(dtype):
    """The same fields at a stride of one slot."""
    if dtype.itemsize > SLOT_BYTES:
        raise ImportError(f"fastpath.layout: a slot of {dtype.itemsize} bytes does not fit {SLOT_BYTES}")
    fields = dtype.fields
    return np.dtype({
        "names": list(dtype.names),
        "formats": [fields[name][0] for name in dtype.names],
        "offsets": [fields[name][1] for name in dtype.names],
        "itemsize": SLOT_BYTES,
    })


cdef request_slot _request_slot
cdef answer_slot _answer_slot
cdef report_slot _report_slot
cdef window_entry _window_entry
cdef input_record _input_record
cdef vector_decision _vector_decision
cdef stream_state _stream_state
cdef stream_row _stream_row
cdef key_row _key_row
cdef child_row _child_row
cdef supervisor_board _supervisor_board
cdef ingress_board _ingress_board
cdef kafka_input _kafka_input
cdef kafka_output _kafka_output
cdef partition_row _partition_row
cdef kafka_board _kafka_board
cdef version_row _version_row
cdef plan_row _plan_row
cdef ring_cursors _ring_cursors
cdef doorbell_word _doorbell_word
cdef arena_header _arena_header
cdef histogram_row _histogram_row

request_slot_dtype = _slot(_dtype("request_slot", <request_slot[:1]> &_request_slot))
answer_slot_dtype = _slot(_dtype("answer_slot", <answer_slot[:1]> &_answer_slot))
report_slot_dtype = _slot(_dtype("report_slot", <report_slot[:1]> &_report_slot))
window_entry_dtype = _dtype("window_entry", <window_entry[:1]> &_window_entry)
input_record_dtype = _dtype("input_record", <input_record[:1]> &_input_record)
vector_decision_dtype = _dtype("vector_decision", <vector_decision[:1]> &_vector_decision)
stream_state_dtype = _dtype("stream_state", <stream_state[:1]> &_stream_state)
stream_row_dtype = _dtype("stream_row", <stream_row[:1]> &_stream_row)
key_row_dtype = _dtype("key_row", <key_row[:1]> &_key_row)
child_row_dtype = _dtype("child_row", <child_row[:1]> &_child_row)
supervisor_board_dtype = _dtype("supervisor_board", <supervisor_board[:1]> &_supervisor_board)
ingress_board_dtype = _dtype("ingress_board", <ingress_board[:1]> &_ingress_board)
kafka_input_dtype = _dtype("kafka_input", <kafka_input[:1]> &_kafka_input)
kafka_output_dtype = _dtype("kafka_output", <kafka_output[:1]> &_kafka_output)
partition_row_dtype = _dtype("partition_row", <partition_row[:1]> &_partition_row)
kafka_board_dtype = _dtype("kafka_board", <kafka_board[:1]> &_kafka_board)
version_row_dtype = _dtype("version_row", <version_row[:1]> &_version_row)
plan_row_dtype = _dtype("plan_row", <plan_row[:1]> &_plan_row)
ring_cursors_dtype = _dtype("ring_cursors", <ring_cursors[:1]> &_ring_cursors)
doorbell_word_dtype = _dtype("doorbell_word", <doorbell_word[:1]> &_doorbell_word)
arena_header_dtype = _dtype("arena_header", <arena_header[:1]> &_arena_header)
histogram_row_dtype = _dtype("histogram_row", <histogram_row[:1]> &_histogram_row)

if WINDOW < HISTORY_MAX + 16:
    raise ImportError("fastpath.layout: a window needs its closed minutes, the open one and 15 to spare")
if WINDOW & (WINDOW - 1):
    raise ImportError("fastpath.layout: a window is indexed by a mask, so its size is a power of two")
