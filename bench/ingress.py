"""Ingress: a message decoded, verified, decided and in its slots, beside what google.protobuf takes to parse it.

Owns the rounds; run as `python -m bench.ingress`, in one process on one core. Prints a table, writes
`bench/results/ingress.json`. The ingress is the engine's own, over a real arena, with a real key and token, without
buses: what a bus costs is in `bench.wire`. Whoever would take what comes out of its rings is stood in for between two
messages.

A round is a number of messages of each size, made before it begins, and each is timed: first by ingress, then
google.protobuf parses the same bytes, envelope and payload, and nothing more. What must stay true: every message is
accepted, and is seen to be; nothing is left out, whatever else the host did meanwhile.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench import host
from bench.figures import microseconds, ratio, summarise, table, timed
from bench.load import Load, Stream
from engine.child import Child
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.contract.names import Bus, Tier
from engine.ingress.main import Ingress
from engine.limits import INPUTS_IN_FLIGHT_MAX, SHARDS
from engine.settings import Auth, Settings, digest
from engine.shared import BELLS, INGRESS, Shared, Verdict, regions, verdict_word
from engine.tenancy.signing import read_signing_key, sign, write_key_pair
from fastpath.arena import Arena

SIZES = (1, 10, 64)  # vectors of a message
MESSAGES = 100  # of each size, in a round
COMPANY, USER = "bench", "bench-user"
RESULTS = Path(__file__).parent / "results"


class Found(NamedTuple):
    """Of messages of one size, by round, in nanoseconds."""

    vectors: int
    message_bytes: int
    ingress: list[list[int]]
    parse: list[list[int]]


@contextmanager
def ingress_at_work(folder: Path) -> Iterator[tuple[Ingress, str]]:
    """(an ingress that can take messages, a token for them)."""
    keys = write_key_pair(folder)
    key = read_signing_key(str(keys.private))
    settings = replace(Settings(), auth=Auth(jwks_file=str(keys.public)))
    claims = {"user_id": USER, "company_id": COMPANY, "tier": Tier.ENTERPRISE, "scopes": ["predict"]}
    auth = settings.auth
    token = sign(key, **claims, audience=auth.audience, issuer=auth.issuer, now_unix=time.time(), valid_s=86_400)
    bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(BELLS)]
    arena = Arena.create(regions(settings, 1), digest(settings))
    try:
        shared = Shared(arena, settings, 1, bells)
        shared.supervisor[0]["shards"] = [0] * SHARDS
        ingress = Ingress(Child("ingress", INGRESS, settings, shared, os.getppid()))
        ingress.verifier.open()
        ingress.sequencer.open()
        yield ingress, token
    finally:
        arena.close()
        for bell in bells:
            os.close(bell)


def take(ingress: Ingress, body: bytes, subject: str, vectors: int) -> int:
    """How long one message takes; then it is answered and done, as its worker and egress would have it."""
    shared, position = ingress.shared, ingress.sequencer.next_position
    requests = shared.requests[0]
    took_ns = timed(ingress.take, body, subject, Bus.NATS)
    if ingress.sequencer.next_position != position + 1 or requests.head - requests.tail != vectors:
        raise RuntimeError(f"a message of {vectors} vectors was not accepted")
    requests.release(requests.head)
    shared.verdicts[position & (INPUTS_IN_FLIGHT_MAX - 1)] = verdict_word(position, Verdict.DONE)
    ingress.sequencer.advance_tail()
    return took_ns


def parse(body: bytes) -> None:
    FeatureVectorBatch.FromString(MLProcessingEnvelope.FromString(body).payload)


def measure(ingress: Ingress, token: str, seconds: float, seed: int) -> list[Found]:
    """Rounds until the time is up, after one that counts for nothing."""
    streams = {size: Stream(Load(f"x{size}", 1, size), COMPANY, USER, token, seed) for size in SIZES}
    found = {size: Found(size, 0, [], []) for size in SIZES}
    until, warm = time.monotonic() + seconds, True
    while warm or time.monotonic() < until or len(found[SIZES[0]].ingress) < 2:
        for size, stream in streams.items():
            bodies = [stream.next(time.time_ns())[1].body for _ in range(MESSAGES)]
            took = [take(ingress, body, stream.sender.subject, size) for body in bodies]
            parsed = [timed(parse, body) for body in bodies]
            if not warm:
                found[size].ingress.append(took)
                found[size].parse.append(parsed)
            found[size] = found[size]._replace(message_bytes=len(bodies[-1]))
        warm = False
    return list(found.values())


def further_vector_ns(found: Sequence[Found], name: str) -> float:
    """What one vector more costs: between the smallest and the largest messages, by the medians of all rounds."""
    few, many = (median([each for part in getattr(of, name) for each in part]) for of in (found[0], found[-1]))
    return float(many - few) / (found[-1].vectors - found[0].vectors)


def as_text(found: Sequence[Found]) -> str:
    rows = []
    for of in found:
        for name, words in (("ingress", "ingress"), ("parse", "google.protobuf, parse alone")):
            told = summarise([each for part in getattr(of, name) for each in part])
            cells = [microseconds(told.percentiles_ns[each]) for each in (50.0, 90.0, 99.0)]
            share = f"{ratio(of.ingress, of.parse).middle:.1f}" if name == "ingress" else ""
            what = f"{of.vectors} vector{'s' if of.vectors > 1 else ''}: {words}"
            rows.append([what, str(of.message_bytes), str(told.messages), *cells, share])
    return table(("a message, us", "bytes", "messages", "p50", "p90", "p99", "this / parse"), rows)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ingress", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of all sizes together (default: 20)")
    parser.add_argument("--seed", type=int, default=None, help="of the prices (default: drawn, and printed)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of ingress.json")
    arguments = parser.parse_args(words)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    about = host.describe()
    print("ingress: a message decoded, verified, decided, in the slot; its token is remembered, as it mostly is")
    print(f"seed {seed}, {arguments.seconds:g} s; google.protobuf parses the same messages, the same run")
    print(host.line(about))
    begun_s, busy_s, ours_s = time.monotonic(), host.busy_s(), host.used_s([os.getpid()])
    with tempfile.TemporaryDirectory() as folder, ingress_at_work(Path(folder) / "keys") as (ingress, token):
        found = measure(ingress, token, arguments.seconds, seed)
    others = (host.busy_s() - busy_s - (host.used_s([os.getpid()]) - ours_s)) / (time.monotonic() - begun_s)
    print(f"cores busy with other work meanwhile: {max(0.0, others):.2f}")
    print("\n" + as_text(found))
    more: dict[str, Any] = {name: further_vector_ns(found, name) for name in ("ingress", "parse")}
    print(f"\na further vector: {microseconds(more['ingress'])} us, parsed alone {microseconds(more['parse'])} us")
    whole = summarise([each for part in found[0].ingress for each in part]).percentiles_ns[50.0]
    print(f"goals (medians): a message of one vector at most 60 us: {microseconds(whole)} us; "
          f"a vector at most 5 us: {microseconds(more['ingress'])} us")  # fmt: skip
    arguments.results.mkdir(parents=True, exist_ok=True)
    told = {"benchmark": "ingress", "seed": seed, "seconds": arguments.seconds, "host": about, "others_cores": others}
    parts = {"further_vector_ns": more, "sizes": [each._asdict() for each in found]}
    (arguments.results / "ingress.json").write_text(json.dumps({**told, **parts}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
