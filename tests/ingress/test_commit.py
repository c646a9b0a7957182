"""The commit point: ingress dies at any step of any input, and its successor leaves what an undisturbed twin leaves."""

from collections.abc import Callable

import numpy as np
import pytest

from engine import records
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.ingress import sequencing, steps
from engine.shared import Count
from fastpath import arbiter, slots
from fastpath.ring import ByteRing, Ring
from fastpath.vectors import Batch
from tests.ingress.stand import EPOCH, Sender, Stand, arena, everything, vector


class Death(BaseException):
    """SIGKILL, as far as the arena can tell: nothing that stands in memory is done any more."""


def script() -> list[MLProcessingEnvelope]:
    """Every way in which an input changes the tables."""
    sender, other = Sender(), Sender("evil", "feed-1")
    again = Sender(epoch=EPOCH + 5)
    return [
        sender.batch(vector("EURUSD", 0, history=[1.0, 1.05]), vector("USDJPY", 0), vector("EURUSD", 0.5)),
        other.batch(vector("EURUSD", 0)),
        sender.batch(vector("EURUSD", 4), vector("GBPUSD", 4)),
        sender.batch(vector("EURUSD", 5), sequence=6),
        sender.batch(),
        sender.batch(vector("EURUSD", 5), vector("NEW", 5), sequence=4),
        sender.heartbeat(sequence=9),
        again.batch(vector("EURUSD", 6), vector("USDJPY", 6, mid=float("nan"))),
        sender.batch(vector("EURUSD", 6), sequence=9),
    ]


def dies(before: bool, real: Callable) -> Callable:
    def dying(*arguments, **named):
        if not before:
            real(*arguments, **named)
        raise Death

    return dying


def half_written(area: memoryview, *_: object) -> None:
    area[: len(area) // 2] = b"\xff" * (len(area) // 2)
    raise Death


def first_slot_filled(requests: Ring, inputs: ByteRing, position: int, batch: Batch) -> None:
    before = requests.slots.copy()
    slots.fill_slots(requests, inputs, position, batch)
    others = np.arange(requests.capacity) != requests.head & requests.mask
    requests.slots[others] = before[others]
    raise Death


def first_key_applied(self, decisions: np.ndarray, *rest) -> None:
    steps_apply(self, decisions[:1], *rest)
    raise Death


steps_apply = steps.Steps.apply
apply_parts = sequencing.Sequencer._apply_parts
NOT_ACCEPTED = {
    "before the record": (records, "write", dies(True, records.write)),
    "in the middle of the record": (records, "write", half_written),
    "record written, not published": (records, "write", dies(False, records.write)),
}
ACCEPTED = {
    "before the slots": (sequencing, "fill_slots", dies(True, slots.fill_slots)),
    "after one slot": (sequencing, "fill_slots", first_slot_filled),
    "slots written, not published": (sequencing, "fill_slots", dies(False, slots.fill_slots)),
    "slots published": (sequencing.Sequencer, "_apply_parts", dies(True, apply_parts)),
    "stream row written": (arbiter, "apply", dies(True, arbiter.apply)),
    "stream state written": (arbiter, "apply", dies(False, arbiter.apply)),
    "one key written": (steps.Steps, "apply", first_key_applied),
    "keys written, not stamped": (steps.Steps, "apply", dies(False, steps_apply)),
    "all done": (sequencing.Sequencer, "_apply_parts", dies(False, apply_parts)),
}


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    with arena() as shared:
        stand = Stand(shared)
        for envelope in script():
            assert stand.take(envelope)
        return everything(shared)


@pytest.mark.parametrize("number", range(len(script())))
@pytest.mark.parametrize("point", [*NOT_ACCEPTED, *ACCEPTED])
def test_a_death_at_any_step_loses_nothing_and_doubles_nothing(
    point: str, number: int, undisturbed: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelopes = script()
    with arena() as shared:
        stand = Stand(shared)
        for envelope in envelopes[:number]:
            assert stand.take(envelope)
        with monkeypatch.context() as patch:
            patch.setattr(*(NOT_ACCEPTED | ACCEPTED)[point])
            with pytest.raises(Death):
                stand.take(envelopes[number])
        successor = Stand(shared)
        assert successor.sequencer.next_position == number + 1 + (point in ACCEPTED)
        assert successor.count(Count.REAPPLIED) == (point in ACCEPTED and point != "all done")
        accepted_heartbeat = point in ACCEPTED and envelopes[number].message_type == "heartbeat"
        # The other bus, or the sender itself, brings the last one again; a heartbeat has no name to know it by.
        for envelope in envelopes[number + accepted_heartbeat :]:
            assert successor.take(envelope)
        assert successor.count(Count.DUPLICATES) == (point in ACCEPTED and not accepted_heartbeat)
        assert everything(shared) == undisturbed


def test_a_second_death_while_the_first_is_being_made_good_changes_nothing(
    undisturbed: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelopes = script()
    with arena() as shared:
        stand = Stand(shared)
        for point in ACCEPTED:
            with monkeypatch.context() as patch:
                patch.setattr(*ACCEPTED[point])
                with pytest.raises(Death):
                    stand.take(envelopes[0]) if point == "before the slots" else Stand(shared)
            if point == "keys written, not stamped":
                break
        successor = Stand(shared)
        for envelope in envelopes[1:]:
            assert successor.take(envelope)
        assert everything(shared) == undisturbed


def test_a_successor_goes_on_where_everything_was_released(monkeypatch: pytest.MonkeyPatch) -> None:
    with arena() as shared:
        stand = Stand(shared)
        sender = Sender()
        for minute in range(5):
            stand.take(sender.batch(vector(minute=minute)))
        stand.released()
        successor = Stand(shared)
        assert (successor.sequencer.next_position, successor.sequencer.tail_position) == (6, 6)
        assert shared.inputs.head == shared.inputs.tail
        successor.take(sender.batch(vector(minute=5)))
        assert (successor.last()["input"], successor.last()["step"]) == (6, 245)


def test_a_successor_refuses_slots_that_cannot_belong_to_their_record(monkeypatch: pytest.MonkeyPatch) -> None:
    with arena() as shared:
        stand = Stand(shared)
        with monkeypatch.context() as patch:
            patch.setattr(*ACCEPTED["before the slots"])
            with pytest.raises(Death):
                stand.take(Sender().batch(vector()))
        area = shared.inputs.view(0, records.HEAD_BYTES)
        head = np.frombuffer(area, records.layout.input_record_dtype, 1)
        head["requests"] = 3
        with pytest.raises(RuntimeError) as caught:
            Stand(shared)
        assert str(caught.value) == "record 1 belongs at 3 of its ring, which gave 0; the arena is corrupt"
