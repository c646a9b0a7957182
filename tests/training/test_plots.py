"""Pictures are valid, keep to themselves, show what is a number and nothing else."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training import svg
from engine.training.plots import Heights, Line, Mark, Points, bar_chart, diagonal_chart, line_chart, spread_out
from engine.training.svg import Words
from tests.training.conftest import untimed

NAME = "{http://www.w3.org/2000/svg}"
WORDS = Words("Coverage", "minutes", "share", "simulated")
NAN = math.nan
LINES = [
    Line("moving", [0, 1, 2], [0.9, 0.91, 0.9], [0.89, 0.9, 0.89], [0.91, 0.92, 0.91]),
    Line("kept", [0, 2], [0.8, 0.85]),
]
BY_HORIZON = [Line("q", [1, 5, 15, 60], [1, 2, 2, 1])]
SKILL = [Heights("skill", [0.1, -0.2], [0.0, -0.3], [0.2, NAN])]
SHARES = [Points("model", [0.2, 0.8], [0.3, NAN], [0.1, 0.7], [0.4, 0.9])]
CHARTS = {
    "lines": lambda: line_chart(WORDS, LINES, marks=[Mark(0.9, "90 %")]),
    "log lines": lambda: line_chart(WORDS, BY_HORIZON, x_ticks=[1, 5, 15, 60], log_x=True),
    "bars": lambda: bar_chart(WORDS, ["EURUSD", "GBPUSD"], SKILL),
    "diagonal": lambda: diagonal_chart(WORDS, SHARES),
}


def elements(picture: str, name: str, style: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(picture).iter(NAME + name)
    return [each for each in found if style in each.get("class", "").split() or not style]


@pytest.mark.parametrize("name", CHARTS)
def test_pictures_are_whole_and_say_what_they_are(name):
    picture = CHARTS[name]()
    root = ElementTree.fromstring(picture)
    assert root.tag == NAME + "svg"
    assert root.get("role") == "img"
    assert root.findtext(NAME + "title") == "Coverage"
    assert root.findtext(NAME + "desc") == "share by minutes. simulated"
    assert picture.endswith("</svg>\n")


@pytest.mark.parametrize("name", CHARTS)
def test_pictures_fetch_nothing_run_nothing_and_are_the_same_each_time(name):
    picture = CHARTS[name]()
    assert not re.search(r"href|url\(|@import|@font-face|<script|<image|<foreignObject| on[a-z]+=", picture)
    assert picture == CHARTS[name]()


@pytest.mark.parametrize("name", CHARTS)
def test_every_colour_has_one_for_dark_paper(name):
    light, dark = CHARTS[name]().split("@media (prefers-color-scheme:dark)")
    coloured = [set(re.findall(r"([.a-z]+\d?)\{[^}]*(?:fill|stroke):#", each)) for each in (light, dark)]
    assert coloured[0] == coloured[1] >= {"text", ".paper", ".s0", ".f0"}


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_and_series_can_be_read_on_both_papers():
    """Contrast of at least 4.5 to 1, as WCAG 2.1 asks of text."""
    light, dark = CHARTS["lines"]().split("@media (prefers-color-scheme:dark)")
    for styles, paper in ((light, "#ffffff"), (dark.split("</style>")[0], "#0d1117")):
        colours = re.findall(r"(?:\.f\d|\.soft|text)\{[^}]*fill:(#[0-9a-f]{6})", styles)
        assert len(colours) >= svg.COLOURS + 2
        for colour in colours:
            bright, dim = sorted((_luminance(colour), _luminance(paper)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, colour


def test_what_is_not_a_number_leaves_a_gap():
    picture = line_chart(
        WORDS, [Line("gap", [0, 1, 2, 3, 4], [1, 2, NAN, 2, 1]), Line("dot", [0, 1, 2], [1, NAN, math.inf])]
    )
    assert "nan" not in picture
    assert "inf" not in picture
    paths = elements(picture, "path", "line")
    assert [path.get("d", "").count("L") for path in paths] == [1, 1]
    assert len(elements(picture, "circle", "f1")) == 1
    bars = bar_chart(WORDS, ["A", "B"], [Heights("one", [NAN, 1.0], [0.0, NAN], [2.0, 1.0])])
    assert len(elements(bars, "rect", "f0")) == 1
    assert elements(bars, "line", "whisker") == []
    dots = diagonal_chart(WORDS, [Points("one", [0.1, NAN], [0.1, 0.2])])
    assert len(elements(dots, "circle")) == 1
    assert line_chart(WORDS, [Line("nothing", [0, 1], [NAN, NAN])]).count("<path") == 0


def test_points_stand_where_their_numbers_say():
    picture = line_chart(WORDS, [Line("up", [0, 10], [0, 1])])
    (path,) = elements(picture, "path", "line")
    inside = svg.frame((0.0, 10.0), (0.0, 1.0), right=svg.LETTER * 2 + 20)
    assert inside.x.stop == svg.WIDTH - max(svg.RIGHT, svg.LETTER * 2 + 20)
    assert path.get("d") == f"M{svg.LEFT}.0 {svg.HEIGHT - svg.BOTTOM}.0L{inside.x.stop:.1f} {svg.TOP}.0"


def test_a_marks_name_stands_above_the_plot_where_no_line_can_cross_it():
    picture = CHARTS["lines"]()
    (name,) = [each for each in elements(picture, "text") if each.text == "90 %"]
    assert svg.TOP - 20 < float(name.get("y", 0)) < svg.TOP
    level, sample = elements(picture, "line", "mark")
    assert float(level.get("y1", 0)) > svg.TOP > float(sample.get("y1", 0))


def test_bands_lie_below_every_line():
    order = [each.get("class", "") for each in elements(CHARTS["lines"](), "path")]
    assert order == ["band f0", "line s0", "line s1"]


def test_bars_begin_at_nought_and_negative_ones_hang():
    picture = bar_chart(WORDS, ["A", "B"], [Heights("one", [0.5, -0.25])])
    up, down = elements(picture, "rect", "f0")
    ground = float(up.get("y", 0)) + float(up.get("height", 0))
    assert float(down.get("y", 0)) == pytest.approx(ground, abs=0.11)
    assert float(up.get("height", 0)) == pytest.approx(2 * float(down.get("height", 0)), abs=0.2)


def test_a_diagonal_has_one_scale_for_both_axes():
    (mark,) = elements(CHARTS["diagonal"](), "line", "mark")
    wide = float(mark.get("x2", 0)) - float(mark.get("x1", 0))
    high = float(mark.get("y1", 0)) - float(mark.get("y2", 0))
    assert wide == high > 0


def test_words_are_escaped():
    picture = line_chart(Words("<b> & co", "x", "y"), [Line('"quoted" <script>', [0, 1], [0, 1])])
    root = ElementTree.fromstring(picture)
    assert root.findtext(NAME + "title") == "<b> & co"
    assert '"quoted" <script>' in [each.text for each in root.iter(NAME + "text")]


@untimed
@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_names_keep_their_order_and_their_distance(wanted):
    placed = spread_out(wanted, 15.0, 0.0, 300.0)
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    ordered = [placed[n] for n in order]
    assert all(after - before >= 15.0 - 1e-9 for before, after in itertools.pairwise(ordered))
    assert ordered[0] >= -1e-9
    assert ordered[-1] <= 300.0 + 1e-9


@untimed
@given(st.floats(-1e6, 1e6), st.floats(1e-5, 1e6))
def test_ticks_are_few_and_within_their_limits(low, span):
    found = svg.ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert low - 1e-6 * span <= found[0] < found[-1] <= low + span * (1 + 1e-6)
