"""The arena's table of contents: every region, how large it is, who writes and who reads it.

Owns the names; the supervisor makes the arena from `regions`, every child opens it with `Shared`.
What must stay true: a region has one writing process, given in the table.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from engine import limits
from engine.settings import Settings
from fastpath import layout
from fastpath.arena import Arena, Region
from fastpath.doorbell import Doorbell
from fastpath.histogram import Histogram
from fastpath.ring import ByteRing, Ring


class Engine(IntEnum):
    """`supervisor_board.state`."""

    STARTING = 0
    RUNNING = 1
    DRAINING = 2
    STOPPING = 3


class Life(IntEnum):
    """Of a child, as the supervisor sees it."""

    ABSENT = 0
    LOADING = 1
    READY = 2
    DYING = 3  # killed, not reaped yet
    SPENT = 4  # its restart budget is used up


class Phase(IntEnum):
    """Of a child, as it says itself; limits for its pulse follow from it."""

    LOADING = 0
    STANDBY = 1
    IDLE = 2
    IN_MODEL = 3
    WRITING = 4  # to disk


class BusState(IntEnum):
    ABSENT = 0
    DOWN = 1
    UP = 2


class Gpu(IntEnum):
    """Of a worker."""

    NONE = 0  # none is wanted
    IN_USE = 1
    AWAY = 2  # one is wanted, and the processor stands in for it


class Breaker(IntEnum):
    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Cause(IntEnum):
    """Why a breaker opened; index of `version_row.opened`."""

    RAISED = 0
    UNSOUND = 1  # numbers that are not finite, chances that are none
    SLOW = 2
    CRASHED = 3  # a worker died in it, or hung
    SKILL = 4  # worse than the baseline for a company


class Verdict(IntEnum):
    """Low `VERDICT_BITS` of a verdict word; above them the input's position."""

    NONE = 0
    SENDING = 1  # some bus may have it as it is
    EXPIRED = 2  # it goes out, or went, as EXPIRED
    DONE = 3  # confirmed on a bus
    EXPIRED_DONE = 4  # the same, of one that went out as EXPIRED


class Expired(IntEnum):
    """Of an input, as ingress decided it: such vectors enter windows and are not predicted."""

    NO = 0
    YES = 1  # too old on arrival
    ANSWERED_BEFORE = 2  # read again after the loss of the whole engine: its answer left before that


VERDICT_BITS = 3
VERDICTS = tuple(Verdict)  # by their numbers
FINISHED = (Verdict.DONE, Verdict.EXPIRED_DONE)


def verdict_word(position: int, verdict: Verdict) -> int:
    return position << VERDICT_BITS | verdict


def verdict_of(word: int, position: int) -> Verdict:
    """What a word says of an input; the words are used again and again."""
    known = word >> VERDICT_BITS == position
    return VERDICTS[word & (1 << VERDICT_BITS) - 1] if known else Verdict.NONE


class Count(IntEnum):
    """Indexes of `child_row.counters`; the metric names are derived from these."""

    MESSAGES = 0
    MESSAGE_BYTES = 1
    INPUTS_ACCEPTED = 2
    VECTORS_ACCEPTED = 3
    DUPLICATES = 4
    CONFLICTS = 5  # other bytes under a known name
    MISSING = 6  # sequences found missing
    LATE = 7
    REJECTED_MESSAGES = 8
    REJECTED_VECTORS = 9
    UNVERIFIED = 10  # refused before they could be answered
    UNVERIFIED_UNREPORTED = 11
    OVERLOADED = 12
    DROPPED = 13  # NATS inputs that found every place taken
    HEARTBEATS = 14
    TOKENS_VERIFIED = 15
    WINDOWS_EVICTED = 16
    REAPPLIED = 17  # inputs completed after a restart
    QUEUED = 18  # a gauge: messages waiting for a ring
    TENANTS = 19  # a gauge: heard in the last five minutes
    MICROBATCHES = 20
    PREDICTIONS = 21
    PREDICTIONS_EXPIRED = 22
    PREDICTIONS_DEGRADED = 23
    PREDICTIONS_WARMING = 24
    REPEATED = 25  # slots taken again after a crash
    SENT = 26
    SENT_BYTES = 27
    CONFIRMED = 28
    RESENT = 29
    EXPIRED_UNSENT = 30
    LOCAL_READERS = 31  # a gauge
    LOCAL_CUT = 32
    OUTBOX_BYTES = 33  # a gauge
    OUTBOX_DROPPED = 34
    UNREAD = 35  # answers for a company that nobody read for, on a host with the local bus alone
    KAFKA_TAKEN = 36  # records read from Kafka
    KAFKA_PUBLISHED = 37  # answers and reports that Kafka confirmed
    KAFKA_REFUSED = 38  # what Kafka will never take, as a body beyond its limit
    NATS_UNCONFIRMED = 39  # answers that went over Kafka because NATS did not confirm them in time
    POISONED = 44  # vectors answered `poison`
    DEAD_LETTERS = 45  # inputs that killed workers
    TAPE_INPUTS = 50  # on the tape with all that is known of them
    TAPE_BYTES = 51
    TAPE_STUCK = 52  # a gauge: 1 while it cannot be written
    TAPE_LOST = 53  # inputs that are in a hole
    TAPE_FAILURES = 54  # of writing
    TAPE_DUMPS = 55  # of the flight recorder


