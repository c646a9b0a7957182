"""An engine that is made of nothing but its arena, for tests that fill its rows by hand."""

import os
import time
from dataclasses import replace

from engine.control.processes import seats, worker_seats
from engine.settings import Bus, Limits, Local, Nats, Settings, digest
from engine.settings import Engine as EngineSettings
from engine.shared import BELLS, EGRESS, INGRESS, Breaker, BusState, Engine, Life, Shared, regions, worker_seat
from fastpath.arena import Arena

NATS = Nats(url="nats://127.0.0.1:4222")
LOCAL = Local(path="/run/tickpath.sock")

SETTINGS = replace(
    Settings(),
    engine=EngineSettings(requests_slots=256, inputs_mb=4),
    limits=Limits(streams=4, streams_total=4, keys=16, keys_total=16),  # small, so that tests are quick
    bus=Bus(nats=NATS, local=LOCAL),
)


def make_shared(settings: Settings = SETTINGS, workers: int = 2) -> Shared:
    """A real arena, empty as the supervisor makes it."""
    arena = Arena.create(regions(settings, workers), digest(settings))
    bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(BELLS)]
    return Shared(arena, settings, workers, bells)


def close(shared: Shared) -> None:
    shared.arena.close()


def make_healthy(shared: Shared) -> None:
    """Everybody ready, both buses up, the last worker process a spare."""
    board = shared.supervisor[0]
    board["state"] = Engine.RUNNING
    board["epoch"] = 1_790_000_000_000_000_000
    board["tick_ns"] = time.monotonic_ns()
    for number in range(shared.workers + 1):
        board["starts"][worker_seat(number).row] = 1
    for seat in seats(shared):
        board["starts"][seat.row] = 1
        board["lives"][seat.row] = Life.READY
        shared.children[seat.row]["ready"] = 1
    for index, seat in enumerate(worker_seats(shared)):
        shared.children[seat.row]["seat"] = index + 1 if index < shared.workers else 0
    for seat in (INGRESS, EGRESS):
        shared.children[seat.row]["bus_nats"] = BusState.UP
        shared.children[seat.row]["bus_local"] = BusState.UP
    add_version(shared, 0, "basic_lstm", "1.0")
    add_version(shared, 1, "xgboost_direction", "3.2")
    add_version(shared, 2, "vote", "1")
    add_version(shared, 3, "baseline", "1")


def add_version(shared: Shared, row: int, model_id: str, version: str, breaker: Breaker = Breaker.CLOSED) -> None:
    version_row = shared.versions[row]
    version_row["taken"], version_row["breaker"] = 1, breaker
    version_row["model_id"], version_row["version"] = model_id.encode(), version.encode()
