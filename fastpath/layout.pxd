# Every struct that two processes share, declared once. Sizes and offsets for Python and Numba are
# derived from here (layout.pyx); nothing else in the project knows a byte offset.
#
# Order of fields is by falling size, so that no compiler inserts padding; layout.pyx checks it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SLOT_BYTES = 4096
    INDICATORS = 6          # sma_20, ema_12, ema_26, macd, rsi_14, atr
    CORRELATIONS_MAX = 64
    EXTRA_MAX = 64
    HISTORY_MAX = 240
    HORIZONS = 4            # 1, 5, 15, 60 minutes
    PATTERNS_MAX = 7
    CONTRIBUTIONS_MAX = 8
    SHAP_MAX = 256
    WINDOW = 256            # entries of a key: 240 closed, the open one, 15 spare
    FEATURES = 16           # float32 features of one minute
    SYMBOL_MAX = 24
    NAME_MAX = 64           # company, stream, model id
    USER_MAX = 512          # 128 characters of up to 4 bytes
    ROLES = 4               # price, pattern, direction, ensemble
    PLANS_MAX = 128         # four of the tiers, then those of companies and users with models of their own
    RANGES_MAX = 256        # remembered ranges of missing sequences of one epoch
    GAPS_MAX = 16           # remembered gap events of one stream
    DETAIL_MAX = 256        # bytes of a sentence
    SHARDS = 64
    CHILDREN_MAX = 24
    COUNTERS = 64           # of one process
    BUCKETS = 2432          # of one histogram: 64 linear ones, then 37 octaves of 64
    STAGES = 8              # histograms of one process
    CAUSES = 5              # why a breaker opens


# -- the way of a vector ---------------------------------------------------------------------------

cdef struct request_slot:               # writer: ingress. One vector, with all that was decided about it.
    uint64_t input                      # position of its input: 1, 2, 3, ... over all streams
    uint64_t record                     # byte position of the input's record in `inputs`
    int64_t event_ns                    # Unix time
    int64_t received_ns                 # CLOCK_MONOTONIC
    int64_t deadline_ns                 # CLOCK_MONOTONIC
    int64_t minute                      # event_ns in Unix minutes
    double bid
    double ask
    double mid
    double spread                       # NaN: unknown
    double indicators[INDICATORS]       # NaN: left out
    double correlations[CORRELATIONS_MAX]
    double extra[EXTRA_MAX]
    double history[HISTORY_MAX]         # the first history_count ones, oldest first; the last is of minute - 1
    uint32_t key                        # row of the key table, and of the windows
    uint32_t generation                 # of that row: who had it before does not matter
    uint32_t step                       # of this vector's minute; where it stays out of the window, the key's open step
    uint32_t flags                      # FLAG_*
    uint32_t window_gaps
    uint16_t index                      # of this slot within its input
    uint16_t count                      # slots of the input
    uint16_t depth                      # closed steps before `step` that the window holds
    uint16_t skipped                    # masked steps between the previous vector's minute and this one's
    uint16_t history_count
    uint16_t correlation_count
    uint16_t extra_count
    uint16_t reason                     # REASON_* of the vector, 0: none
    uint8_t kind                        # KIND_*
    uint8_t tier
    uint8_t opens                       # first vector of its minute: a new step begins
    uint8_t outside                     # leaves the window alone: late, or not newer than its key's last
    uint8_t expired                     # too old on arrival, by the envelope's timestamp
    uint8_t symbol_bytes
    uint8_t plan                        # row of the plan table; 0: that of its tier
    char symbol[SYMBOL_MAX]

