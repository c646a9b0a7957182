"""A warm worker: what a message costs between its slots being published and its answers being published.

Owns the rounds; run as `python -m bench.worker`, in one process on one core, over the worker's own code: rings,
microbatch, windows, features, all models of the enterprise tier, SHAP values, ensemble. Prints a table, writes
`bench/results/worker.json`. The baseline is what the same models' files cost by ONNX Runtime and XGBoost themselves,
one thread each, with their inputs ready made.

A round is a minute of ten keys: 30 messages of one vector a key in turn, or of all ten, in shuffled order with the
same once more (A/A) and the baseline. A minute's first message closes the one before. What must stay true: windows
are full; a time is of the whole message, and what it put off is timed beside it and belongs to the core time; nothing
is left out, whatever the host did.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.figures import PERCENTILES, Ratio, ratio, table
from bench.plain_features import Inputs, Window
from bench.plain_service import Models
from bench.recorded import as_json, row_of, summary
from bench.rounds import Others, about, asked, heading, write
from bench.servers import BenchError
from engine import limits
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.names import Status
from engine.inference.microbatch import cut, judge, stamp
from engine.inference.predictor import Predictor
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from fastpath import layout
from fastpath.ring import Ring
from tests.inference.market import Market, walk, windows

STORE = Path(__file__).parent.parent / "models"
KEYS = 10
MESSAGES = 30  # of a minute
SIZES = (1, KEYS)  # vectors of a message
SLOTS = 64
MINUTE_NS = 60_000_000_000
FIRST_MINUTE = 29_000_000
WORKER, SAME, BASE = "worker", "worker-again", "libraries"
WHO = {WORKER: "the worker", SAME: "the same once more", BASE: "the models alone, by their libraries"}
PARTS = ("answer", "closing", "put off")
CORE = "core"  # processor time of all three, whatever else the host ran meanwhile
Times = dict[str, list[list[int]]]  # ns, of each round


class Worker:
    """The worker's own steps over rings of its own; no engine around it."""

    def __init__(self) -> None:
        manifests = read_store(STORE)
        versions = np.zeros(limits.VERSIONS_MAX, layout.version_row_dtype)
        names = np.zeros(limits.FEATURE_NAMES_MAX, f"S{limits.FEATURE_NAME_BYTES}")
        plans = np.zeros(layout.plans_max, layout.plan_row_dtype)
        fill_versions(manifests, versions, names)
        fill_plans(manifests, plans)
        self.requests = Ring(bytearray(Ring.bytes_needed(SLOTS)), layout.request_slot_dtype)
        self.answers = Ring(bytearray(Ring.bytes_needed(SLOTS)), layout.answer_slot_dtype)
        self.windows = windows(2 * len(SIZES) * KEYS)  # of each contender and size its own
        self.predictor = Predictor(STORE, versions, plans, np.zeros(1, layout.child_row_dtype), KEYS)
        self._verdicts = np.zeros(KEYS, np.uint8)
        self._keys, self._steps = np.zeros(KEYS, np.uint32), np.zeros(KEYS, np.int64)

    def open(self) -> None:
        self.predictor.load()

    def publish(self, slots: Sequence[np.void]) -> None:
        first = self.requests.claim(len(slots))
        for n, slot in enumerate(slots):
            self.requests.slots[(first + n) & self.requests.mask] = slot
        self.requests.publish(first + len(slots))

    def answer(self) -> int:
        """What lies in the ring, as one microbatch; how many answers. The steps of `engine.inference.loop`."""
        requests, answers = self.requests, self.answers
        position = requests.tail
        available = requests.peek(position)
        count = cut(requests.slots, position, available, limits.STEPS_SPARE, self._keys, self._steps)
        taken_ns = time.monotonic_ns()
        judge(requests.slots, position, count, taken_ns, self._verdicts)
        first = answers.claim(count)
        self.predictor.predict(
            requests.slots, position, count, self._verdicts, self.windows, answers.slots, first, taken_ns
        )
        answered_ns = time.monotonic_ns()
        stamp(answers.slots, first, count, answered_ns, (answered_ns - taken_ns) / 1e6)
        answers.publish(first + count)
        requests.release(position + count)
        return count

    def catch_up(self) -> None:
        while self.predictor.catch_up():
            pass

    def taken(self, count: int) -> list[int]:
        """Statuses of the answers, which are then egress's no more."""
        first, slots = self.answers.tail, self.answers.slots
        found = [int(slots[(first + n) & self.answers.mask]["status"]) for n in range(self.answers.peek(first))]
        self.answers.release(first + len(found))
        if len(found) != count:
            raise BenchError(f"worker: expected {count} answers, found {len(found)}")
        return found


