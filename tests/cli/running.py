"""A real nats-server of a test's own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = Path(sys.prefix) / "bin" / "nats-server"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@contextlib.contextmanager
def nats_server(folder: Path, configuration: str = "") -> Iterator[str]:
    """The URL of a server of its own, on a port that the system chose."""
    (folder / "nats.conf").write_text(configuration)
    command = [SERVER, "-c", folder / "nats.conf", "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder]
    with (folder / "nats.log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    ports = folder / f"nats-server_{process.pid}.ports"
    try:
        give_up = time.monotonic() + 10
        while not (ports.exists() and ports.read_text().endswith("}")):
            assert process.poll() is None, (folder / "nats.log").read_text()
            assert time.monotonic() < give_up, (folder / "nats.log").read_text()
            os.sched_yield()
        yield json.loads(ports.read_text())["nats"][0]
    finally:
        process.kill()
        process.wait()
