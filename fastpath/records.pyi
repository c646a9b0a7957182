from typing import Any

from fastpath.ring import ByteRing

class Head:
    bytes: int
    position: int
    requests: int
    epoch: int
    sequence: int
    received_ns: int
    deadline_ns: int
    received_unix_ns: int
    timestamp: int
    raw_bytes: int
    stream: int
    generation: int
    missing: int
    count: int
    worker: int
    reason: int
    company_bytes: int
    stream_bytes: int
    user_bytes: int
    correlation_bytes: int
    traceparent_bytes: int
    tracestate_bytes: int
    detail_bytes: int
    kind: int
    tier: int
    late: int
    bus: int
    expired: int
    arrival: int
    decisions: int
    plan: int
    def __init__(self, **fields: int) -> None: ...
    def copy(self) -> Head: ...

def write(area: memoryview, head: Head, decisions: bytes, texts: list[bytes], raw: bytes) -> None: ...
def read(inputs: ByteRing, position: int, whole: bool) -> list[Any]: ...
def position_of(inputs: ByteRing, at: int) -> int: ...
