"""The demo's market: three producers that send bundled minutes, and a reader for each company.

Owns the connections to the local bus and the books. Runs in a process of its own (`python -m
engine.cli.traffic`), so that drawing the view does not count in what is measured here. Reads its
orders as JSON lines on standard input, bars from files, answers from the bus; writes reports as JSON
lines on standard output. What must stay true: it sends by the clock alone, never waiting for an
answer, and a latency counts from when its message was due until its reader had the answer.

| order | report that follows |
| --- | --- |
| the plan, first of all | `loaded`: vectors are made |
| `go` | `books`, about four a second; `sent` when all is sent and answered, or patience is over |
| end of input, or the engine closes its sockets | `books`, then the end |
"""

import asyncio
import contextlib
import gc
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import uvloop

from engine.bus import frames
from engine.cli.ledger import Ledger, quantiles_ms
from engine.client import bars
from engine.client.incoming import ANSWER_BYTES_MAX
from engine.client.producer import Producer
from engine.client.sender import subscription
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.errors import BusError, TickpathError

REPORT_S = 0.25
SUBSCRIBED_S = 5.0  # within which a reader's first heartbeat comes back
ANSWERED_S = 5.0  # how long an answer may take after the last message
HEARTBEAT_S = 1.0
CLOSE_S = 1.0  # for the engine to read what was sent last
TIMER_S = 0.0015  # how much too late a timer may be


class Desk:
    """One company: its producer, its reader, its books."""

    def __init__(self, order: dict[str, Any], path: str) -> None:
        self.order = order
        self.path = path
        self.ledger = Ledger(order["company"], order["tier"], order["symbols"])
        self.messages: list[list[FeatureVector]] = []
        self._producer = Producer(
            stream=order["stream"],
            token=order["token"],
            local=path,
            company=order["company"],
            user=order["user"],
            heartbeat_s=HEARTBEAT_S,
        )
        self._reading: asyncio.Task[None] | None = None

    def load(self, files: dict[str, bars.Bars], messages: int) -> None:
        """Makes every message's vectors: the n-th message holds the n-th minute of each symbol."""
        universe = list(files.values()) if self.order["cross_asset"] else []
        columns = [
            list(islice(bars.vectors(files[symbol], self.order["first_bar"], universe=universe), messages))
            for symbol in self.order["symbols"]
        ]
        self.messages = [list(row) for row in zip(*columns, strict=True)]

    async def open(self) -> None:
        """Connects both; returns when a heartbeat of its own came back, so that no answer is missed."""
        await self._producer.open()
        reader, writer = await asyncio.open_unix_connection(f"{self.path}.out")
        order = self.order
        writer.write(frames.encode(subscription(order["company"], order["user"], "demo-reader", order["token"])))
        self._reading = asyncio.create_task(self._read(reader, writer))
        deadline = time.monotonic() + SUBSCRIBED_S
        while not self.ledger.heartbeats:
            if self._reading.done() or time.monotonic() > deadline:
                raise BusError(
                    f"{self.path}.out: the reader of {order['company']} got no heartbeat of its own stream back "
                    f"within {SUBSCRIBED_S:g} s; see the engine's log"
                )
            await self._producer.heartbeat()
            await asyncio.sleep(0.05)

    async def send(self, start_ns: int, every_ns: int) -> None:
        """All messages, each at its due time."""
        for number, vectors in enumerate(self.messages):
            due_ns = start_ns + number * every_ns
            await _until(due_ns)
            self.ledger.expect(self._producer.sender.next, due_ns, vectors)
            await self._producer.send(vectors)
        await self._producer.heartbeat()

    async def closed(self) -> None:
        """Returns when the engine has closed the reader's connection."""
        assert self._reading is not None, "open comes before closed"
        await self._reading

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(BusError):
            await self._producer.close(CLOSE_S)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming = frames.FrameReader(ANSWER_BYTES_MAX)
        try:
            while data := await reader.read(1 << 18):
                now_ns = time.monotonic_ns()
                for body in incoming.feed(data):
                    self.ledger.take(body, now_ns)
        except ConnectionError:
            pass  # the engine is gone: the books say what is missing
        finally:
            writer.close()


