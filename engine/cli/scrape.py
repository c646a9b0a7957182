"""What a running engine says of itself over HTTP, for the views in the terminal.

Owns the last answers. Runs in a view's process; reads `/health` and `/metrics`. What must stay true:
an engine that does not answer is shown as such and never ends or delays the view by more than a
second.
"""

import http.client
import re
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

ANSWER_S = 1.0
STAGES = ("ingress", "ring_wait", "inference", "egress", "confirm")
QUANTILES = (0.5, 0.9, 0.99)

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Process(NamedTuple):
    name: str
    state: str
    private_bytes: float
    cores: float  # used since the look before
    starts: int


class Look(NamedTuple):
    """The engine at one moment."""

    status: str  # of /health; `no answer` where there is none
    stages_ms: dict[str, list[float]]  # QUANTILES of each stage that has happened
    processes: list[Process]


NOTHING = Look("no answer", {}, [])


def ask(url: str, path: str) -> tuple[int, bytes]:
    """(status, body); OSError where nobody answers within a second."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"{url}{path}: {error!r}") from error
    finally:
        connection.close()


class Scraper:
    """Looks at one engine, time after time: CPU use is what was used between two looks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._cpu_s: dict[str, float] = {}
        self._time_s = 0.0

    def look(self) -> Look:
        return self.look_closer()[0]

    def look_closer(self) -> tuple[Look, Samples]:
        """The same with all that `/metrics` says; no samples where there is no answer."""
        try:
            status: dict[str, Any] = orjson.loads(ask(self.url, "/health")[1])
            samples = parse(ask(self.url, "/metrics")[1].decode())
        except (OSError, ValueError):
            return NOTHING, {}
        return Look(status["status"], stages(samples), self._processes(samples)), samples

    def _processes(self, samples: Samples) -> list[Process]:
        now_s, passed_s = time.monotonic(), time.monotonic() - self._time_s
        cpu_s = by_label(samples, "tickpath_process_cpu_seconds_total", "process")
        memory = by_label(samples, "tickpath_process_private_memory_bytes", "process")
        starts = by_label(samples, "tickpath_process_starts_total", "process")
        states = {
            process: next((status for status in STATES if _is(samples, process, status)), "absent")
            for process in starts
        }
        found = [
            Process(
                name,
                states.get(name, "ready"),  # the supervisor, who answers for the others' states
                memory.get(name, 0.0),
                (cpu_s[name] - self._cpu_s[name]) / passed_s if name in self._cpu_s and name in cpu_s else 0.0,
                int(starts.get(name, 1)),
            )
            for name in ["supervisor", *starts]
        ]
        self._cpu_s, self._time_s = cpu_s, now_s
        return found


STATES = ("loading", "ready", "dying", "spent")


def _is(samples: Samples, process: str, status: str) -> bool:
    return samples.get(("tickpath_process_state", frozenset({("process", process), ("status", status)}))) == 1


def parse(text: str) -> Samples:
    """The samples of a page that this engine wrote."""
    found = (_SAMPLE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
    return {(each[1], frozenset(_LABEL.findall(each[2] or ""))): float(each[3]) for each in found if each}


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    """The values of a family by one of its labels, in the page's order."""
    return {dict(labels)[label]: value for (found, labels), value in samples.items() if found == name}


def stages(samples: Samples) -> dict[str, list[float]]:
    """Quantiles in ms of each stage over all processes, interpolated within the page's buckets."""
    found = {}
    for stage in STAGES:
        buckets: dict[float, float] = {}
        for (name, labels), value in samples.items():
            if name == "tickpath_stage_duration_seconds_bucket" and ("stage", stage) in labels:
                bound = float(dict(labels)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        if buckets and max(buckets.values()) > 0:
            found[stage] = [1000 * quantile(buckets, share) for share in QUANTILES]
    return found


def quantile(cumulative: dict[float, float], share: float) -> float:
    """The value that `share` of the events do not exceed, as if they lay evenly within their bucket.

    >>> quantile({1.0: 50.0, 2.0: 100.0, float("inf"): 100.0}, 0.75)
    1.5
    """
    rank = share * max(cumulative.values())
    below, lower = 0.0, 0.0
    for bound, count in sorted(cumulative.items()):
        if count >= rank:
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return lower
