"""The live view: what stands where, and that it fits a small terminal."""

import io

from rich.console import Console

from engine.cli import view
from engine.cli.scrape import Look, Process
from engine.cli.view import Scene

EMPTY = {"OK": 0, "DEGRADED": 0, "WARMING": 0, "EXPIRED": 0, "REJECTED": 0}


def horizon(minutes, price, half, direction):
    return {
        "minutes": minutes,
        "price": price,
        "lower": price - half,
        "upper": price + half,
        "direction": direction,
        "confidence": 0.52,
    }


def row(symbol, mid, horizons, status="OK", patterns=()):
    return {
        "symbol": symbol,
        "event_ns": 0,
        "mid": mid,
        "status": status,
        "reason": "",
        "signal": "" if status in ("EXPIRED", "REJECTED") else "BUY",
        "confidence": 0.41,
        "horizons": horizons,
        "patterns": list(patterns),
    }


def account(company, tier, rows):
    return {
        "company": company,
        "tier": tier,
        "messages": 60,
        "sent": 300,
        "answers": EMPTY | {"OK": 299},
        "unanswered": 1,
        "doubled": 0,
        "disordered": 0,
        "misfit": 0,
        "heartbeats": 3,
        "latency_ms": [0.61, 0.98, 2.345, 12.3],
        "rows": rows,
    }


def scene():
    wide = [horizon(m, 1291.69, m / 2, "SELL") for m in (1, 5, 15, 60)]
    four = [horizon(m, 1.38684, m / 1e5, "BUY") for m in (1, 5, 15, 60)]
    rows = [
        row("EURUSD", 1.38684, four, patterns=[("HEAD_AND_SHOULDERS", 0.5)]),
        row("XAUUSD", 1291.69, wide, "DEGRADED"),
    ]
    rows += [row("USDJPY", 102.123, four[:1], "REJECTED")] * 3
    accounts = [
        account("meridian-capital", "ENTERPRISE", rows),
        account("alpine-quant", "PRO", rows[:4]),
        account("northwind-fx", "FREE", rows[:3]),
    ]
    names = ("supervisor", "ingress", "egress", "control", "worker-0", "worker-1")
    look = Look(
        "healthy",
        {stage: [0.012, 0.61, 12.3] for stage in ("ingress", "ring_wait", "inference", "egress", "confirm")},
        [Process(name, "ready", 123 << 20, 0.125, 1) for name in names],
    )
    books = {
        "seconds": 12.0,
        "accounts": accounts,
        "wire_ms": [0.61, 0.98, 2.345, 12.3],
        "engine_ms": [0.4, 0.5, 1.5, 9.9],
    }
    return Scene(12.0, 20.0, books, look)


def printed(frame, width=100):
    console = Console(file=io.StringIO(), width=width, height=30, force_terminal=False, color_system=None)
    console.print(frame)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_it_fits_a_hundred_columns_and_thirty_rows():
    lines = printed(view.frame(scene()))
    assert len(lines) <= 29  # the last row is the cursor's
    assert all(len(line) <= 100 for line in lines)
    assert not any("…" in line for line in lines)


def test_columns_stand_under_each_other_and_say_this():
    lines = printed(view.frame(scene()))
    assert lines[0] == " Tickpath   ● healthy   75 vectors/s   900 sent   897 answered   ━━━━━━━━━━━━ 12/20 s"
    assert lines[2:6] == [
        "symbol        mid   1 min, ± bp   5 min, ± bp  15 min, ± bp  60 min, ± bp   signal pattern  status",
        "meridian-capital  enterprise  299 of 300 answered  p50 0.610 ms  p99 2.35 ms",
        "  EURUSD  1.38684 ▲1.38684 ±0.1 ▲1.38684 ±0.4 ▲1.38684 ±1.1 ▲1.38684 ±4.3  BUY 41% head&shl ok",
        "  XAUUSD  1291.69 ▼1291.69 ±3.9 ▼1291.69  ±19 ▼1291.69  ±58 ▼1291.69 ±232  BUY 41%          degraded",
    ]


def test_latencies_stand_beside_the_processes():
    assert printed(view.frame(scene()))[-9:-5] == [
        "latency ms     p50     p90     p99   process     state    memory   cpu  restarts",
        "wire         0.610   0.980    2.35   supervisor  ready    123 MB   12%         0",
        "engine       0.400   0.500    1.50   ingress     ready    123 MB   12%         0",
        "ingress      0.012   0.610    12.3   egress      ready    123 MB   12%         0",
    ]


def test_a_small_window_shows_fewer_horizons_and_cuts_no_number():
    lines = printed(view.frame(scene(), 80), width=80)
    assert lines[2] == "symbol        mid   1 min, ± bp  60 min, ± bp   signal pattern  status"
    assert lines[5] == "  XAUUSD  1291.69 ▼1291.69 ±3.9 ▼1291.69 ±232  BUY 41%          degraded"
    assert len(lines) <= 29
    assert not any("…" in line for line in lines)


def test_an_empty_start_and_a_silent_engine_are_shown():
    lines = printed(view.frame(Scene(0.0, 20.0, {})))
    assert lines[0] == " Tickpath   ● no answer   0 vectors/s   0 sent   0 answered   ━━━━━━━━━━━━  0/20 s"


def test_without_a_terminal_it_is_a_line():
    assert view.line(scene()) == " 12.0 s  sent 900  answered 897  wire p50 0.610 p99 2.35 ms  healthy"
    assert view.line(Scene(0.0, 20.0, {})) == "  0.0 s  sent 0  answered 0  no answer yet  no answer"