class Contest:
    """Both ways over the same prices."""

    def __init__(self, seed: int) -> None:
        self.draw, self.rng = random.Random(seed), np.random.default_rng(seed)
        self.worker, self.models, self.market = Worker(), Models(STORE), Market()
        self.minute = 0
        self.statuses: dict[str, int] = {}
        self.times: dict[str, Times] = {
            f"{name}-{size}": {part: [] for part in (*PARTS, CORE)} for name in WHO for size in SIZES
        }

    def open(self) -> None:
        self.worker.open()
        self.models.open()
        self.walks = [walk(self.rng, layout.history_max) for _ in range(KEYS)]
        self.inputs = [self._inputs(each) for each in self.walks]

    def _inputs(self, history: np.ndarray) -> Inputs:
        vector = FeatureVector(symbol="EURUSD", timestamp_ns=FIRST_MINUTE * MINUTE_NS)
        vector.price_history.mid_prices.extend(history.tolist())
        quote = vector.price_features
        quote.mid_price = quote.bid = quote.ask = history[-1]
        return Window().see(vector)

    def round(self) -> None:
        """A minute of everyone."""
        for name in self.draw.sample(sorted(self.times), len(self.times)):
            who, _, size = name.rpartition("-")
            kept: dict[str, list[int]] = {each: [] for each in self.times[name]}
            for n in range(MESSAGES):
                if who == BASE:
                    self._by_libraries(int(size), n, kept)
                else:
                    self._by_worker(who, int(size), n, kept)
            for each, values in kept.items():
                self.times[name][each].append(values)
        self.market.given.clear()
        self.minute += 1

    def _by_worker(self, who: str, size: int, n: int, kept: dict[str, list[int]]) -> None:
        begin = KEYS * (2 * SIZES.index(size) + (who == SAME))
        places = range(KEYS) if size == KEYS else [n % KEYS]
        slots = [self._slot(begin, place, n) for place in places]
        self.worker.publish(slots)
        closes = any(each["opens"] for each in slots)
        began_ns = time.thread_time_ns()
        kept["closing" if closes else "answer"].append(timed(self.worker.answer))
        kept["put off"].append(timed(self.worker.catch_up))
        kept[CORE].append(time.thread_time_ns() - began_ns)
        for status in self.worker.taken(size):
            name = Status(status).name
            self.statuses[name] = self.statuses.get(name, 0) + 1

    def _slot(self, begin: int, place: int, n: int) -> np.void:
        event_ns = (FIRST_MINUTE + self.minute) * MINUTE_NS + (n + 1) * MINUTE_NS // (MESSAGES + 1)
        mid = float(self.walks[place][-1] * np.exp(self.rng.normal(0.0, 1e-4)))
        slot = self.market.vector(
            begin + place, event_ns, mid, history=self.walks[place], correlations=(0.1, 0.2, 0.3, 0.4, 0.5)
        )
        slot["deadline_ns"] = 1 << 62
        return slot

    def _by_libraries(self, size: int, n: int, kept: dict[str, list[int]]) -> None:
        inputs = self.inputs if size == KEYS else [self.inputs[n % KEYS]]
        began_ns = time.thread_time_ns()
        kept["answer"].append(timed(lambda: self._models_of(inputs)))
        kept[CORE].append(time.thread_time_ns() - began_ns)

    def _models_of(self, inputs: list[Inputs]) -> None:
        for said, given in zip(self.models.run(inputs), inputs, strict=True):
            members = [1.0, *said.move.tolist(), *said.rise.tolist(), 1.0, *said.pattern.tolist(), 1.0]
            self.models.decide([*members, *said.margin.tolist(), given.trend])


