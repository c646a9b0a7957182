"""What a child is given, and that it is what the supervisor has."""

import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace

import orjson
import pytest

from engine import limits
from engine.child import Child
from engine.contract.names import Bus
from engine.settings import Auth, Settings, digest
from engine.settings import Bus as BusSettings
from engine.settings import Engine as EngineSettings
from engine.shared import CONTROL, EGRESS, INGRESS, BusState, Phase, Shared, worker_seat
from engine.supervision.child import from_plain
from engine.supervision.roles import ROLES, cast
from tests.ingress.stand import SMALL, arena


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        yield made


@pytest.fixture
def child(shared: Shared) -> Child:
    return Child("worker", worker_seat(1), SMALL, shared, os.getppid())


VARIED = replace(
    Settings(),
    engine=EngineSettings(name="e", workers=3, symbols=("EURUSD", "USDJPY"), cpus=(0, 1), standby=False),
    auth=Auth(algorithms=("EdDSA", "HS256"), issuer="é"),
    bus=BusSettings(gap_wait_ms=1),
)


@pytest.mark.parametrize("settings", [Settings(), SMALL, VARIED])
def test_settings_come_out_of_the_manifest_as_they_went_in(settings: Settings) -> None:
    plain = orjson.loads(orjson.dumps(asdict(settings)))
    found = from_plain(Settings, plain)
    assert found == settings
    assert digest(found) == digest(settings)


def test_a_pulse_keeps_the_time_at_which_its_phase_began(child: Child) -> None:
    row = child.row[0]
    child.pulse(Phase.STANDBY)
    began = int(row["phase_ns"])
    child.pulse(Phase.STANDBY)
    assert (int(row["phase_ns"]), int(row["phase"])) == (began, Phase.STANDBY)
    assert int(row["pulse_ns"]) >= began
    child.pulse(Phase.IDLE)
    assert int(row["phase_ns"]) >= began
    assert int(row["phase"]) == Phase.IDLE


def test_a_child_ends_when_it_is_told_to_or_its_supervisor_is_gone(shared: Shared, child: Child) -> None:
    assert not child.stopping()
    child.row[0]["order"] = 1
    assert child.stopping()
    child.row[0]["order"] = 0
    child._end(signal.SIGTERM)
    assert child.stopping()
    assert Child("worker", worker_seat(1), SMALL, shared, owner_pid=1 << 22).stopping()


def test_the_state_of_a_bus_is_one_word_of_the_row(child: Child) -> None:
    child.bus_state(Bus.NATS, True)
    child.bus_state(Bus.LOCAL, False)
    assert (child.row[0]["bus_nats"], child.row[0]["bus_local"]) == (BusState.UP, BusState.DOWN)
    child.bus_state(Bus.NATS, BusState.ABSENT)
    assert child.row[0]["bus_nats"] == BusState.ABSENT


def test_the_cast_is_one_of_each_fixed_role_the_workers_and_a_spare() -> None:
    names = [(role.name, seat.row) for role, seat in cast(2, True)]
    assert names == [("ingress", 0), ("egress", 1), ("control", 2), ("watch", 4)] + [
        ("worker", row) for row in (5, 6, 7)
    ]
    assert len(cast(2, False)) == 6
    rows = [seat.row for _, seat in cast(limits.WORKERS_MAX, True)]
    assert len(set(rows)) == len(rows)
    assert max(rows) < limits.CHILDREN_MAX


def test_owners_of_files_may_clean_up_and_nobody_else_outlives_the_supervisor() -> None:
    assert {name: role.orphan_signal for name, role in ROLES.items()} == {
        "ingress": signal.SIGTERM,
        "egress": signal.SIGTERM,
        "control": signal.SIGKILL,
        "kafka": signal.SIGKILL,
        "watch": signal.SIGTERM,
        "worker": signal.SIGKILL,
    }
    assert [seat.row for seat in (INGRESS, EGRESS, CONTROL)] == [0, 1, 2]
