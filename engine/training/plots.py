"""The plots of the report and of the cards: lines with bands, bars, points along a diagonal.

Owns their geometry; pure functions from numbers to SVG text, run by `python -m engine.training`.
What must stay true: what is not a number leaves a gap and is never drawn; bars begin at nought; on a
diagonal both axes have one scale; names stand beside what they name.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from engine.training.svg import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LETTER,
    RIGHT,
    TOP,
    WIDTH,
    Frame,
    Numbers,
    Scale,
    Words,
    axes,
    frame,
    legend,
    limits,
    names,
    number,
    page,
    segment,
    text,
    ticks,
)

NAME_HEIGHT = 15.0  # px between two names at the lines' ends


class Line(NamedTuple):
    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None  # of its band
    high: Numbers | None = None


class Heights(NamedTuple):
    """One value a category."""

    name: str
    values: Numbers
    low: Numbers | None = None
    high: Numbers | None = None


class Points(NamedTuple):
    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None  # where each could stand by chance alone
    high: Numbers | None = None


class Mark(NamedTuple):
    """A level to compare with."""

    y: float
    name: str


def _everything(series: Sequence[Line] | Sequence[Points]) -> list[float]:
    return [value for each in series for part in (each.y, each.low, each.high) if part is not None for value in part]


def _runs(inside: Frame, x: Numbers, *ys: Numbers) -> list[list[tuple[float, ...]]]:
    """Stretches of points without a gap, in pixels."""
    runs: list[list[tuple[float, ...]]] = [[]]
    for values in zip(x, *ys, strict=True):
        if all(map(math.isfinite, values)):
            runs[-1].append((inside.x.at(values[0]), *(inside.y.at(each) for each in values[1:])))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(points: Sequence[tuple[float, ...]], closed: bool = False) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")


def _drawn_line(inside: Frame, line: Line, n: int) -> list[str]:
    out, colour = [], n % COLOURS
    if line.low is not None and line.high is not None:
        for run in _runs(inside, line.x, line.low, line.high):
            around = [(x, low) for x, low, _ in run] + [(x, high) for x, _, high in reversed(run)]
            out.append(f'<path d="{_path(around, closed=True)}" class="band f{colour}"/>')
    for run in _runs(inside, line.x, line.y):
        if len(run) == 1:
            out.append(f'<circle cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="2.5" class="f{colour}"/>')
        else:
            out.append(f'<path d="{_path(run)}" class="line s{colour}"/>')
    return out


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near as can be to the wanted ones, in their order, at least `gap` apart, from `low` to `high`.

    >>> spread_out([10.0, 12.0, 60.0], 15.0, 0.0, 100.0)
    [10.0, 25.0, 60.0]
    >>> spread_out([98.0, 97.0], 15.0, 0.0, 100.0)
    [100.0, 85.0]
    """
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    out = list(wanted)
    last = low - gap
    for n in order:
        out[n] = last = max(wanted[n], last + gap)
    last = high + gap
    for n in reversed(order):
        out[n] = last = min(out[n], last - gap)
    return out


def _end_names(inside: Frame, lines: Sequence[Line]) -> list[str]:
    """Each line's name where it ends, in its colour."""
    ends = [(n, runs[-1][-1][1]) for n, line in enumerate(lines) if (runs := _runs(inside, line.x, line.y))]
    places = spread_out([y for _, y in ends], NAME_HEIGHT, inside.y.stop, inside.y.start)
    return [
        text(inside.x.stop + 8, y + 4, lines[n].name, style=f"f{n % COLOURS}")
        for (n, _), y in zip(ends, places, strict=True)
    ]


def _drawn_marks(inside: Frame, marks: Sequence[Mark]) -> list[str]:
    """Levels across the plot; their names stand above it, where no line crosses them."""
    out, end = [], inside.x.stop
    for mark in marks:
        y = inside.y.at(mark.y)
        out.append(segment(inside.x.start, y, inside.x.stop, y, "mark"))
        out.append(text(end, TOP - 14, mark.name, style="soft", anchor="end"))
        end -= LETTER * len(mark.name) + 6
        out.append(segment(end - 24, TOP - 18, end, TOP - 18, "mark"))
        end -= 38
    return out


