"""Taped inputs through the worker's own code: slots, windows, models, answers.

Owns windows, a requests and an answers ring of its own, a predictor. Runs in the process that replays, no
arena and no bus beside it. Reads taped inputs, gives an answer to each. What must stay true: what follows
from slots and windows is computed; what live decided by a clock or a failure (expired, a model that could not be
asked, a vector that broke something) comes from the tape.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import limits, records
from engine.contract.names import Kind, Status
from engine.egress.encoding import Versions
from engine.errors import TapeError
from engine.inference.batch import EXPIRED, PASS, PREDICT
from engine.inference.microbatch import cut, stamp
from engine.inference.models.cuda import Device
from engine.inference.predictor import Predictor
from engine.ingress.reading import read_batch, read_envelope
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from engine.replay.fallbacks import NOBODY, Chains
from engine.replay.reading import Begin, Taped
from engine.shared import Breaker
from fastpath import layout
from fastpath.ring import ByteRing, Ring
from fastpath.slots import fill_slots
from fastpath.vectors import Batch

SLOTS = 1024  # of the rings: microbatches and a message fit many times
RECORD_BYTES = 8 << 20


@dataclass(slots=True)
class Answered:
    """An input with both its answers' slots."""

    taped: Taped
    record: records.Record
    begin: Begin
    versions: Versions
    requests: np.ndarray  # request_slot of each part
    slots: np.ndarray  # answer_slot of each part
    windows: np.ndarray  # the answerer's own, which go on with what it takes next


