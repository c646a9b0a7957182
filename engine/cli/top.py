"""`top`: where the time of a vector goes in a running engine, stage by stage, and what its processes use.

Owns the arithmetic of stages and how it looks. Runs in a process of its own, beside the engine; reads `/health` and
`/metrics` each second, writes nothing but the terminal. What must stay true: the stages are parts of one whole, so
their means add up to the total's; where nothing was answered between two looks, what is shown is of all since the
engine's start, and says so.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.cli.scrape import Look, Samples, Scraper, quantile
from engine.cli.view import OF_HEALTH, QUIET, processes
from engine.errors import SettingsError, TickpathError
from engine.settings import load

FAMILY = "tickpath_stage_duration_seconds"
QUANTILES = (0.5, 0.99)
TOTAL, BESIDE = "received -> handed to the bus", "handed to the bus -> confirmed"
INGRESS, WAIT, WORKER, EGRESS = (
    "ingress: received -> in a ring",
    "in a ring -> taken by a worker",
    "worker: taken -> answered",
    "egress: answered -> handed over",
)


class Sums(NamedTuple):
    """A histogram, over all processes, since the engine's start or between two looks."""

    events: float
    sum_s: float
    buckets: dict[float, float]  # cumulative, by upper bound

    @property
    def mean_us(self) -> float:
        return self.sum_s / self.events * 1e6 if self.events else 0.0

    def since(self, before: "Sums") -> "Sums":
        buckets = {bound: value - before.buckets.get(bound, 0.0) for bound, value in self.buckets.items()}
        return Sums(self.events - before.events, self.sum_s - before.sum_s, buckets)


class Part(NamedTuple):
    """A row: a stage, the total, or what comes after it."""

    name: str
    mean_us: float
    quantiles_us: list[float]  # QUANTILES; empty for a stage that only a difference tells


class Shown(NamedTuple):
    """All that a frame says."""

    seconds: float  # between the looks; 0: since the engine's start
    inputs: int
    per_s: float
    stages: list[Part]
    total: Part
    confirm: Part
    look: Look


NONE = Sums(0.0, 0.0, {})


