"""What of a stream was handed over: the same as the plain set of its names says, whatever the order."""

import json
import os
import random

import pytest

from engine.client.tracks import RANGES_MAX, PositionError, Track


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("TICKPATH_TEST_SEED", random.SystemRandom().getrandbits(32)))
    print(f"TICKPATH_TEST_SEED={seed}")
    return random.Random(seed)


def test_a_name_is_covered_exactly_once_it_was_taken(chance: random.Random) -> None:
    for _ in range(200):
        track, taken, highest = Track(1, 1), set(), 1
        for _ in range(100):
            epoch = chance.choice([highest, highest, highest, highest - 1, highest + (chance.random() < 0.02)])
            sequence = chance.randint(1, 60)
            if epoch < 1:
                continue
            if not track.covers(epoch, sequence):
                assert (epoch, sequence) not in taken
                late = track.take(epoch, sequence)
                assert late == any(e > epoch or (e == epoch and s > sequence) for e, s in taken)
                taken.add((epoch, sequence))
            elif epoch >= highest - 1:
                # Only what the epoch before the one before held may be covered without having been taken.
                assert (epoch, sequence) in taken or track.before is None
            highest = max(highest, epoch)
        again = Track.from_dict(json.loads(json.dumps(track.as_dict())), "t")
        for epoch in range(1, highest + 1):
            assert all(again.covers(epoch, each) == track.covers(epoch, each) for each in range(1, 70))


def test_ranges_are_bounded_and_what_is_given_up_is_counted() -> None:
    track = Track(1, 1)
    for sequence in range(2, 2 * RANGES_MAX + 22, 2):
        track.take(1, sequence)
    assert (len(track.missing), track.given_up) == (RANGES_MAX, 10)
    assert track.covers(1, 1)
    assert not track.covers(1, 2 * RANGES_MAX + 19)


GOOD = {"epoch": 5, "next": 9, "missing": [[2, 3]]}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], "t: found list; expected an object as `position` gives it"),
        (GOOD | {"epoch": -1}, "t.epoch: found -1; expected a whole number from 0 to 18446744073709551615"),
        (GOOD | {"next": True}, "t.next: found True; expected a whole number from 1 to 18446744073709551616"),
        (GOOD | {"missing": [[2, 9]]}, "t.missing: found 9; expected a whole number from 2 to 8"),
        (GOOD | {"missing": [[5, 6], [6, 7]]}, "t.missing: found 6; expected a whole number from 7 to 8"),
        (GOOD | {"missing": [7]}, "t.missing: found 7; expected [first, last]"),
        (GOOD | {"before": GOOD}, "t.before.epoch: found 5; expected less than 5"),
    ],
)
def test_a_position_that_makes_no_sense_is_told(changed: object, expected: str) -> None:
    with pytest.raises(PositionError) as caught:
        Track.from_dict(changed, "t")
    assert str(caught.value) == expected
