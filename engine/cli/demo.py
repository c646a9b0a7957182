"""`demo`: the engine at work on bundled market data, without any server or configuration.

Owns the course of the demo: start an engine, let three companies send and read, show it, drain it,
settle the books. Runs in the process that a person started; the engine and the market are processes
of their own. Reads `data/fx_m1`; writes a temporary folder that it removes. What must stay true: the
summary is of what the readers saw, and the exit status is 0 only if its counts add up.
"""

import argparse
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.live import Live

from engine.cli import summary, view
from engine.cli.hosting import READY_S, ROOT, DemoError, Host, start
from engine.cli.picture import draw
from engine.cli.scrape import Scraper
from engine.cli.view import Scene
from engine.contract.names import Tier
from engine.tenancy.policy import PREDICT
from engine.tenancy.signing import read_signing_key, sign
from engine.tenancy.tiers import PLANS

SYMBOLS = ("EURUSD", "GBPUSD", "NZDUSD", "USDJPY", "XAUUSD")
COMPANIES = (
    ("meridian-capital", Tier.ENTERPRISE, SYMBOLS),
    ("alpine-quant", Tier.PRO, SYMBOLS[:4]),
    ("northwind-fx", Tier.FREE, SYMBOLS[:3]),
)
BARS_APART = 1440  # each company sends another day
FIRST_BAR = 241  # a full price history before it
TOKEN_S = 3600.0
LOOK_S = 1.0  # between two looks at health and metrics
LOOK_AGAIN_S = 0.05  # between two looks at something that another process does
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_BOOKS_S = 5.0  # after the engine's end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_number(1, 600), default=20.0, help="how long to send (default: 20)")
    parser.add_argument("--rate", type=_number(1, 5000), default=96.0, help="vectors a second in all (default: 96)")
    parser.add_argument("--json", action="store_true", help="for programs: the summary as JSON, the last line")
    parser.add_argument("--svg", metavar="PATH", help="also draw the view, as it was while sending, into a file")


