"""Peers are measured where they are installed, named where they are not, and their numbers are looked at."""

import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from bench.peers import tensors
from bench.peers.__main__ import PEERS
from bench.peers.http_load import Load, for_mosec


@contextmanager
def served(wrong_after: int) -> Iterator[int]:
    """A peer that answers rightly so many times, and then with other numbers, at this port."""
    asked = iter(range(1 << 30))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = np.frombuffer(self.rfile.read(int(self.headers["Content-Length"])), np.float64)
            body = (tensors.answer(sent) + (1 if next(asked) >= wrong_after else 0)).astype(np.float32).tobytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_peers_numbers_are_compared_with_the_models_own():
    requests = [(for_mosec(sent), tensors.answer(sent)) for sent in tensors.made_up(3)]
    with served(wrong_after=15) as port:
        load = Load("127.0.0.1", port, requests)
        start_ns = time.monotonic_ns() + 50_000_000
        found = load.round([start_ns + n * 10_000_000 for n in range(20)])
        for each in load.connections:
            each.socket.close()
    assert found["problems"] == {"other numbers than the models'": 5}
    assert len(found["latencies_ns"]) == len(found["late_ns"]) == 20
    assert min(found["latencies_ns"]) > 0


def test_each_peer_has_figures_or_a_sentence(tmp_path):
    command = [sys.executable, "-m", "bench.peers", "--rounds", "1", "--part", "0.5", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "peers.json").read_text())
    installed = {name for name, package, *_ in PEERS if importlib.util.find_spec(package)}
    assert set(found["rounds_of"]) == {"engine", *installed}
    missing = {package for _, package, *_ in PEERS if not importlib.util.find_spec(package)}
    assert len(found["missing"]) == len(missing)
    for name in installed:
        assert "other numbers than the models'" not in found["rounds_of"][name][0]["problems"]
