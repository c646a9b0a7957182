"""Open-loop sending: each message at its due time, however long those before it took.

Owns the clock of a producer and its counts. Runs in a producer's process; takes vectors, gives them to a Producer.
What must stay true: due times follow from the start and the rate alone, so a slow bus makes messages late, which is
counted, and never makes the rate lower without telling.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from engine.contract.ml.feature_vectors_pb2 import FeatureVector

SLEEP_MAX_S = 0.1  # how long a request to stop may go unseen


@dataclass
class Sent:
    """What was sent. Times are of messages, from when each was due to when it was taken."""

    vectors: int = 0
    messages: int = 0
    seconds: float = 0.0
    late_ms_max: float = 0.0
    late: int = 0  # messages sent over a millisecond after they were due

    @property
    def vectors_per_s(self) -> float:
        return self.vectors / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        return {**asdict(self), "vectors_per_s": round(self.vectors_per_s, 3)}


async def send_paced(
    send: Callable[[list[FeatureVector]], Awaitable[object]],
    vectors: Iterator[FeatureVector],
    rate: float,
    batch: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> Sent:
    """Sends all vectors at `rate` a second, `batch` in a message. `stop` is asked at least each 0.1 s."""
    sent = Sent()
    start_ns = time.monotonic_ns()
    for number, group in enumerate(_groups(vectors, batch)):
        due_ns = start_ns + round(number * batch * 1e9 / rate)
        if not await _wait_until(due_ns, stop):
            break
        await send(group)
        late_ns = time.monotonic_ns() - due_ns
        sent.vectors += len(group)
        sent.messages += 1
        sent.late += late_ns > 1_000_000
        sent.late_ms_max = max(sent.late_ms_max, late_ns / 1e6)
    sent.seconds = (time.monotonic_ns() - start_ns) / 1e9
    return sent


def _groups(vectors: Iterator[FeatureVector], count: int) -> Iterator[list[FeatureVector]]:
    while group := list(islice(vectors, count)):
        yield group


async def _wait_until(due_ns: int, stop: Callable[[], bool]) -> bool:
    """False: asked to stop."""
    while not stop():
        left_s = (due_ns - time.monotonic_ns()) / 1e9
        if left_s <= 0:
            return True
        await asyncio.sleep(min(left_s, SLEEP_MAX_S))
    return False
