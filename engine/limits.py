"""Every bound and derived size, once.

A number that a person may choose is a setting; what stands here follows from the settings or from
the rules of the rings. Relations that must hold are checked at import, with the reason beside them.
"""

from fastpath import layout

# -- processes -------------------------------------------------------------------------------------
WORKERS_MAX = 16
FIXED_CHILDREN = 5  # ingress, egress, control, kafka, watch
CHILDREN_MAX = layout.children_max  # the fixed ones, a process for each worker, one warm spare

TICK_MS = 25  # of the supervisor; a death is seen at once
TICK_LATE_MS = 200  # a tick of its own that comes later voids its round: the host was asleep, not the children
LOADING_LIMIT_MS = 120_000  # models, kernels, warm-up
PULSE_LIMIT_MS = 1_000  # between two pulses of a loop
IN_MODEL_LIMIT_MS = 500  # one model, one microbatch
WRITING_LIMIT_MS = 10_000  # a file system may hold a process up, which is no fault of its own
PULSE_EVERY_MS = 100  # how often an idle loop pulses
GARBAGE_MAX = 20_000  # objects more than after the last collection; then a pulse is used for one
REAP_LIMIT_MS = 2_000  # after SIGKILL; beyond, a process hangs in the kernel
RESTART_BUDGET = 5  # self-inflicted deaths ...
RESTART_WINDOW_S = 60  # ... within this
RESTART_YOUNG_S = 5  # ... each this soon after its start
NAME_WAIT_S = 2.0  # how long a start waits for an engine of the same name to go

# -- models ----------------------------------------------------------------------------------------
LANES_BYTES_MAX = 256 << 20  # of the windows in flight of all price models, in one worker
REHEARSED_NS = 100_000  # a model that takes longer is not run again to warm caches: what comes would wait for it
REHEARSED_IDLE_NS = 1_000_000  # and only a worker that had nothing to do for this long has cold caches
ONCE_RUNG_NS = 300_000  # that a worker goes on looking where ingress rang for what it is about to publish
SPIN_IDLE_NS = 1_000_000_000  # without work a worker that spins by `auto` sleeps: a virtual machine's may share cores
PUT_OFF_UNIT_NS = 20_000  # of work that an answer put off, between two looks at the ring
VECTOR_BUDGET_US = 5_000  # of processor time in one model; `max_batch` such vectors still fit the default deadline
WATCHED_RUNS = 200  # after a run over its budget by the clock, so many more are timed by processor time
FAILURES_TO_OPEN = 5  # in a row without a success, or a half of the recent runs; summed over the workers
SLOW_TO_OPEN = 5  # of the recent runs, and a twentieth of them
RECENT_RUNS = 100
PROBES_TO_CLOSE = 3  # each one vector, given to one worker
BACK_OFF_FIRST_S = 1.0
BACK_OFF_MAX_S = 60.0
BACK_OFF_SPREAD = 0.2  # longer by up to this share, so that versions that failed together are not asked together

# -- the way of a vector ---------------------------------------------------------------------------
SHARDS = layout.shards
ROWS_MAX = 50  # that a price model reads: closed minutes and the open one
STEPS_SPARE = 15  # a microbatch takes no more steps of a key than its window has to spare
GAP_MESSAGES_MAX = 256  # of one stream that wait for those before them
UNRELEASED_BATCHES = 2  # the next input enters a requests ring below this many microbatches of unreleased slots
INPUTS_IN_FLIGHT_MAX = 1 << 16  # verdict words; a power of two
REJECTION_SLOTS = 1024  # ring of reports about messages that became no answer
DETAIL_BYTES_MAX = layout.detail_max  # of a rejection's sentence
TRACE_BYTES_MAX = 512  # of a traceparent and of a tracestate that is copied; longer ones are left out
CORRELATION_ID_BYTES_MAX = layout.detail_max
EPOCH_AHEAD_MAX_NS = 60_000_000_000  # an epoch further in the future is out of range
EVENT_AHEAD_MAX_NS = 60_000_000_000  # an event time further after its envelope's timestamp is, too
HOLE_STEPS_MAX = 5  # a longer hole is one masked step
CROSSED_MAX_BP = 5.0  # a bid further above its ask is out of range
PRICE_MAX = 1e12
FIRST_STEP = layout.history_max  # of a key's first vector: room for a full price history before it

# -- egress ----------------------------------------------------------------------------------------
NATS_PING_S = 0.2
NATS_PINGS_MISSED_MAX = 2
NATS_RETRY_S = 0.25
LOCAL_READER_BYTES_MAX = 8 << 20  # unsent bytes after which a reader that does not read is cut off
LOCAL_FRAME_SPARE = 64 << 10  # frames may be this much larger than a message: an envelope around it

# -- kafka -----------------------------------------------------------------------------------------
KAFKA_RING_BYTES = 16 << 20  # each way, between the buses and the kafka process
PARTITIONS_MAX = 256  # of the features topic
KAFKA_READ_MAX = 64  # records that ingress takes in one go, before it looks at the other buses again
KAFKA_COMMIT_S = 0.2
KAFKA_TIMEOUT_MS = 1000  # a broker that does not answer a request for so long is away
KAFKA_LOOK_S = 5.0  # how often topics are looked for, and new partitions
NATS_CONFIRM_LIMIT_MS = 500  # `failover`: what NATS has not confirmed by then goes over Kafka
# Of records read again to fill a window: the oldest row that a model reads was computed from a window before it.
WINDOW_MINUTES = layout.history_max + ROWS_MAX + 2

# -- versions --------------------------------------------------------------------------------------
VERSIONS_MAX = 64
FEATURE_NAMES_MAX = 1024
FEATURES_MAX = 128  # of one version
FEATURE_NAME_BYTES = 48

assert FIXED_CHILDREN + WORKERS_MAX + 1 <= CHILDREN_MAX, "each worker and the spare need a row of their own"
assert INPUTS_IN_FLIGHT_MAX & (INPUTS_IN_FLIGHT_MAX - 1) == 0, "positions are masked into verdict words"
assert layout.history_max + 1 + STEPS_SPARE <= layout.window, "a repeated slot must find every minute it saw first"