def _number(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, found {text}")
        return value

    return number


def main(arguments: argparse.Namespace) -> int:
    console = Console(stderr=arguments.json, highlight=False)
    host = Host()
    market: subprocess.Popen[bytes] | None = None
    with ended_by_signals():
        try:
            host.open()
            market = start(["-m", "engine.cli.traffic"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            result = course(arguments, console, host, market)
        finally:
            ignore_signals()  # a second Ctrl-C must not stop the putting away
            close(market)
            host.close()
    for text in summary.lines(result):
        console.print(text, soft_wrap=True)
    if arguments.json:
        print(orjson.dumps(result).decode())
    return 0 if result["adds_up"] else 1


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: everything is put away first."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def ignore_signals() -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)


def close(market: subprocess.Popen[bytes] | None) -> None:
    if market is not None and market.poll() is None:
        market.kill()
        market.wait()


def course(
    arguments: argparse.Namespace, console: Console, host: Host, market: subprocess.Popen[bytes]
) -> dict[str, Any]:
    """From start to settled books."""
    reports = Reports(market)
    reports.open()
    reports.tell(plan(arguments, host))
    began = time.monotonic()
    wait_ready(console, host, reports)
    console.print(
        f"Ready after {time.monotonic() - began:.1f} s. Health and metrics: {host.url}/health, /metrics", soft_wrap=True
    )
    reports.tell("go")
    scene = watch(arguments, console, host, reports)
    began = time.monotonic()
    with console.status("ending the engine with SIGTERM: it drains"):
        engine_status = host.end()
    drained_s = time.monotonic() - began
    if arguments.svg:
        Path(arguments.svg).write_text(draw(view.frame(scene), view.WIDTH, "make demo"))
    return summary.settle(reports.last_books(), engine_status, drained_s)


class Reports:
    """What the market's process says, as it says it; a thread reads, so that the view never waits."""

    def __init__(self, market: subprocess.Popen[bytes]) -> None:
        self._market = market
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._books: dict[str, Any] = {}

    def open(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def tell(self, order: object) -> None:
        assert self._market.stdin is not None
        self._market.stdin.write(orjson.dumps(order) + b"\n")
        self._market.stdin.flush()

    def next(self, seconds: float) -> dict[str, Any]:
        """The next report, or one of nothing after the time."""
        try:
            report = self._queue.get(timeout=seconds)
        except queue.Empty:
            return {"report": "nothing"}
        if report["report"] == "books":
            self._books = report
        return report

    def last_books(self) -> dict[str, Any]:
        """The final ones: the market ends when the engine has closed its sockets."""
        deadline = time.monotonic() + LAST_BOOKS_S
        while self.next(max(0.0, deadline - time.monotonic()))["report"] not in ("end", "failed", "nothing"):
            pass
        return self._books

    def _read(self) -> None:
        assert self._market.stdout is not None
        for text in self._market.stdout:
            self._queue.put(orjson.loads(text))
        self._queue.put({"report": "end"})


def plan(arguments: argparse.Namespace, host: Host) -> dict[str, Any]:
    """The market's orders: who sends what, with which token."""
    assert host.keys is not None
    key = read_signing_key(str(host.keys.private))
    desks = []
    for index, (company, tier, symbols) in enumerate(COMPANIES):
        token = sign(
            key,
            user_id="demo",
            company_id=company,
            tier=tier,
            scopes=[PREDICT],
            audience="ml",
            issuer="",
            now_unix=time.time(),
            valid_s=TOKEN_S,
        )
        desks.append(
            {
                "company": company,
                "tier": tier.name,
                "user": "demo",
                "stream": "features-0",
                "token": token,
                "symbols": symbols,
                "first_bar": FIRST_BAR + index * BARS_APART,
                "cross_asset": PLANS[tier].cross_asset,
            }
        )
    return {
        "path": host.bus,
        "data": str(ROOT / "data" / "fx_m1"),
        "symbols": SYMBOLS,
        "seconds": arguments.seconds,
        "rate": arguments.rate,
        "desks": desks,
    }


def wait_ready(console: Console, host: Host, reports: Reports) -> None:
    """Until the engine answers vectors and the market's are made; says what it waits for."""
    began = time.monotonic()
    loaded = False
    said = ""
    with console.status("starting the engine") as status:
        while not (host.ready() and loaded):
            report = reports.next(LOOK_AGAIN_S)
            refuse_lost(host, report)
            loaded = loaded or report["report"] == "loaded"
            doing = host.doing()
            status.update(f"starting the engine, {time.monotonic() - began:.0f} s: {doing}")
            if doing != said and not console.is_terminal:
                console.print(f"starting the engine: {doing}", soft_wrap=True)
            said = doing
            if time.monotonic() > began + READY_S:
                raise DemoError(f"the engine is not ready after {READY_S:g} s; its last lines:\n{host.tail()}")


def watch(arguments: argparse.Namespace, console: Console, host: Host, reports: Reports) -> Scene:
    """Shows the traffic until all is sent and answered; the last scene."""
    scraper = Scraper(host.url)
    scene = Scene(0.0, arguments.seconds, {})
    looked_s = 0.0
    with shown(console) as show:
        while True:
            report = reports.next(LOOK_AGAIN_S)
            host.refuse_ended()
            refuse_lost(host, report)
            if report["report"] == "sent":
                return scene
            if time.monotonic() - looked_s >= LOOK_S:
                looked_s = time.monotonic()
                scene = scene._replace(look=scraper.look())
            if report["report"] == "books":
                scene = scene._replace(seconds=report["seconds"], books=report)
                show(scene)


def refuse_lost(host: Host, report: dict[str, Any]) -> None:
    """DemoError when the market gave up or is gone; mostly because the engine is, which is then said instead."""
    if report["report"] == "failed":
        raise host.lost(report["why"])
    if report["report"] == "end":
        raise host.lost("the market's process ended early")


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Scene], None]]:
    """A live view on a terminal; elsewhere a line a second."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            yield lambda scene: live.update(view.frame(scene, console.width), refresh=True)
        return
    due_s = 0.0

    def say(scene: Scene) -> None:
        nonlocal due_s
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + LOOK_S
            console.print(view.line(scene), soft_wrap=True)

    yield say
