"""Everything may be killed, stopped, cut or silenced at any instant: nothing on Kafka is lost, and nobody lies.

`TICKPATH_CHAOS_SEED` repeats a run's faults, `TICKPATH_CHAOS_SECONDS` says how long they go on (`make chaos`). Each
message goes over both buses. What must stay true after each fault: `/health` told it, everybody is back, no process is
left that the supervisor does not know, no file that was not there before.
"""

import asyncio
import math
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.contract.ml.ml_predictions_pb2 import OK, WARMING
from tests.system.buses import Both
from tests.system.checker import input_of
from tests.system.place import Place, a_place, under_load, undisturbed
from tests.system.servers import EngineProcess, Issuer, until
from tests.system.test_life import assert_nothing_left
from tests.system.traffic import Reader, Stream

PER_S = 100
SECONDS = float(os.environ.get("TICKPATH_CHAOS_SECONDS", 45))
SEED = int(os.environ.get("TICKPATH_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
BACK_S = 60  # for a loaded host: two workers load at once


def kill_a_child(place: Place, chance: random.Random) -> str:
    return _replaced(place, chance, signal.SIGKILL, within_s=5)


def stop_a_child(place: Place, chance: random.Random) -> str:
    """It says nothing any more, so it is killed at its limit."""
    return _replaced(place, chance, signal.SIGSTOP, within_s=30)


def _replaced(place: Place, chance: random.Random, number: int, within_s: float) -> str:
    children = place.engine.children()
    victim = chance.choice(sorted(children))
    os.kill(children[victim], number)
    until(
        lambda: place.engine.children().get(victim) not in (None, children[victim]), within_s, f"{victim} is replaced"
    )
    return victim


def halt_a_child(place: Place, chance: random.Random) -> str:
    """Stopped, and on again before or after its limit."""
    children = place.engine.children()
    victim = chance.choice(sorted(children))
    _halt(children[victim], chance.uniform(0, 2))
    return victim


def halt_the_supervisor(place: Place, chance: random.Random) -> str:
    assert place.engine.handle is not None
    _halt(place.engine.handle.pid, chance.uniform(0, 2))
    return ""


def _halt(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return  # killed at its limit, and reaped


def kill_the_engine(place: Place, chance: random.Random) -> str:
    """Its supervisor, so all of it; then a new start."""
    assert place.engine.handle is not None
    pids = place.engine.children()
    place.engine.handle.kill()
    place.engine.handle.wait()
    assert_nothing_left(place.engine, pids, within_s=5)
    place.engine.start().wait_ready(BACK_S)
    return ""


def bus_fault(bus: str, target: str, fault: str, back: str) -> Callable[[Place, random.Random], str]:
    """Away or silent until `/health` has told it, and a moment longer."""

    def happen(place: Place, chance: random.Random) -> str:
        where = getattr(place, target)
        getattr(where, fault)()
        try:
            until(lambda: place.buses().get(bus) == "down", 20, f"/health says that {bus} is down")
            assert place.engine.health().get("status") in ("degraded", "unhealthy")
            time.sleep(chance.uniform(0, 2))
        finally:
            getattr(where, back)()
        return ""

    happen.__name__ = f"{target}: {fault}"
    return happen


def cut(target: str) -> Callable[[Place, random.Random], str]:
    def happen(place: Place, chance: random.Random) -> str:
        getattr(place, target).cut()
        return ""

    happen.__name__ = f"{target}: cut"
    return happen


FAULTS: tuple[tuple[Callable[[Place, random.Random], str], int], ...] = (  # and how often of all
    (kill_a_child, 8),
    (stop_a_child, 3),
    (halt_a_child, 4),
    (halt_the_supervisor, 2),
    (kill_the_engine, 1),
    (bus_fault("nats", "bus", "stop", "start"), 2),
    (bus_fault("nats", "to_nats", "half_open", "resume"), 2),
    (bus_fault("nats", "to_nats", "refuse", "resume"), 2),
    (cut("to_nats"), 2),
    (bus_fault("kafka", "broker", "kill", "start"), 1),
    (bus_fault("kafka", "broker", "stop", "cont"), 1),
    (bus_fault("kafka", "to_kafka", "half_open", "resume"), 1),
    (bus_fault("kafka", "to_kafka", "refuse", "resume"), 2),
    (cut("to_kafka"), 2),
)


def own_processes(engine: EngineProcess) -> set[int]:
    """Everything that runs with this engine's folder for temporary files, whoever its parent is now."""
    mark = f"TMPDIR={engine.temporary}\0".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@dataclass
class Chaos:
    place: Place
    chance: random.Random
    seats: set[str]
    took_s: dict[str, list[float]]
    lost_ns: float = math.inf  # when the engine was lost first: its successor may know shorter windows

    def one(self, number: int) -> None:
        """A fault, and all that must be true once it is over."""
        time.sleep(self.chance.uniform(0, 1))
        happen = self.chance.choices([fault for fault, _ in FAULTS], [often for _, often in FAULTS])[0]
        place, begin_s = self.place, time.monotonic()
        if happen is kill_the_engine:
            self.lost_ns = min(self.lost_ns, time.monotonic_ns())
        which = happen(place, self.chance)
        what = f"fault {number}, {happen.__name__} {which}".rstrip()
        over_s = time.monotonic()
        until(
            lambda: place.whole() and set(place.engine.children()) == self.seats, BACK_S, f"{what}: everybody is back"
        )
        back_s = time.monotonic() - over_s
        print(f"{what}: lasted {over_s - begin_s:.2f} s, whole {back_s:.2f} s after it", flush=True)
        self.took_s[happen.__name__].append(back_s)
        known = {place.engine.handle.pid, *place.engine.children().values()} if place.engine.handle else set()
        assert own_processes(place.engine) - known == set(), f"{what}: a process that nobody knows"
        assert list(place.engine.temporary.iterdir()) == [], f"{what}: a file is left"


def untouched(streams: list[Stream], readers: dict[str, Reader], before_ns: float) -> set[str]:
    """Inputs answered by then with all models each time: no fault shows in them."""
    statuses: dict[str, set[int]] = defaultdict(set)
    for stream in streams:
        for reader in readers.values():
            for answer in reader.named(stream):
                in_time = {each.status for each in answer.batch.predictions} if answer.arrived_ns < before_ns else {0}
                statuses[input_of(answer)] |= in_time
    return {name for name, seen in statuses.items() if seen <= {OK, WARMING}}


async def run(chaos: Chaos, streams: list[Stream]) -> Both:
    end_s, number = time.monotonic() + SECONDS, 0
    async with under_load(chaos.place, streams, PER_S) as both:
        while time.monotonic() < end_s:
            await asyncio.to_thread(chaos.one, number)
            number += 1
    print(f"{number} faults")
    return both


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 600)
def test_faults_at_random_instants_lose_nothing_that_is_on_kafka_and_change_no_answer(tmp_path):
    print(f"TICKPATH_CHAOS_SEED={SEED} TICKPATH_CHAOS_SECONDS={SECONDS:g}")
    issuer = Issuer(tmp_path)
    with a_place(tmp_path, issuer) as place:
        streams = place.streams("chaos")
        chaos = Chaos(place, random.Random(SEED), set(place.engine.children()), defaultdict(list))
        both = asyncio.run(run(chaos, streams))
        pids = place.engine.children()
        assert place.engine.stop() == 0, place.engine.log()
        assert_nothing_left(place.engine, pids)
        for name, times in sorted(chaos.took_s.items()):
            median_s, longest_s = sorted(times)[len(times) // 2], max(times)
            print(f"{name}: {len(times)}, whole again after {median_s:.2f} s, at most {longest_s:.2f} s")
        assert place.check(streams, both, engine_lost=True).bad(but=("doubled",)) == {}
    twin = undisturbed(tmp_path, issuer, streams, both, intervals=False)
    same = untouched(streams, both.readers, chaos.lost_ns)
    print(f"{len(same)} of {len(twin)}, answered before an engine was lost, are compared with an undisturbed run")
    twin = {name: said for name, said in twin.items() if name in same}
    assert place.check(streams, both, twin, engine_lost=True).bad(but=("doubled",)) == {}