class Stage(IntEnum):
    """Histograms of a process: where the time of a vector goes."""

    INGRESS = 0  # received -> published to a worker
    RING_WAIT = 1  # received -> taken by a worker
    INFERENCE = 2  # taken -> answered
    EGRESS = 3  # answered -> handed to the bus
    ENGINE = 4  # received -> handed to the bus
    CONFIRM = 5  # handed to the bus -> confirmed
    BUS_LAG = 6  # first copy of a message -> the same one by another bus
    WORKER = 7  # taken -> answered, of an input's last vector: with EGRESS a part of the same input's ENGINE


class Seat(NamedTuple):
    """A child process's place in the tables."""

    row: int
    name: str


INGRESS, EGRESS, CONTROL = Seat(0, "ingress"), Seat(1, "egress"), Seat(2, "control")
KAFKA, WATCH = Seat(3, "kafka"), Seat(4, "watch")


def worker_seat(number: int) -> Seat:
    """Of the number-th worker process; which ring it serves is another matter (`child_row.seat`)."""
    return Seat(limits.FIXED_CHILDREN + number, f"worker-{number}")


def ring_bell(worker: int) -> int:
    """Doorbell of whoever serves ring `worker`; the rows below are the processes' own."""
    return limits.CHILDREN_MAX + worker


BELLS = limits.CHILDREN_MAX + limits.WORKERS_MAX


def regions(settings: Settings, workers: int) -> list[Region]:
    """Everything that processes share, in the order of the arena.

    | region | writer | readers |
    | --- | --- | --- |
    | supervisor, versions, feature_names, plans | supervisor | all |
    | children | each child its row | supervisor, control |
    | bells | each reader its word | whoever writes for it |
    | histograms | each child its rows | control |
    | ingress, streams, stream_states, keys, inputs | ingress | egress |
    | requests.k | ingress; tail: worker k | worker k |
    | windows | the worker that has the key's shard | it |
    | answers.k | worker k; tail: egress | egress |
    | verdicts | egress | ingress |
    | rejections | ingress; tail: egress | egress |
    | kafka | kafka | ingress |
    | partitions | kafka; what is settled, done and to be read again: ingress | both |
    | kafka_in | kafka; tail: ingress | ingress |
    | kafka_out | egress; tail: kafka, once Kafka confirmed it | kafka |

    The watch reads `inputs`, answers, verdicts, windows and the tables of keys, plans and versions from beside.
    """
    slots = settings.engine.requests_slots
    keys = settings.limits.keys_total
    streams = settings.limits.streams_total
    sizes = {
        "supervisor": layout.supervisor_board_dtype.itemsize,
        "versions": limits.VERSIONS_MAX * layout.version_row_dtype.itemsize,
        "feature_names": limits.FEATURE_NAMES_MAX * limits.FEATURE_NAME_BYTES,
        "plans": layout.plans_max * layout.plan_row_dtype.itemsize,
        "children": limits.CHILDREN_MAX * layout.child_row_dtype.itemsize,
        "bells": BELLS * layout.doorbell_word_dtype.itemsize,
        "histograms": limits.CHILDREN_MAX * layout.stages * layout.histogram_row_dtype.itemsize,
        "ingress": layout.ingress_board_dtype.itemsize,
        "streams": streams * layout.stream_row_dtype.itemsize,
        "stream_states": 2 * streams * layout.stream_state_dtype.itemsize,
        "keys": keys * layout.key_row_dtype.itemsize,
        "inputs": ByteRing.bytes_needed(settings.engine.inputs_mb << 20),
        "windows": keys * layout.window * layout.window_entry_dtype.itemsize,
        "verdicts": limits.INPUTS_IN_FLIGHT_MAX * 8,
        "rejections": Ring.bytes_needed(limits.REJECTION_SLOTS),
        "kafka": layout.kafka_board_dtype.itemsize,
        "partitions": limits.PARTITIONS_MAX * layout.partition_row_dtype.itemsize,
    }
    if settings.bus.kafka.bootstrap:
        sizes["kafka_in"] = sizes["kafka_out"] = ByteRing.bytes_needed(limits.KAFKA_RING_BYTES)
    for k in range(workers):
        sizes[f"requests.{k}"] = Ring.bytes_needed(slots)
        sizes[f"answers.{k}"] = Ring.bytes_needed(slots)
    return [Region(name, size) for name, size in sizes.items()]


