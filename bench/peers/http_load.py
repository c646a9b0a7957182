"""The load on a peer over HTTP: requests sent on time, each on a connection that is free, whatever comes back.

Owns its connections and the clock of a round; a process of its own, `python -m bench.peers.http_load`: a line of JSON
about itself on standard input, then one for each round, each answered with a line. What must stay true: due times are
given and never moved (open loop); an answer counts only if its numbers are the models' own.
"""

import gc
import json
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.generator import GRACE_NS, SPIN_NS
from bench.peers.tensors import answer, made_up

now_ns = time.monotonic_ns
Request = tuple[bytes, np.ndarray]  # whole, and the numbers that its answer has


class Connection:
    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = -1  # in flight
        self._got = b""

    def send(self, number: int, request: bytes) -> None:
        self.request, self._got = number, b""
        self.socket.sendall(request)

    def take(self) -> tuple[int, bytes, bytes] | None:
        """(request, status line, body) once the answer is whole."""
        data = self.socket.recv(1 << 16)
        if not data:
            return self.request, b"the connection ended", b""
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap:
            return None
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if len(body) < int(lengths[0].partition(b":")[2]):
            return None
        number, self.request = self.request, -1
        return number, head.partition(b"\r\n")[0], body


class Load:
    def __init__(self, host: str, port: int, requests: Sequence[Request]) -> None:
        self.host, self.port, self.requests = host, port, requests
        self.connections: list[Connection] = []

    def round(self, dues_ns: Sequence[int]) -> dict[str, Any]:
        arrived: dict[int, tuple[int, bytes, bytes]] = {}
        late_ns = []
        gc.disable()
        for number, due_ns in enumerate(dues_ns):
            while (left_ns := due_ns - now_ns()) > 0:
                self._take(max(0.0, (left_ns - SPIN_NS) / 1e9), arrived)
            free = next((each for each in self.connections if each.request < 0), None)
            if free is None:
                free = Connection(self.host, self.port)
                self.connections.append(free)
            free.send(number, self.requests[number % len(self.requests)][0])
            late_ns.append(now_ns() - due_ns)
        give_up_ns = now_ns() + GRACE_NS
        while len(arrived) < len(dues_ns) and now_ns() < give_up_ns:
            self._take(0.05, arrived)
        gc.enable()
        self.connections = [each for each in self.connections if each.request < 0]
        return self._judge(dues_ns, arrived) | {"late_ns": late_ns, "connections": len(self.connections)}

    def _take(self, wait_s: float, arrived: dict[int, tuple[int, bytes, bytes]]) -> None:
        busy = {each.socket: each for each in self.connections if each.request >= 0}
        for each in select.select(list(busy), [], [], wait_s)[0]:
            if found := busy[each].take():
                arrived[found[0]] = (now_ns(), *found[1:])
                if not found[1].startswith(b"HTTP"):
                    self.connections.remove(busy[each])

    def _judge(self, dues_ns: Sequence[int], arrived: Mapping[int, tuple[int, bytes, bytes]]) -> dict[str, Any]:
        problems: Counter[str] = Counter()
        latencies = []
        for number, due_ns in enumerate(dues_ns):
            if number not in arrived:
                problems["no answer"] += 1
                continue
            at_ns, status, body = arrived[number]
            expected = self.requests[number % len(self.requests)][1]
            if b" 200 " not in status + b" ":
                problems[status.decode(errors="replace")] += 1
            elif len(body) != expected.nbytes:
                problems[f"{len(body)} bytes instead of {expected.nbytes}"] += 1
            elif not np.allclose(np.frombuffer(body, np.float32), expected, rtol=1e-4, atol=1e-5):
                problems["other numbers than the models'"] += 1
            latencies.append(at_ns - due_ns)
        return {"latencies_ns": latencies, "problems": dict(problems)}


def for_mosec(sent: np.ndarray) -> bytes:
    body = sent.tobytes()
    head = f"POST /inference HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + body


def main() -> None:
    about = json.loads(sys.stdin.readline())
    requests = [(for_mosec(sent), answer(sent)) for sent in made_up(about["seed"])]
    load = Load("127.0.0.1", about["port"], requests)
    for line in sys.stdin:
        print(json.dumps(load.round(json.loads(line)["dues_ns"])), flush=True)


if __name__ == "__main__":
    main()
