"""The training report: every number and picture that the manifests hold of all models, on one page.

Owns `models/report.md` and the plots in `models/report/`; run by `python -m engine.training` at its end, and as
`python -m engine.training.report [--store FOLDER]`. Reads manifests alone. What must stay true: nothing is
measured or typed in here, so that the page, the cards and the manifests say the same; the same manifests
give the same page.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.training import judging, plots, price_card
from engine.training.cards import page, table
from engine.training.patterns import NAMES
from engine.training.tried import TRIED

ROOT = Path(__file__).parent.parent.parent
FOLDER = "report"
BANDS = """Bands and standard errors come from resampled blocks of time in which simultaneous symbols stay together.
    Labels of neighbouring minutes overlap: n rows of a horizon of h minutes tell about as much as n / h independent
    ones, which the tables name beside n."""
Manifest = Mapping[str, Any]
Pictures = dict[str, str]  # file name to SVG


def name_of(manifest: Manifest) -> str:
    return f"{manifest['id']} {manifest['version']}"


def shown(file: str, words: str) -> str:
    return f"![{words}]({FOLDER}/{file})"


def side_by_side(files: Sequence[tuple[str, str]]) -> str:
    """Pictures in a table of two columns."""
    cells = [shown(*each) for each in files]
    cells += [""] * (len(cells) % 2)
    lines = [f"| {left} | {right} |" for left, right in zip(cells[::2], cells[1::2], strict=True)]
    return "\n".join([lines[0], "| --- | --- |", *lines[1:]])


def number(value: object) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.5f}" if abs(value) < 10.0 else f"{value:,.2f}"
    return f"{int(value):,}" if isinstance(value, int | float) else str(value)


# -- parts of every model --------------------------------------------------------------------------


def learning(manifest: Manifest, pictures: Pictures) -> list[str]:
    """Losses by epoch, where the training recorded them."""
    quality = manifest["quality"]
    lines = [
        plots.Line(name, [*range(1, len(quality[key]) + 1)], quality[key])
        for name, key in (("training", "loss_by_epoch"), ("watched", "watched_loss_by_epoch"))
        if quality.get(key)
    ]
    if not lines:
        return []
    file = f"{manifest['id']}_learning.svg"
    most = max(len(line.x) for line in lines)
    words = plots.Words(f"{manifest['id']}: loss by epoch", "epoch", "loss")
    pictures[file] = plots.line_chart(words, lines, x_ticks=[*range(1, most + 1)])
    return [
        "Losses by epoch. What is kept is the epoch that loses least on the watched rows, where rows are watched.",
        shown(file, "loss by epoch"),
    ]


def the_rest(quality: Mapping[str, Any], known: Sequence[str], head: Sequence[str]) -> list[str]:
    """Whatever else a manifest holds: a row each, numbers under the names where there are as many."""
    rest = {key: values for key, values in quality.items() if key not in known and not key.endswith("_by_epoch")}
    named = {key: values for key, values in rest.items() if head and len(values) == len(head)}
    single = {key: values for key, values in rest.items() if key not in named}
    out = []
    if named:
        rows = [[key.replace("_", " "), *map(number, values)] for key, values in named.items()]
        out.append(table(["", *head], rows))
    if single:
        rows = [[key.replace("_", " "), ", ".join(map(number, values))] for key, values in single.items()]
        out.append(table(["", "of all together"] if head else ["", "found"], rows))
    return out


# -- price models ----------------------------------------------------------------------------------


def differences(quality: Mapping[str, Any], horizons: Sequence[int]) -> str:
    """Brier scores less those of what needs no model; below 0 is better."""
    head = ("horizon (min)", "moves / horizon", "less one half's", "less climatology's", "less the last direction's",
            "less mean reversion's")  # fmt: skip
    columns = [price_card.with_errors(quality, f"over_{name}", "+.5f") for name in price_card.BASELINES]
    return table(head, price_card.rows_of(horizons, price_card.shown(quality["independent_moves"], ",.0f"), *columns))


def by(quality: Mapping[str, Any], name: str, horizons: Sequence[int], title: Callable[[Any], str]) -> str:
    """Coverage and median width of each symbol or hour."""
    head = [name, *(f"coverage, {h} min" for h in horizons), *(f"width (bp), {h} min" for h in horizons)]
    share, allowed, wide = (quality[f"{of}_by_{name}"] for of in ("coverage", "allowance", "width"))
    rows = []
    for k, each in enumerate(quality[f"{name}s"]):
        inside = [f"{share[h][k]:.3f} ± {allowed[h][k]:.3f}" for h in range(len(horizons))]
        rows.append([title(each), *inside, *(f"{wide[h][k]:.1f}" for h in range(len(horizons)))])
    return table(head, rows)


def hours(first: int) -> str:
    return f"{first} to {first + 3}"


def price_pictures(manifest: Manifest, pictures: Pictures) -> list[tuple[str, str]]:
    """Reliability of the confidence at each horizon with its null bars; of a rise; coverage and width by hour."""
    quality, horizons, name = manifest["quality"], manifest["horizons"], manifest["id"]
    files = []
    for h, minutes in enumerate(horizons):
        dots = plots.Points("", *(quality[f"confidence_{of}"][h] for of in ("said", "happened", "low", "high")))
        words = plots.Words(
            f"{name}: direction right, {minutes} min",
            "chance said",
            "share right",
            "bars: 95 of 100 perfect forecasters",
        )
        files.append((f"{name}_confidence_{minutes}.svg", f"reliability of the confidence over {minutes} min"))
        pictures[files[-1][0]] = plots.diagonal_chart(words, [dots])
    rises = [
        plots.Points(f"{minutes} min", quality["rise_said"][h], quality["rise_happened"][h])
        for h, minutes in enumerate(horizons)
    ]
    files.append((f"{name}_rise.svg", "reliability of the chance of a rise"))
    words = plots.Words(f"{name}: chance of a rise", "chance said", "share that rose", "no answer contains it")
    pictures[files[-1][0]] = plots.diagonal_chart(words, rises)
    for of, what, marks in (
        ("coverage", "share inside", [plots.Mark(0.9, "90 %")]), ("width", "median width (bp)", [])
    ):  # fmt: skip
        lines = [
            plots.Line(f"{minutes} min", quality["hours"], quality[f"{of}_by_hour"][h])
            for h, minutes in enumerate(horizons)
        ]
        files.append((f"{name}_{of}_by_hour.svg", f"{of} by hour"))
        words = plots.Words(f"{name}: {of} of 90 % intervals", "hour of the day, three together", what)
        pictures[files[-1][0]] = plots.line_chart(words, lines, marks=marks, x_ticks=quality["hours"])
    return files


def price(manifest: Manifest, pictures: Pictures) -> list[str]:
    quality, horizons = manifest["quality"], manifest["horizons"]
    files = price_pictures(manifest, pictures)
    return [
        f"## {name_of(manifest)}",
        """Brier scores of a rise where there was a move, as the engine answered. One half is what a random walk says.
        Climatology is the training part's share of rises; last direction and mean reversion are signs with the
        chance at which they were right in training.""",
        price_card.score_table(quality, horizons),
        "The same as differences with their standard errors; below nought the model is better:",
        differences(quality, horizons),
        "Absolute errors of the medians, in σ √h, beside the random walk's, which is that the mid stays:",
        price_card.move_table(quality, horizons),
        """The confidence that is published, held against whether the direction was right, given a move; beside it the
        chance of a rise, which is not. Null bands: what 95 of 100 perfect forecasters stay below.""",
        price_card.calibration_table(quality, horizons),
        side_by_side(files[: len(horizons) + 1]),
        "Coverage of the 90 % intervals:",
        price_card.coverage_table(quality, horizons, manifest["calibration"]["q"]),
        "By symbol; the allowance is two binomial standard errors of rows / horizon outcomes:",
        by(quality, "symbol", horizons, str),
        "By hour of the files' clock:",
        by(quality, "hour", horizons, hours),
        side_by_side(files[len(horizons) + 1 :]),
        f"""Runs that must find nothing, each row judged with its mirror image, on which an opinion that never changes
        is right half of the time. {price_card.beyond_chance(quality, horizons)}""",
        price_card.control_table(quality, horizons),
        f"""Five networks, each fitted without one symbol, on that symbol's minutes of all parts. Those of EURUSD,
        NZDUSD and XAUUSD saw the other two at the same minutes; GBPUSD and USDJPY are alone in their year. Scales and
        first multipliers come from the calibration part of all five.{price_card.unsure(quality, horizons)}""",
        price_card.unseen_table(quality, horizons),
        *learning(manifest, pictures),
    ]


def overview(prices: Sequence[Manifest], pictures: Pictures) -> list[str]:
    """All price models in one picture."""
    if not prices:
        return []
    horizons = prices[0]["horizons"]
    bars = [
        plots.Heights(each["id"], *(each["quality"][f"over_climatology{of}"] for of in ("", "_low", "_high")))
        for each in prices
    ]
    words = plots.Words(
        "Brier score of a rise less climatology's", "horizon", "difference", "below 0: better; bars: 95 % bands"
    )
    pictures["brier.svg"] = plots.bar_chart(words, [f"{each} min" for each in horizons], bars)
    return [shown("brier.svg", "Brier scores less climatology's")]


# -- the others ------------------------------------------------------------------------------------


def pattern(manifest: Manifest, pictures: Pictures) -> list[str]:
    return [
        f"## {name_of(manifest)}",
        f"""Made-up walks taught it, {manifest["training"]["examples"]:,} minutes calibrated it; the card says how it is
        judged. What was found, by pattern, in the manifest's words:""",
        *the_rest(manifest["quality"], (), NAMES),
        *learning(manifest, pictures),
    ]