def line_chart(
    words: Words,
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    y_range: tuple[float, float] | None = None,
    x_ticks: Numbers | None = None,
    log_x: bool = False,
) -> str:
    """Lines over a common axis, each with its band where it has one. Bands are drawn below all lines."""
    xs = [value for line in lines for value in line.x]
    x = (min(xs), max(xs)) if log_x or x_ticks is not None else limits(xs)
    y = y_range or limits(_everything(lines), [mark.y for mark in marks])
    right = max([RIGHT, *(LETTER * len(line.name) + 20 for line in lines)])
    inside = frame(x if x[0] < x[1] else limits(xs), y, right=right, log_x=log_x)
    drawn = [part for n, line in enumerate(lines) for part in _drawn_line(inside, line, n)]
    drawn.sort(key=lambda part: 'class="band' not in part)
    return page(
        words, [*axes(inside, words, x_ticks), *drawn, *_drawn_marks(inside, marks), *_end_names(inside, lines)]
    )


def _whisker(x: float, low: float, high: float, style: str) -> list[str]:
    return [
        segment(x, low, x, high, style),
        segment(x - 4, low, x + 4, low, style),
        segment(x - 4, high, x + 4, high, style),
    ]


def bar_chart(words: Words, categories: Sequence[str], bars: Sequence[Heights]) -> str:
    """Groups of bars from nought, with whiskers for their bands; negative values hang down."""
    values = [v for each in bars for part in (each.values, each.low, each.high) if part is not None for v in part]
    inside = frame((0.0, float(len(categories))), limits(values, [0.0]))
    ground = inside.y.at(0.0)
    slot = (inside.x.stop - inside.x.start) / max(len(categories), 1)
    wide = min(0.72 * slot / max(len(bars), 1), 56.0)
    out = _bar_axes(inside, words, categories)
    for n, each in enumerate(bars):
        for k, value in enumerate(each.values):
            if not math.isfinite(value):
                continue
            left = inside.x.at(k + 0.5) + (n - len(bars) / 2) * wide
            top, bottom = sorted((inside.y.at(value), ground))
            out.append(
                f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{wide - 2:.1f}" height="{bottom - top:.1f}" '
                f'rx="1.5" class="f{n % COLOURS}"/>'
            )
            if each.low is not None and each.high is not None and math.isfinite(each.low[k] + each.high[k]):
                out += _whisker(left + wide / 2, inside.y.at(each.low[k]), inside.y.at(each.high[k]), "whisker")
    out.append(segment(inside.x.start, ground, inside.x.stop, ground, "axis"))
    shown = legend([each.name for each in bars]) if len(bars) > 1 else []
    return page(words, [*out, *shown])


def _bar_axes(inside: Frame, words: Words, categories: Sequence[str]) -> list[str]:
    out = []
    for each in ticks(inside.y.low, inside.y.high):
        out.append(segment(inside.x.start, inside.y.at(each), inside.x.stop, inside.y.at(each), "grid"))
        out.append(text(inside.x.start - 8, inside.y.at(each) + 4, number(each), style="soft", anchor="end"))
    for k, name in enumerate(categories):
        out.append(text(inside.x.at(k + 0.5), inside.y.start + 18, name, style="soft", anchor="middle"))
    return [*out, *names(inside, words)]


def diagonal_chart(
    words: Words, points: Sequence[Points], *, both: tuple[float, float] | None = None, diagonal: str = "as said"
) -> str:
    """Points beside the line on which both numbers are equal; whiskers show where chance alone may put them."""
    low, high = both or limits([*_everything(points), *(value for each in points for value in each.x)])
    side = HEIGHT - BOTTOM - TOP
    left = (WIDTH - side) / 2
    inside = Frame(Scale(low, high, left, left + side), Scale(low, high, HEIGHT - BOTTOM, TOP))
    ends = inside.x.at(low), inside.y.at(low), inside.x.at(high), inside.y.at(high)
    out = [*axes(inside, words, None), segment(*ends, "mark"), text(ends[2] + 8, ends[3] + 4, diagonal, style="soft")]
    for n, each in enumerate(points):
        for k, (x, y) in enumerate(zip(each.x, each.y, strict=True)):
            if not math.isfinite(x + y):
                continue
            if each.low is not None and each.high is not None and math.isfinite(each.low[k] + each.high[k]):
                out += _whisker(inside.x.at(x), inside.y.at(each.low[k]), inside.y.at(each.high[k]), "whisker")
            out.append(f'<circle cx="{inside.x.at(x):.1f}" cy="{inside.y.at(y):.1f}" r="4.5" class="f{n % COLOURS}"/>')
    shown = legend([each.name for each in points]) if len(points) > 1 else []
    return page(words, [*out, *shown])
