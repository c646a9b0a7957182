vectors_max: int

class NotRead(ValueError): ...

class Envelope:
    message_type: str
    user_id: str
    company_id: str
    service_source: str
    correlation_id: str
    traceparent: str
    tracestate: str
    token: str
    payload: bytes
    timestamp: int
    epoch: int
    sequence: int
    def __init__(self, raw: bytes) -> None: ...
    def without_token(self) -> bytes: ...
    def leave_name(self) -> None: ...
