"""What a run of answers did wrong, by the contract: lost, doubled, changed, out of order, unexpected.

Owns nothing; a test's process runs it over what was sent and what each bus carried. What must stay true: it knows
answers by (company, stream, epoch, sequence) alone, and every kind of fault is found by a test of its own.
"""

import asyncio
import difflib
from collections import Counter
from dataclasses import dataclass, field

import nats
from google.protobuf.message import DecodeError

from engine.contract.ml.ml_predictions_pb2 import EXPIRED, REJECTED, MLPredictionBatch
from tests.system.traffic import Answer, Reader, Stream, eventually

KINDS = ("lost", "doubled", "changed", "disordered", "unexpected")
SHOWN = 5  # of each
Names = list[str]


@dataclass
class Found:
    """Each kind of fault as a list of names; `bad` says what stands against a run."""

    sent: int = 0
    answers: dict[str, int] = field(default_factory=dict)  # by bus, repeats included
    only_on: dict[str, int] = field(default_factory=dict)  # names that no other bus carried
    late: int = 0
    unpredicted: int = 0  # EXPIRED or REJECTED
    lost: Names = field(default_factory=list)
    doubled: Names = field(default_factory=list)
    changed: Names = field(default_factory=list)
    disordered: Names = field(default_factory=list)
    unexpected: Names = field(default_factory=list)
    difference: str = ""  # of the first that changed

    def bad(self, but: tuple[str, ...] = ()) -> dict[str, Names]:
        """The first few of each kind, less those that the test allows."""
        return {kind: getattr(self, kind)[:SHOWN] for kind in KINDS if kind not in but and getattr(self, kind)}

    def summary(self) -> str:
        by_bus = ", ".join(f"{count} on {bus} ({self.only_on[bus]} there alone)" for bus, count in self.answers.items())
        faults = ", ".join(f"{kind} {len(getattr(self, kind))}" for kind in KINDS)
        told = f"sent {self.sent}; answers: {by_bus}; {self.late} late, {self.unpredicted} unpredicted; {faults}"
        return f"{told}\n{self.difference}".rstrip()


def input_of(answer: Answer) -> str:
    """The name of the input that it answers, as the subject and the envelope have it."""
    _, _, _, company, stream = answer.subject.split(".")
    return f"{company}/{stream}/{answer.envelope.epoch}/{answer.envelope.sequence}"


def check(
    streams: list[Stream],
    readers: dict[str, Reader],
    engine: str,
    twin: dict[str, bytes] | None = None,
    engine_lost: bool = False,
) -> Found:
    """What came on each bus for these streams, against what they sent, and against an undisturbed run's answers.

    Where a whole engine was lost, one of two answers may be late or EXPIRED, and intervals may be others; what one
    life gave up on, and told as a gap, the next one may have read in its turn.
    """
    sent = {stream.name(sequence) for stream in streams for sequence in stream.sent}
    found = Found(sent=len(sent))
    first: dict[str, bytes] = dict(twin or {})
    carried: dict[str, set[str]] = {}
    late: set[str] = set()
    unpredicted: set[str] = set()
    for bus, reader in readers.items():
        counts: Counter[str] = Counter()
        for stream in streams:
            last = (0, 0)
            for answer in reader.named(stream):
                name, place = input_of(answer), (answer.envelope.epoch, answer.envelope.sequence)
                counts[name] += 1
                if name not in sent or answer.name != f"{engine}/{name}" or not _fits(answer, stream):
                    found.unexpected.append(f"{bus}: {answer.name or name}")
                    continue
                is_late = answer.envelope.message_type == "ml_inference" and answer.batch.late
                if is_late:
                    late.add(name)
                if _unpredicted(answer):
                    unpredicted.add(name)
                said = answer.comparable(intervals=not engine_lost)
                may_differ = engine_lost and (name in late | unpredicted or _other_gaps(first.get(name, said), said))
                if first.setdefault(name, said) != said and not may_differ:
                    found.changed.append(f"{bus}: {name}")
                    found.difference = found.difference or _difference(name, first[name], said)
                if counts[name] > 1:
                    found.doubled.append(f"{bus}: {name}")
                elif not is_late:
                    if place < last:
                        found.disordered.append(f"{bus}: {name} after {last[1]}")
                    last = max(last, place)
        found.answers[bus] = counts.total()
        carried[bus] = set(counts)
    everywhere = Counter(name for names in carried.values() for name in names)
    found.only_on = {bus: sum(everywhere[name] == 1 for name in names) for bus, names in carried.items()}
    found.lost = sorted(sent - set(everywhere))
    found.late = len(late)
    found.unpredicted = len(unpredicted)
    return found


def _difference(name: str, *bodies: bytes) -> str:
    """What two answers to one input say, line by line where they differ. Rejections are shown as bytes."""
    texts = []
    for body in bodies:
        try:
            texts.append(str(MLPredictionBatch.FromString(body)).splitlines())
        except DecodeError:
            texts.append([repr(body)])
    return "\n".join(difflib.unified_diff(*texts, f"{name}, first", f"{name}, then", n=2, lineterm=""))


def _fits(answer: Answer, stream: Stream) -> bool:
    """Whether what it says of its input is what the subject, its name and its envelope say."""
    envelope = answer.envelope
    if envelope.company_id != stream.company or envelope.auth_token.jwt:
        return False
    if envelope.message_type == "ml_rejection":
        told, company = answer.rejection, answer.rejection.company_id
    else:
        told, company = answer.batch, answer.batch.company_id
    source = (told.source_id, told.source_epoch, told.source_sequence)
    return company == stream.company and source == (stream.stream, envelope.epoch, envelope.sequence)


def _unpredicted(answer: Answer) -> bool:
    return answer.envelope.message_type == "ml_inference" and any(
        prediction.status in (EXPIRED, REJECTED) for prediction in answer.batch.predictions
    )


def _other_gaps(*bodies: bytes) -> bool:
    """Whether two answers to one input differ in how many inputs of their windows are missing."""
    try:
        one, other = ([each.window_gaps for each in MLPredictionBatch.FromString(body).predictions] for body in bodies)
    except DecodeError:
        return False  # a rejection
    return len(one) == len(other) and one != other


async def undisturbed(url: str, streams: list[Stream], names: set[str], intervals: bool) -> dict[str, bytes]:
    """The answers of a run over one bus in order, of those inputs alone: what every other run of them must say."""
    inputs = sorted((n, s.company, s) for s in streams for n in s.sent if s.name(n) in names)
    client = await nats.connect(url)
    reader = await Reader().open(client)
    for count, (sequence, _, stream) in enumerate(inputs, 1):
        await client.publish(stream.subject, stream.sent[sequence].SerializeToString())
        if count % 20 == 0:
            await eventually(lambda: len(reader.answers) >= count - 40, 30, "the undisturbed run goes on")  # noqa: B023
    await eventually(lambda: len(reader.answers) >= len(inputs), 30, "the undisturbed run is answered")
    await client.close()
    return {input_of(answer): answer.comparable(intervals) for stream in streams for answer in reader.named(stream)}


def twin_of(url: str, streams: list[Stream], readers: dict[str, Reader], intervals: bool = True) -> dict[str, bytes]:
    """What an undisturbed engine, just started, says to all that was answered in its turn."""
    names = {
        input_of(answer)
        for reader in readers.values()
        for stream in streams
        for answer in reader.named(stream)
        if answer.envelope.message_type == "ml_inference" and not answer.batch.late
    }
    return asyncio.run(undisturbed(url, streams, names, intervals))
