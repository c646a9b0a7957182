"""Any child process may be killed at any instant: what was sent over both buses is answered, and answered the same."""

import asyncio
import os
import random
import signal
import time
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import pytest

from tests.system.buses import Both
from tests.system.place import Place, a_place, under_load, undisturbed
from tests.system.servers import Issuer, until
from tests.system.traffic import Stream

KILLS = int(os.environ.get("TICKPATH_TEST_KILLS", "25"))
SEED = int(os.environ.get("TICKPATH_TEST_SEED", time.time_ns() % 10**6))
VECTORS_PER_S = 200
ROOMY = {"limits": {"queue": 8192}}  # what comes while a process is away waits whole


class Kill(NamedTuple):
    victim: str
    at_ns: int
    back_s: float  # until all were back, a spare worker too


def kill_one(place: Place, chance: random.Random, what: str) -> Kill:
    """Kills one child and waits until all are back."""
    children = place.engine.children()
    victim = chance.choice(sorted(children))
    at_ns = time.monotonic_ns()
    os.kill(children[victim], signal.SIGKILL)
    until(
        lambda: place.engine.children().get(victim) not in (None, children[victim]), 10, f"{what}, {victim}: replaced"
    )
    until(place.whole, 60, f"{what}, {victim}: everybody is back")
    return Kill(victim, at_ns, (time.monotonic_ns() - at_ns) / 1e9)


async def disturbed(place: Place, streams: list[Stream]) -> tuple[Both, list[Kill]]:
    """The run with the kills: what each bus carried, and who was killed when."""
    chance, kills = random.Random(SEED), []
    async with under_load(place, streams, VECTORS_PER_S) as both:
        for number in range(KILLS):
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            kills.append(await asyncio.to_thread(kill_one, place, chance, f"kill {number}"))
    return both, kills


def pauses_s(both: Both, kills: list[Kill]) -> dict[str, list[float]]:
    """By what was killed: the longest time without an answer on any bus, until all were back."""
    arrived = sorted(answer.arrived_ns for reader in both.readers.values() for answer in reader.answers)
    found = defaultdict(list)
    for kill in kills:
        until_ns = kill.at_ns + int(kill.back_s * 1e9)
        gaps = [after - before for before, after in pairwise(arrived) if after > kill.at_ns and before < until_ns]
        found[kill.victim.split("-")[0]].append(max(gaps, default=0) / 1e9)
    return found


@pytest.mark.timeout(300 + 10 * KILLS)
def test_kills_at_random_lose_nothing_and_change_no_answer(tmp_path):
    print(f"TICKPATH_TEST_SEED={SEED} TICKPATH_TEST_KILLS={KILLS}")
    issuer = Issuer(tmp_path)
    with a_place(tmp_path, issuer, **ROOMY) as place:
        streams = place.streams("killed")
        supervisor = place.engine.handle
        both, kills = asyncio.run(disturbed(place, streams))
        assert supervisor.poll() is None, "the supervisor ended"
        assert place.engine.stop() == 0, place.engine.log()
    backs = sorted(kill.back_s for kill in kills)
    print(f"all back after a kill: median {backs[len(backs) // 2]:.2f} s, longest {backs[-1]:.2f} s")
    for role, pauses in sorted(pauses_s(both, kills).items()):
        pauses.sort()
        print(f"{role}: {len(pauses)} kills, pause {pauses[len(pauses) // 2]:.2f} s, longest {pauses[-1]:.2f} s")
    twin = undisturbed(tmp_path, issuer, streams, both, **ROOMY)
    found = place.check(streams, both, twin)
    assert found.bad(but=("doubled",)) == {}
    assert found.unpredicted == 0, "a restart expired something"
