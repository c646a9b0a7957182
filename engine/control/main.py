"""The control process: answers HTTP about the engine, beside the way of a vector and never on it.

Owns the listening socket; runs in its own process, started by the supervisor. Reads the arena and
/proc, writes its own child row (by pulses) and the log. What must stay true: the port is free as
soon as the process is gone, so that a successor can take it; a slow client delays no pulse.
"""

import asyncio
import contextlib
import socket
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from engine import cores, limits
from engine.control.app import Watch, make_app
from engine.errors import SettingsError
from engine.settings import Settings, split_address
from engine.shared import Phase

if TYPE_CHECKING:
    from engine.child import Child

GRACE_S = 1  # for answers under way when the process is asked to end
BACKLOG = 128  # connections that wait to be taken
CONNECTIONS_MAX = 256  # beyond: 503, so that idle strangers cannot use up the process's files


class Server(uvicorn.Server):
    """Signals are the supervisor's affair: it asks a child to end through the child's row."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(child: "Child") -> int:
    """Serve until the supervisor asks the child to end; its exit status."""
    try:
        listener = listen(child.settings.http.listen)
    except SettingsError as error:
        child.log.error("%s", error)
        return 1
    with listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(child, listener))
    return 0


def listen(where: str) -> socket.socket:
    """A listening socket at `host:port`; port 0 takes a free one."""
    host, port = split_address(where)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a dead one may linger
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(
            f'http.listen = "{where}": expected an address of this host with a free port, found: {error.strerror}; '
            "stop what listens there or set another port"
        ) from error
    return listener


def url(listener: socket.socket, settings: Settings) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.http.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def version() -> str:
    """Of the installed package, or of the source tree that runs without being installed."""
    try:
        return metadata.version("tickpath")
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])


async def _serve(child: "Child", listener: socket.socket) -> None:
    """A task that fails ends the others and the process: the supervisor starts it anew."""
    watch = Watch(child.shared, child.settings, version(), cores.allowed(child.shared.arena.owner_pid))
    watch.look()
    server = Server(_config(watch))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_pulse(child, server)),
            group.create_task(_look(watch)),
            group.create_task(_announce(child, server, watch, url(listener, child.settings))),
        ]
        await server.serve(sockets=[listener])
        for task in tasks:
            task.cancel()


def _config(watch: Watch) -> uvicorn.Config:
    http = watch.settings.http
    return uvicorn.Config(
        make_app(watch),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=75,  # above a scraper's interval, so that it keeps its connection
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=http.tls_cert or None,
        ssl_keyfile=http.tls_key or None,
    )


async def _pulse(child: "Child", server: Server) -> None:
    while not child.stopping():
        child.pulse(Phase.IDLE)
        await asyncio.sleep(limits.PULSE_EVERY_MS / 2000)
    server.should_exit = True
    while True:  # until the last answers are out
        child.pulse(Phase.IDLE)
        await asyncio.sleep(limits.PULSE_EVERY_MS / 2000)


async def _look(watch: Watch) -> None:
    while True:
        await asyncio.sleep(1)
        watch.look()


async def _announce(child: "Child", server: Server, watch: Watch, address: str) -> None:
    """Ready once connections are taken; then each change of health in the log, with its reasons."""
    while not server.started:
        await asyncio.sleep(0.005)
    child.log.info("listening on %s", address)
    child.ready()
    said = None
    while True:
        verdict = watch.verdict()
        if verdict != said:
            said = verdict
            child.log.info("health: %s%s", verdict.health.value, "".join(f"; {each}" for each in verdict.reasons))
        await asyncio.sleep(0.25)
