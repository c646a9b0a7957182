"""Inputs that killed a worker twice, for people to look at.

Owns nothing. Runs in egress, when an answer was gathered. Reads `inputs`. What must stay true: the bytes
are those that came, less the token; they go to the company's own subject, and nobody else's.
"""

from logging import Logger

from engine import records
from engine.contract.names import DEADLETTER_SUBJECT
from engine.egress.encoding import Answer
from engine.egress.gathering import Gathered
from engine.shared import Count
from fastpath.ring import ByteRing


def dead_letter(gathered: Gathered, inputs: ByteRing, engine: str, counters: memoryview, log: Logger) -> Answer | None:
    """What goes to NATS and Kafka beside an answer that has a poisoned vector; None where there is none."""
    if not gathered.poisoned:
        return None
    record = records.read(inputs, int(gathered.slots[0]["record"]))
    input_name = f"{record.company}/{record.stream}/{record.head.epoch}/{record.head.sequence}"
    subject = f"{DEADLETTER_SUBJECT}.{record.company}.{record.stream}"
    counters[Count.DEAD_LETTERS] += 1
    log.error("the input %s of %d bytes killed workers; it is a dead letter", input_name, len(record.raw))
    return Answer(record.company, subject, f"{engine}/deadletter/{input_name}", record.raw)
