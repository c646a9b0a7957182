"""A/B arbitration: one answer a name, in order, whatever two buses lose, repeat and delay."""

import os
import random

import pytest

from engine.client.answers import Answer, Conflict, Gap, Heartbeat, digest, read
from engine.client.arbiter import HELD_MAX, Arbiter, Item
from tests.client.making import answer, envelope, heartbeat, refusal

MS = 1_000_000


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("TICKPATH_TEST_SEED", random.SystemRandom().getrandbits(32)))
    print(f"TICKPATH_TEST_SEED={seed}")
    return random.Random(seed)


def arbiter() -> Arbiter:
    return Arbiter("acme", 20 * MS, 125 * MS)


def given(target: Arbiter, body: bytes, bus: str = "nats", now_ms: float = 0) -> list[Item]:
    said = read(body, "acme", "fe-0")
    assert said is not None
    now_ns = round(now_ms * MS)
    return target.take_heartbeat(said, now_ns) if isinstance(said, Heartbeat) else target.take(said, bus, now_ns)


def shown(items: list[Item]) -> list[object]:
    """A number for an answer, negative where late; (first, last) for a gap."""
    return [
        (-each.sequence if each.late else each.sequence)
        if isinstance(each, Answer)
        else (each.first, each.last)
        if isinstance(each, Gap)
        else each
        for each in items
    ]


def test_five_percent_lost_on_each_bus_and_never_on_both_loses_nothing_and_doubles_nothing(
    chance: random.Random,
) -> None:
    count = 5000
    arrivals = []
    for sequence in range(1, count + 1):
        # The first one is on both: a stream without state starts at the first sequence seen.
        lost = chance.choices(("nats", "kafka", ""), (5, 5, 90))[0] if sequence > 1 else ""
        for bus, lag_ms in (("nats", 0.2), ("kafka", 6.0)):
            if bus != lost:
                copies = 2 if chance.random() < 0.02 else 1
                arrivals += [(sequence + lag_ms * chance.uniform(0.5, 1.5), bus, sequence)] * copies
    target, out = arbiter(), []
    for now_ms, bus, sequence in sorted(arrivals):
        out += target.expire(round(now_ms * MS))
        out += given(target, answer(7, sequence), bus, now_ms)
    assert shown(out) == list(range(1, count + 1))
    assert target.counts["missing"] == 0
    assert target.counts["answers"] == count


def test_what_is_lost_on_both_is_told_once_the_wait_is_over_and_what_follows_goes_on() -> None:
    target = arbiter()
    assert shown(given(target, answer(7, 1))) == [1]
    assert shown(given(target, answer(7, 4), now_ms=5)) == []
    assert target.due_ns == 25 * MS
    assert target.expire(25 * MS - 1) == []
    assert shown(target.expire(25 * MS)) == [(2, 3), 4]
    assert shown(given(target, answer(7, 2), now_ms=90)) == [-2]
    assert shown(given(target, answer(7, 2), now_ms=91)) == []
    assert target.due_ns is None
    assert (target.counts["missing"], target.counts["late"], target.counts["duplicates"]) == (2, 1, 1)


def test_a_gap_is_waited_for_as_long_as_the_other_bus_lags_and_no_longer_than_the_limit() -> None:
    target = arbiter()
    assert target.wait_ns == 20 * MS
    for sequence in range(1, 60):
        given(target, answer(7, sequence), "nats", sequence)
        given(target, answer(7, sequence), "kafka", sequence + 60)
    assert target.wait_ns == 60 * MS
    for sequence in range(60, 400):
        given(target, answer(7, sequence), "nats", sequence)
        given(target, answer(7, sequence), "kafka", sequence + 900)
    assert target.wait_ns == 125 * MS


def test_a_heartbeat_reveals_the_loss_of_a_last_answer() -> None:
    target = arbiter()
    given(target, answer(7, 1))
    assert given(target, heartbeat(7, 4), now_ms=10) == []
    assert shown(target.expire(30 * MS)) == [(2, 3)]
    assert target.due_ns is None
    assert shown(given(target, answer(7, 4), now_ms=40)) == [4]


def test_predictions_and_rejections_of_a_stream_are_taken_together() -> None:
    target = arbiter()
    out = [item for body in (answer(7, 1), answer(7, 3), refusal(7, 2), answer(7, 4)) for item in given(target, body)]
    assert shown(out) == [1, 2, 3, 4]
    assert [each.rejection is not None for each in out if isinstance(each, Answer)] == [False, True, False, False]


def test_a_producer_s_new_start_ends_the_wait_and_what_was_missing_comes_late() -> None:
    target = arbiter()
    out = given(target, answer(7, 1)) + given(target, answer(7, 3)) + given(target, answer(8, 1))
    assert shown(out) == [1, (2, 2), 3, 1]
    assert shown(given(target, answer(7, 2))) == [-2]
    assert shown(given(target, answer(7, 9))) == [-9]
    assert shown(given(target, answer(9, 1)) + given(target, answer(7, 10))) == [1]  # two starts ago: stale


def test_copies_may_differ_in_times_alone() -> None:
    target = arbiter()
    given(target, answer(7, 1, engine_ms=0.3), "nats")
    assert given(target, answer(7, 1, engine_ms=0.9), "kafka") == []
    assert given(target, answer(7, 1, value=2.0), "kafka") == [Conflict("acme", "fe-0", 7, 1, False)]
    assert given(target, refusal(7, 1), "kafka") == [Conflict("acme", "fe-0", 7, 1, False)]
    assert given(target, answer(7, 1, expired=True), "kafka") == [Conflict("acme", "fe-0", 7, 1, True)]
    assert given(target, answer(7, 1, late=True), "kafka") == [Conflict("acme", "fe-0", 7, 1, True)]


def test_what_is_held_behind_a_gap_is_bounded() -> None:
    target = arbiter()
    given(target, answer(7, 1))
    out = [item for sequence in range(3, HELD_MAX + 4) for item in given(target, answer(7, sequence))]
    assert shown(out) == [(2, 2), *range(3, HELD_MAX + 4)]


def test_a_sequence_from_nowhere_costs_nothing() -> None:
    target = arbiter()
    given(target, answer(7, 1))
    assert given(target, answer(7, (1 << 64) - 1)) == []
    assert shown(target.expire(20 * MS)) == [(2, (1 << 64) - 2), (1 << 64) - 1]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff",
        b"",
        answer(7, 1, company="other"),
        answer(7, 1, stream="fe-1"),
        answer(7, 0),
        heartbeat(7, 0),
        refusal(7, 1, verified=False),
        envelope("alert", 7, 1).SerializeToString(),
        envelope("ml_inference", 7, 1).SerializeToString(),
    ],
)
def test_what_is_no_answer_of_the_stream_is_none(body: bytes) -> None:
    assert read(body, "acme", "fe-0") is None


def test_digests_are_of_what_is_said() -> None:
    def said(body: bytes) -> bytes:
        found = read(body, "acme", "fe-0")
        assert isinstance(found, Answer)
        return digest(found)

    assert said(answer(7, 1, engine_ms=1)) == said(answer(7, 1, engine_ms=2))
    assert len({said(answer(7, 1)), said(answer(7, 2)), said(answer(8, 1)), said(answer(7, 1, value=3))}) == 4