class Answerer:
    """`begin`, then `take` inputs; `run` gives what is answered.

    Parameters
    ----------
    current_models
        Answer with what the store holds now in place of the versions that the tape names.
    """

    def __init__(self, store: Path, max_batch: int, current_models: bool = False, device: Device | None = None) -> None:
        self.store = store
        self.device = device
        self.max_batch = max_batch
        self.current_models = current_models
        self.requests = Ring(bytearray(Ring.bytes_needed(SLOTS)), layout.request_slot_dtype)
        self.answers = Ring(bytearray(Ring.bytes_needed(SLOTS)), layout.answer_slot_dtype)
        self.inputs = ByteRing(bytearray(ByteRing.bytes_needed(RECORD_BYTES)))
        self.batch = Batch()
        self._verdicts = np.zeros(max_batch, np.uint8)
        self._keys, self._steps = np.zeros(max_batch, np.uint32), np.zeros(max_batch, np.int64)
        self._position = 0  # of the first slot that is not answered
        self._end = 0
        self._waiting: deque[tuple[Taped, records.Record, int]] = deque()
        self._live: dict[int, np.void] = {}  # taped answers by request position
        self._predictor: Predictor | None = None
        self._tables: bytes = b""

    chains: Chains

    def begin(self, begin: Begin) -> None:
        """Takes a state over. Everything before must have been answered."""
        self._begin = begin
        self.windows = np.zeros((begin.head["keys"], layout.window), layout.window_entry_dtype)
        for row, entries in begin.windows:
            self.windows[row] = entries
        versions, plans = begin.tables["versions"], begin.tables["plans"]
        names = begin.tables["feature_names"]
        if self.current_models:
            versions, names = np.zeros_like(versions), np.zeros_like(names)
            manifests = read_store(self.store)
            fill_versions(manifests, versions, names)
            fill_plans(manifests, plans)
        else:
            self._refuse_others(versions)
        for name in ("breaker", "probe_worker", "probe_number"):
            versions[name] = 0
        self.names = Versions(versions, names)
        tables = versions.tobytes() + plans.tobytes()
        if tables != self._tables:
            self._tables, self._versions, self._plans = tables, versions, plans
            self.chains = Chains(versions, plans)
            child = np.zeros(1, layout.child_row_dtype)
            self._predictor = Predictor(self.store, versions, plans, child, self.max_batch, self.device)
            self._predictor.load()

    def _refuse_others(self, versions: np.ndarray) -> None:
        found = {(each.id, each.version): each.sha256 for each in read_store(self.store)}
        for row in np.flatnonzero(versions["taken"]).tolist():
            name = versions[row]["model_id"].decode(), versions[row]["version"].decode()
            sha256 = versions[row]["sha256"].decode()
            if sha256 and found.get(name) != sha256:
                raise TapeError(
                    f"{self.store}: model {name[0]} {name[1]}: expected sha256 {sha256}, as the tape names it, found "
                    f"{found.get(name, 'no such version')}; replay with that store, or with --current-models"
                )

    def take(self, taped: Taped) -> Iterator[Answered]:
        """Its slots into the ring; what was answered meanwhile comes out."""
        at = self._enter(taped.record)
        record = records.read(self.inputs, at)
        count = record.head.count
        yield from self._run(SLOTS - count)
        if record.head.kind == Kind.VECTOR:
            read_batch(self.batch, read_envelope(record.raw).payload)
        fill_slots(self.requests, self.inputs, at, self.batch)
        if taped.answers is not None:
            self._live.update((self._end + n, slot) for n, slot in enumerate(taped.answers))
        self._waiting.append((taped, record._replace(raw=b""), self._end))
        self._end += count

    def finish(self) -> Iterator[Answered]:
        yield from self._run(0)

    def _enter(self, record: bytes) -> int:
        """Where it lies now, with its slots at the end of the own ring."""
        at = self.inputs.claim(len(record))
        self.inputs.view(at, len(record))[:] = record
        head = np.frombuffer(self.inputs.view(at, records.HEAD_BYTES), layout.input_record_dtype)
        head["requests"] = self._end
        self.inputs.publish(at + len(record))
        self.inputs.release(at + len(record))
        return at

    def _run(self, slots_max: int) -> Iterator[Answered]:
        """Microbatches until at most so many slots wait; whole ones, unless nothing may wait."""
        if self._end - self._position <= slots_max:
            return
        while (available := self._end - self._position) > 0 and (available >= self.max_batch or slots_max == 0):
            self._microbatch(min(available, self.max_batch))
            yield from self._answered()

    def _microbatch(self, available: int) -> None:
        assert self._predictor is not None
        first, slots = self._position, self.requests.slots
        count = cut(slots, first, available, limits.STEPS_SPARE, self._keys, self._steps)
        count, denied = self._judge(first, count)
        self._versions["breaker"] = Breaker.CLOSED
        self._versions["breaker"][list(denied)] = Breaker.OPEN
        verdicts, answers = self._verdicts[:count], self.answers.slots
        self._predictor.predict(slots, first, count, verdicts, self.windows, answers, first, time.monotonic_ns())
        stamp(answers, first, count, 0, 0.0)
        for position in range(first, first + count):
            live = self._live.pop(position, None)
            slot = answers[position & self.answers.mask]
            if live is not None and live["status"] == Status.REJECTED and slot["reason"] == 0:
                slot["status"], slot["reason"] = Status.REJECTED, live["reason"]
        self._position = first + count

    def _judge(self, first: int, count: int) -> tuple[int, frozenset[int]]:
        """A verdict for each slot as live had it; ends before a slot for which other models could not be asked."""
        together: frozenset[int] | None = None
        for n in range(count):
            slot = self.requests.slots[(first + n) & self.requests.mask]
            live = self._live.get(first + n)
            status = int(live["status"]) if live is not None else 0
            if slot["kind"] != Kind.VECTOR or slot["reason"] or status == Status.REJECTED:
                self._verdicts[n] = PASS
                continue
            if status == Status.EXPIRED or slot["expired"]:
                self._verdicts[n] = EXPIRED
                continue
            denied = NOBODY
            if live is not None and not self.current_models:
                denied = self.chains.denied(int(slot["plan"]) or min(int(slot["tier"]), 3), live)
            if together is not None and denied != together:
                return n, together
            together = denied
            self._verdicts[n] = PREDICT
        return count, together or NOBODY

    def _answered(self) -> Iterator[Answered]:
        while self._waiting:
            taped, record, first = self._waiting[0]
            end = first + record.head.count
            if end > self._position:
                return
            self._waiting.popleft()
            places = [position & self.answers.mask for position in range(first, end)]
            yield Answered(
                taped,
                record,
                self._begin,
                self.names,
                self.requests.slots[places],
                self.answers.slots[places],
                self.windows,
            )
