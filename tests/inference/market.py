"""Made-up markets as request slots, with the steps that ingress would have decided."""

from dataclasses import dataclass, field

import numpy as np

from engine.contract.names import Kind
from fastpath import layout

HOLE = 5
FIRST_MINUTE = 23_000_000


@dataclass
class Place:
    """Where a key stands."""

    minute: int = 0
    event_ns: int = 0
    step: int = layout.history_max
    depth: int = 0
    fresh: bool = True


@dataclass
class Market:
    """Gives slots in order; `vector` for each, `slots` for all so far."""

    tier: int = 3
    generation: int = 1
    places: dict[int, Place] = field(default_factory=dict)
    given: list[np.void] = field(default_factory=list)

    def vector(
        self,
        key: int,
        event_ns: int,
        mid: float,
        *,
        spread: float = np.nan,
        history: np.ndarray | None = None,
        late: bool = False,
        expired: bool = False,
        tier: int | None = None,
        correlations: tuple[float, ...] = (),
    ) -> np.void:
        slot = np.zeros(1, layout.request_slot_dtype)[0]
        place = self.places.setdefault(key, Place())
        minute = event_ns // 60_000_000_000
        if place.fresh and not late:
            if history is not None:
                slot["history_count"], slot["history"][: len(history)] = len(history), history
                place.depth = len(history)
            slot["opens"], place.fresh = 1, False
        elif late or event_ns <= place.event_ns:
            slot["outside"] = 1
        elif minute > place.minute:
            empty = minute - place.minute - 1
            slot["opens"], slot["skipped"] = 1, empty if empty <= HOLE else 1
            place.step += 1 + int(slot["skipped"])
            place.depth = min(place.depth + 1 + int(slot["skipped"]), layout.history_max)
        if not slot["outside"]:
            place.minute, place.event_ns = minute, event_ns
        slot["kind"], slot["tier"], slot["key"], slot["generation"] = (
            Kind.VECTOR,
            tier or self.tier,
            key,
            self.generation,
        )
        slot["step"], slot["depth"], slot["minute"], slot["event_ns"] = place.step, place.depth, minute, event_ns
        slot["mid"], slot["spread"], slot["indicators"], slot["expired"] = mid, spread, np.nan, expired
        slot["correlation_count"], slot["correlations"][: len(correlations)] = len(correlations), correlations
        slot["symbol"], slot["symbol_bytes"], slot["input"] = f"KEY{key}".encode(), 4, len(self.given) + 1
        self.given.append(slot)
        return slot

    def minute(self, key: int, n: int, mid: float, **more: object) -> np.void:
        """A vector one millisecond before the end of the n-th minute."""
        return self.vector(key, (FIRST_MINUTE + n + 1) * 60_000_000_000 - 1_000_000, mid, **more)  # type: ignore[arg-type]

    def slots(self) -> np.ndarray:
        """A ring's worth, whose length is a power of two."""
        size = 1 << max(len(self.given) - 1, 1).bit_length()
        ring = np.zeros(size, layout.request_slot_dtype)
        for n, slot in enumerate(self.given):
            ring[n] = slot
        return ring


def walk(rng: np.random.Generator, count: int, start: float = 1.3, bp: float = 1.0) -> np.ndarray:
    """Mids of a random walk with so many basis points a minute."""
    return start * np.exp(np.cumsum(rng.normal(0.0, bp * 1e-4, count)))


def windows(keys: int) -> np.ndarray:
    return np.zeros((keys, layout.window), layout.window_entry_dtype)
