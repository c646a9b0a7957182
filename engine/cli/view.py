"""The live view of the demo: one frame from the books and the engine's own account of itself.

Owns nothing but how it looks; runs in the demo's process. Reads what it is given, writes nothing.
What must stay true: it fits 100 columns and 30 rows, and in a smaller window shows less rather than
everything cut; a column never moves while it runs; colour only says what a word says too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from engine.cli.ledger import Account, Horizon, Row
from engine.cli.scrape import NOTHING, STAGES, Look

WIDTH = 100  # what is wider leaves the rest free
HORIZONS = (1, 5, 15, 60)
FEW_HORIZONS = (1, 60)  # where there are fewer columns than that
HORIZON_WIDTH = 13

QUIET, GOOD, POOR, BAD = "bright_black", "green", "yellow", "red"
OF_SIGNAL = {"BUY": GOOD, "SELL": BAD, "HOLD": QUIET}
OF_STATUS = {"OK": GOOD, "DEGRADED": POOR, "WARMING": QUIET, "EXPIRED": BAD, "REJECTED": BAD}
OF_HEALTH = {"healthy": GOOD, "degraded": POOR, "unhealthy": BAD, "no answer": BAD}
OF_PROCESS = {"ready": GOOD, "loading": POOR, "dying": BAD, "spent": BAD, "absent": QUIET}
OF_TIER = {"FREE": QUIET, "PRO": "cyan", "ENTERPRISE": "magenta"}
ARROWS = {"BUY": "▲", "SELL": "▼", "": " ", "HOLD": " "}
PATTERNS = {
    "HEAD_AND_SHOULDERS": "head&shl",
    "DOUBLE_TOP": "dbl top",
    "DOUBLE_BOTTOM": "dbl bot",
    "TRIANGLE": "triangle",
    "FLAG": "flag",
    "PENNANT": "pennant",
    "WEDGE": "wedge",
}

NOTE = "Price: median ± half of the 90 % interval. Signal: the ensemble's, and its chance of being right."


class Scene(NamedTuple):
    """All that a frame shows."""

    seconds: float
    seconds_all: float
    books: dict[str, Any]
    look: Look = NOTHING


def frame(scene: Scene, width: int = WIDTH) -> RenderableType:
    """At this many columns."""
    accounts: list[Account] = scene.books.get("accounts", [])
    lower = Table.grid(padding=(0, 3, 0, 0))
    lower.add_row(_latencies(scene), processes(scene.look))
    horizons = HORIZONS if width >= WIDTH else FEW_HORIZONS
    companies = [part for account in accounts for part in _company(account, horizons)]
    note = Text(NOTE, QUIET, no_wrap=True, overflow="crop")
    return Group(_head(scene, accounts, width), Text(), _columns(horizons), *companies, Text(), lower, note)


def _head(scene: Scene, accounts: Sequence[Account], width: int) -> RenderableType:
    sent = sum(account["sent"] for account in accounts)
    answered = sum(sum(account["answers"].values()) for account in accounts)
    rate = answered / scene.seconds if scene.seconds > 0.5 else 0.0
    line = Text.assemble(
        (" Tickpath ", Style(bold=True, reverse=True)),
        "  ",
        ("● ", OF_HEALTH[scene.look.status]),
        f"{scene.look.status}   ",
        (f"{rate:,.0f}", "bold"),
        " vectors/s   ",
        (f"{sent:,}", "bold"),
        " sent   ",
        (f"{answered:,}", "bold"),
        " answered   ",
        _bar(scene.seconds, scene.seconds_all) if width >= WIDTH else "",
        f" {min(scene.seconds, scene.seconds_all):2.0f}/{scene.seconds_all:.0f} s",
    )
    line.no_wrap, line.overflow = True, "crop"
    return line


def _bar(done: float, all_: float, width: int = 12) -> Text:
    full = min(width, round(width * done / all_)) if all_ > 0 else 0
    return Text.assemble(("━" * full, GOOD), ("━" * (width - full), QUIET))


def _columns(horizons: Sequence[int]) -> Table:
    table = _table(horizons)
    heads = [f"{minutes} min, ± bp" for minutes in horizons]
    table.add_row(*(Text(each, QUIET) for each in ("symbol", "mid", *heads, "signal", "pattern", "status")))
    return table


def _table(horizons: Sequence[int]) -> Table:
    """Columns of one width in all companies' tables, so that they stand under each other."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=8, no_wrap=True)
    table.add_column(width=8, justify="right", no_wrap=True)
    for _ in horizons:
        table.add_column(width=HORIZON_WIDTH, justify="right", no_wrap=True)
    table.add_column(width=8, justify="right", no_wrap=True)
    table.add_column(width=8, no_wrap=True)
    table.add_column(width=8, no_wrap=True)
    return table


