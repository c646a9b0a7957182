"""Whether what came back is the answer to what was sent.

Owns the check of a round; runs in the generator's process, after the round, off the clock. What must
stay true: a message without its answer, with two, or with a wrong one makes the round no measurement,
and is told with its reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from bench.load import Planned
from bench.raw_nats import Message, name_in
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch, PredictionStatus
from engine.contract.names import Status

GOOD = (Status.OK, Status.DEGRADED)


@dataclass
class Round:
    """What a round showed. Lists are in the order of the messages, without those that have no answer."""

    latencies_ns: list[int] = field(default_factory=list)  # from due to the last byte of the answer
    due_ns: list[int] = field(default_factory=list)  # CLOCK_MONOTONIC
    late_ns: list[int] = field(default_factory=list)  # from due to the bytes' leaving, a part of the above
    answer_bytes: list[int] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)  # what the service says of itself in its answers
    inference_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    minutes_closed: int = 0
    generator_s: float = 0.0  # processor time of the generator within the round
    wall_s: float = 0.0


def short_name(name: str) -> str:
    """The input's name within an answer's, which may have the engine's before it.

    >>> short_name("engine-0/acme/feed/7/3")
    'acme/feed/7/3'
    """
    return "/".join(name.split("/")[-4:])


def judge(
    planned: Sequence[Planned],
    sent_ns: Mapping[str, int],
    arrived: Sequence[tuple[int, Message]],
    echo_bytes: int | None,
) -> Round:
    """A round from its messages and what arrived.

    Parameters
    ----------
    sent_ns : when each message had left, by name
    arrived : when the last byte of each answer was read, and the answer
    echo_bytes : the size of an echo's answers; None for a service, whose answers are read
    """
    found = Round()
    by_name: dict[str, list[tuple[int, Message]]] = {}
    for arrived_ns, message in arrived:
        by_name.setdefault(short_name(name_in(message.header)), []).append((arrived_ns, message))
    for each in planned:
        answers = by_name.pop(each.name, [])
        if not answers:
            found.problems["no answer"] += 1
            continue
        if len(answers) > 1:
            found.problems["answered twice"] += 1
        arrived_ns, message = answers[0]
        wrong = _wrong_echo(message, echo_bytes) if echo_bytes is not None else _wrong_answer(each, message, found)
        if wrong:
            found.problems[wrong] += 1
        found.latencies_ns.append(arrived_ns - each.due_ns)
        found.due_ns.append(each.due_ns)
        found.late_ns.append(sent_ns[each.name] - each.due_ns)
        found.answer_bytes.append(len(message.body))
    for answers in by_name.values():
        found.problems[_stray(answers[0][1])] += len(answers)
    return found


def _wrong_echo(message: Message, expected: int) -> str:
    return "" if len(message.body) == expected else f"an echo of {len(message.body)} bytes, expected {expected}"


def _wrong_answer(each: Planned, message: Message, found: Round) -> str:
    """What is wrong with it, empty where nothing is; its statuses are counted."""
    try:
        envelope = MLProcessingEnvelope.FromString(message.body)
        if envelope.message_type != "ml_inference":
            return _refusal(envelope)
        batch = MLPredictionBatch.FromString(envelope.payload)
    except DecodeError:
        return "an answer that cannot be read"
    company, stream, epoch, sequence = each.name.split("/")
    named = (batch.company_id, batch.source_id, str(batch.source_epoch), str(batch.source_sequence))
    if named != (company, stream, epoch, sequence):
        return "an answer to another input"
    if tuple(prediction.symbol for prediction in batch.predictions) != each.symbols:
        return "predictions of other symbols"
    found.statuses.update(PredictionStatus.Name(prediction.status) for prediction in batch.predictions)
    found.engine_ms.append(batch.performance_metrics.engine_time_ms)
    found.inference_ms.append(batch.performance_metrics.inference_time_ms)
    bad = [prediction for prediction in batch.predictions if prediction.status not in GOOD]
    if bad:
        return f"{PredictionStatus.Name(bad[0].status)} {bad[0].reason}".strip()
    partial = not all(
        len(p.price.horizon_predictions) == 4 and p.direction.feature_importance for p in batch.predictions
    )
    return "a prediction without all of its parts" if partial else ""


def _refusal(envelope: MLProcessingEnvelope) -> str:
    if envelope.message_type != "ml_rejection":
        return f"a message of type {envelope.message_type!r}"
    rejection = Rejection.FromString(envelope.payload)
    return f"refused as {rejection.code}: {rejection.detail}"


def _stray(message: Message) -> str:
    try:
        envelope = MLProcessingEnvelope.FromString(message.body)
        if envelope.message_type == "ml_rejection":
            return _refusal(envelope)
    except DecodeError:
        pass
    return "an answer that nobody asked for in this round"
