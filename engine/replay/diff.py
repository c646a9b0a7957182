"""The first answer in which two replays differ, or a replay and what was answered live.

Owns nothing; pure functions over results. Runs in the process of the command. What must stay true: answers are
compared under the name of their input, whatever position each tape gave it, and fields to the bit.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.replay.running import Result
from engine.watch import tape

PAYLOADS: dict[str, type[Message]] = {"ml_inference": MLPredictionBatch, "ml_rejection": Rejection}
ABSENT = "absent"


class Difference(NamedTuple):
    """`fields`: path -> (one, other). `inputs`: the vectors, as protobuf's text."""

    name: str
    position: int
    fields: dict[str, tuple[str, str]]
    inputs: list[str]

    def text(self) -> str:
        lines = [f"{self.name}, position {self.position}, differs:"]
        lines += [f"  {path}: {one} | {other}" for path, (one, other) in self.fields.items()]
        return "\n".join([*lines, "its inputs:", *(f"  {each}" for each in self.inputs)])


def compare(ones: Iterator[Result], others: Iterator[Result] | None) -> Difference | None:
    """The first difference. others: None for live; what the tape does not have is left out then."""
    if others is None:
        for result in ones:
            if result.live is not None and not result.is_as_live:
                return _difference(result, result.values, result.live)
        return None
    for one, other in zip_longest(ones, others):
        if one is None or other is None or _name(one.values) != _name(other.values):
            there = one or other
            names = [_name(each.values) if each else ABSENT for each in (one, other)]
            return Difference(names[0], there.position, {"name": (names[0], names[1])}, inputs_of(there.record))
        if one.values != other.values:
            return _difference(one, one.values, other.values)
    return None


def _difference(result: Result, one: bytes, other: bytes) -> Difference:
    left, right = fields_of(one), fields_of(other)
    paths = [path for path in dict.fromkeys([*left, *right]) if left.get(path) != right.get(path)]
    fields = {path: (left.get(path, ABSENT), right.get(path, ABSENT)) for path in paths}
    return Difference(_name(one), result.position, fields, inputs_of(result.record))


def _name(values: bytes) -> str:
    envelope = MLProcessingEnvelope.FromString(values)
    source = PAYLOADS[envelope.message_type].FromString(envelope.payload)
    return f"{envelope.company_id}/{getattr(source, 'source_id')}/{envelope.epoch}/{envelope.sequence}"  # noqa: B009


def fields_of(values: bytes) -> dict[str, str]:
    """Every field that is set, by its path."""
    envelope = MLProcessingEnvelope.FromString(values)
    found: dict[str, str] = {}
    _walk(PAYLOADS[envelope.message_type].FromString(envelope.payload), "", found)
    envelope.ClearField("payload")
    _walk(envelope, "envelope.", found)
    return found


def _walk(message: Message, path: str, found: dict[str, str]) -> None:
    for field, value in message.ListFields():
        several = isinstance(value, str | bytes) is False and hasattr(value, "__len__")
        for index, each in enumerate(value if several else [value]):
            place = f"{path}{field.name}[{index}]" if several else f"{path}{field.name}"
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                _walk(each, f"{place}.", found)
            elif field.enum_type is not None:
                found[place] = field.enum_type.values_by_number[each].name
            else:
                found[place] = repr(each)


def inputs_of(record: bytes) -> list[str]:
    """The vectors of a record; nothing for a message that had none."""
    envelope = MLProcessingEnvelope.FromString(tape.raw_of_record(record))
    batch = FeatureVectorBatch.FromString(envelope.payload)
    return [" ".join(str(vector).split()) for vector in batch.feature_vectors]
