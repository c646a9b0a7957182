"""A real engine for the length of a demo: its folder, its configuration, its process.

Owns the temporary folder and the engine's process. Runs in the demo's process; writes the folder and
the configuration in it, reads the engine's log. What must stay true: nothing outlives `close`,
whatever happened before; the person's own settings and environment play no part.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson

import engine
from engine.cli.scrape import ask
from engine.errors import TickpathError
from engine.tenancy.signing import KeyPairFiles, write_key_pair

ROOT = Path(engine.__file__).parents[1]
READY_S = 120.0
END_S = 15.0  # after SIGTERM; its own drain takes ten at most
CLOSE_S = 5.0  # after SIGTERM where nobody waits for a drain any more
LOST_S = 1.0  # how long after its sockets an engine's process may be seen to end
FOLDER_BYTES_MAX = 60  # of the folder above: a Unix socket's path holds 107 bytes
LOG_LINES = 15  # of the engine's, shown when it failed
GIVEN_UP = "is not started again"  # the supervisor's word about a spent restart budget
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

CONFIGURATION = """\
[engine]
name = "demo-{pid}"
workers = {workers}
device = "cpu"

[bus.local]
path = "{folder}/bus"

[auth]
algorithms = ["EdDSA"]
jwks_file = "{jwks}"

[models]
path = "{models}"

[registry]
url = "sqlite:///{folder}/registry.db"

[http]
listen = "127.0.0.1:0"
"""


class DemoError(TickpathError):
    """The demo cannot go on. The message ends with the engine's last words where it has any."""


class Host:
    """One engine. `open`, `wait_ready`, `end`, and in any case `close`."""

    def __init__(self) -> None:
        self.folder = Path()
        self.keys: KeyPairFiles | None = None
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def bus(self) -> str:
        return str(self.folder / "bus")

    def open(self) -> None:
        """Makes the folder, for this user only, and starts the engine in it."""
        above = tempfile.gettempdir()
        self.folder = Path(
            tempfile.mkdtemp(prefix="tickpath-demo-", dir=above if len(above) <= FOLDER_BYTES_MAX else "/tmp")
        )
        self.keys = write_key_pair(self.folder / "keys")
        cores = len(os.sched_getaffinity(0))
        configuration = self.folder / "engine.toml"
        configuration.write_text(
            CONFIGURATION.format(
                pid=os.getpid(),
                workers=2 if cores >= 8 else 1,
                folder=self.folder,
                jwks=self.keys.public,
                models=ROOT / "models",
            )
        )
        with (self.folder / "log").open("ab") as log:
            self.process = start(["-m", "engine", "run", "--config", str(configuration)], stdout=log, stderr=log)

    def doing(self) -> str:
        """The engine's last word about its own start, in one line."""
        told = [line for line in self.log() if "level" in line and not line["message"].startswith("health: ")]
        return f"{told[-1]['process']}: {told[-1]['message'][:100]}" if told else "loading"

    def ready(self) -> bool:
        """Whether vectors are answered now; DemoError when the engine has ended."""
        self.refuse_ended()
        self._refuse_given_up()
        if not self.url:
            said = [line["message"] for line in self.log() if line["message"].startswith("listening on http")]
            self.url = said[-1].removeprefix("listening on ") if said else ""
        if not self.url:
            return False
        try:
            return ask(self.url, "/v2/health/ready")[0] == 200
        except OSError:
            return False

    def refuse_ended(self) -> None:
        assert self.process is not None, "open comes first"
        status = self.process.poll()
        if status is not None:
            raise DemoError(f"the engine ended by itself with status {status}; its last lines:\n{self.tail()}")

    def lost(self, why: str) -> DemoError:
        """What to say when somebody lost touch with the engine: that it ended, if that is why."""
        assert self.process is not None, "open comes first"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LOST_S)
        self.refuse_ended()
        return DemoError(f"{why}; the engine's last lines:\n{self.tail()}")

    def _refuse_given_up(self) -> None:
        """A process that died on every start will not be there, however long one waits."""
        for line in self.log():
            if GIVEN_UP in line["message"]:
                raise DemoError(f"the engine cannot start: {line['message']}; its last lines:\n{self.tail()}")

    def end(self) -> int:
        """SIGTERM, as an operator would: the engine drains. Its exit status."""
        assert self.process is not None, "open comes first"
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise DemoError(
                f"the engine has not ended {END_S:g} s after SIGTERM; its last lines:\n{self.tail()}"
            ) from None

    def close(self) -> None:
        """Ends what still runs and removes the folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()  # its children end with it
                self.process.wait()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> list[dict[str, Any]]:
        """The engine's log so far; a line that is no JSON (a traceback, say) counts as a message."""
        lines = []
        for text in (self.folder / "log").read_text(errors="replace").splitlines():
            try:
                lines.append({"process": "engine", "message": text} | orjson.loads(text))
            except (ValueError, TypeError):
                lines.append({"process": "engine", "message": text})
        return lines

    def tail(self) -> str:
        told = [f"  {line['process']}: {line['message']}{_indented(line.get('error', ''))}" for line in self.log()]
        return "\n".join("\n".join(told).splitlines()[-LOG_LINES:]) or "  (it said nothing)"


def _indented(text: str) -> str:
    return "".join(f"\n    {line}" for line in text.splitlines())


def start(arguments: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    """This Python with other arguments, ending with this process; Ctrl-C at the terminal does not reach it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKPATH_")}
    # Without this, importing ONNX Runtime writes `.ses` into TMPDIR and may report to its maker.
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        process_group=0,
        preexec_fn=_end_with_parent,
        **streams,
    )


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
