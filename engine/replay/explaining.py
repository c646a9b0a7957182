"""One answer, explained: its input, what its window held, who answered and who stood in, where the time went.

Owns nothing. Runs in the process of the command. Reads the tape, and replays the input's stream up to it, one
vector at a time, so that the window is what it was. What must stay true: what is said of live comes from the
tape; what only the replay knows is told under `replayed`.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract.names import Bus, Flag, Kind, Reason, Signal, Status, Tier
from engine.errors import TapeError
from engine.replay.answering import Answered, Answerer
from engine.replay.diff import inputs_of
from engine.replay.digest import same_slots
from engine.replay.fallbacks import Chains
from engine.replay.reading import Begin, Tape
from engine.watch import tape
from fastpath import layout

MIDS = 5  # of the last closed minutes, shown


def explain(path: Path, store: Path, name: str) -> dict[str, Any]:
    """Everything about the answer of that name, with or without its engine."""
    words = name.split("/")[-4:]
    if len(words) < 4 or not (words[2].isdecimal() and words[3].isdecimal()):
        raise TapeError(f"{name!r}: expected a name, [<engine>/]<company>/<stream>/<epoch>/<sequence>")
    source = Tape(path, skip_holes=True).open()
    position, index = source.find(words[0], words[1], int(words[2]), int(words[3]))
    answerer = Answerer(store, max_batch=1)
    for each in source.inputs(index):
        if isinstance(each, Begin):
            answerer.begin(each)
        elif tape.name_of_record(each.record)[0] == (words[0], words[1]) and each.position <= position:
            for answered in [*answerer.take(each), *answerer.finish()]:
                if answered.taped.position == position:
                    return _told(answered, answerer.chains)
    raise TapeError(f"{path}: the tape ends before position {position}")


def _told(answered: Answered, chains: Chains) -> dict[str, Any]:
    head, record, taped = answered.record.head, answered.record, answered.taped
    live = taped.answers if taped.answers is not None else answered.slots
    sent = "not on the tape" if not taped.known else "as EXPIRED" if taped.expired else "as answered"
    told: dict[str, Any] = {
        "name": f"{answered.begin.head['engine']}/{record.company}/{record.stream}/{head.epoch}/{head.sequence}",
        "position": head.position,
        "kind": Kind(head.kind).name.lower(),
        "bus": Bus(head.bus).name.lower(),
        "user": record.user,
        "tier": Tier(head.tier).name.lower(),
        "correlation": record.correlation,
        "received": datetime.fromtimestamp(head.received_unix_ns / 1e9, UTC).isoformat(),
        "late": bool(head.late),
        "missing_before": head.missing,
        "sent": sent,
        "timings_ms": _timings(answered, live) if taped.answers is not None else {},
        "replayed": "the same to the bit" if same_slots(answered.slots, live) else "otherwise than live",
    }
    if head.kind == Kind.REJECTION:
        return told | {"code": Reason(head.reason).code, "detail": record.detail}
    inputs = inputs_of(taped.record) if head.kind == Kind.VECTOR else []
    told["vectors"] = [
        {"input": text, **_vector(answered, chains, request, slot)}
        for text, request, slot in zip(inputs, answered.requests, live, strict=False)
    ]
    return told


def _timings(answered: Answered, live: np.ndarray) -> dict[str, float]:
    """By stage, from when ingress took the message."""
    head, seen_ns = answered.record.head, answered.taped.seen_ns
    received, taken, done = head.received_ns, int(live["taken_ns"][0]), int(live["answered_ns"][-1])
    stages = {
        "sender_to_engine": head.received_unix_ns - head.timestamp,
        "received_to_taken": taken - received,
        "taken_to_answered": done - taken,
        "answered_to_seen_sent_at_most": seen_ns - done if seen_ns else 0,
        "deadline": head.deadline_ns - received,
    }
    return {name: round(value / 1e6, 3) for name, value in stages.items()}


def _vector(answered: Answered, chains: Chains, request: np.void, slot: np.void) -> dict[str, Any]:
    status = Status(int(slot["status"]))
    flags = [flag.name.lower() for flag in Flag if int(slot["flags"]) & flag]
    told: dict[str, Any] = {"symbol": slot["symbol"].decode(), "status": status.name, "flags": flags}
    if status == Status.REJECTED:
        return told | {"reason": Reason(int(slot["reason"])).code}
    told["window"] = _window(answered, request)
    if status == Status.EXPIRED:
        return told | {"why": "its deadline had passed at its turn" if not request["expired"] else "too old on arrival"}
    plan = int(request["plan"]) or min(int(request["tier"]), 3)
    denied = {_model(answered, row) for row in chains.denied(plan, slot)}
    told["not_asked"] = dict.fromkeys(sorted(denied), "its breaker was open, or it failed")
    if status == Status.WARMING:
        told["why"] = f"a model needs more closed minutes than the {told['window']['closed_minutes']} there are"
    count = int(slot["contribution_count"])
    told["contributions"] = [
        {
            "model": _model(answered, int(slot["contribution_version"][n])),
            "signal": Signal(int(slot["contribution_signal"][n])).name,
            "confidence": round(float(slot["contribution_confidence"][n]), 6),
            "weight": round(float(slot["weight"][n]), 6),
            "fallback": bool(slot["contribution_fallback"][n]),
        }
        for n in range(count)
    ]
    horizons = range(int(slot["horizon_count"]))
    told["decided_by"] = _model(answered, int(slot["final_version"]))
    told["signal"] = Signal(int(slot["ensemble_signal"])).name
    told["confidence"], told["score"] = float(slot["ensemble_confidence"]), float(slot["ensemble_score"])
    told["prices"] = {
        f"{int(slot['horizon_minutes'][h])}m": [float(slot[each][h]) for each in ("lower", "price", "upper")]
        for h in horizons
    }
    return told


def _model(answered: Answered, row: int) -> str:
    info = answered.versions.info[row]
    return f"{info.model_id} {info.version}"


def _window(answered: Answered, request: np.void) -> dict[str, Any]:
    """Of the key when the vector had been taken in."""
    entries, step, depth = answered.windows[int(request["key"])], int(request["step"]), int(request["depth"])
    own = entries[step & (layout.window - 1)]
    closed = [entries[(step - 1 - age) & (layout.window - 1)] for age in range(min(depth, MIDS))]
    return {
        "step": step,
        "minute": int(request["minute"]),
        "opens_its_minute": bool(request["opens"]),
        "left_alone": bool(request["outside"]),
        "closed_minutes": depth,
        "gaps": int(request["window_gaps"]),
        "volatility_bp": round(float(own["sigma"]), 6),
        "mid": float(request["mid"]),
        "last_closed_mids": [float(entry["mid"]) for entry in closed],
        "masked_of_those": int(np.count_nonzero([entry["masked"] for entry in closed])),
    }
