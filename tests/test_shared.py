"""The table of the arena: complete, of the sizes that rings need, and one place for each word."""

from dataclasses import replace

import numpy as np
import pytest

from engine import limits
from engine.settings import Engine, Settings
from engine.shared import (
    BELLS,
    CONTROL,
    EGRESS,
    INGRESS,
    Count,
    Stage,
    regions,
    ring_bell,
    worker_count,
    worker_seat,
)
from fastpath import layout
from tests.ingress.stand import SMALL, arena


def test_every_worker_has_its_two_rings_and_every_region_a_name_of_its_own() -> None:
    for workers in (1, 3, limits.WORKERS_MAX):
        names = [region.name for region in regions(SMALL, workers)]
        assert len(set(names)) == len(names)
        for kind in ("requests", "answers"):
            assert [name for name in names if name.startswith(kind)] == [f"{kind}.{k}" for k in range(workers)]


def test_processes_that_map_an_arena_see_the_same_words() -> None:
    with arena(SMALL, workers=2) as shared:
        assert len(shared.requests) == len(shared.answers) == shared.workers == 2
        assert {ring.capacity for ring in (*shared.requests, *shared.answers)} == {SMALL.engine.requests_slots}
        assert shared.inputs.capacity == SMALL.engine.inputs_mb << 20
        assert shared.windows.shape == (SMALL.limits.keys_total, layout.window)
        assert shared.stream_states.shape == (SMALL.limits.streams_total, 2)
        shared.streams[3]["company"] = b"acme"
        again = shared.arena.array("streams", layout.stream_row_dtype, SMALL.limits.streams_total)
        assert again[3]["company"] == b"acme"


def test_no_region_reaches_into_another() -> None:
    with arena(SMALL, workers=2) as shared:
        table = regions(SMALL, 2)
        for region in table:
            shared.arena.memory(region.name)[:] = b"\xff" * region.bytes
            for other in table:
                if other.name != region.name:
                    assert not np.frombuffer(shared.arena.memory(other.name), np.uint8).any(), other.name
            shared.arena.memory(region.name)[:] = bytes(region.bytes)


def test_every_process_and_every_ring_has_a_bell_of_its_own() -> None:
    seats = [INGRESS, EGRESS, CONTROL, *(worker_seat(n) for n in range(limits.WORKERS_MAX + 1))]
    bells = [seat.row for seat in seats] + [ring_bell(worker) for worker in range(limits.WORKERS_MAX)]
    assert len(set(bells)) == len(bells)
    assert max(bells) < BELLS


def test_counters_and_stages_have_places() -> None:
    assert len(set(Count)) == len(Count) <= layout.counters
    assert max(Count) < layout.counters
    assert max(Stage) < layout.stages


def test_histograms_of_two_processes_are_two() -> None:
    with arena() as shared:
        shared.stage(INGRESS, Stage.INGRESS).record(1000)
        assert shared.histograms["count"].sum() == 1
        assert shared.histograms[INGRESS.row, Stage.INGRESS]["count"] == 1


@pytest.mark.parametrize(
    ("setting", "cores", "gpus", "workers"),
    [("auto", 1, 0, 1), ("auto", 2, 0, 1), ("auto", 8, 0, 3), ("auto", 8, 2, 2), ("auto", 64, 0, 16), (5, 2, 0, 5)],
)
def test_workers_are_as_set_or_one_a_gpu_or_what_the_rest_leaves(
    setting: int | str, cores: int, gpus: int, workers: int
) -> None:
    settings = replace(Settings(), engine=Engine(workers=setting))
    assert worker_count(settings, cores, gpus) == workers