cdef struct answer_slot:                # writer: the worker. Numbers and indexes; egress adds names and texts.
    uint64_t request                    # position in the worker's requests ring
    uint64_t input
    uint64_t record
    int64_t event_ns
    int64_t taken_ns                    # CLOCK_MONOTONIC, when its microbatch was taken
    int64_t answered_ns                 # CLOCK_MONOTONIC
    double base_price
    double price[HORIZONS]              # conditional median of the mid; the first horizon_count ones
    double lower[HORIZONS]
    double upper[HORIZONS]
    double pattern_target[PATTERNS_MAX] # the first pattern_count ones
    float horizon_confidence[HORIZONS]
    float pattern_probability[PATTERNS_MAX]
    float pattern_chance[PATTERNS_MAX]  # that the target is touched in time and before the mirror stop
    float pattern_minutes[PATTERNS_MAX] # to the expected completion
    float weight[CONTRIBUTIONS_MAX]     # the first contribution_count ones
    float contribution_confidence[CONTRIBUTIONS_MAX]
    float shap[SHAP_MAX]                # of the version's features, in their order; then the bias
    uint32_t flags
    uint32_t window_gaps
    float buy
    float hold
    float sell
    float direction_confidence
    float pattern_confidence
    float ensemble_confidence
    float ensemble_score
    float trend_strength
    float inference_ms                  # the worker's time on this input's microbatches so far
    uint16_t horizon_minutes[HORIZONS]
    uint16_t contribution_version[CONTRIBUTIONS_MAX]  # row of the version table
    uint16_t index
    uint16_t count
    uint16_t reason
    uint16_t horizon_count
    uint16_t pattern_count
    uint16_t contribution_count
    uint16_t shap_count                 # bias included; 0: none
    uint16_t direction_version          # whose features the SHAP values are of
    uint16_t final_version              # who made the final decision
    uint16_t model_count
    uint8_t horizon_direction[HORIZONS] # trading.v1.Signal
    uint8_t pattern_type[PATTERNS_MAX]  # trading.v1.PatternType
    uint8_t contribution_signal[CONTRIBUTIONS_MAX]
    uint8_t contribution_fallback[CONTRIBUTIONS_MAX]
    uint8_t kind
    uint8_t status                      # ml.v1.PredictionStatus
    uint8_t tier
    uint8_t has_direction
    uint8_t has_pattern
    uint8_t primary
    uint8_t pattern_signal
    uint8_t ensemble_signal
    uint8_t trend_signal
    uint8_t symbol_bytes
    char symbol[SYMBOL_MAX]

cdef struct window_entry:               # writer: the worker that has the key's shard
    uint64_t stamp                      # generation << 32 | step
    int64_t minute
    double mid
    double spread                       # NaN: unknown
    double move                         # bp, from the entry before this one
    double sigma                        # bp a square root of a minute, from the entries before this one
    double trend                        # robust slope of those, in standard deviations of a walk without one
    double indicators[INDICATORS]       # of the entries before this one; NaN: none
    double predicted[HORIZONS]          # by this minute's last vector; NaN: that one had no prediction
    double log_q[HORIZONS]              # what outcomes added to the log of the interval multipliers
    float half[HORIZONS]                # half width of the intervals around `predicted`, before any widening
    float row[FEATURES]                 # features of this minute, final once it closed
    uint32_t span                       # minutes since the entry's predecessor that was not masked; 0: has none
    uint32_t masked                     # 1: an empty minute, mid repeated

cdef struct report_slot:                # writer: ingress. A message that became no answer: claimed names only.
    uint64_t epoch
    uint64_t sequence
    uint16_t reason
    char company[NAME_MAX]
    char stream[NAME_MAX]
    char detail[DETAIL_MAX]
    char correlation[DETAIL_MAX]


# -- ingress's tables and its record ---------------------------------------------------------------

cdef struct input_record:               # writer: ingress. The commit point. Texts, decisions, raw bytes follow.
    uint64_t bytes                      # of the whole record, a multiple of 8; the next record begins there
    uint64_t position                   # 1, 2, 3, ...; 0: padding up to the ring's end
    uint64_t requests                   # position of its first slot in its worker's requests ring
    uint64_t epoch
    uint64_t sequence
    int64_t received_ns                 # CLOCK_MONOTONIC
    int64_t deadline_ns
    int64_t received_unix_ns
    int64_t timestamp                   # the envelope's
    uint32_t raw_bytes
    uint32_t stream                     # row of the stream table
    uint32_t generation                 # of that row
    uint32_t missing                    # sequences found missing just before this one
    uint16_t count                      # slots
    uint16_t worker
    uint16_t company_bytes
    uint16_t stream_bytes
    uint16_t user_bytes
    uint16_t correlation_bytes
    uint16_t traceparent_bytes
    uint16_t tracestate_bytes
    uint16_t detail_bytes
    uint16_t reason                     # of a whole rejected message
    uint8_t kind
    uint8_t tier
    uint8_t late
    uint8_t bus                         # BUS_*: who brought it
    uint8_t expired
    uint8_t arrival                     # ARRIVAL_*: what the arbiter found
    uint8_t decisions                   # vector_decisions that follow: one a vector, none in a rejection or heartbeat
    uint8_t plan                        # row of the plan table; 0: that of its tier

