"""Simulated quotes have the properties that their law says, and pass for bundled data."""

import gzip

import numpy as np
import pytest

from engine.training import simulate
from engine.training.data import futures, read_bars, walk
from engine.training.simulate import CLOSE, COARSE, FINE, FIRST_MINUTE, GARCH, HIGH, LOW, OPEN, Law, draw, random_walk
from tests.training.conftest import exactly

LAWS = {"fine": FINE, "coarse": COARSE}


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


def test_a_seed_gives_the_same_market_again(rng):
    seed = seed_of(rng)
    one, again, other = draw(FINE, 500, seed), draw(FINE, 500, seed), draw(FINE, 500, seed + 1)
    for name in ("quoted", "bid", "ask", "log_price", "variance", "step"):
        assert getattr(one, name).tobytes() == getattr(again, name).tobytes()
    assert (one.mid != other.mid).any()


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_quotes_stand_on_whole_ticks_around_the_price(rng, law):
    market = draw(law, 5000, seed_of(rng))
    for prices in (market.bid, market.ask):
        np.testing.assert_allclose(prices / law.tick, np.rint(prices / law.tick), atol=1e-6)
        assert (prices[:, HIGH] >= prices[:, [OPEN, LOW, CLOSE]].max(axis=1)).all()
        assert (prices[:, LOW] <= prices[:, [OPEN, CLOSE]].min(axis=1)).all()
    spread = np.rint((market.ask[:, CLOSE] - market.bid[:, CLOSE]) / law.tick)
    assert set(spread.astype(int).tolist()) == set(law.spreads)
    shares = [(spread == each).mean() for each in law.spreads]
    np.testing.assert_allclose(shares, law.spread_chances, atol=0.03)
    flicker = law.bounce * max(law.spreads) / 2 + 0.5
    assert np.abs(market.mid - np.exp(market.log_price)).max() <= (flicker + 1e-6) * law.tick


def test_a_fifth_of_the_minutes_has_no_quote(rng):
    market = draw(FINE, 20_000, seed_of(rng))
    assert 1 - market.quoted.mean() == pytest.approx(0.2, abs=0.01)
    bars = market.bars()
    assert len(bars.minute) == market.quoted.sum()
    assert (np.diff(bars.minute) >= 1).all()


def test_volatility_clusters_and_comes_back_to_its_long_run(rng):
    law = GARCH._replace(jump_rate=0.0)
    market = draw(law, 100_000, seed_of(rng))
    moves = np.diff(market.log_price) * 1e4
    assert moves.std() == pytest.approx(law.volatility, rel=0.05)
    squares = moves**2 - (moves**2).mean()
    clustered = (squares[20:] * squares[:-20]).mean() / squares.var()
    assert clustered > 0.05
    plain = np.diff(draw(random_walk(1.5), 100_000, seed_of(rng)).log_price) * 1e4
    assert plain.std() == pytest.approx(1.5, rel=0.02)
    squares = plain**2 - (plain**2).mean()
    assert abs((squares[20:] * squares[:-20]).mean() / squares.var()) < 0.02


def test_jumps_come_at_their_rate_and_tails_are_fat(rng):
    market = draw(random_walk(1.0)._replace(jump_rate=1 / 100, jump=50.0), 50_000, seed_of(rng))
    moves = np.diff(market.log_price) * 1e4
    seen = (np.abs(moves) > 5.0).mean()
    assert seen == pytest.approx(0.01 * 0.92, rel=0.15)  # nine in ten jumps of 50 bp are over 5


def test_bounce_makes_quoted_moves_reverse_and_the_price_behind_them_does_not(rng):
    market = draw(COARSE._replace(jump_rate=0.0), 50_000, seed_of(rng))
    for series, low, high in ((np.log(market.mid), -0.3, -0.03), (market.log_price, -0.02, 0.02)):
        moves = np.diff(series)
        assert low < np.corrcoef(moves[1:], moves[:-1])[0, 1] < high


def test_momentum_is_as_large_as_the_law_says(rng):
    market = draw(random_walk(1.5)._replace(momentum=0.2), 50_000, seed_of(rng))
    moves = np.diff(market.log_price)
    assert np.corrcoef(moves[1:], moves[:-1])[0, 1] == pytest.approx(0.2, abs=0.02)
    drifting = draw(random_walk(1.5)._replace(drift=0.3), 50_000, seed_of(rng))
    assert np.diff(drifting.log_price).mean() * 1e4 == pytest.approx(0.3, abs=0.03)


def test_a_shock_makes_moves_three_times_as_large_from_its_minute_on(rng):
    law = random_walk(1.5)._replace(shock=3.0, shock_minute=10_000)
    moves = np.diff(draw(law, 20_000, seed_of(rng)).log_price, prepend=np.log(law.price)) * 1e4
    assert moves[:10_000].std() == pytest.approx(1.5, rel=0.03)
    assert moves[10_000:].std() == pytest.approx(4.5, rel=0.03)


def test_a_written_market_is_read_back_as_the_loader_reads_bundled_files(rng, tmp_path):
    market = draw(COARSE, 3000, seed_of(rng))
    path = simulate.write_csv(market, tmp_path, "SIM")
    again = read_bars(path)
    assert again.symbol == "SIM"
    expected = market.bars()
    np.testing.assert_array_equal(again.minute, expected.minute)
    np.testing.assert_allclose(again.bid, expected.bid, atol=1e-9)
    np.testing.assert_allclose(again.ask, expected.ask, atol=1e-9)
    np.testing.assert_allclose(again.quarters, expected.quarters, atol=1e-9)
    first = path.read_bytes()
    assert simulate.write_csv(market, tmp_path, "SIM").read_bytes() == first
    with gzip.open(path, "rt") as file:
        assert file.readline().strip() == ",".join(simulate.COLUMNS)


def test_bars_go_through_the_live_kernels_as_bundled_ones_do(rng):
    bars = draw(FINE, 2000, seed_of(rng)).bars()
    seen = walk(bars, np.full((len(bars.minute), 1), np.nan))
    assert np.isfinite(seen["rows"]).all()
    assert seen["depth"][-1] == 240
    assert np.median(seen["sigma"][300:]) == pytest.approx(FINE.volatility, rel=0.5)
    after, quoted = futures(bars)
    assert quoted[:-60, 0].mean() == pytest.approx(0.8, abs=0.04)
    assert bars.minute[0] == FIRST_MINUTE
    assert np.isfinite(after[:-100, 0]).all()


@pytest.mark.parametrize(
    ("law", "sentence"),
    [
        (
            Law(alpha=0.2, beta=0.9),
            "law: alpha and beta: expected at least 0 and together below 1, found 0.2 and 0.9; "
            "a variance that does not come back has no long run",
        ),
        (
            Law(spreads=(1, 2), spread_chances=(0.5, 0.6)),
            "law: spread_chances: expected one for each of the spreads (1, 2), adding up to 1, "
            "found (0.5, 0.6); correct them",
        ),
    ],
)
def test_impossible_laws_are_refused(law, sentence):
    with pytest.raises(ValueError, match=exactly(sentence)):
        draw(law, 10, 1)
