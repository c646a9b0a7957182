"""Bars as vectors: nothing from the future, prices as they stand, errors with file and line."""

import gzip
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from engine.client import bars

DATA = Path(__file__).parents[2] / "data" / "fx_m1"
T0 = 1_400_000_040_000  # the start of a minute
MINUTE = 60_000


def quotes(folder: Path, closes: dict[int, tuple[float, float]], symbol: str = "EURUSD") -> str:
    """A file of one-minute bars: minute after T0 -> bid and ask at the close."""
    lines = [f"{T0 + minute * MINUTE},1,1,1,{bid},1,1,1,{ask}" for minute, (bid, ask) in closes.items()]
    path = folder / f"{symbol}.csv"
    path.write_text("\n".join([bars.QUOTES, *lines]) + "\n")
    return str(path)


def test_a_bar_is_its_own_minute_and_is_known_a_millisecond_before_its_end(tmp_path: Path) -> None:
    loaded = bars.load(quotes(tmp_path, {0: (1.0, 1.5), 1: (1.25, 1.75)}))
    first, second = bars.vectors(loaded, first_bar=1)
    assert first.timestamp_ns == (T0 + MINUTE - 1) * 1_000_000
    assert second.timestamp_ns == (T0 + 2 * MINUTE - 1) * 1_000_000
    assert first.timestamp_ns // 60_000_000_000 == T0 // MINUTE
    prices = second.price_features
    assert (prices.bid, prices.ask, prices.spread, prices.mid_price) == (1.25, 1.75, 0.5, 1.5)
    assert (first.symbol, loaded.bar_ms) == ("EURUSD", MINUTE)


def test_the_first_vector_alone_has_the_history_and_it_ends_with_the_minute_before(tmp_path: Path) -> None:
    path = quotes(tmp_path, {minute: (minute + 1.0, minute + 1.0) for minute in range(300)})
    vectors = list(bars.vectors(bars.load(path)))
    assert len(vectors) == 60
    assert vectors[0].price_features.bid == 241.0
    assert list(vectors[0].price_history.mid_prices) == [float(mid) for mid in range(1, 241)]
    assert not any(vector.HasField("price_history") for vector in vectors[1:])


def test_missing_minutes_repeat_the_mid_before_them(tmp_path: Path) -> None:
    path = quotes(tmp_path, {0: (1.0, 1.0), 3: (2.0, 2.0), 4: (3.0, 3.0), 6: (4.0, 4.0)})
    vector = next(bars.vectors(bars.load(path), first_bar=4))
    assert list(vector.price_history.mid_prices) == [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]


def test_the_history_of_the_first_bar_of_a_file_is_empty(tmp_path: Path) -> None:
    vector = next(bars.vectors(bars.load(quotes(tmp_path, {0: (1.0, 1.0), 1: (2.0, 2.0)})), first_bar=1))
    assert len(vector.price_history.mid_prices) == 0


def test_crossed_closes_stay_crossed(tmp_path: Path) -> None:
    vector = next(bars.vectors(bars.load(quotes(tmp_path, {0: (1.5, 1.25), 1: (1.0, 1.0)})), first_bar=1))
    assert (vector.price_features.bid, vector.price_features.ask, vector.price_features.spread) == (1.5, 1.25, -0.25)


def test_hourly_mid_bars_have_bid_and_ask_at_the_close_and_minutes_of_history(tmp_path: Path) -> None:
    path = tmp_path / "XAUUSD.csv.gz"
    rows = "".join(f"{T0 + hour * 3_600_000},1,1,1,{hour + 1},77\n" for hour in range(4))
    path.write_bytes(gzip.compress(f"{bars.MIDS}\n{rows}".encode()))
    loaded = bars.load(str(path))
    vector = next(bars.vectors(loaded, first_bar=4))
    assert vector.timestamp_ns == (T0 + 4 * 3_600_000 - 1) * 1_000_000
    assert (vector.price_features.bid, vector.price_features.ask) == (4.0, 4.0)
    # One mid a minute: what was known then, hour by hour; the first hour's close begins with its last minute.
    assert list(vector.price_history.mid_prices) == [1.0] * 60 + [2.0] * 60 + [3.0] * 60


