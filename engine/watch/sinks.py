"""Where segments go: files of a folder, or memory that is written out when something went wrong.

Owns the tape's folder and the segment that is open in it; of the flight recorder the last segments, in
memory. Runs in the watch process. What must stay true: a file has its name only with all that a segment begins with,
never holds more than was written whole, and is its user's alone; what is kept is bounded by size and age, and the
open segment is never removed.
"""

import fcntl
import os
import time
from collections import deque
from logging import Logger
from pathlib import Path
from typing import Protocol

from engine.settings import Tape
from engine.watch import tape

SHARES = 4  # of the flight recorder's memory: a segment each, of which the oldest goes
MEBI = 1 << 20


class Sink(Protocol):
    segment_bytes: int  # after which a segment is followed by the next

    def begin(self, name: str, opening: bytes) -> None:
        """Opens a segment with what it begins with; OSError, and there is no such segment, where that cannot be."""

    def write(self, data: bytes | bytearray) -> None:
        """All of it or nothing; OSError where it cannot be, and the segment is closed."""

    def end(self) -> None:
        """Closes the segment."""


class Folder:
    """Segments as files. A second engine's tape cannot be in the same folder: it is locked."""

    def __init__(self, settings: Tape, log: Logger) -> None:
        self.path = Path(settings.path)
        self.settings = settings
        self.segment_bytes = settings.segment_mb * MEBI
        self.log = log
        self._lock = self._file = -1
        self._good = 0  # bytes of the open segment that were written whole

    def open(self) -> None:
        if self._lock < 0:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._lock)
                self._lock = -1
                raise
            for left in self.path.glob(".*.tape"):  # by a watch that died before it had named it
                left.unlink()

    def begin(self, name: str, opening: bytes) -> None:
        self.open()
        unfinished = self.path / f".{name}"
        self._file = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
        self._good = 0
        try:
            self.write(opening)
            unfinished.rename(self.path / name)
        except OSError:  # tried again and again, it would fill the folder with nothing
            self.end()
            unfinished.unlink()
            raise
        tidy(self.path, self.settings, self.log)

    def write(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self._good)
            self.end()
            raise
        self._good += len(data)

    def end(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Memory:
    """The last segments, of at most `recorder_mb` together."""

    def __init__(self, settings: Tape) -> None:
        self.settings = settings
        self.bytes_max = settings.recorder_mb * MEBI
        self.segment_bytes = self.bytes_max // (2 * SHARES)  # beside a state of the same size
        self.segments: deque[tuple[str, bytearray]] = deque()

    def begin(self, name: str, opening: bytes) -> None:
        self.segments.append((name, bytearray()))
        self.write(opening)

    def write(self, data: bytes | bytearray) -> None:
        self.segments[-1][1].extend(data)
        while len(self.segments) > 1 and sum(len(content) for _, content in self.segments) > self.bytes_max:
            self.segments.popleft()

    def end(self) -> None:
        """Nothing to close."""

    def dump(self, log: Logger) -> Path:
        """Writes what there is; again later, the segments that grew are written anew."""
        folder = Path(self.settings.recorder_path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, content in self.segments:
            unfinished = folder / f".{name}"
            unfinished.write_bytes(content)
            unfinished.rename(folder / name)
        tidy(folder, self.settings, log)
        return folder


def tidy(folder: Path, settings: Tape, log: Logger) -> None:
    """Removes the oldest segments that are too many or too old; the newest stays."""
    kept = [(path, path.stat()) for path in tape.segments(folder)]
    total = sum(status.st_size for _, status in kept)
    oldest_s = time.time() - settings.keep_hours * 3600
    for path, status in kept[:-1]:
        if total <= settings.keep_mb * MEBI and status.st_mtime >= oldest_s:
            break
        path.unlink()
        total -= status.st_size
        log.info("%s is removed: tape.keep_mb = %d, tape.keep_hours = %d", path, settings.keep_mb, settings.keep_hours)


def last_settled(folder: Path, epoch: int, log: Logger) -> tuple[tape.Settled | None, int]:
    """What an earlier watch of this engine left: where it was, and the next segment's number. Cuts a torn tail."""
    found = tape.segments(folder)
    settled, number = None, 1
    for path in found[-1:]:
        match = tape.NAME.fullmatch(path.name)
        own = match is not None and int(match[1]) == epoch
        reader = tape.Reader(path)
        try:
            for frame in reader:
                if own and frame.part == tape.Part.SETTLED:
                    settled = tape.Settled.unpack(frame.body)
        except tape.TapeError as error:
            log.error("%s", error)
        if reader.torn_at >= 0:
            log.warning("%s: cut at byte %d of %d: its end is torn", path, reader.torn_at, path.stat().st_size)
            os.truncate(path, reader.torn_at)
        if own and match is not None:
            number = int(match[2]) + 1
    return settled, number