cdef struct vector_decision:            # of each vector in a record, before the raw bytes
    int64_t event_ns
    int64_t minute
    uint32_t key
    uint32_t generation
    uint32_t step
    uint32_t flags
    uint32_t window_gaps
    uint16_t depth
    uint16_t skipped
    uint16_t history_count
    uint16_t reason
    uint8_t opens
    uint8_t outside
    uint8_t symbol_bytes
    uint8_t _free
    char symbol[SYMBOL_MAX]

cdef struct epoch_state:
    uint64_t epoch
    uint64_t next
    uint64_t range_count
    uint64_t range_first[RANGES_MAX]    # of missing sequences: disjoint, rising
    uint64_t range_last[RANGES_MAX]     # inclusive

cdef struct stream_state:               # writer: ingress. Two for each stream: one stands, one is being written.
    uint64_t applied                    # position of the last input in here
    uint64_t given_up                   # ranges that no longer fitted, oldest first
    int64_t newest_minute               # of event time
    uint64_t gap_count
    int64_t gap_minute[GAPS_MAX]        # rising; when a gap was seen, and how many sequences it cost
    uint64_t gap_missing[GAPS_MAX]
    epoch_state current
    epoch_state previous

cdef struct stream_row:                 # writer: ingress
    uint64_t active                     # which of its two states stands
    int64_t used_ns                     # CLOCK_MONOTONIC, for eviction
    uint32_t generation
    uint32_t shard
    uint32_t taken
    uint32_t _free
    char company[NAME_MAX]
    char stream[NAME_MAX]

cdef struct key_row:                    # writer: ingress
    int64_t last_ns                     # event time of the last vector within the window
    int64_t minute
    int64_t used_ns                     # CLOCK_MONOTONIC, for eviction
    uint32_t stream                     # row of the stream table
    uint32_t stream_generation
    uint32_t generation
    uint32_t step
    uint16_t depth
    uint16_t taken
    uint8_t _free[4]
    char symbol[SYMBOL_MAX]


# -- kafka's side rings: names and bodies follow each head -----------------------------------------

cdef struct kafka_input:                # writer: kafka. A record of a features topic; its key and its bytes follow.
    uint64_t bytes                      # of the whole record in the ring, a multiple of 8
    uint64_t number                     # 1, 2, 3, ...; 0: padding
    uint64_t offset
    uint32_t partition
    uint32_t key_bytes
    uint32_t raw_bytes
    uint32_t answered                   # 1: below the commit at the start; it fills windows and is not answered again

cdef struct kafka_output:               # writer: egress. What is to be published; key, name and body follow.
    uint64_t bytes
    uint64_t number
    uint32_t topic                      # index of TOPICS
    uint32_t key_bytes
    uint32_t name_bytes
    uint32_t body_bytes

cdef struct partition_row:              # of the features topic. Writers: kafka, and ingress where it says so
    uint64_t placed                     # offset after the last record that went into the ring
    uint64_t noted_end                  # end of the partition when the engine started
    uint64_t answered                   # commit when the engine started
    uint64_t settled                    # ingress: offset after the last record that it took out of the ring
    uint64_t done                       # ingress: all below is answered and confirmed, or a duplicate of what is
    uint64_t rewind                     # ingress: the oldest record of a live window

cdef struct kafka_board:                # writer: kafka
    uint64_t partitions                 # rows that are in use; 0: not known yet


# -- supervision -----------------------------------------------------------------------------------

