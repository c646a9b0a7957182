"""A view as a picture."""

import re
from xml.etree import ElementTree

from rich.text import Text

from engine.cli.picture import CELL, draw

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(picture):
    """(column, text) of everything drawn in the terminal."""
    found = ElementTree.fromstring(picture).iter(f"{NAMESPACE}text")
    return [
        (round(float(each.get("x")) / CELL), each.text)
        for each in found
        if (each.text or "").strip("\n") and each.get("textLength")
    ]


def test_columns_stand_where_the_terminal_had_them():
    line = Text.assemble("  ", ("left", "bold"), "   ", ("right ", "red"), "x")
    assert texts(draw(line, 40, "title")) == [(2, "left"), (9, "right"), (15, "x")]


def test_it_fetches_nothing():
    picture = draw(Text("a & b < c"), 40, "title")
    assert texts(picture) == [(0, "a\xa0&\xa0b\xa0<\xa0c")]
    assert not re.search(r"url\((?!['\"]?#)|href|@import|@font-face", picture)
