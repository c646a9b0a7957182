"""A real engine on the local bus with a tape: mixed traffic, processes stopped and killed in the middle."""

import math
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.watch import tape
from tests.system.servers import EngineProcess, Issuer, until
from tests.system.test_local_bus import Socket, subscription
from tests.system.traffic import MINUTE_NS, SYMBOLS, Stream

DEADLINE_MS = 400
COMPANIES = (("small", "free"), ("middle", "pro"), ("large", "enterprise"))
WITHIN_S = 90


def readable(connections: list[Any]) -> list[Any]:
    """Those with something to read within a second; by poll, which takes descriptors of any number."""
    poll = select.poll()
    for each in connections:
        poll.register(each, select.POLLIN)
    numbers = {number for number, _ in poll.poll(1000)}
    return [each for each in connections if each.fileno() in numbers]


class Live:
    """An engine, a producer and a reader of each company; `answers` by name as they came."""

    def __init__(self, folder: Path, settings: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.path = str(folder / "bus")
        self.issuer = Issuer(folder)
        settings.setdefault("engine", {}).setdefault("deadline_ms", DEADLINE_MS)
        settings["engine"] |= {"workers": 1}
        self.engine = EngineProcess(folder, self.issuer, local_path=self.path, settings=settings)
        self.tokens = {company: self.issuer.token(company, tier) for company, tier in COMPANIES}
        self.streams = [
            Stream(company, "feed-0", self.tokens[company], seed=n) for n, (company, _) in enumerate(COMPANIES)
        ]
        self.answers: dict[tuple[str, int], MLProcessingEnvelope] = {}
        self._names: set[tuple[str, int]] = set()
        self._vectors = 0

    def open(self) -> "Live":
        self.engine.wait_ready(within_s=180)
        self.readers = []
        for company, token in self.tokens.items():
            reader = Socket(f"{self.path}.out")
            reader.send(subscription(token, company))
            self.readers.append(reader)
        until(lambda: self.engine.metric("tickpath_local_readers") == len(COMPANIES), WITHIN_S, "readers are in")
        self.producer = Socket(self.path)
        return self

    def send(self, count: int, most: int = 60) -> None:
        """Vectors of all streams in turn, a new minute every third round; at most so many unanswered at a time."""
        for _ in range(count):
            stream = self.streams[self._vectors % len(self.streams)]
            round_ = self._vectors // len(self.streams)
            symbol = SYMBOLS[round_ % 3]
            stream.event_ns += MINUTE_NS if round_ % 3 == 0 and symbol == SYMBOLS[0] else 1000
            history = 0 if symbol in stream.mids or stream.company == "small" else 200
            self.write(stream, stream.message([stream.vector(symbol, history)]))
            self._vectors += 1
            if len(self._names) - len(self.answers) > most:
                self.receive(lambda: len(self._names) - len(self.answers) <= most // 2)

    def write(self, stream: Stream, body: bytes, answered: bool = True) -> None:
        if answered:
            self._names.add((stream.company, stream.sequence))
        self.producer.send(body)

    def odd_ones(self) -> None:
        """What is answered otherwise than by a prediction: rejections, heartbeats, old and late ones, a batch."""
        stream = self.streams[2]
        stream.event_ns += MINUTE_NS
        self.write(stream, stream.message([stream.vector(symbol) for symbol in SYMBOLS[:3]]))
        bad = stream.vector(SYMBOLS[0])
        bad.price_features.bid = math.nan
        self.write(stream, stream.message([bad]))
        twice = stream.vector(SYMBOLS[1])
        self.write(stream, stream.message([twice, twice]))
        self.write(stream, stream.message([stream.vector(SYMBOLS[0])], timestamp=time.time_ns() - 3600 * 10**9))
        self.write(stream, stream.heartbeat(), answered=False)
        late = stream.message([stream.vector(SYMBOLS[1])])
        self.write(stream, stream.message([stream.vector(SYMBOLS[2])]))
        self._names.add((stream.company, stream.sequence - 1))
        self.producer.send(late)
        self.receive()

    def stopped(self, role: str, count: int) -> None:
        """A process is stopped for longer than the deadline while vectors come."""
        pid = self.engine.children()[role]
        os.kill(pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            self.send(count, most=10_000)
            until(lambda: time.monotonic() > began_s + 1.5 * DEADLINE_MS / 1000, 5, "the deadline passes")
        finally:
            os.kill(pid, signal.SIGCONT)
        self.receive()

    def killed(self, role: str) -> None:
        pid = self.engine.children()[role]
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.engine.children().get(role, pid) != pid, WITHIN_S, f"{role} is replaced")

    def receive(self, enough=None) -> None:
        """Reads until so many answers came; all that are outstanding by default."""
        enough = enough or (lambda: len(self.answers) == len(self._names))
        deadline_s = time.monotonic() + WITHIN_S
        while not enough():
            assert time.monotonic() < deadline_s, f"{len(self.answers)} of {len(self._names)} answers"
            ready = readable([reader.connection for reader in self.readers])
            for reader in self.readers:
                envelope = reader.receive() if reader.connection in ready else None
                if envelope is not None and envelope.message_type != "heartbeat":
                    self.answers.setdefault((envelope.company_id, envelope.sequence), envelope)

    def close(self) -> None:
        self.receive()
        assert self.engine.stop() == 0, self.engine.log()
        for each in (*self.readers, self.producer):
            each.close()


def record(folder: Path) -> Live:
    """About 2,500 vectors, with all that may go wrong on the way."""
    live = Live(folder, {"tape": {"path": str(folder / "tape"), "segment_mb": 1}})
    with live.engine:
        live.open()
        live.send(1200)
        live.odd_ones()
        live.stopped("worker-5", 30)
        live.stopped("egress-1", 30)
        live.send(300)
        live.killed("worker-5")
        live.send(300)
        live.killed("watch-4")

        def begun_anew() -> bool:
            """The new watch may have had to wait until windows could be copied."""
            live.send(60)
            live.receive()
            found = [tape.read_head(path)["whole"] for path in tape.segments(folder / "tape")]
            return sum(found) >= 3 and found[-1]

        until(begun_anew, WITHIN_S, "the tape goes on with segments that replay can begin at")
        live.send(300)
        live.odd_ones()
        live.send(300)
        live.close()
    return live
