"""Who is measured wire to wire, and how each is started.

Owns the table of contenders and their configurations; run by the benchmark's own process. What must
stay true: each contender is a process (or several) of its own with subjects of its own at the same
nats-server; an echo answers with exactly as many bytes as the engine did in the warm-up.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.load import BATCHES, SINGLES, Load
from bench.servers import Place, hear, tell

COMPANY, USER = "bench", "feed"
# Of an answer's body, where no engine is among the contenders to be asked: what one answered once.
SIZES: Mapping[str, int] = {BATCHES.name: 10_120, SINGLES.name: 1_230}

ENGINE = """\
[engine]
name = "bench-{name}-{pid}"
device = "cpu"
workers = {workers}

{bus}

[auth]
algorithms = ["EdDSA"]
jwks_file = "{jwks}"

[models]
path = "models"

[registry]
url = "sqlite:///{folder}/{name}.db"

[http]
listen = "127.0.0.1:{port}"

[grpc]
listen = "127.0.0.1:0"
"""


@dataclass(frozen=True)
class Contender:
    name: str  # of its account too
    words: str
    is_echo: bool
    start: Callable[["Contender", Place, Mapping[str, int]], None]
    local: bool = False  # over the local bus
    workers: int = 0  # of an engine; 0: as many as it takes by itself
    sections: str = ""  # of an engine's configuration, beside those that all have


def start_echo(contender: Contender, place: Place, sizes: Mapping[str, int]) -> None:
    pairs = [f"{stream}={count}" for stream, count in sizes.items()]
    place.start_python(contender.name, "-m", "bench.echo", place.url(contender.name), *pairs)
    place.wait_said(contender.name, "ready")


def start_plain(contender: Contender, place: Place, sizes: Mapping[str, int]) -> None:
    remember = ["--remember"] if contender.name == "plain-remembering" else []
    place.start_python(
        contender.name,
        "-m",
        "bench.plain_service",
        f"--url={place.url(contender.name)}",
        f"--jwks={place.keys.public}",
        *remember,
    )
    place.wait_said(contender.name, "ready")


def start_engine(contender: Contender, place: Place, sizes: Mapping[str, int]) -> None:
    port = free_port()
    configuration = place.folder / f"{contender.name}.toml"
    address = place.address(contender.name, contender.local)
    bus = f'[bus.local]\npath = "{address}"' if contender.local else f'[bus.nats]\nurl = "{address}"'
    configuration.write_text(
        ENGINE.format(
            name=contender.name,
            pid=os.getpid(),
            workers=contender.workers or '"auto"',
            bus=bus,
            jwks=place.keys.public,
            folder=place.folder,
            port=port,
        )
        + contender.sections
    )
    place.start_python(contender.name, "-m", "engine", "run", "--config", str(configuration))
    place.http[contender.name] = f"http://127.0.0.1:{port}"
    place.wait_http(contender.name, f"{place.http[contender.name]}/v2/health/ready")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CONTENDERS = (
    Contender("echo", "raw-socket echo of answer-sized bytes", True, start_echo),
    Contender("echo-again", "the same echo once more", True, start_echo),
    Contender("plain", "plain asyncio service, PyJWT on each message", False, start_plain),
    Contender("plain-remembering", "the same, good tokens remembered for a minute", False, start_plain),
    Contender("engine", "python -m engine run", False, start_engine),
)


class Driver:
    """A contender's generator, seen from the benchmark. `open`, then for each round `begin` and `end`."""

    def __init__(self, contender: Contender, seed: int, company: str = COMPANY) -> None:
        self.contender = contender
        self.seed = seed
        self.company = company
        self.sizes: Mapping[str, int] = {}

    def open(self, place: Place) -> None:
        self.place = place
        own = "" if self.company == COMPANY else f"-{self.company}"
        self.name = f"{self.contender.name}-generator{own}"
        self.process = place.start(
            self.name,
            [sys.executable, "-m", "bench.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        about = {"company": self.company, "user": USER, "seed": self.seed, "token": place.token(self.company, USER)}
        tell(self.process, about | {"url": place.address(self.contender.name, self.contender.local)})

    def begin(self, load: Load, dues_ns: list[int], streams: tuple[int, int] | None = None) -> None:
        """The round's messages, each with the time of CLOCK_MONOTONIC at which it is due; which streams' of a crowd."""
        echo_bytes = self.sizes[load.name] if self.contender.is_echo else None
        tell(self.process, {"load": load.name, "dues_ns": dues_ns, "echo_bytes": echo_bytes, "streams": streams})

    def end(self) -> dict[str, Any]:
        """What the round showed; the fields are those of `answers.Round`."""
        return hear(self.process, self.place, self.name)