cdef struct child_row:                  # writer: the child, but for `seat` and `order` (supervisor)
    uint64_t pulse_ns                   # CLOCK_MONOTONIC
    uint64_t phase                      # PHASE_*
    uint64_t phase_ns
    uint64_t pid
    uint64_t hand_first                 # request positions in hand, and the model they are in
    uint64_t hand_end
    uint64_t hand_model                 # version + 1; 0: none
    uint64_t bus_nats                   # BUS_STATE_*
    uint64_t bus_local
    uint64_t bus_kafka
    uint64_t ready                      # 1: loaded and warm, or connected and listening
    uint64_t counters[COUNTERS]
    uint64_t failures[64]               # of each version, in this worker
    uint64_t successes[64]
    uint64_t unsound[64]                # those of `failures` that gave numbers which cannot be used
    uint64_t slow[64]                   # runs beyond the version's budget, whatever came of them
    uint64_t seat                       # supervisor: worker index + 1; 0: stand by
    uint64_t order                      # supervisor: ORDER_*
    uint64_t gpu                        # GPU_*
    uint64_t left_out                   # a bit for each version that this worker could not load
    uint64_t _free

cdef struct supervisor_board:           # writer: supervisor
    uint64_t state                      # ENGINE_*
    uint64_t epoch                      # Unix nanoseconds of the engine's start; of its own messages too
    uint64_t tick_ns                    # CLOCK_MONOTONIC of the last tick
    uint64_t shards[SHARDS]             # index of the worker that has each
    uint64_t lives[CHILDREN_MAX]        # LIFE_* of each child row
    uint64_t starts[CHILDREN_MAX]       # how often each was started
    uint64_t hand_end[CHILDREN_MAX]     # of each requests ring: the end of what its last dead worker had in hand
    uint64_t suspect_first[CHILDREN_MAX]  # of each requests ring: what a worker had in hand that died of its own
    uint64_t suspect_end[CHILDREN_MAX]
    uint64_t suspect_model[CHILDREN_MAX]  # and in which model: version + 1; 0: in none
    uint64_t poison[CHILDREN_MAX]       # position + 1 of the slot that killed more than once; 0: none
    uint64_t poison_deaths[CHILDREN_MAX]

cdef struct ingress_board:              # writer: ingress
    uint64_t applied                    # position of the last input whose slots and tables are complete
    uint64_t drained                    # 1: no more input is taken and none waits

cdef struct version_row:                # writer: supervisor
    uint64_t breaker                    # BREAKER_*
    uint64_t probe_worker               # half-open: index of the worker that may probe
    uint64_t probe_number
    uint64_t opened[CAUSES]             # how often its breaker opened, by CAUSE_*
    uint32_t taken
    uint32_t kind                       # ml.v1.ModelKind
    uint32_t role                       # ROLE_*
    uint32_t feature_first              # in the feature name table
    uint32_t feature_count
    uint32_t own                        # 1: a company's own; whoever is not that company never hears of it
    char model_id[NAME_MAX]
    char version[NAME_MAX]
    char sha256[NAME_MAX]

cdef struct plan_row:                   # writer: supervisor, at the start. Who answers whom; the first rows are the tiers'.
    int32_t own[ROLES]                  # version row of the own model that stands in for the shared one; -1: none
    uint32_t taken
    uint32_t tier
    uint32_t skill[ROLES]               # BREAKER_* of the own model for this company: not asked while OPEN
    char company[NAME_MAX]              # whose own models these are; empty: the tier's plan, without any
    char user[USER_MAX]                 # empty: every user of the company


# -- rings, doorbells, arena, histograms -----------------------------------------------------------

cdef struct padded_word:                # two cache lines: the neighbour-line prefetcher fetches pairs
    uint64_t value
    uint64_t _pad[15]

cdef struct ring_cursors:
    padded_word head                    # writer: the writer. All below is published.
    padded_word tail                    # writer: the gating reader. All below is free again.
    padded_word intent                  # writer: the writer. Highest position it may be touching.

cdef struct doorbell_word:
    padded_word sleeping                # writer: the reader

cdef struct arena_header:
    uint64_t magic
    uint64_t version
    uint64_t bytes
    uint64_t owner_pid
    uint64_t owner_start                # clock ticks since boot, field 22 of /proc/pid/stat
    uint64_t region_count
    uint64_t table_digest[4]            # SHA-256 of the region table
    uint64_t settings_digest[4]

cdef struct histogram_row:              # writer: one process
    uint64_t count
    uint64_t sum_ns
    uint64_t max_ns
    uint64_t _free
    uint64_t buckets[BUCKETS]
