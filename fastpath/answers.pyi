from typing import Any

from fastpath.ring import Ring

class Answers:
    def __init__(self, slots: list[Any], expired: bool, late: bool, stream: str, engine_ms: float) -> None: ...

def words(answers: Ring, position: int) -> tuple[int, int, int, int, int, int, int, int]: ...

class Encoder:
    def __init__(
        self,
        models: dict[int, bytes],
        features: dict[int, list[bytes]],
        rejections: dict[int, bytes],
        flagged: list[bytes],
    ) -> None: ...
    def encode(
        self,
        message_type: str,
        timestamp_ns: int,
        engine: str,
        user: str,
        company: str,
        correlation: str,
        traceparent: str,
        tracestate: str,
        epoch: int,
        sequence: int,
        payload: bytes | Answers,
    ) -> bytes: ...
