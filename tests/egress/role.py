"""The egress role at work in the test's own process, and a NATS server that can go away and come back."""

import asyncio
import logging
import os
import subprocess
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats

from engine import limits
from engine.child import Child
from engine.egress.main import Egress
from engine.settings import Auth, Bus, Local, Nats, Settings
from engine.shared import EGRESS, Shared, Verdict, verdict_word
from tests.egress.stand import answer, until
from tests.ingress.stand import SMALL, Sender, Stand, vector
from tests.system.servers import NATS_SERVER, Issuer, accepts, free_port
from tests.system.servers import until as wait_until


class Server:
    """A nats-server that can go away and come back at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.handle: subprocess.Popen | None = None

    def start(self, config: str = "") -> "Server":
        command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.port), "-c", "/dev/stdin"]
        self.handle = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.handle.stdin is not None
        self.handle.stdin.write(config.encode())
        self.handle.stdin.close()
        wait_until(lambda: accepts(self.port), 10, "nats-server listens")
        return self

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.kill()
            self.handle.wait()
            self.handle = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


class Lines(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def settings_for(tmp_path: Path, issuer: Issuer, url: str = "", local: bool = True) -> Settings:
    path = str(tmp_path / "bus") if local else ""
    bus = Bus(nats=Nats(url=url), local=Local(path=path), outbox_mb=1)
    return replace(SMALL, bus=bus, auth=Auth(jwks_file=str(issuer.jwks_file)))


@asynccontextmanager
async def at_work(shared: Shared, settings: Settings) -> Any:
    """An egress role in this process; ended as the supervisor ends it."""
    shared.children[EGRESS.row]["order"] = 0
    child = Child("egress", EGRESS, settings, shared, os.getppid())
    egress = Egress(child)
    task = asyncio.get_running_loop().create_task(egress.serve())
    row = shared.children[EGRESS.row]
    await until(lambda: row["ready"] or task.done(), "egress is ready")
    try:
        yield egress
    finally:
        row["order"], row["ready"] = 1, 0
        if not task.done() or not task.exception():
            assert await task == 0
    assert not task.exception()


async def listen(url: str) -> list:
    client = await nats.connect(url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    got: list = []

    async def keep(message: Any) -> None:
        got.append(message)

    await client.subscribe("ml.v1.>", cb=keep)
    await client.flush()
    return got


def take(stand: Stand, sender: Sender, count: int = 1) -> None:
    for _ in range(count):
        assert stand.take(sender.batch(vector(minute=sender.next)), received_ns=time.monotonic_ns() + 10**10)


def hand_over(shared: Shared) -> None:
    """A worker answers, and rings."""
    answer(shared)
    shared.bells[EGRESS.row].ring()


def done(shared: Shared, *positions: int) -> bool:
    mask = limits.INPUTS_IN_FLIGHT_MAX - 1
    return all(int(shared.verdicts[each & mask]) == verdict_word(each, Verdict.DONE) for each in positions)