def books(desks: list[Desk], seconds: float) -> dict[str, Any]:
    """Everything the view and the summary show of the traffic."""
    accounts = [desk.ledger.account() for desk in desks]
    wire_ns = sorted(each for desk in desks for each in desk.ledger.latencies_ns)
    engine_ns = sorted(each for desk in desks for each in desk.ledger.engine_ns)
    return {
        "report": "books",
        "seconds": seconds,
        "wire_ms": quantiles_ms(wire_ns),
        "wire_count": len(wire_ns),
        "engine_ms": quantiles_ms(engine_ns),
        "accounts": accounts,
    }


async def work(orders: asyncio.StreamReader) -> None:
    plan = orjson.loads(await orders.readline())
    desks = [Desk(order, plan["path"]) for order in plan["desks"]]
    files = {symbol: bars.load(str(Path(plan["data"]) / f"{symbol}.csv.gz")) for symbol in plan["symbols"]}
    every_s = sum(len(desk.order["symbols"]) for desk in desks) / plan["rate"]
    for desk in desks:
        desk.load(files, max(1, round(plan["seconds"] / every_s)))
    gc.freeze()  # what was loaded stays: no collection needs to look at it again
    report({"report": "loaded"})
    if not await orders.readline():
        return
    try:
        await trade(desks, every_s, orders)
    finally:
        for desk in desks:
            await desk.close()


async def trade(desks: list[Desk], every_s: float, orders: asyncio.StreamReader) -> None:
    for desk in desks:
        await desk.open()
    start_ns = time.monotonic_ns() + 50_000_000
    ended = asyncio.create_task(orders.read())
    reporting = asyncio.create_task(_report_books(desks, start_ns))
    sending = asyncio.create_task(_send_all(desks, start_ns, round(every_s * 1e9)))
    closing = asyncio.create_task(_all_closed(desks))
    try:
        await asyncio.wait([ended, sending, closing], return_when=asyncio.FIRST_COMPLETED)
        seconds = (time.monotonic_ns() - start_ns) / 1e9
        if sending.done():
            await sending
            report({"report": "sent"})
            await asyncio.wait([ended, closing], return_when=asyncio.FIRST_COMPLETED)
        report(books(desks, seconds))
    finally:
        for task in (ended, reporting, sending, closing):
            task.cancel()
        await asyncio.gather(ended, reporting, sending, closing, return_exceptions=True)


async def _until(due_ns: int) -> None:
    """A timer wakes up to a millisecond late, so the last part is spent looking at the clock."""
    await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9 - TIMER_S))
    while time.monotonic_ns() < due_ns:
        await asyncio.sleep(0)


async def _send_all(desks: list[Desk], start_ns: int, every_ns: int) -> None:
    """Every company at the same pace, one after the other within it; returns when all is answered."""
    shifts_ns = [start_ns + index * every_ns // len(desks) for index in range(len(desks))]
    await asyncio.gather(*(desk.send(shift_ns, every_ns) for desk, shift_ns in zip(desks, shifts_ns, strict=True)))
    deadline = time.monotonic() + ANSWERED_S
    while any(desk.ledger.open for desk in desks) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


async def _all_closed(desks: list[Desk]) -> None:
    await asyncio.gather(*(desk.closed() for desk in desks))


async def _report_books(desks: list[Desk], start_ns: int) -> None:
    while True:
        report(books(desks, max(0, time.monotonic_ns() - start_ns) / 1e9))
        await asyncio.sleep(REPORT_S)


def report(document: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
    sys.stdout.buffer.flush()


async def main() -> int:
    orders = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    try:
        await work(orders)
    except (TickpathError, OSError) as error:
        report({"report": "failed", "why": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
