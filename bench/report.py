"""What `bench.wire` says: tables for people, the same numbers for programs.

Owns what was measured, round by round, and its wording; run by the benchmark's own process. What must
stay true: no percentile without its count, no figure for a contender that failed to answer, the goal
stated and never asserted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench import host
from bench.contenders import Contender
from bench.figures import PERCENTILES, Ratio, milliseconds, percentile, ratio, summarise, table, told_apart
from bench.load import BATCHES, LOADS, SINGLES, Load

GOAL = "under 15 ms at p99 on two cores"
SAME = ("echo-again", "echo")
PAIRS = (
    SAME,
    ("engine", "echo"),
    ("plain", "echo"),
    ("plain", "engine"),
    ("plain-remembering", "engine"),
)
HOW = {
    BATCHES.name: "all contenders in shuffled turns within each 200 ms",
    SINGLES.name: "one contender at a time, in shuffled order",
}


@dataclass
class Part:
    """One contender under one load."""

    rounds: list[dict[str, Any]] = field(default_factory=list)  # fields of `answers.Round`
    used_s: float = 0.0  # processor time of its processes within the rounds

    def of(self, name: str) -> list[Any]:
        return [value for each in self.rounds for value in each[name]]

    def latencies(self) -> list[list[int]]:
        return [each["latencies_ns"] for each in self.rounds]

    def count(self, name: str) -> Counter[str]:
        return sum((Counter(each[name]) for each in self.rounds), Counter())


@dataclass
class Measured:
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    idle: dict[str, list[float]] = field(default_factory=dict)  # [processor seconds, seconds] while others were asked
    others_cores: float = 0.0  # busy with what is no part of the benchmark

    def add(self, name: str, load: Load, found: dict[str, Any], used_s: float) -> None:
        part = self.parts.setdefault((name, load.name), Part())
        part.rounds.append(found)
        part.used_s += used_s

    def idled(self, name: str, used_s: float, wall_s: float) -> None:
        total = self.idle.setdefault(name, [0.0, 0.0])
        total[0] += used_s
        total[1] += wall_s

    def problems(self, name: str, load: Load) -> Counter[str]:
        """Why there is no figure; empty where there is one."""
        part = self.parts.get((name, load.name), Part())
        found = part.count("problems")
        return found if found or part.of("latencies_ns") else Counter({"nothing measured": 1})

    def idle_share(self, name: str) -> float | None:
        used_s, wall_s = self.idle.get(name, (0.0, 0.0))
        return used_s / wall_s if wall_s > 0.0 else None

    def ratio(self, over: str, under: str, load: Load) -> Ratio | None:
        """None unless both have figures."""
        if any((name, load.name) not in self.parts or self.problems(name, load) for name in (over, under)):
            return None
        return ratio(self.parts[over, load.name].latencies(), self.parts[under, load.name].latencies())


def as_text(measured: Measured, contenders: Sequence[Contender], about: dict[str, Any]) -> str:
    lines = [
        f"wire to wire: from the time a message was due to the last byte of its whole answer, over {about['over']}",
        f"seed {about['seed']}, {about['seconds']:g} s of load; enterprise tier, windows full, models of models/",
        host.line(about["host"]),
        f"cores busy with other work meanwhile: {measured.others_cores:.2f}{_disturbed(measured)}",
    ]
    for load in LOADS:
        lines += ["", f"{load.words}: {HOW[load.name]}", _minutes(measured, load), ""]
        lines += [_latencies(measured, contenders, load)]
        lines += [text for each in contenders for text in _of_itself(measured, each, load)]
        lines += [text for each in contenders for text in _failure(measured, each, load)]
        if ratios := _ratios(measured, load):
            lines += ["", ratios]
    return "\n".join([*lines, "", *_goal(measured), _idle(measured, contenders)])


def _disturbed(measured: Measured) -> str:
    if measured.others_cores <= host.QUIET_CORES:
        return ""
    return f" (more than {host.QUIET_CORES}: these figures tell of that work too; run it again on a quiet host)"


def _minutes(measured: Measured, load: Load) -> str:
    rounds = [each for (_, name), part in measured.parts.items() if name == load.name for each in part.rounds]
    opened = sum(each["minutes_closed"] for each in rounds)
    return f"event times are due times: {opened} of all vectors were the first of a minute and closed the one before"


def _latencies(measured: Measured, contenders: Sequence[Contender], load: Load) -> str:
    head = ["ms", "messages", *(f"p{percent:g}" for percent in PERCENTILES), "max"]
    head += ["sent late p99", "core ms a message", "answer bytes", "statuses"]
    rows = []
    for each in contenders:
        part = measured.parts.get((each.name, load.name))
        if part is None or measured.problems(each.name, load):
            rows.append([each.name, *["no figure"] * (len(head) - 1)])
            continue
        found = summarise(part.of("latencies_ns"))
        rows.append(
            [
                each.name,
                str(found.messages),
                *(milliseconds(found.percentiles_ns[percent]) for percent in PERCENTILES),
                milliseconds(found.max_ns),
                milliseconds(percentile(sorted(part.of("late_ns")), 99.0)),
                f"{part.used_s / found.messages * 1e3:.2f}",
                str(round(median(part.of("answer_bytes")))),
                ", ".join(f"{count} {name}" for name, count in sorted(part.count("statuses").items())) or "-",
            ]
        )
    return table(head, rows)


def _of_itself(measured: Measured, contender: Contender, load: Load) -> list[str]:
    part = measured.parts.get((contender.name, load.name), Part())
    engine_ms, inference_ms = part.of("engine_ms"), part.of("inference_ms")
    if not engine_ms or measured.problems(contender.name, load):
        return []
    told = f"engine_time_ms {median(engine_ms):.2f}, inference_time_ms {median(inference_ms):.2f}"
    return [f"  {contender.name} says of itself, medians: {told}"]


def _failure(measured: Measured, contender: Contender, load: Load) -> list[str]:
    return [f"  {contender.name}: {count} x {text}" for text, count in measured.problems(contender.name, load).items()]


def _ratios(measured: Measured, load: Load) -> str:
    same = measured.ratio(*SAME, load)
    rows = []
    for over, under in PAIRS:
        found = measured.ratio(over, under, load)
        if found is None:
            continue
        word = "A/A: the noise of this run" if (over, under) == SAME else ""
        if not word and same is not None and not told_apart(found, same):
            word = "within the noise"
        numbers = [f"{value:.2f}" for value in (found.middle, found.low, found.high)]
        rows.append([f"{over} / {under}", *numbers, str(found.rounds), word])
    return table(("ratio of medians", "middle", "lowest", "highest", "rounds", ""), rows) if rows else ""


def _goal(measured: Measured) -> list[str]:
    """Stated, never asserted."""
    lines = []
    for load in LOADS:
        part = measured.parts.get(("engine", load.name))
        if part is not None and not measured.problems("engine", load):
            found = summarise(part.of("latencies_ns"))
            value = milliseconds(found.percentiles_ns[99.0])
            lines.append(f"goal ({GOAL}): engine, {load.words}: {value} ms of {found.messages} messages")
    return lines


def _idle(measured: Measured, contenders: Sequence[Contender]) -> str:
    shares = [
        f"{each.name} {share:.3f}" for each in contenders if (share := measured.idle_share(each.name)) is not None
    ]
    rounds = [each for (_, load), part in measured.parts.items() if load == SINGLES.name for each in part.rounds]
    wall_s = sum(each["wall_s"] for each in rounds)
    load_share = sum(each["generator_s"] for each in rounds) / wall_s if wall_s > 0.0 else 0.0
    return (
        f"cores used while another contender was asked: {', '.join(shares) or '-'}\n"
        f"cores used by the generator at {SINGLES.words}: {load_share:.3f}"
    )


def as_json(measured: Measured, contenders: Sequence[Contender], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, each latency too, in nanoseconds."""
    loads = []
    for load in LOADS:
        parts = {each.name: measured.parts.get((each.name, load.name), Part()) for each in contenders}
        ratios = {f"{over}/{under}": measured.ratio(over, under, load) for over, under in PAIRS}
        loads.append(
            {
                "name": load.name,
                "messages_per_s": load.messages_per_s,
                "vectors": load.vectors,
                "how": HOW[load.name],
                "contenders": {each.name: _part_json(measured, parts[each.name], each, load) for each in contenders},
                "ratios_of_medians": {name: found._asdict() for name, found in ratios.items() if found is not None},
            }
        )
    idle = {each.name: measured.idle_share(each.name) for each in contenders}
    return {
        **about,
        "figures": figures(measured),
        "goal": GOAL,
        "others_cores": round(measured.others_cores, 3),
        "idle_cores": idle,
        "loads": loads,
    }