class Shared:
    """A process's view of the arena: arrays over its regions, rings and doorbells."""

    def __init__(self, arena: Arena, settings: Settings, workers: int, bells: list[int]) -> None:
        streams, keys = settings.limits.streams_total, settings.limits.keys_total
        self.arena = arena
        self.workers = workers
        self.supervisor = arena.array("supervisor", layout.supervisor_board_dtype, 1)
        self.versions = arena.array("versions", layout.version_row_dtype, limits.VERSIONS_MAX)
        self.feature_names = arena.array(
            "feature_names", np.dtype(f"S{limits.FEATURE_NAME_BYTES}"), limits.FEATURE_NAMES_MAX
        )
        self.plans = arena.array("plans", layout.plan_row_dtype, layout.plans_max)
        self.children = arena.array("children", layout.child_row_dtype, limits.CHILDREN_MAX)
        self.histograms = arena.array("histograms", layout.histogram_row_dtype, (limits.CHILDREN_MAX, layout.stages))
        self.ingress = arena.array("ingress", layout.ingress_board_dtype, 1)
        self.streams = arena.array("streams", layout.stream_row_dtype, streams)
        self.stream_states = arena.array("stream_states", layout.stream_state_dtype, (streams, 2))
        self.keys = arena.array("keys", layout.key_row_dtype, keys)
        self.windows = arena.array("windows", layout.window_entry_dtype, (keys, layout.window))
        self.verdicts = arena.array("verdicts", np.dtype("u8"), limits.INPUTS_IN_FLIGHT_MAX)
        self.inputs = ByteRing(arena.memory("inputs"))
        self.rejections = Ring(arena.memory("rejections"), layout.report_slot_dtype)
        self.kafka = arena.array("kafka", layout.kafka_board_dtype, 1)
        self.partitions = arena.array("partitions", layout.partition_row_dtype, limits.PARTITIONS_MAX)
        self.kafka_in: ByteRing | None = None  # where there is no Kafka
        self.kafka_out: ByteRing | None = None
        if settings.bus.kafka.bootstrap:
            self.kafka_in, self.kafka_out = ByteRing(arena.memory("kafka_in")), ByteRing(arena.memory("kafka_out"))
        self.requests = [Ring(arena.memory(f"requests.{k}"), layout.request_slot_dtype) for k in range(workers)]
        self.answers = [
            Ring(arena.memory(f"answers.{k}"), layout.answer_slot_dtype, observed=True) for k in range(workers)
        ]
        words = arena.memory("bells")
        size = layout.doorbell_word_dtype.itemsize
        self.bells = [Doorbell(words[i * size : (i + 1) * size], fd) for i, fd in enumerate(bells)]

    def stage(self, seat: Seat, stage: Stage) -> Histogram:
        return Histogram(self.histograms[seat.row, stage : stage + 1])


def worker_count(settings: Settings, cores: int, gpus: int) -> int:
    """How many workers: as set, else one a GPU, else half of the cores that ingress and egress leave.

    The other half is for the host's other work: somebody trades there, and a worker that has a core of its own spins.
    """
    if settings.engine.workers != "auto":
        return int(settings.engine.workers)
    return max(1, min(gpus or (cores - 2) // 2, limits.WORKERS_MAX))
