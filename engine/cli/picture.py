"""A view as a picture: SVG that looks the same wherever it is shown.

Owns nothing; pure functions. Runs in the process of a view that is drawn. What must stay true: the
picture fetches nothing from elsewhere, and columns stand where the terminal had them even where a
renderer drops spaces at the ends of a text.
"""

import io
import re

from rich.console import Console, RenderableType

CELL = 12.2  # width of a character in the picture's units, as rich lays it out
SPACE = "&#160;"

_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_TEXT = re.compile(r'(<text [^>]*?)x="([\d.]+)"([^>]*?)textLength="([\d.]+)"([^>]*>)([^<]*)(</text>)')


def draw(frame: RenderableType, width: int, title: str) -> str:
    """The frame at this many columns."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(frame)
    return _TEXT.sub(_without_edges, _FONT.sub("", console.export_svg(title=title)))


def _without_edges(found: re.Match[str]) -> str:
    """A text that begins and ends with a character that can be seen; nothing for one of spaces alone."""
    head, x, middle, length, tail, text, end = found.groups()
    cells = round(float(length) / CELL)
    before = _edge(text)
    if before * len(SPACE) == len(text):
        return ""
    after = _edge(text, from_end=True)
    kept = text[before * len(SPACE) : len(text) - after * len(SPACE)]
    return (
        f'{head}x="{float(x) + before * CELL:.1f}"{middle}textLength="{(cells - before - after) * CELL:.1f}"'
        f"{tail}{kept}{end}"
    )


def _edge(text: str, from_end: bool = False) -> int:
    """How many spaces a text begins with, or ends with."""
    count = 0
    while text.endswith(SPACE) if from_end else text.startswith(SPACE):
        text = text[: -len(SPACE)] if from_end else text[len(SPACE) :]
        count += 1
    return count
