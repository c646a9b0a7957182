"""Paper, axes and text of a plot, as SVG.

Owns sizes, colours and scales; pure functions from numbers to text, used by `engine.training.plots`.
What must stay true: a picture fetches nothing and runs nothing; it reads well on white and on dark paper;
every text is escaped; the same numbers give the same bytes.

Heckbert, Nice numbers for graph labels, Graphics Gems, 1990. Colours after Okabe and Ito, Color universal
design, 2008, which people who confuse red and green can tell apart; lighter ones stand on dark paper.
"""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Numbers = Sequence[float] | np.ndarray

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 84, 52  # margins of the plotting area
LETTER = 6.6  # width of a letter of 12 px, about
COLOURS = 6

_STYLE = """<style>
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;font-size:12px;fill:#1f2328}
.paper{fill:#ffffff}.title{font-size:16px;font-weight:600}.soft{fill:#59636e}
.grid{stroke:#e3e8ed}.axis{stroke:#818b98}.mark{stroke:#59636e;stroke-dasharray:5 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.band{opacity:.16}.whisker{stroke:#1f2328;stroke-width:1.5;opacity:.75}
.s0{stroke:#0072b2}.s1{stroke:#c44f00}.s2{stroke:#00835f}.s3{stroke:#a8487e}.s4{stroke:#8a6a00}.s5{stroke:#4d5bb8}
.f0{fill:#0072b2}.f1{fill:#c44f00}.f2{fill:#00835f}.f3{fill:#a8487e}.f4{fill:#8a6a00}.f5{fill:#4d5bb8}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.paper{fill:#0d1117}.soft{fill:#9da7b1}
.grid{stroke:#21282f}.axis{stroke:#6b7682}.mark{stroke:#9da7b1}.band{opacity:.24}
.whisker{stroke:#e6edf3}
.s0{stroke:#58b4f0}.s1{stroke:#ff9a5c}.s2{stroke:#3fcf9f}.s3{stroke:#e79ac6}.s4{stroke:#e3c04a}.s5{stroke:#a5b0ff}
.f0{fill:#58b4f0}.f1{fill:#ff9a5c}.f2{fill:#3fcf9f}.f3{fill:#e79ac6}.f4{fill:#e3c04a}.f5{fill:#a5b0ff}
}
</style>"""


class Words(NamedTuple):
    """What a plot says of itself."""

    title: str
    x: str
    y: str
    note: str = ""  # below the title: what it was measured on


class Scale(NamedTuple):
    """Numbers to pixels, evenly or by their logarithms."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        """
        >>> Scale(0.0, 10.0, 100.0, 200.0).at(2.5), Scale(1.0, 100.0, 0.0, 80.0, log=True).at(10.0)
        (125.0, 40.0)
        """
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


class Frame(NamedTuple):
    x: Scale
    y: Scale


def nice_step(span: float, count: int = 5) -> float:
    """1, 2 or 5 times a power of ten, so that about `count` steps fill the span.

    >>> nice_step(0.0437), nice_step(80.0), nice_step(7.0)
    (0.01, 20.0, 2.0)
    """
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(each * power for each in (1.0, 2.0, 5.0, 10.0) if raw <= each * power * 1.0000001)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Nice numbers from `low` to `high`.

    >>> ticks(0.87, 0.93)
    [0.88, 0.9, 0.92]
    """
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


def limits(values: Sequence[float], include: Sequence[float] = ()) -> tuple[float, float]:
    """Smallest and largest finite number, widened to nice ones.

    >>> limits([0.12, 0.47, float("nan")]), limits([3.0, 3.0]), limits([2.0], include=[0.0])
    ((0.1, 0.5), (2.0, 4.0), (0.0, 2.0))
    """
    finite = [each for each in (*values, *include) if math.isfinite(each)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 1.0, high + 1.0
    step = nice_step(high - low)
    return round(math.floor(low / step + 1e-9) * step, 12), round(math.ceil(high / step - 1e-9) * step, 12)


def number(value: float) -> str:
    """
    >>> number(0.30000000000000004), number(-0.5), number(90000.0), number(60)
    ('0.3', '−0.5', '90,000', '60')
    """
    shown = f"{value:.3g}" if 0.0 < abs(value) < 1e-4 else f"{value:,.6f}".rstrip("0").rstrip(".")
    return shown.replace("-", "−")


def text(x: float, y: float, words: str, *, style: str = "", anchor: str = "start") -> str:
    css = f' class="{style}"' if style else ""
    side = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{css}{side}>{html.escape(words)}</text>'


def segment(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def frame(x: tuple[float, float], y: tuple[float, float], *, right: float = RIGHT, log_x: bool = False) -> Frame:
    return Frame(Scale(*x, LEFT, WIDTH - right, log_x), Scale(*y, HEIGHT - BOTTOM, TOP))


def axes(inside: Frame, words: Words, x_ticks: Numbers | None) -> list[str]:
    """Horizontal lines at nice numbers, the ground line, and what both axes count."""
    x, y = inside
    out = []
    for each in ticks(y.low, y.high):
        out.append(segment(x.start, y.at(each), x.stop, y.at(each), "grid"))
        out.append(text(x.start - 8, y.at(each) + 4, number(each), style="soft", anchor="end"))
    out.append(segment(x.start, y.start, x.stop, y.start, "axis"))
    for each in ticks(x.low, x.high) if x_ticks is None else x_ticks:
        out.append(segment(x.at(each), y.start, x.at(each), y.start + 4, "axis"))
        out.append(text(x.at(each), y.start + 18, number(each), style="soft", anchor="middle"))
    return [*out, *names(inside, words)]


def names(inside: Frame, words: Words) -> list[str]:
    """What the axes count; the vertical one's stands above it, where it need not be turned."""
    x, y = inside
    return [
        text((x.start + x.stop) / 2, HEIGHT - 12, words.x, style="soft", anchor="middle"),
        text(x.start - LEFT + 12, y.stop - 14, words.y, style="soft"),
    ]


def legend(names: Sequence[str]) -> list[str]:
    """Names with their colours, from the right edge of the title's second line on."""
    out, at = [], float(WIDTH - RIGHT)
    for n, name in reversed(list(enumerate(names))):
        at -= LETTER * len(name)
        out.append(text(at, TOP - 14, name))
        at -= 16
        out.append(f'<rect x="{at:.1f}" y="{TOP - 23}" width="10" height="10" rx="2" class="f{n % COLOURS}"/>')
        at -= 14
    return out


def page(words: Words, body: Sequence[str]) -> str:
    """A whole picture."""
    note = [text(12, 46, words.note, style="soft")] if words.note else []
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'role="img">',
            f"<title>{html.escape(words.title)}</title>",
            f"<desc>{html.escape(f'{words.y} by {words.x}. {words.note}'.strip())}</desc>",
            _STYLE,
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            text(12, 26, words.title, style="title"),
            *note,
            *body,
            "</svg>\n",
        ]
    )
