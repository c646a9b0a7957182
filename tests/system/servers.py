"""Real servers and real engines for the system tests: started on free ports, ended with the test."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.contract.names import Tier
from engine.tenancy.signing import make_key_pair, parse_signing_key, sign

ROOT = Path(__file__).resolve().parents[2]
NATS_SERVER = Path(sys.executable).parent / "nats-server"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(holds: Callable[[], object], within_s: float, what: str):
    """The first true value; a deadline instead of a guess how long something takes."""
    deadline_s = time.monotonic() + within_s
    while not (value := holds()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {within_s} s")
        time.sleep(0.01)
    return value


def halt(pid: int) -> None:
    """SIGSTOP, and returns once no thread of it runs any more: a moment later, on another processor."""

    def states() -> set[str]:
        return {path.read_text().rsplit(")", 1)[1].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}

    os.kill(pid, signal.SIGSTOP)
    until(lambda: states() == {"T"}, 5, f"process {pid} is stopped")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_nats(port: int, *arguments: str) -> subprocess.Popen:
    """A server that listens; whoever asked for it ends it."""
    command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(port), *arguments]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: accepts(port), 10, "nats-server listens")
    return server


@contextmanager
def nats_server(*arguments: str) -> Iterator[str]:
    """Its URL."""
    port = free_port()
    server = start_nats(port, *arguments)
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


class Issuer:
    """Makes keys and tokens, as the platform's own identity service would."""

    def __init__(self, folder: Path) -> None:
        private, public = make_key_pair()
        self.key = parse_signing_key(json.dumps(private).encode(), "the test's key")
        self.jwks_file = folder / "jwks.json"
        self.jwks_file.write_text(json.dumps(public))

    def token(
        self, company: str, tier: str = "enterprise", user: str = "feed", scopes: str = "predict", valid_s: int = 3600
    ) -> str:
        return sign(
            self.key,
            user_id=user,
            company_id=company,
            tier=Tier[tier.upper()],
            scopes=scopes.split(),
            audience="ml",
            issuer="",
            now_unix=int(time.time()),
            valid_s=valid_s,
        )


class EngineProcess:
    """`python -m engine run`, as a person would start it."""

    def __init__(
        self, folder: Path, issuer: Issuer, nats_url: str = "", local_path: str = "", settings: dict | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        sections: dict[str, dict] = {
            "engine": {"name": f"engine-{self.port}"},
            "auth": {"jwks_file": str(issuer.jwks_file)},
            "models": {"path": str(ROOT / "models")},
            "http": {"listen": f"127.0.0.1:{self.port}"},
            "tape": {"recorder_path": str(folder / "incidents")},
        }
        if nats_url:
            sections["bus.nats"] = {"url": nats_url}
        if local_path:
            sections["bus.local"] = {"path": local_path}
        for name, values in (settings or {}).items():
            sections.setdefault(name, {}).update(values)
        self.name = sections["engine"]["name"]
        self.config = folder / f"engine-{self.port}.toml"
        self.config.write_text(
            "\n".join(
                f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
                for name, values in sections.items()
            )
        )
        self.log_path = folder / f"engine-{self.port}.log"
        self.temporary = folder / f"tmp-{self.port}"  # its own, so that what it leaves there can be seen
        self.handle: subprocess.Popen | None = None

    def start(self) -> "EngineProcess":
        self.temporary.mkdir(exist_ok=True)
        with self.log_path.open("ab") as log:
            self.handle = subprocess.Popen(
                [sys.executable, "-m", "engine", "run", "--config", str(self.config)],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stderr=log,
                stdout=log,
            )
        return self

    def wait_ready(self, within_s: float = 60) -> "EngineProcess":
        def ready() -> bool:
            assert self.handle is not None
            assert self.handle.poll() is None, f"the engine ended with {self.handle.returncode}:\n{self.log()}"
            return self.get("/v2/health/ready")[0] == 200

        try:
            until(ready, within_s, "the engine is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def get(self, path: str) -> tuple[int, bytes]:
        """(status, body); status 0 where nobody answers."""
        try:
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                return answer.status, answer.read()
        except (OSError, http.client.HTTPException):  # it may end amid its answer
            return 0, b""

    def health(self) -> dict:
        return json.loads(self.get("/health")[1] or b"{}")

    def metric(self, name: str) -> float:
        """The sum of a metric's samples over all processes."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def children(self) -> dict[str, int]:
        """pid by `role-row`, of those that live."""
        assert self.handle is not None
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(stat[1]) == self.handle.pid and stat[0] != "Z" and b"engine.supervision.child" in words:
                at = words.index(b"engine.supervision.child")
                found[f"{words[at + 1].decode()}-{words[at + 2].decode()}"] = int(entry.name)
        return found

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def stop(self, number: int = signal.SIGTERM, within_s: float = 20) -> int:
        assert self.handle is not None
        if self.handle.poll() is None:
            os.kill(self.handle.pid, number)
        return self.handle.wait(within_s)

    def __enter__(self) -> "EngineProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        assert self.handle is not None
        if self.handle.poll() is not None:
            return
        try:
            self.stop()
        except subprocess.TimeoutExpired:  # a test failed while this engine could not drain
            self.handle.kill()
            self.handle.wait()