def test_files_are_interleaved_by_event_time(tmp_path: Path) -> None:
    one = bars.load(quotes(tmp_path, {0: (1.0, 1.0), 2: (1.0, 1.0), 3: (1.0, 1.0)}, "EURUSD"))
    two = bars.load(quotes(tmp_path, {1: (1.0, 1.0), 2: (1.0, 1.0)}, "USDJPY"))
    found = [(v.timestamp_ns // 60_000_000_000 - T0 // MINUTE, v.symbol) for v in bars.interleave([one, two], 1)]
    assert found == [(0, "EURUSD"), (1, "USDJPY"), (2, "EURUSD"), (2, "USDJPY"), (3, "EURUSD")]


def test_correlations_are_those_of_the_hour_before_in_the_universe_s_order(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    moves = random.normal(0, 1e-4, (2, 80))
    closes = np.exp(np.cumsum([moves[0], moves[0] + 0.5 * moves[1]], axis=1))
    files = [
        bars.load(quotes(tmp_path, {m: (float(p), float(p)) for m, p in enumerate(row)}, symbol))
        for symbol, row in zip(("EURUSD", "GBPUSD"), closes, strict=True)
    ]
    vectors = list(bars.interleave(files, 1, universe=["GBPUSD", "NOKSEK", "EURUSD"]))
    last = vectors[-2]  # of EURUSD in minute 79: what had closed by then are minutes 0 to 78
    window = np.diff(np.log(closes[:, 79 - 61 : 79]), axis=1)
    expected = np.corrcoef(window)[0, 1]
    assert last.symbol == "EURUSD"
    scores = list(last.cross_asset.correlation_scores)
    assert scores == pytest.approx([expected, 0.0, 1.0], abs=1e-12)
    assert all(score == 0.0 for score in vectors[100].cross_asset.correlation_scores)  # minute 50: too early to know


def test_a_symbol_that_has_ended_or_never_moves_correlates_with_nothing(tmp_path: Path) -> None:
    flat = bars.load(quotes(tmp_path, dict.fromkeys(range(100), (1.0, 1.0)), "FLAT"))
    short = bars.load(quotes(tmp_path, {m: (1.0 + m % 3, 1.0 + m % 3) for m in range(70)}, "SHORT"))
    long = bars.load(quotes(tmp_path, {m: (1.0 + m % 3, 1.0 + m % 3) for m in range(100)}, "LONG"))
    minute = T0 // MINUTE
    assert bars.correlation(long, flat, minute + 65) == 0.0
    assert bars.correlation(long, short, minute + 65) == pytest.approx(1.0)
    assert bars.correlation(long, short, minute + 90) == 0.0


def test_a_vector_knows_nothing_that_comes_after_it(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    closes = {m: (float(p), float(p)) for m, p in enumerate(np.exp(random.normal(0, 0.01, 100)))}
    whole = bars.load(quotes(tmp_path, closes))
    vectors = list(bars.vectors(whole, 70, indicators=True, universe=[whole]))
    for count in (75, 90):
        part = bars.load(quotes(tmp_path, dict(itertools.islice(closes.items(), count))))
        assert list(bars.vectors(part, 70, indicators=True, universe=[part])) == vectors[: count - 69]


def test_bundled_files_are_read_whole() -> None:
    counts = {path.name.split(".")[0]: len(bars.load(str(path)).mid) for path in sorted(DATA.glob("*.csv.gz"))}
    assert counts == {"EURUSD": 15366, "GBPUSD": 30117, "NZDUSD": 15543, "USDJPY": 28761, "XAUUSD": 15222}
    vector = next(bars.vectors(bars.load(str(DATA / "EURUSD.csv.gz"))))
    assert len(vector.price_history.mid_prices) == 240
    assert all(math.isfinite(mid) for mid in vector.price_history.mid_prices)


EXPECTED_HEADERS = f"{bars.QUOTES!r} or {bars.MIDS!r}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", f", line 1: found 'a,b'; expected {EXPECTED_HEADERS}"),
        ("", f", line 1: found ''; expected {EXPECTED_HEADERS}"),
        (f"{bars.MIDS}\n0,1,1,1,1,1\n60000,1,1,1,1\n", ", line 3: found 5 columns; expected 6"),
        (
            f"{bars.MIDS}\n0,1,1,1,1,1\n60000,1,1,1,x,1\n",
            ", line 3: could not convert string to float: 'x'; expected numbers",
        ),
        (
            f"{bars.MIDS}\n1.5,1,1,1,1,1\n",
            ", line 2: invalid literal for int() with base 10: '1.5'; expected numbers",
        ),
        (
            f"{bars.MIDS}\n0,1,1,1,nan,1\n",
            ", line 2: found time 0, close nan, nan; expected finite and above zero",
        ),
        (
            f"{bars.QUOTES}\n0,1,1,1,1,1,1,1,-2\n",
            ", line 2: found time 0, close 1, -2; expected finite and above zero",
        ),
        (f"{bars.MIDS}\n60000,1,1,1,1,1\n60000,1,1,1,1,1\n", ", line 3: time 60000 follows 60000; expected rising"),
        (
            f"{bars.MIDS}\n60000,1,1,1,1,1\n",
            ": has 1 bars; expected two at least, to know how long a bar is",
        ),
    ],
)
def test_a_bad_row_is_told_with_file_and_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "EURUSD.csv"
    path.write_text(text)
    with pytest.raises(bars.BarsError) as caught:
        bars.load(str(path))
    assert str(caught.value) == f"{path}{expected}"


def test_a_file_that_cannot_be_read_or_named_is_told(tmp_path: Path) -> None:
    with pytest.raises(bars.BarsError) as caught:
        bars.load(f"{tmp_path}/EURUSD.csv")
    assert str(caught.value) == (
        f"{tmp_path}/EURUSD.csv: cannot be read: [Errno 2] No such file or directory: '{tmp_path}/EURUSD.csv'; "
        "expected CSV, plain or gzipped as the name says"
    )
    (tmp_path / "GBPUSD.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(bars.BarsError) as caught:
        bars.load(f"{tmp_path}/GBPUSD.csv.gz")
    assert str(caught.value) == (
        f"{tmp_path}/GBPUSD.csv.gz: cannot be read: Not a gzipped file (b'no'); "
        "expected CSV, plain or gzipped as the name says"
    )
    with pytest.raises(bars.BarsError) as caught:
        bars.load("data/a b.csv")
    assert str(caught.value) == "data/a b.csv: 'a b' is no symbol; name the file after one, as in EURUSD.csv.gz"


def test_two_files_of_one_symbol_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [bars.load(quotes(folder, {0: (1.0, 1.0), 1: (1.0, 1.0)})) for folder in (tmp_path, tmp_path / "other")]
    with pytest.raises(bars.BarsError) as caught:
        bars.interleave(files)
    assert str(caught.value) == (f"{tmp_path}/EURUSD.csv: another file has the same symbol; give one file a symbol")
