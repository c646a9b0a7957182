"""The HTTP face of the engine: health for load balancers, metrics for Prometheus.

Owns the routes; the control process runs it. Reads the arena and the samples taken each second,
writes nothing of the arena. What must stay true: no question changes anything or waits for anyone;
every error is `application/problem+json` and tells strangers nothing of the inside.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine import gpus
from engine.control import exposition, health, metrics, processes, samples
from engine.gpus import Memory
from engine.settings import Settings
from engine.shared import Shared


class Watch:
    """What the control process remembers between two questions: samples and costs of processes."""

    def __init__(self, shared: Shared, settings: Settings, version: str, cores: float) -> None:
        self.shared = shared
        self.settings = settings
        self.version = version
        self.cores = cores
        self.costs = processes.Costs()
        self.gpu_memory: list[Memory] = []
        self._read_gpu_memory: Callable[[], list[Memory]] | None = None
        self.samples: deque[samples.Sample] = deque(maxlen=samples.KEPT)

    def look(self) -> None:
        """Once a second: one more sample."""
        self.costs.read(processes.pids(self.shared))
        if any(self.shared.children[seat.row]["gpu"] for seat in processes.worker_seats(self.shared)):
            self._read_gpu_memory = self._read_gpu_memory or gpus.memory_reader()
            self.gpu_memory = self._read_gpu_memory()
        self.samples.append(samples.take(self.shared, time.monotonic_ns(), self.costs.cpu_s))

    def verdict(self) -> health.Verdict:
        return health.judge(self.shared, self.settings, time.monotonic_ns())


def make_app(watch: Watch) -> Starlette:
    shared, settings = watch.shared, watch.settings

    async def of_engine(request: Request) -> Response:
        verdict = watch.verdict()
        rates = samples.rates(watch.samples)
        now = datetime.now(UTC)
        body = health.body(shared, settings, verdict, rates, watch.cores, watch.gpu_memory, watch.version, now)
        return _json(body, 503 if verdict.health is health.Health.UNHEALTHY else 200)

    async def live(request: Request) -> Response:
        is_live = health.supervised(shared, time.monotonic_ns())
        return _json({"live": is_live}, 200 if is_live else 503)

    async def ready(request: Request) -> Response:
        is_ready = health.ready(shared, settings, time.monotonic_ns())
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    async def scrape(request: Request) -> Response:
        rates = samples.rates(watch.samples)
        lines = metrics.page(
            shared, settings, watch.costs.now, rates, watch.cores, watch.gpu_memory, time.monotonic_ns()
        )
        return Response("\n".join(lines) + "\n", headers={"content-type": exposition.CONTENT_TYPE} | NOT_KEPT)

    return Starlette(
        routes=[
            Route("/health", of_engine),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            Route("/metrics", scrape),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


NOT_KEPT = {"cache-control": "no-store"}  # what is said is of now


def _json(body: dict[str, Any], status: int) -> Response:
    return Response(orjson.dumps(body), status, NOT_KEPT, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, DETAILS.get(error.status_code, ""), error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return _problem(500, DETAILS[500])


DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not take this method; the Allow header names those that it takes.",
    500: "The question could not be answered; the engine's log says why.",
}


def _problem(status: int, detail: str, headers: Any = None) -> Response:
    """RFC 9457."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(orjson.dumps(body), status, {**(headers or {}), **NOT_KEPT}, "application/problem+json")