def timed(function: Callable[[], Any]) -> int:
    began_ns = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - began_ns


def core_ns(found: Times, size: int) -> float:
    """Of a vector, what was put off and closed minutes included: the mean over whole minutes."""
    return sum(value for part in found[CORE] for value in part) / (len(found[CORE]) * MESSAGES * size)


def further_ns(times: dict[str, Times], who: str) -> float:
    """What one more vector in a message costs: of medians, round by round, the middle."""
    many, one = (times[f"{who}-{size}"]["answer"] for size in (KEYS, 1))
    return median((median(a) - median(b)) / (KEYS - 1) for a, b in zip(many, one, strict=True) if a and b)


def ratio_to(times: dict[str, Times], over: str, under: str, size: int) -> Ratio:
    return ratio(times[f"{over}-{size}"]["answer"], times[f"{under}-{size}"]["answer"])


def microseconds(value_ns: float | None) -> str:
    return "-" if value_ns is None else f"{value_ns / 1e3:.1f}"


def as_text(times: dict[str, Times], statuses: dict[str, int]) -> str:
    rows = []
    for size in SIZES:
        for who, words in WHO.items():
            found = times[f"{who}-{size}"]
            under = WORKER if who == SAME else BASE
            of = ratio_to(times, who, under, size)
            for part in PARTS:
                values = [value for each in found[part] for value in each]
                if not values:
                    continue
                told = summary(row_of(values))
                cells = [microseconds(told.percentiles_ns[percent]) for percent in PERCENTILES]
                last = f"{of.middle:.2f} ({of.low:.2f} to {of.high:.2f}) of {under}" if part == "answer" else ""
                rows.append([f"{size} x: {words}, {part}", str(told.messages), *cells, microseconds(told.max_ns), last])
    head = ["us", "messages", *(f"p{percent:g}" for percent in PERCENTILES), "max", "ratio of medians, round by round"]
    lines = [table(head, rows), ""]
    for who in (WORKER, SAME, BASE):
        costs = ", ".join(
            f"{microseconds(core_ns(times[f'{who}-{size}'], size))} at {size} a message" for size in SIZES
        )
        lines.append(f"{WHO[who]}: core us a vector {costs}; one more vector {microseconds(further_ns(times, who))} us")
    return "\n".join([*lines, f"answers: {', '.join(f'{count} {name}' for name, count in sorted(statuses.items()))}"])


def main(words: Sequence[str] | None = None) -> int:
    each = f"a minute of {MESSAGES} messages in each way"
    arguments = asked("worker", __doc__.split("\n")[0], 60, each, words)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    others, contest = Others(), Contest(arguments.seed)
    contest.open()
    for _ in range(2):  # windows fill from the history, lanes and caches with them
        contest.round()
    for found in contest.times.values():
        for parts in found.values():
            parts.clear()
    contest.statuses.clear()
    for _ in range(arguments.rounds):
        contest.round()
    times = contest.times
    facts = about(arguments, others.cores())
    print(heading(f"a message through a warm worker, enterprise tier, windows full; a round has {each}", facts))
    print(as_text(times, contest.statuses))
    first = {who: [value for part in times[f"{who}-1"]["answer"] for value in part] for who in (WORKER, BASE)}
    figures = {
        "first": {"measured": median(first[WORKER]), "baseline": median(first[BASE])},
        "further": {"measured": further_ns(times, WORKER), "baseline": further_ns(times, BASE)},
        "core": {"measured": core_ns(times[f"{WORKER}-1"], 1), "baseline": core_ns(times[f"{BASE}-1"], 1)},
    }
    ways = {
        name: {part: [as_json(row_of(each)) for each in parts if each] for part, parts in found.items()}
        for name, found in times.items()
    }
    write(
        arguments.results,
        {"benchmark": "worker", **facts, "figures": figures, "statuses": contest.statuses, "ways": ways},
    )
    return 0 if set(contest.statuses) <= {Status.OK.name, Status.DEGRADED.name} else 1


if __name__ == "__main__":
    sys.exit(main())