def figures(measured: Measured) -> dict[str, Any]:
    """The engine's percentiles beside the echo's."""
    found: dict[str, Any] = {}
    for load in LOADS:
        told = {
            name: summarise(measured.parts[name, load.name].of("latencies_ns")).percentiles_ns
            for name in ("engine", "echo")
            if (name, load.name) in measured.parts and not measured.problems(name, load)
        }
        for percent in (50.0, 99.0):
            key = f"{load.name}_p{percent:g}"
            if len(told) == 2:
                found[key] = {"measured": told["engine"][percent], "baseline": told["echo"][percent]}
            else:
                found[key] = {"measured": None, "why": "no figure: not all was answered well"}
    return found


def _part_json(measured: Measured, part: Part, contender: Contender, load: Load) -> dict[str, Any]:
    problems = measured.problems(contender.name, load)
    summary = None
    if not problems:
        found = summarise(part.of("latencies_ns"))
        summary = {
            "messages": found.messages,
            **{f"p{percent:g}_ns": found.percentiles_ns[percent] for percent in PERCENTILES},
            "max_ns": found.max_ns,
        }
    return {
        "words": contender.words,
        "summary": summary,
        "problems": dict(problems),
        "used_s": round(part.used_s, 3),
        "rounds": part.rounds,
    }
