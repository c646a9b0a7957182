"""The supervisor: makes the arena, starts the children, keeps them, ends them.

Owns the arena's existence, the supervisor board, the version table and its breakers, and each child's
seat and order. It is `python -m engine run` itself. What must stay true: a child that must go is
killed, reaped, and only then replaced; the supervisor touches no message and imports no model library;
whatever happens, nothing is left behind.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from logging import Logger
from pathlib import Path

import orjson

from engine import limits
from engine.errors import ArenaError, StateError
from engine.registry.manifest import Manifest, fill_versions
from engine.registry.plans import fill_plans
from engine.settings import Settings, digest
from engine.shared import BELLS, Engine, Life, Shared, regions, ring_bell
from engine.supervision import statefile
from engine.supervision.breakers import Breakers
from engine.supervision.process import Process
from engine.supervision.roles import cast
from engine.supervision.suspects import remember
from fastpath import arena
from fastpath.arena import Arena

ENDING_LIMIT_S = 2.0  # for children to end once they were told to


def claim_name(name: str) -> socket.socket:
    """The engine's name on this host, held by this process and its children until the last one ends.

    An abstract Unix socket: the kernel frees it with its last holder, and no file can be left behind.
    """
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline_s = time.monotonic() + limits.NAME_WAIT_S
    while True:
        try:
            holder.bind(f"\0tickpath/{name}")
            return holder
        except OSError:
            if time.monotonic() > deadline_s:
                holder.close()
                raise ArenaError(
                    f"engine.name: an engine named {name!r} runs on this host already; end it or choose another name"
                ) from None
            time.sleep(0.02)


class Supervisor:
    """One engine. `open`, `run`, `close`."""

    def __init__(
        self, settings: Settings, manifests: Sequence[Manifest], workers: int, gpus: Sequence[int], log: Logger
    ) -> None:
        self.settings = settings
        self.manifests = manifests
        self.workers = workers
        self.gpus = gpus
        self.log = log
        self.signals = 0
        self.record_asked = False
        self.seats: dict[int, Process] = {}  # worker index -> who serves its ring
        self.processes: list[Process] = []
        self._drain_until_s = 0.0
        self._is_drained = False

    def open(self) -> None:
        """Takes the name, makes the arena, starts the children."""
        settings = self.settings
        self.holder = claim_name(settings.engine.name)
        try:
            self.arena = Arena.create(regions(settings, self.workers), digest(settings))
        except arena.ArenaError as error:
            raise ArenaError(str(error)) from None
        self.bell_fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(BELLS)]
        self.shared = Shared(self.arena, settings, self.workers, self.bell_fds)
        self.board = self.shared.supervisor[0]
        fill_versions(self.manifests, self.shared.versions, self.shared.feature_names)
        fill_plans(self.manifests, self.shared.plans)
        self._restore()
        self.breakers = Breakers(self.shared.versions, self.shared.children, self.log)
        self.board["epoch"] = time.time_ns()
        self.board["shards"] = [shard % self.workers for shard in range(limits.SHARDS)]
        self.poll = select.poll()
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.poll.register(self.wake_read, select.POLLIN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGUSR1, self._ask_for_record)
        self.manifest_fd = self._write_manifest()
        self.processes = [
            Process(role, seat, self.shared, self.log)
            for role, seat in cast(self.workers, settings.engine.standby, bool(settings.bus.kafka.bootstrap))
        ]
        self.board["tick_ns"] = time.monotonic_ns()
        for process in self.processes:
            self._start(process)
        self.log.info("%d processes, %d MiB shared memory", len(self.processes), self.arena.bytes >> 20)

    def run(self) -> int:
        """Ticks until the end. Exit status: 0 after a whole drain."""
        while True:
            self._wait(limits.TICK_MS)
            now_ns = time.monotonic_ns()
            late = now_ns - int(self.board["tick_ns"]) > limits.TICK_LATE_MS * 1_000_000
            self.board["tick_ns"] = now_ns
            if self.signals > 1:
                self.log.warning("second signal: ending at once")
                return 1
            self._keep(now_ns, pulses_count=not late)
            self.breakers.tick(now_ns / 1e9, list(self.seats))
            if self.signals and (status := self._drain(now_ns)) is not None:
                return status

    def close(self) -> None:
        """Ends every child: asks, waits, kills."""
        self.board["state"] = Engine.STOPPING
        for process in self.processes:
            process.order_end()
        for index in range(BELLS):
            self.shared.bells[index].ring()
        deadline_s = time.monotonic() + (ENDING_LIMIT_S if self.signals <= 1 else 0.0)
        while any(process.is_running() for process in self.processes) and time.monotonic() < deadline_s:
            self._wait(limits.TICK_MS)
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.reap()
        if self.settings.bus.local.path:
            for path in (self.settings.bus.local.path, f"{self.settings.bus.local.path}.out"):
                Path(path).unlink(missing_ok=True)
        self._save()
        self.holder.close()

    def _restore(self) -> None:
        if path := self.settings.engine.state_path:
            try:
                keys = statefile.restore(self.shared, Path(path))
                self.log.info("%d windows go on from %s", keys, path)
            except StateError as error:
                self.log.error("%s", error)

    def _save(self) -> None:
        """Only what is whole: after a drain, when nobody writes any more."""
        if (path := self.settings.engine.state_path) and self._is_drained:
            try:
                keys = statefile.save(self.shared, Path(path))
                self.log.info("%d windows are kept in %s", keys, path)
            except OSError as error:
                self.log.error("%s: the windows cannot be kept: %s; the next start is cold", path, error.strerror)

    def _signalled(self, *_: object) -> None:
        self.signals += 1

    def _ask_for_record(self, *_: object) -> None:
        self.record_asked = True

    def _wait(self, timeout_ms: int) -> None:
        """Until a signal, a child's end, or the time."""
        for fd, _ in self.poll.poll(timeout_ms):
            if fd != self.wake_read:
                self.poll.unregister(fd)  # told once
                continue
            with contextlib.suppress(BlockingIOError):
                while os.read(self.wake_read, 512):
                    pass

    def _write_manifest(self) -> int:
        """What a child needs to know, in a memfd that they all inherit."""
        fd = os.memfd_create("tickpath-manifest", 0)
        rows = {seat.row: seat.name for _, seat in cast(self.workers, True, True)}
        manifest = {
            "settings": asdict(self.settings),
            "arena": self.arena.fd,
            "bells": self.bell_fds,
            "workers": self.workers,
            "gpus": self.gpus,
            "owner": os.getpid(),
            "names": [rows.get(row, "") for row in range(limits.CHILDREN_MAX)],
        }
        os.write(fd, orjson.dumps(manifest))
        return fd

    def _start(self, process: Process) -> None:
        command = [
            sys.executable,
            "-m",
            "engine.supervision.child",
            process.role.name,
            str(process.seat.row),
            str(self.manifest_fd),
        ]
        inherited = (self.arena.fd, self.manifest_fd, self.holder.fileno(), *self.bell_fds)
        process.started(
            subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()),
            time.monotonic_ns(),
        )
        self.poll.register(process.pidfd, select.POLLIN)  # readable once it has ended
        self.board["starts"][process.seat.row] += 1
        self.board["lives"][process.seat.row] = process.life

    def _keep(self, now_ns: int, pulses_count: bool) -> None:
        """One look at every child: dead ones are reaped and replaced, hung ones killed, ready ones seated."""
        for process in self.processes:
            died = process.poll()
            if died is not None:
                self._vacate(process, died, now_ns)
                if process.is_to_blame(died) and process.role.name == "worker":
                    self.record_asked = True
                with contextlib.suppress(KeyError):  # the wait has told of it
                    self.poll.unregister(process.pidfd)
                process.buried(died, now_ns)
                if process.life == Life.ABSENT:
                    self._start(process)
            elif pulses_count and (why := process.is_stuck(now_ns)):
                self.log.error("%s: %s; killing it", process.seat.name, why)
                process.kill_as_stuck()
            process.notice_ready()
            self.board["lives"][process.seat.row] = process.life
        self._seat_workers()
        if self.record_asked:
            self.record_asked = False
            for process in self.processes:
                if process.role.name == "watch":
                    process.keep_record()
        if (
            self.board["state"] == Engine.STARTING
            and all(process.life == Life.READY for process in self.processes if process.role.name != "worker")
            and len(self.seats) == self.workers
        ):
            self.board["state"] = Engine.RUNNING
            self.log.info("engine %s is running", self.settings.engine.name)

    def _vacate(self, process: Process, status: int, now_ns: int) -> None:
        """Takes the dead one's ring away, and remembers what it had in hand."""
        for worker, holder in list(self.seats.items()):
            if holder is process:
                del self.seats[worker]
                requests, to_blame = self.shared.requests[worker], process.is_to_blame(status)
                version = remember(self.board, worker, process.row, requests, to_blame)
                self.breakers.worker_left(worker)
                if version >= 0:
                    self.breakers.crashed(version, now_ns / 1e9)

    def _seat_workers(self) -> None:
        """Gives each ring without a worker to one that is loaded and warm."""
        for worker in range(self.workers):
            if worker in self.seats:
                continue
            spare = next(
                (
                    each
                    for each in self.processes
                    if each.role.name == "worker" and each.life == Life.READY and each not in self.seats.values()
                ),
                None,
            )
            if spare is None:
                return
            self.seats[worker] = spare
            spare.take_seat(worker)
            self.shared.bells[ring_bell(worker)].ring()
            self.shared.bells[spare.seat.row].ring()

    def _drain(self, now_ns: int) -> int | None:
        """After the first signal. Exit status once it is over, None before."""
        if self.board["state"] != Engine.DRAINING:
            self.board["state"] = Engine.DRAINING
            self._drain_until_s = now_ns / 1e9 + self.settings.engine.drain_s
            self.log.info("draining for at most %d s", self.settings.engine.drain_s)
        inputs = self.shared.inputs
        if self.shared.ingress[0]["drained"] and inputs.head == inputs.tail:
            self.log.info("drained")
            self._is_drained = True
            return 0
        if now_ns / 1e9 > self._drain_until_s:
            self.log.error(
                "drain: %d bytes of accepted input are not confirmed on any bus after %d s",
                inputs.head - inputs.tail,
                self.settings.engine.drain_s,
            )
            return 1
        return None
