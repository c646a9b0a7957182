"""A recording over a real arena: inputs through a real sequencer, the rest stood in for."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine import limits
from engine.settings import Settings, Tape
from engine.shared import Count, Shared, Verdict, verdict_word
from engine.watch.recording import Recording
from engine.watch.sinks import Folder, last_settled
from engine.watch.tape import Frame, Part, Reader, Settled, segments
from tests.egress.stand import answer
from tests.ingress.stand import SMALL, Sender, Stand, vector

LOG = logging.getLogger("watch")


def with_tape(folder: Path, **changes) -> Settings:
    return replace(SMALL, tape=Tape(path=str(folder), **changes))


class Watched:
    """What a test sends, answers, sends off and looks at."""

    def __init__(self, shared: Shared, settings: Settings) -> None:
        self.shared = shared
        self.settings = settings
        self.shared.supervisor[0]["epoch"] = 1_700_000_000_000_000_000
        self.ingress = Stand(shared, settings)
        self.sender = Sender()
        self.minute = 0.0
        self.folder = Path(settings.tape.path)
        self.counters = np.zeros(64, np.uint64)
        self.open()

    def open(self) -> None:
        """A watch; again: its successor after a death."""
        self.sink = Folder(self.settings.tape, LOG)
        self.recording = Recording(self.shared, self.settings, self.sink, self.counters, LOG)
        epoch = int(self.shared.supervisor[0]["epoch"])
        self.recording.open(*last_settled(self.folder, epoch, LOG))

    def die(self) -> None:
        """As after SIGKILL: the lock is gone, nothing more is written."""
        os.close(self.sink._lock)
        self.sink.end()

    def send(self, count: int = 1, step: float = 0.01, mid: float = 1.1) -> None:
        for _ in range(count):
            self.minute += step
            assert self.ingress.take(self.sender.batch(vector("EURUSD", self.minute, mid)))

    def answer(self) -> None:
        answer(self.shared)

    def sent_off(self, verdict: Verdict = Verdict.DONE, last: int | None = None) -> None:
        """Egress is done with every input; the room may be used again."""
        last = last or self.ingress.sequencer.next_position - 1
        for position in range(max(1, last - 300), last + 1):
            place = position & (limits.INPUTS_IN_FLIGHT_MAX - 1)
            if int(self.shared.verdicts[place]) >> 3 != position:
                self.shared.verdicts[place] = verdict_word(position, verdict)
        for ring in self.shared.answers:
            ring.release(ring.head)
        self.ingress.sequencer.advance_tail()

    def through(self, count: int) -> None:
        """Sent, answered, sent off, in parts that fit the rings, without a look."""
        for done in range(0, count, 16):
            self.send(min(16, count - done))
            self.answer()
            self.sent_off()

    def count(self, name: Count) -> int:
        return int(self.counters[name])

    def frames(self) -> list[Frame]:
        return [frame for path in segments(self.folder) for frame in Reader(path)]

    def positions(self, part: Part) -> list[int]:
        at = 8 if part == Part.INPUT else 0
        return [int.from_bytes(each.body[at : at + 8], "little") for each in self.frames() if each.part == part]

    def settled(self) -> int:
        return Settled.unpack([each for each in self.frames() if each.part == Part.SETTLED][-1].body).position