def _company(account: Account, horizons: Sequence[int]) -> Iterable[RenderableType]:
    latency = account["latency_ms"]
    heading = Text.assemble(
        (account["company"], "bold"),
        "  ",
        (account["tier"].lower(), OF_TIER[account["tier"]]),
        (f"  {sum(account['answers'].values()):,} of {account['sent']:,} answered", QUIET),
        (f"  p50 {milliseconds(latency[0])} ms  p99 {milliseconds(latency[2])} ms" if latency else "", QUIET),
    )
    table = _table(horizons)
    for row in account["rows"]:
        table.add_row(*_cells(row, horizons))
    return heading, table


def _cells(row: Row, horizons: Sequence[int]) -> list[Text]:
    digits = decimals(row["mid"])
    answered = {each["minutes"]: each for each in row["horizons"]}
    pattern = PATTERNS[row["patterns"][0][0]] if row["patterns"] else ""
    signal = f"{row['signal']} {row['confidence']:3.0%}" if row["signal"] else "—"
    return [
        Text("  " + row["symbol"][:6]),
        Text(f"{row['mid']:.{digits}f}", QUIET),
        *(_horizon(answered.get(minutes), row["mid"], digits) for minutes in horizons),
        Text(signal, OF_SIGNAL.get(row["signal"], QUIET)),
        Text(pattern, "" if pattern else QUIET),
        Text(row["status"].lower(), OF_STATUS[row["status"]]),
    ]


def _horizon(horizon: Horizon | None, mid: float, digits: int) -> Text:
    """Direction, price, half the width of the 90 % interval in basis points."""
    if horizon is None:
        return Text("·", QUIET)
    half_bp = (horizon["upper"] - horizon["lower"]) / 2 / mid * 1e4
    width = f"±{half_bp:.1f}" if half_bp < 9.95 else f"±{half_bp:.0f}"
    return Text.assemble(
        (ARROWS[horizon["direction"]], OF_SIGNAL.get(horizon["direction"], QUIET)),
        f"{horizon['price']:.{digits}f}",
        (f"{width:>5}", QUIET),
    )


def _latencies(scene: Scene) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for width, justify in ((10, "left"), (6, "right"), (6, "right"), (6, "right")):
        table.add_column(width=width, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_row(*(Text(each, QUIET) for each in ("latency ms", "p50", "p90", "p99")))
    for name in ("wire", "engine"):
        quantiles = scene.books.get(f"{name}_ms", [])
        table.add_row(Text(name, "bold"), *(Text(milliseconds(each), "bold") for each in quantiles[:3]))
    for stage in STAGES:
        if stage in scene.look.stages_ms:
            table.add_row(Text(stage.replace("_", " ")), *map(milliseconds, scene.look.stages_ms[stage]))
    return table


def processes(look: Look) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for width, justify in ((10, "left"), (7, "left"), (6, "right"), (4, "right"), (8, "right")):
        table.add_column(width=width, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_row(*(Text(each, QUIET) for each in ("process", "state", "memory", "cpu", "restarts")))
    for each in look.processes:
        table.add_row(
            each.name,
            Text(each.state, OF_PROCESS[each.state]),
            f"{each.private_bytes / (1 << 20):,.0f} MB",
            f"{each.cores:.0%}",
            str(max(0, each.starts - 1)),
        )
    return table


def decimals(price: float) -> int:
    """As dealers quote: five digits below 20, three below 1,000, two above."""
    return 5 if price < 20 else 3 if price < 1000 else 2


def milliseconds(value: float) -> str:
    """Three figures, never less than a hundredth of a microsecond's worth of noise.

    >>> [milliseconds(each) for each in (0.0123, 0.61, 12.34, 250.0)]
    ['0.012', '0.610', '12.3', '250']
    """
    return (
        f"{value:.3f}"
        if value < 1
        else f"{value:.2f}"
        if value < 10
        else f"{value:.1f}"
        if value < 100
        else f"{value:.0f}"
    )


def line(scene: Scene) -> str:
    """The scene in one line, for where there is no terminal."""
    accounts: list[Account] = scene.books.get("accounts", [])
    sent = sum(account["sent"] for account in accounts)
    answered = sum(sum(account["answers"].values()) for account in accounts)
    latency = scene.books.get("wire_ms", [])
    wire = f"wire p50 {milliseconds(latency[0])} p99 {milliseconds(latency[2])} ms" if latency else "no answer yet"
    return f"{scene.seconds:5.1f} s  sent {sent:,}  answered {answered:,}  {wire}  {scene.look.status}"
