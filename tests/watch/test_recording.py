"""The recording sees everything in order, never gates, and tells what it missed."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.shared import Count, Shared, Verdict
from engine.watch import recording
from engine.watch.tape import Part, read_head, segments, unpack_answer
from tests.egress.stand import answer
from tests.ingress.stand import arena
from tests.watch.stand import Watched, with_tape


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    settings = with_tape(tmp_path / "tape", segment_mb=1)
    with arena(settings) as shared:
        yield Watched(shared, settings)


def test_an_input_is_settled_once_its_answer_and_what_egress_made_of_it_are_known(watched: Watched) -> None:
    watched.send(3)
    watched.recording.look()
    assert watched.positions(Part.INPUT) == [1, 2, 3]
    assert watched.settled() == 0
    watched.answer()
    watched.recording.look()
    assert watched.positions(Part.ANSWER) == [1, 2, 3]
    assert watched.settled() == 0
    watched.sent_off(last=2)
    watched.recording.look()
    assert watched.settled() == 2
    assert watched.count(Count.TAPE_INPUTS) == 2


def test_what_egress_sent_as_expired_stands_on_the_tape_after_the_fact_too(watched: Watched) -> None:
    for verdict in (Verdict.EXPIRED, Verdict.SENDING, Verdict.EXPIRED_DONE, Verdict.DONE):
        watched.send()
        watched.answer()
        watched.sent_off(verdict)
    watched.recording.look()
    assert watched.positions(Part.EXPIRED) == [1, 3]
    assert watched.settled() == 4


def test_slots_given_again_after_a_workers_death_count_once(watched: Watched) -> None:
    watched.send(4)
    answer(watched.shared, most=4)
    watched.recording.look()
    watched.send(2)
    answer(watched.shared, repeat=2)
    watched.recording.look()
    assert watched.positions(Part.ANSWER) == [1, 2, 3, 4, 5, 6]
    position, slots = unpack_answer([each for each in watched.frames() if each.part == Part.ANSWER][-1].body)
    assert (position, int(slots["input"][0]), int(slots["request"][0])) == (6, 6, 5)


def test_a_watch_that_was_lapped_tells_a_hole_and_goes_on(watched: Watched) -> None:
    watched.through(20)
    watched.recording.look()
    held = watched.shared.answers[0].capacity
    watched.through(2 * held)
    watched.recording.look()
    watched.through(5)
    watched.recording.look()
    heads = [read_head(path) for path in segments(watched.folder)]
    assert [head["first"] for head in heads] == [1, 20 + 2 * held + 1]
    assert watched.positions(Part.HOLE) == [2 * held]
    assert watched.count(Count.TAPE_LOST) == 2 * held
    assert watched.settled() == 20 + 2 * held + 5
    assert watched.positions(Part.INPUT)[-5:] == list(range(21 + 2 * held, 26 + 2 * held))


def test_a_watch_that_was_killed_goes_on_where_it_was(watched: Watched) -> None:
    watched.through(10)
    watched.send(2)
    watched.recording.look()
    watched.die()
    last = segments(watched.folder)[-1]
    last.write_bytes(last.read_bytes() + b"torn")
    watched.answer()
    watched.send(3)
    watched.answer()
    watched.sent_off()
    watched.open()
    watched.recording.look()
    assert not last.read_bytes().endswith(b"torn")
    assert watched.count(Count.TAPE_LOST) == 0
    assert sorted(set(watched.positions(Part.INPUT))) == list(range(1, 16))
    assert sorted(set(watched.positions(Part.ANSWER))) == list(range(1, 16))
    assert watched.settled() == 15


class Full:
    """A disk without room, in place of the sink's `write`."""

    def __init__(self, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        real = watched.sink.write
        self.is_full = True

        def write(data: bytes) -> None:
            if self.is_full:
                watched.sink.end()
                raise OSError(errno.ENOSPC, "No space left on device")
            real(data)

        monkeypatch.setattr(watched.sink, "write", write)


def test_a_full_disk_costs_the_record_alone_and_leaves_a_hole(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "RETRY_S", 0.0)
    watched.through(10)
    watched.recording.look()
    disk = Full(watched, monkeypatch)
    for _ in range(5):
        watched.through(4)
        watched.recording.look()
    told = "the tape cannot be written: [Errno 28] No space left on device; predictions go on, and it is tried again"
    assert [each.message for each in caplog.records] == [told], "told once, however often it is tried"
    assert (watched.count(Count.TAPE_FAILURES), watched.count(Count.TAPE_STUCK)) == (5, 1)
    disk.is_full = False
    watched.through(4)
    watched.recording.look()
    watched.through(4)
    watched.recording.look()
    assert watched.positions(Part.HOLE) == [20]
    assert (watched.count(Count.TAPE_LOST), watched.count(Count.TAPE_STUCK)) == (20, 0)
    assert watched.settled() == 38


def test_a_segment_begins_with_what_the_one_before_had_not_settled(watched: Watched) -> None:
    watched.through(5)
    watched.send(4)
    answer(watched.shared, most=2)
    watched.recording.look()
    watched.recording._bytes = 1 << 20
    watched.recording.look()
    (_, second) = segments(watched.folder)
    head = read_head(second)
    assert (head["first"], head["whole"]) == (6, True)
    inputs = [each for each in watched.frames() if each.part == Part.INPUT]
    assert [int.from_bytes(each.body[8:16], "little") for each in inputs] == [*range(1, 10), *range(6, 10)]
    assert watched.positions(Part.ANSWER) == [*range(1, 8), 6, 7]
    assert watched.count(Count.TAPE_LOST) == 0


def meanwhile(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None]) -> None:
    """Between the copy of the windows and the look at how far their keys went."""
    real = recording.state.copy_windows

    def slow(shared: Shared) -> list[tuple[int, int, bytes]]:
        copied = real(shared)
        happen()
        return copied

    monkeypatch.setattr(recording.state, "copy_windows", slow)


def test_no_state_is_claimed_where_a_key_went_on_too_far_while_it_was_copied(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.through(5)
    watched.recording.look()
    real = recording.state.copy_windows

    def sixteen_more() -> None:
        watched.send(16, step=1.0)
        watched.answer()
        watched.sent_off()

    meanwhile(monkeypatch, sixteen_more)
    watched.recording._bytes = 1 << 20
    watched.recording.look()
    assert len(segments(watched.folder)) == 1, "the segment goes on until a state can be copied"
    watched.recording._bytes, watched.recording._retry_s = 4 << 20, 0.0
    watched.recording.look()
    (_, second) = segments(watched.folder)
    assert read_head(second)["whole"] is False
    monkeypatch.setattr(recording.state, "copy_windows", real)
    monkeypatch.setattr(watched.recording, "_retry_s", 0.0)
    watched.recording.look()
    assert read_head(segments(watched.folder)[-1])["whole"] is True
    assert watched.count(Count.TAPE_LOST) == 0
    assert watched.settled() == 5 + 6 * 16


def test_fifteen_steps_while_windows_are_copied_are_not_too_many(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.through(5)
    watched.recording.look()
    meanwhile(monkeypatch, lambda: watched.send(15, step=1.0))
    watched.recording._bytes = 1 << 20
    watched.recording.look()
    assert read_head(segments(watched.folder)[-1])["whole"] is True
