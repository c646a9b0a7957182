"""The recording: every accepted input, what became of it, in order, into segments.

Owns the read positions in `inputs` and the answers rings, and what is not settled yet. Runs in the watch
process. Reads the arena from beside, writes frames to a sink and this process's counters. What must stay
true: it never gates; what it could not see or write is told as a hole; a segment begins with every input
that was not settled before it, so that replay can begin at each.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from logging import Logger

import numpy as np
import orjson

from engine import limits
from engine.settings import Settings, digest
from engine.shared import FINISHED, VERDICT_BITS, Count, Shared, Verdict, verdict_of
from engine.watch import state, tape
from engine.watch.sinks import Sink
from engine.watch.tape import Part, Settled, frame
from fastpath import layout
from fastpath.ring import Observer

CHUNK_BYTES = 4 << 20  # more than a record, and what is copied of `inputs` at a time
CHUNK_SLOTS = 256
COPIES = 3  # tries to copy the windows before keys went on too far
RETRY_S = 5.0  # after a write failed
AGAIN_S = 1.0  # after the windows could not be copied, because keys went on or a bus is away for long
LONGER = 4  # times its length that a segment may have until they can
VERSION = "0.1.0"


@dataclass(slots=True)
class Pending:
    """An input that is not settled: its answer, or what egress made of it, is not known yet."""

    record: bytes
    at: int  # byte position in `inputs`
    worker: int
    answer: bytes = b""  # its frame
    answer_at: int = -1  # position of its first slot in the answers ring
    finished: bool = False  # egress was done with it at the look before, and its answer not seen


class Recording:
    """`open`, then `look` again and again, then `close`."""

    def __init__(self, shared: Shared, settings: Settings, sink: Sink, counters: memoryview, log: Logger) -> None:
        self.shared = shared
        self.settings = settings
        self.sink = sink
        self.counters = counters
        self.log = log
        self.pending: OrderedDict[int, Pending] = OrderedDict()
        self.written = -1  # all up to this position is settled, and in the sink or in a hole; -1: nothing was seen
        self.settled = 0
        self.number = 1
        self.is_open = False  # a segment takes frames
        self._adrift = True  # something was missed, and how much the next input tells
        self._whole = True  # replay can begin at the segment
        self._retry_s = 0.0  # when one that is not whole, or not open, is followed by the next
        self._told = ""
        self._bytes = self._state_bytes = 0  # of the segment: behind its state, and of that
        self._buffer = bytearray()
        self._inputs = Observer(shared.inputs)
        self._answers = [Observer(ring) for ring in shared.answers]
        self._chunk = np.empty(min(CHUNK_BYTES, shared.inputs.capacity // 2), np.uint8)
        self._parts: list[list[np.ndarray]] = [[] for _ in shared.answers]

    def open(self, settled: Settled | None = None, number: int = 1) -> None:
        """Begins; `settled` and `number` are what an earlier watch of this engine left."""
        self.number = number
        self._begin_at_tails()
        if settled is not None and len(settled.answers) == self.shared.workers:
            self._adrift = False
            self.written = self.settled = settled.position
            self._cursor, self._cursors = settled.inputs, list(settled.answers)
        self.look()

    def look(self) -> bool:
        """Takes what came since the last look. Whether there was something."""
        before = self._cursor, self._cursors.copy(), self.settled
        if not self._read():
            self.log.warning("the watch was too slow: what it had not read was overwritten; a hole is written")
            self._missed()
        if not self.is_open and self._is_due():  # before anything is settled that would be in no segment
            self._begin_segment()
        self._settle()
        self._flush()
        if self.is_open and self._is_due():
            self._begin_segment()
        return before != (self._cursor, self._cursors, self.settled)

    def close(self) -> None:
        """Ends the segment."""
        if self.is_open:
            self._buffer += frame(Part.END, b"")
            self._flush()
        if self.is_open:
            self.sink.end()
            self.is_open = False

    # -- reading -----------------------------------------------------------------------------------

    def _begin_at_tails(self) -> None:
        """Forgets what is not settled, and goes on at the oldest input that is not done."""
        self.pending.clear()
        self._adrift = True
        self._cursors = [ring.tail for ring in self.shared.answers]
        self._cursor = self.shared.inputs.tail
        self._last_request = [-1] * self.shared.workers
        for parts in self._parts:
            parts.clear()

    def _missed(self) -> None:
        """What comes next is behind a hole, so it belongs to another segment, with a state of then."""
        self.close()
        self._retry_s = 0.0
        self._begin_at_tails()

    def _read(self) -> bool:
        """All that was published. False: some of it was overwritten."""
        heads = [ring.head for ring in self.shared.answers]  # before the inputs: none is answered before it is there
        return self._take_inputs() and all(self._take_answers(k, head) for k, head in enumerate(heads))

    def _take_inputs(self) -> bool:
        """Every published record. False: some were overwritten."""
        ring = self.shared.inputs
        while (available := ring.head - self._cursor) > 0:
            chunk = self._chunk[: min(available, len(self._chunk))]
            if not self._inputs.copy(self._cursor, chunk):
                return False
            words, at, size = chunk[: len(chunk) & ~7].view("u8"), 0, len(chunk)
            while at + 8 <= size:
                count, left = int(words[at >> 3]), ring.capacity - ((self._cursor + at) & ring.mask)
                if at + count > size and not (at + 16 > size or count > len(self._chunk)):
                    break  # the rest comes with the next chunk
                if not 8 <= count <= left or count % 8 or at + count > size:
                    raise RuntimeError(f"record at byte {self._cursor + at} of {count} bytes: the arena is corrupt")
                if left > 8 and (position := int(words[(at >> 3) + 1])):
                    self._take_input(position, bytes(chunk[at : at + count]), self._cursor + at)
                at += count
            self._cursor += at
        return True

    def _take_input(self, position: int, record: bytes, at: int) -> None:
        if self._adrift:
            self._adrift, self.settled = False, position - 1
            self.written = self.settled if self.written < 0 else self.written
        if position <= self.settled:
            return
        worker = int(np.frombuffer(record, layout.input_record_dtype, 1)["worker"][0])
        self.pending[position] = Pending(record, at, worker)
        self._emit(frame(Part.INPUT, record))

    def _take_answers(self, k: int, head: int) -> bool:
        """Answers of ring `k` below `head`. False: some were overwritten."""
        while (count := min(head - self._cursors[k], CHUNK_SLOTS)) > 0:
            slots = np.empty(count, layout.answer_slot_dtype)
            if not self._answers[k].copy(self._cursors[k], slots):
                return False
            raw = slots.view(np.uint8).reshape(count, -1)
            fields = (slots[name].tolist() for name in ("request", "input", "index", "count"))
            for n, (request, position, index, of) in enumerate(zip(*fields, strict=True)):
                if request <= self._last_request[k]:
                    continue  # given again after a worker died: the first stands, as egress reads it
                self._last_request[k] = request
                parts = self._parts[k]
                if index == 0:
                    parts.clear()
                parts.append(raw[n : n + 1])
                if len(parts) == of == index + 1:
                    self._take_answer(k, position, np.concatenate(parts), self._cursors[k] + n + 1 - of)
                    parts.clear()
            self._cursors[k] += count
        return True

    def _take_answer(self, k: int, position: int, slots: np.ndarray, at: int) -> None:
        if (pending := self.pending.get(position)) is not None and not pending.answer:
            pending.answer, pending.answer_at = tape.pack_answer(position, k, slots), at
            self._emit(pending.answer)

    def _settle(self) -> None:
        """Oldest first: what is answered and was sent, or never will be known."""
        verdicts, before = self.shared.verdicts, self.settled
        while self.pending:
            position, pending = next(iter(self.pending.items()))
            word = int(verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)])
            verdict = verdict_of(word, position)
            gone = word >> VERDICT_BITS > position  # the word tells of a later input by now
            if verdict == Verdict.NONE and not gone:
                break
            if not pending.answer and not gone and not pending.finished:
                pending.finished = verdict in FINISHED  # its answer is in what the next look reads, or was before
                break
            if gone or not pending.answer:
                self._emit(frame(Part.UNKNOWN, position.to_bytes(8, "little")))
            elif verdict in (Verdict.EXPIRED, Verdict.EXPIRED_DONE):
                self._emit(frame(Part.EXPIRED, position.to_bytes(8, "little")))
            del self.pending[position]
            self.settled = position
            self.counters[Count.TAPE_INPUTS] += self.is_open
        if self.settled != before:
            self._emit(frame(Part.SETTLED, self._settled().pack()))

    def _settled(self) -> Settled:
        """Where a watch that goes on from here begins to read."""
        first = next(iter(self.pending.values()), None)
        answers = self._cursors.copy()
        for k, parts in enumerate(self._parts):
            answers[k] -= len(parts)
        for pending in self.pending.values():
            if pending.answer_at >= 0:
                answers[pending.worker] = min(answers[pending.worker], pending.answer_at)
        return Settled(
            self.settled, time.monotonic_ns(), first.at if first is not None else self._cursor, tuple(answers)
        )

    # -- writing -----------------------------------------------------------------------------------

    def _emit(self, data: bytes) -> None:
        if self.is_open:
            self._buffer += data

    def _flush(self) -> None:
        if not self.is_open or not self._buffer:
            return
        try:
            self.sink.write(self._buffer)
        except OSError as error:
            self._failed(error)
        else:
            self._bytes += len(self._buffer)
            self.counters[Count.TAPE_BYTES] += len(self._buffer)
            self.written = self.settled
        self._buffer.clear()

    def _failed(self, error: OSError) -> None:
        """Told once for each reason; tried again later, from the state of then."""
        self.is_open = False
        self._retry_s = time.monotonic() + RETRY_S
        self.counters[Count.TAPE_FAILURES] += 1
        self.counters[Count.TAPE_STUCK] = 1
        if str(error) != self._told:
            self._told = str(error)
            self.log.error("the tape cannot be written: %s; predictions go on, and it is tried again", error)

    def _is_due(self) -> bool:
        if self._adrift:
            return False
        full = self._bytes >= max(self.sink.segment_bytes, self._state_bytes)
        return (full or not self.is_open or not self._whole) and time.monotonic() >= self._retry_s

    def _begin_segment(self) -> None:
        """The next segment: where it begins, the state of then, and what is not settled yet."""
        steps, windows = state.Steps(self.shared), []
        for _ in range(COPIES):
            if not self._take_inputs():  # what came until now still belongs to the segment before
                self._missed()
                return
            self._flush()
            steps.before(each.record for each in self.pending.values())
            windows = state.copy_windows(self.shared)
            if not (too_far := steps.too_far()):
                break
            steps = state.Steps(self.shared)
        self._retry_s = time.monotonic() + AGAIN_S if too_far else 0.0
        if too_far and self.is_open and self._bytes < LONGER * self.sink.segment_bytes:
            return
        first = next(iter(self.pending), self.settled + 1)
        lost = first - self.written - 1
        self.close()
        opening = [self._opening(first, lost, not too_far)]
        for window in windows if not too_far else ():
            opening.append(tape.pack_window(*window))
            if not self._read():  # it takes a while, and the rings go on
                self._missed()
                return
        self._state_bytes = sum(map(len, opening))
        opening += [frame(Part.INPUT, each.record) + each.answer for each in self.pending.values()]
        try:
            self.sink.begin(tape.name_of(int(self.shared.supervisor[0]["epoch"]), self.number), b"".join(opening))
            self.number += 1
        except OSError as error:
            self._failed(error)
            return
        if self._told:
            self.log.info("the tape is written again; %d inputs are missing", lost)
        if too_far:
            self.log.info("%d keys went on while their windows were copied; replay cannot begin here", too_far)
        self.is_open, self._whole, self._told, self._bytes = True, not too_far, "", 0
        self.counters[Count.TAPE_LOST] += lost
        self.counters[Count.TAPE_STUCK] = 0
        self.written = self.settled = first - 1
        self._buffer += frame(Part.SETTLED, self._settled().pack())
        self._flush()

    def _opening(self, first: int, lost: int, whole: bool) -> bytes:
        board, versions = self.shared.supervisor[0], self.shared.versions
        models = [
            {name: versions[row][name].decode() for name in ("model_id", "version", "sha256")}
            for row in np.flatnonzero(versions["taken"])
        ]
        head = {
            "engine": self.settings.engine.name,
            "epoch": int(board["epoch"]),
            "number": self.number,
            "first": first,
            "whole": whole,  # replay can begin here
            "created_unix_ns": time.time_ns(),
            "version": VERSION,
            "layout": tape.LAYOUT,
            "settings": digest(self.settings).hex(),
            "keys": len(self.shared.keys),
            "workers": self.shared.workers,
            "models": models,
        }
        start = tape.MAGIC + tape.FORMAT.to_bytes(4, "little")
        hole = frame(Part.HOLE, lost.to_bytes(8, "little")) if lost else b""
        return start + frame(Part.HEAD, orjson.dumps(head)) + hole + b"".join(state.tables(self.shared))
