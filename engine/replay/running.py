"""A whole replay: from a tape to results in tape order, in this process or shared between several.

Owns the processes of a shared replay. Runs in the process of the command; each of several processes reads the
tape by itself and answers the streams of its shards, as workers do. What must stay true: results come in the
order of the tape, however many processes answer.
"""

import heapq
import multiprocessing
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from engine.errors import TapeError, TickpathError
from engine.inference.models.cuda import Device
from engine.ingress.sequencing import shard_of
from engine.logs import open_log
from engine.replay.answering import Answered, Answerer
from engine.replay.digest import answers_of, is_answer
from engine.replay.reading import Begin, Tape
from engine.watch import tape

PACKED = struct.Struct("<QQqIIIBI")
ENDED, FAILED = b"", b"!"


@dataclass(frozen=True)
class Choice:
    """What is replayed, and with what."""

    path: Path
    store: Path
    max_batch: int
    gpus: tuple[int, ...] = ()  # that models run on
    min_artefact_bytes: int = 0  # of a graph that does
    skip_holes: bool = False
    current_models: bool = False
    stream: tuple[str, str] | None = None  # company, stream; None: all
    from_position: int = 0
    from_unix_ns: int = 0
    to_position: int = 0  # inclusive; 0: to the end
    to_unix_ns: int = 0

    def reports(self, position: int, received_unix_ns: int) -> bool:
        """Whether an input's answer is asked for; those before build the state alone."""
        early = position < self.from_position or received_unix_ns < self.from_unix_ns
        return not early and not self.is_past(position, received_unix_ns)

    def is_past(self, position: int, received_unix_ns: int) -> bool:
        return 0 < self.to_position < position or 0 < self.to_unix_ns < received_unix_ns


class Result(NamedTuple):
    """Of one input. `values` and `live` as `digest.plain` gives them; `live` is None where it is not on the tape."""

    epoch: int  # of the engine's run
    position: int
    received_unix_ns: int
    vectors: int
    record: bytes
    values: bytes
    live: bytes | None

    @property
    def is_as_live(self) -> bool:
        return self.values == self.live

    def pack(self) -> bytes:
        live = self.values if self.live is None or self.is_as_live else self.live
        state = 0 if self.live is None else 1 if self.is_as_live else 2
        head = PACKED.pack(
            self.epoch, self.position, self.received_unix_ns, self.vectors, len(self.record), len(self.values), state,
            len(live),
        )  # fmt: skip
        return head + self.record + self.values + (live if state == 2 else b"")

    @classmethod
    def unpack(cls, raw: bytes) -> "Result":
        epoch, position, received, vectors, record, values, state, live = PACKED.unpack_from(raw)
        at = PACKED.size + record
        said = raw[at : at + values]
        known = None if state == 0 else said if state == 1 else raw[at + values : at + values + live]
        return cls(epoch, position, received, vectors, raw[PACKED.size : at], said, known)


def answered(choice: Choice, source: Tape, share: int = 0, shares: int = 1) -> Iterator[Answered]:
    """Every input of the chosen streams from the nearest state on, those before the chosen ones too."""
    device = None
    if choice.gpus:
        number = choice.gpus[share % len(choice.gpus)]
        device = Device(number, min_artefact_bytes=choice.min_artefact_bytes)
    answerer = Answerer(choice.store, choice.max_batch, choice.current_models, device)
    index = 0
    if choice.from_position or choice.from_unix_ns:
        index = source.before(choice.from_position, choice.from_unix_ns)
    stopped: TapeError | None = None
    inputs = source.inputs(index)
    while True:
        try:
            taped = next(inputs, None)
        except TapeError as error:  # what came before it is answered first
            taped, stopped = None, error
        if taped is None:
            break
        if isinstance(taped, Begin):
            yield from answerer.finish()
            answerer.begin(taped)
            continue
        name, received_unix_ns = tape.name_of_record(taped.record)
        if choice.is_past(taped.position, received_unix_ns):
            break
        if (choice.stream in (None, name)) and shard_of(*name) % shares == share:
            yield from answerer.take(taped)
    yield from answerer.finish()
    if stopped is not None:
        raise stopped


def _results(choice: Choice, source: Tape, share: int = 0, shares: int = 1) -> Iterator[Result]:
    for each in answered(choice, source, share, shares):
        head = each.record.head
        position, received_unix_ns = head.position, head.received_unix_ns
        if is_answer(each) and choice.reports(position, received_unix_ns):
            values, live = answers_of(each)
            epoch, vectors = each.begin.head["epoch"], head.decisions
            yield Result(epoch, position, received_unix_ns, vectors, each.taped.record, values, live)


def results(choice: Choice, workers: int, note: Callable[[str], None]) -> Iterator[Result]:
    """In tape order. Raises TapeError where the tape ends before its end, after all that came before."""
    if workers == 1:
        yield from _results(choice, Tape(choice.path, choice.skip_holes, note).open())
        return
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for share in range(workers):
            reading, writing = context.Pipe(duplex=False)
            process = context.Process(target=_share, args=(choice, share, workers, writing), daemon=True)
            process.start()
            writing.close()
            pipes.append(reading)
            processes.append(process)
        failures: list[str] = []
        yield from heapq.merge(
            *(_received(pipe, failures) for pipe in pipes), key=lambda each: (each.epoch, each.position)
        )
        if failures:
            raise TapeError(failures[0])
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _received(pipe: Connection, failures: list[str]) -> Iterator[Result]:
    while (raw := pipe.recv_bytes()) != ENDED:
        if raw[:1] == FAILED and len(raw) < PACKED.size:
            failures.append(pipe.recv_bytes().decode())
            continue
        yield Result.unpack(raw)


def _share(choice: Choice, share: int, shares: int, pipe: Connection) -> None:
    """Of one process: the results of its shards."""
    log = open_log(f"replay-{share}")
    say = log.warning if share == 0 else lambda text: None
    try:
        for result in _results(choice, Tape(choice.path, choice.skip_holes, say).open(), share, shares):
            pipe.send_bytes(result.pack())
    except TickpathError as error:
        pipe.send_bytes(FAILED)
        pipe.send_bytes(str(error).encode())
    except BrokenPipeError:
        sys.exit(1)
    pipe.send_bytes(ENDED)