def sums_of(samples: Samples, stage: str) -> Sums:
    events = sum_s = 0.0
    buckets: dict[float, float] = {}
    for (name, labels), value in samples.items():
        if ("stage", stage) not in labels:
            continue
        if name == f"{FAMILY}_count":
            events += value
        elif name == f"{FAMILY}_sum":
            sum_s += value
        elif name == f"{FAMILY}_bucket":
            bound = float(dict(labels)["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    return Sums(events, sum_s, buckets)


STAGES = ("ingress", "worker", "egress", "engine", "confirm")


def parts(sums: dict[str, Sums]) -> tuple[list[Part], Part, Part]:
    """The stages, their total, and the confirmation. What no histogram has, the wait for a worker, is what is left.

    >>> one = {name: Sums(1.0, us * 1e-6, {}) for name, us in zip(STAGES, (100, 50, 200, 500, 900))}
    >>> [round(each.mean_us) for each in parts(one)[0]]
    [100, 150, 50, 200]
    """
    found = {name: _part(name, each) for name, each in sums.items()}
    total, known = found["engine"], ("ingress", "worker", "egress")
    wait = total.mean_us - sum(found[name].mean_us for name in known)
    stages = [
        found["ingress"]._replace(name=INGRESS),
        Part(WAIT, wait, []),
        found["worker"]._replace(name=WORKER),
        found["egress"]._replace(name=EGRESS),
    ]
    return stages, total._replace(name=TOTAL), found["confirm"]._replace(name=BESIDE)


def _part(name: str, sums: Sums) -> Part:
    quantiles = [1e6 * quantile(sums.buckets, share) for share in QUANTILES] if sums.events > 0 else []
    return Part(name, sums.mean_us, quantiles)


class Watched:
    """One engine, look after look."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._scraper = Scraper(url)
        self._before: dict[str, Sums] = {}
        self._time_s = 0.0

    def look(self) -> Shown | None:
        """None where the engine does not answer."""
        look, samples = self._scraper.look_closer()
        now_s = time.monotonic()
        if not samples:
            self._before = {}
            return None
        now = {name: sums_of(samples, name) for name in STAGES}
        since = {name: each.since(self._before[name]) for name, each in now.items()} if self._before else {}
        seconds = now_s - self._time_s if since and all(since[name].events > 0 for name in STAGES[:4]) else 0.0
        stages, total, confirm = parts(since if seconds else now)
        inputs = int((since if seconds else now)["engine"].events)
        self._before, self._time_s = now, now_s
        return Shown(seconds, inputs, inputs / seconds if seconds else 0.0, stages, total, confirm, look)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings (TOML) of the engine; they say where it answers")
    parser.add_argument("--url", metavar="URL", help="where it answers instead, as http://127.0.0.1:8080")
    parser.add_argument("--every", type=float, metavar="S", default=1.0, help="seconds between two looks (default: 1)")
    parser.add_argument("--once", action="store_true", help="two looks, one picture, and the end")
    parser.add_argument("--json", action="store_true", help="the same for programs, in one line")


def main(arguments: argparse.Namespace) -> int:
    if not 0.05 <= arguments.every <= 3600:
        raise SettingsError(f"--every: expected 0.05 to 3600 seconds, found {arguments.every:g}")
    watched = Watched(arguments.url or address_of(arguments.config))
    if watched.look() is None:
        raise TickpathError(
            f"{watched.url}: no engine answers there; start it, or say where it is by --url or --config"
        )
    time.sleep(arguments.every)
    console = Console(highlight=False)
    if arguments.once or arguments.json:
        shown = watched.look()
        if shown is None:
            raise TickpathError(f"{watched.url}: the engine has stopped answering")
        if arguments.json:
            print(orjson.dumps(as_json(shown)).decode())
        else:
            console.print(frame(watched.url, shown), soft_wrap=True)
        return 0
    return show(watched, console, arguments.every)


def show(watched: Watched, console: Console, every_s: float) -> int:
    """Until it is interrupted: a picture that is drawn again, or without a terminal one below the other."""
    with (
        Live(console=console, auto_refresh=False, vertical_overflow="crop")
        if console.is_terminal
        else nullcontext() as live
    ):
        while True:
            picture = frame(watched.url, watched.look())
            if live is None:
                console.print(picture, soft_wrap=True)
            else:
                live.update(picture, refresh=True)
            time.sleep(every_s)


def address_of(config: str | None) -> str:
    http = load(config).http
    if http.tls_cert:
        raise SettingsError("http.tls_cert: top reads plain HTTP; give --url with an address that answers it")
    host, _, port = http.listen.rpartition(":")
    if port == "0":
        raise SettingsError("http.listen: port 0 is any free one; give --url with the one that the engine's log names")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def as_json(shown: Shown) -> dict[str, object]:
    def row(part: Part) -> dict[str, object]:
        found: dict[str, object] = {"name": part.name, "mean_us": part.mean_us}
        return found | {f"p{100 * share:g}_us": us for share, us in zip(QUANTILES, part.quantiles_us, strict=False)}

    return {
        "status": shown.look.status,
        "seconds": shown.seconds,
        "inputs": shown.inputs,
        "inputs_per_s": shown.per_s,
        "stages": [row(part) for part in shown.stages],
        "total": row(shown.total),
        "confirm": row(shown.confirm),
        "processes": [each._asdict() for each in shown.look.processes],
    }


def frame(url: str, shown: Shown | None) -> RenderableType:
    if shown is None:
        return Text.assemble(
            (" Tickpath top ", "bold reverse"), "  ", ("● no answer", OF_HEALTH["no answer"]), f"  {url}"
        )
    when = f"the last {shown.seconds:.1f} s, {shown.per_s:,.0f}/s" if shown.seconds else "all since the engine's start"
    head = Text.assemble(
        (" Tickpath top ", "bold reverse"),
        "  ",
        ("● ", OF_HEALTH[shown.look.status]),
        f"{shown.look.status}   {shown.inputs:,} inputs: {when}",
    )
    return Group(head, Text(), _stages(shown), Text(), processes(shown.look))


def _stages(shown: Shown) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for width, justify in ((31, "left"), (7, "right"), (5, "right"), (7, "right"), (7, "right"), (10, "left")):
        table.add_column(width=width, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_row(*(Text(each, QUIET) for each in ("us of an input", "mean", "share", "p50", "p99", "")))
    for part in shown.stages:
        table.add_row(*_cells(part, shown.total.mean_us))
    table.add_row(*(Text(each, "bold") for each in _cells(shown.total, shown.total.mean_us)))
    table.add_row(*(Text(each, QUIET) for each in _cells(shown.confirm, 0.0)))
    return table


def _cells(part: Part, total_us: float) -> Sequence[str]:
    share = part.mean_us / total_us if total_us > 0 else 0.0
    quantiles = [f"{us:,.0f}" for us in part.quantiles_us] or ["-"] * len(QUANTILES)
    bar = "━" * round(10 * share) if part.name != TOTAL else ""
    return [part.name, f"{part.mean_us:,.0f}", f"{share:.0%}" if total_us > 0 else "", *quantiles, bar]
