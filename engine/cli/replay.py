"""`replay TAPE`: a recorded input again, through the worker's own code, without any bus.

Owns the command line and what is printed; `engine.replay` does the work. Runs in a process of its own. Reads a
tape and the model store; writes a summary, or JSON, to standard output and a table of answers to `--out`.
What must stay true: on the device that answered live, the digest of the replay equals that of what was answered, or
the first input that differs is named.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import Progress

from engine.errors import SettingsError, TapeError
from engine.gpus import min_artefact_bytes, usable
from engine.replay.diff import Difference, compare
from engine.replay.digest import Digest
from engine.replay.parquet import Table
from engine.replay.reading import Tape
from engine.replay.running import Choice, Result, results
from engine.settings import Settings, load

LIVE = "live"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("tape", metavar="TAPE", type=Path, help="the folder of a tape, or one of its segments")
    add("--config", metavar="FILE", help="settings (TOML); they name the model store")
    add("--max-batch", type=_count(256), metavar="N", help="vectors in a microbatch; default: engine.max_batch")
    add("--workers", type=_count(16), default=1, metavar="N", help="processes; streams are shared between them")
    add("--from", dest="begin", metavar="WHEN", help="first answer: a position, or a time such as 2026-11-27T02:00:00")
    add("--to", dest="end", metavar="WHEN", help="last answer, likewise")
    add("--stream", metavar="COMPANY/STREAM", help="this stream alone")
    add("--out", metavar="FILE.parquet", type=Path, help="write the answers, a row for each vector")
    add("--diff", metavar="OTHER", help="live, another tape, or another engine.toml: the first answer that differs")
    add("--skip-holes", action="store_true", help="go on behind what is missing or damaged")
    add("--current-models", action="store_true", help="answer with what the store holds now, whatever the tape names")
    add("--json", action="store_true", help="summary as JSON")


def main(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config)
    choice = _choice(arguments, settings)
    source = Tape(choice.path, choice.skip_holes).open()
    console = Console(stderr=True)
    began_s, table = time.monotonic(), Table(arguments.out) if arguments.out else None
    with Progress(console=console, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("replay", total=source.count())

        def told(choice: Choice) -> Iterator[Result]:
            for result in results(choice, arguments.workers, lambda text: console.print(text, highlight=False)):
                progress.advance(bar)
                yield result

        ones = told(choice)
        if arguments.diff:
            return _differ(arguments, compare(ones, _other(arguments.diff, choice, arguments.workers)))
        summary, stopped = _summary(ones, table)
    summary["vectors_per_s"] = round(summary["vectors"] / (time.monotonic() - began_s), 1)
    if table is not None:
        table.close()
    _print(arguments, summary, stopped)
    return 0 if not stopped else 1


def _summary(ones: Iterator[Result], table: Table | None) -> tuple[dict, str]:
    """Counts and digests; why it ended early, empty where it did not."""
    replayed, live, stopped = Digest(), Digest(), ""
    inputs = vectors = unknown = other = 0
    first_other = None
    try:
        for result in ones:
            inputs, vectors = inputs + 1, vectors + result.vectors
            replayed.add(result.values)
            if result.live is None:
                unknown += 1
            else:
                live.add(result.live)
                if not result.is_as_live:
                    other += 1
                    first_other = first_other or result.position
            if table is not None:
                table.add(result)
    except TapeError as error:
        stopped = str(error)
    summary = {
        "digest": replayed.hex(),
        "inputs": inputs,
        "answers": inputs,
        "vectors": vectors,
        "live_digest": live.hex() if not unknown else None,
        "unknown": unknown,
        "differ": other,
        "first_differs": first_other,
    }
    return summary, stopped


def _print(arguments: argparse.Namespace, summary: dict, stopped: str) -> None:
    if stopped:
        print(f"replay: stopped: {stopped}", file=sys.stderr)
        summary["stopped"] = stopped
    if arguments.json:
        print(orjson.dumps(summary).decode())
        return
    print(f"{summary['inputs']} inputs, {summary['vectors']} vectors, {summary['vectors_per_s']} vectors/s")
    print(f"digest {summary['digest']}")
    if summary["differ"]:
        print(f"{summary['differ']} answers differ from live, the first at position {summary['first_differs']}")
    elif summary["unknown"]:
        print(f"as live, but for {summary['unknown']} answers that the tape does not have")
    else:
        print("as live, to the bit")


def _differ(arguments: argparse.Namespace, difference: Difference | None) -> int:
    if arguments.json:
        print(orjson.dumps(difference._asdict() if difference else {"same": True}).decode())
    else:
        print(difference.text() if difference else "no answer differs")
    return 1 if difference else 0


def _other(what: str, choice: Choice, workers: int) -> Iterator[Result] | None:
    """The other side of a comparison; None: what was answered live."""
    if what == LIVE:
        return None
    if what.endswith(".toml"):
        settings = load(what)
        choice = replace(
            choice,
            store=Path(settings.models.path),
            max_batch=settings.engine.max_batch,
            gpus=tuple(usable(settings)[0]),
            min_artefact_bytes=min_artefact_bytes(settings),
            current_models=True,
        )
    else:
        choice = replace(choice, path=Path(what))
    return results(choice, workers, lambda text: None)


def _choice(arguments: argparse.Namespace, settings: Settings) -> Choice:
    from_position, from_unix_ns = _when("--from", arguments.begin)
    to_position, to_unix_ns = _when("--to", arguments.end)
    stream = None
    if arguments.stream:
        company, slash, name = arguments.stream.partition("/")
        if not (company and slash and name):
            raise SettingsError(f"--stream {arguments.stream!r}: expected COMPANY/STREAM")
        stream = company, name
    return Choice(
        arguments.tape,
        Path(settings.models.path),
        arguments.max_batch or settings.engine.max_batch,
        tuple(usable(settings)[0]),
        min_artefact_bytes(settings),
        arguments.skip_holes,
        arguments.current_models or (arguments.diff or "").endswith(".toml"),
        stream,
        from_position,
        from_unix_ns,
        to_position,
        to_unix_ns,
    )


def _when(flag: str, text: str | None) -> tuple[int, int]:
    """(position, Unix ns), one of which is 0."""
    if not text:
        return 0, 0
    if text.isascii() and text.isdecimal():
        return int(text), 0
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{flag} {text!r}: expected a position, or a time such as 2026-11-27T02:00:00") from None
    return 0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e9)


def _count(most: int):
    def count(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 to {most}")
        return int(text)

    return count