def direction(manifest: Manifest, pictures: Pictures) -> list[str]:
    quality = manifest["quality"]
    beside = [f"side_beside_{name}" for name in judging.RULES]
    known = (*judging.TITLES, *judging.CALIBRATED, *beside)
    return [
        f"## {name_of(manifest)}",
        """On the 15-minute label, beside the training part's rates (climatology); skill is told twice, touch or none
        and which side.""",
        judging.score_table(quality),
        *([judging.rule_table(quality)] if set(beside) <= set(quality) else []),
        judging.calibration_table(quality),
        *the_rest(quality, known, ()),
        *learning(manifest, pictures),
    ]


ROLES: dict[str, Callable[[Manifest, Pictures], list[str]]] = {
    "price": price, "pattern": pattern, "direction": direction, "ensemble": direction,
}  # fmt: skip


# -- the page --------------------------------------------------------------------------------------


def made(store: Path) -> tuple[str, Pictures]:
    """The page, and its pictures by file name."""
    pictures: Pictures = {}
    manifests = [tomllib.loads(path.read_text()) for path in sorted(store.glob("*/*/model.toml"))]
    of_role = {role: [each for each in manifests if each["role"] == role] for role in ROLES}
    blocks = [
        """Written by `python -m engine.training` from the manifests in this folder; each `<id>/<version>/card.md` says
        what the model is.""",
        """The data are one-minute bars of five symbols in `data/fx_m1`, some weeks of 2012, 2013 and 2014. Models were
        fitted on the first 60 % of each file, calibrated on the next 18 % and judged on the last 22 %, four hours
        apart; three of the files are of the same weeks and move together, so they count for less than three.""",
        BANDS,
        *overview(of_role["price"], pictures),
    ]
    for role, section in ROLES.items():
        for manifest in of_role[role]:
            blocks += section(manifest, pictures)
    blocks += ["## Markets of known law", price_card.KNOWN_LAW, "## Tried and dropped", *TRIED]
    return page("What the bundled models are worth", *blocks), pictures


def write(store: Path) -> list[str]:
    """Names of the files written; pictures of a report before it are gone."""
    text, pictures = made(store)
    folder = store / FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    (store / "report.md").write_text(text)
    for name, picture in pictures.items():
        (folder / name).write_text(picture)
    return ["report.md", *(f"{FOLDER}/{name}" for name in pictures)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.report", description="Writes the report.")
    parser.add_argument("--store", type=Path, default=ROOT / "models", help="model store")
    arguments = parser.parse_args()
    print("written:", ", ".join(write(arguments.store)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
