"""From segments back to inputs in their order, each with what became of it.

Owns nothing but its place in the tape. Runs in the process that replays. Reads segments. What must stay
true: an input comes out once, in the order of positions, of one engine's run after the other; what is
missing or damaged is told and ends the reading, unless holes are to be skipped.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import TapeError
from engine.watch import tape
from engine.watch.tape import Part, Reader, Settled
from fastpath import layout


@dataclass(slots=True)
class Begin:
    """The state in which an engine's run, or what follows a hole, begins."""

    head: dict
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    windows: list[tuple[int, np.ndarray]] = field(default_factory=list)


@dataclass(slots=True)
class Taped:
    """An accepted input. `known`: what live made of it is on the tape whole."""

    position: int
    record: bytes
    worker: int = 0
    answers: np.ndarray | None = None  # answer_slot of each part
    expired: bool = False  # egress sent it as EXPIRED
    known: bool = False
    seen_ns: int = 0  # CLOCK_MONOTONIC, when the watch saw that it was sent


class Hole(TapeError):
    """Inputs are missing here."""


class Tape:
    """The segments of a folder or file.

    Parameters
    ----------
    skip_holes
        Go on behind what is missing, with the state that the next segment begins with.
    note
        Called with a sentence about each torn tail and each hole that is skipped.
    """

    def __init__(self, path: Path, skip_holes: bool = False, note=lambda text: None) -> None:
        self.path = path
        self.skip_holes = skip_holes
        self.note = note
        self.segments: list[tuple[Path, dict]] = []

    def open(self) -> "Tape":
        paths = tape.segments(self.path)
        for path in paths:
            try:
                self.segments.append((path, tape.read_head(path)))
            except TapeError as error:
                if not self.skip_holes and (path != paths[-1] or not self.segments):
                    raise
                self.note(str(error))
        if not self.segments:
            raise TapeError(f"{self.path}: expected a tape, a folder with segments or one of them; found none")
        return self

    def count(self) -> int:
        """About how many inputs there are."""
        total = 0
        runs: dict[int, list] = {}
        for path, head in self.segments:
            runs.setdefault(head["epoch"], [head["first"], path])[1] = path
        for first, path in runs.values():
            last = first
            try:
                for frame in Reader(path):
                    if frame.part == Part.SETTLED:
                        last = Settled.unpack(frame.body).position
            except TapeError:
                continue
            total += last - first + 1
        return total

    def before(self, position: int = 0, unix_ns: int = 0) -> int:
        """Index of the last segment from which that position, or time, can be reached."""
        if position and len({head["epoch"] for _, head in self.segments}) > 1:
            raise TapeError(f"{self.path}: the tape is of several runs of the engine; give a time, or a segment's file")
        early = [
            index
            for index, (_, head) in enumerate(self.segments)
            if head["whole"] and (head["first"] <= position if position else head["created_unix_ns"] <= unix_ns)
        ]
        return early[-1] if early else 0

    def find(self, company: str, stream: str, epoch: int, sequence: int) -> tuple[int, int]:
        """(position of the input of that name, index of the segment to begin at for it)."""
        for index, (path, head) in enumerate(self.segments):
            for frame in Reader(path):
                if frame.part != Part.INPUT:
                    continue
                record = np.frombuffer(frame.body, layout.input_record_dtype, 1)[0]
                if (record["epoch"], record["sequence"]) != (epoch, sequence):
                    continue
                if tape.name_of_record(frame.body)[0] == (company, stream):
                    position = int(record["position"])
                    run = [
                        n
                        for n, (_, each) in enumerate(self.segments[: index + 1])
                        if each["whole"] and each["epoch"] == head["epoch"] and each["first"] <= position
                    ]
                    if not run:
                        raise TapeError(f"{path}: no segment before position {position} has a state to begin at")
                    return position, run[-1]
        raise TapeError(f"{self.path}: no input {company}/{stream}/{epoch}/{sequence} is on this tape")

    def inputs(self, index: int = 0) -> Iterator[Begin | Taped]:
        """From a segment on. Raises `Hole` where inputs are missing, TapeError where a frame is damaged."""
        state = _Run(-1, 0)
        for path, head in self.segments[index:]:
            if head["epoch"] != state.epoch:
                yield from state.rest()
                state = _Run(head["epoch"], head["first"] - 1)
                state.begin = self._begin(path, head)
            reader = Reader(path)
            try:
                for frame in reader:
                    if frame.part == Part.HEAD and head["first"] > state.newest + 1:
                        yield from state.rest()
                        self._hole(path, state, int(head["first"]) - state.newest - 1)
                        state.newest, state.begin = head["first"] - 1, self._begin(path, head)
                    elif state.begin is not None and frame.part == Part.TABLE:
                        name, rows = tape.unpack_table(frame.body)
                        state.begin.tables[name] = rows
                    elif state.begin is not None and frame.part == Part.WINDOW:
                        state.begin.windows.append(tape.unpack_window(frame.body))
                    elif frame.part not in (Part.HEAD, Part.HOLE, Part.TABLE, Part.WINDOW):
                        if state.begin is not None:
                            yield state.begin
                            state.begin = None
                        yield from state.take(frame)
            except Hole:
                raise
            except TapeError as error:
                if not self.skip_holes:
                    raise
                self.note(str(error))
            if reader.torn_at >= 0:
                self.note(f"{path}: its end is torn and left out, from byte {reader.torn_at} on")
        if state.begin is not None:
            yield state.begin
        yield from state.rest()

    def _begin(self, path: Path, head: dict) -> Begin:
        if not head["whole"]:
            raise TapeError(f"{path}: the state of its beginning could not be copied; begin at another segment")
        return Begin(head)

    def _hole(self, path: Path, state: "_Run", missing: int) -> None:
        text = f"{path}: {missing} inputs are missing behind position {state.newest}"
        if not self.skip_holes:
            raise Hole(f"{text}; --skip-holes goes on behind them")
        self.note(text)


class _Run:
    """What was read of an engine's run and did not come out yet."""

    def __init__(self, epoch: int, newest: int) -> None:
        self.epoch = epoch
        self.newest = newest  # position of the last input read
        self.begin: Begin | None = None
        self.waiting: OrderedDict[int, Taped] = OrderedDict()

    def take(self, frame: tape.Frame) -> Iterator[Taped]:
        if frame.part == Part.INPUT:
            position = int.from_bytes(frame.body[8:16], "little")
            if position > self.newest + 1:
                raise TapeError(f"input {position} follows {self.newest} on the tape; expected {self.newest + 1}")
            if position > self.newest:  # a segment begins with what the one before has too
                self.waiting[position] = Taped(position, frame.body)
                self.newest = position
        elif frame.part == Part.SETTLED:
            settled = Settled.unpack(frame.body)
            while self.waiting and next(iter(self.waiting)) <= settled.position:
                _, taped = self.waiting.popitem(last=False)
                taped.known, taped.seen_ns = taped.answers is not None, settled.seen_ns
                yield taped
        elif (found := self.waiting.get(int.from_bytes(frame.body[:8], "little"))) is not None:
            if frame.part == Part.ANSWER:
                found.answers, found.worker = tape.unpack_answer(frame.body)[1], frame.worker
            elif frame.part == Part.EXPIRED:
                found.expired = True
            elif frame.part == Part.UNKNOWN:
                found.answers = None

    def rest(self) -> Iterator[Taped]:
        """What was not settled when the tape, or a part of it, ended."""
        while self.waiting:
            yield self.waiting.popitem(last=False)[1]
