"""Model cards: what each bundled model is, and what it was measured to be worth, for people.

Owns their words; run by `python -m engine.training`. What must stay true: every number comes from the
test part, and stands beside what is known without the model.
"""

import textwrap
from collections.abc import Sequence

WIDTH = 120


def page(title: str, *blocks: str) -> str:
    """Paragraphs are wrapped, tables stay as they are."""
    whole = [block if block.startswith("|") else textwrap.fill(" ".join(block.split()), WIDTH) for block in blocks]
    return "\n\n".join([f"# {title}", *whole]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [[f"{each:.4f}" if isinstance(each, float) else str(each) for each in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *cells])
