"""Pattern models: convolutional networks over a picture of 64 closed minutes.

Owns one version's session, and each key's last path with its answer; run by workers. Reads the microbatch's paths,
writes `pattern`. What must stay true: the picture is drawn by the same kernel in training; an answer is used again for
the same path to the bit alone.
"""

from typing import Annotated

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import IMAGE_MINUTES, PATTERN, Batch, Output, Table
from engine.inference.image import PICTURES
from engine.inference.jit import kernel
from engine.inference.models.cuda import Device
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout
from fastpath.checks import are_chances


class Known(Table):
    """Each key's last path and what was said of it."""

    there: Annotated[np.ndarray, "u1"]  # 1: there is one
    path: Annotated[np.ndarray, "i8", IMAGE_MINUTES]  # its bits, so that NaN is like NaN
    pattern: Annotated[np.ndarray, "f8", layout.patterns_max]


@kernel
def recall(known, batch, output, slots, others):
    """What was said of each slot's path, if it is its key's last one to the bit. How many others there are."""
    count = 0
    for i in slots:
        key, path = batch[i].key, batch[i].path.view(np.int64)
        same = 0 <= key < len(known) and known[key].there != 0
        for n in range(IMAGE_MINUTES if same else 0):
            if known[key].path[n] != path[n]:
                same = False
                break
        if same:
            output[i].pattern[:] = known[key].pattern
        else:
            others[count] = i
            count += 1
    return count


@kernel
def remember(known, batch, output, i):
    """What was said of a slot's path, if it can be used."""
    key = batch[i].key
    for chance in output[i].pattern:
        if not 0.0 <= chance <= 1.0:
            return
    if 0 <= key < len(known):
        known[key].there = 1
        known[key].path[:] = batch[i].path.view(np.int64)
        known[key].pattern[:] = output[i].pattern


class PatternModel:
    role = PATTERN

    def __init__(self, manifest: Manifest, device: Device | None = None) -> None:
        self.manifest = manifest
        self._device = device
        self.keep(0)

    def keep(self, keys: int) -> None:
        """Forgets all, and has room for so many keys: a path changes once a minute, vectors come more often."""
        self._known = Known(keys).records

    def open(self) -> None:
        features = list(self.manifest.features)
        if len(features) != 1 or features[0] not in PICTURES:
            raise ModelError(
                f"{self.manifest.folder / 'model.toml'}: features: expected one of {', '.join(PICTURES)}, "
                f"found {features}; name the picture that the model was trained on"
            )
        picture = PICTURES[features[0]]
        outs = {"pattern": (1, layout.patterns_max)}
        self._session = Session(self.manifest, ("image", picture.shape), outs, self._device)
        self._draw, self._canvas = picture.draw, self._session.feed.reshape(-1, *picture.canvas)
        self._session.open()
        self._session.place()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session, left = self._session, slots
        while left := self._unknown(left, batch, output):  # looked at again: one before may have had the same path
            asked, left = left[: session.rows], left[session.rows :]
            for n, i in enumerate(asked):
                self._draw(batch.path[i], self._canvas[n])
            session.run(len(asked))
            for n, i in enumerate(asked):
                output.pattern[i] = session.out["pattern"][n]
                remember(self._known, batch.records, output.records, i)

    def _unknown(self, slots: list[int], batch: Batch, output: Output) -> list[int]:
        """Those whose answers are not remembered; the others have them."""
        if not slots:
            return []
        which = np.array(slots)
        others = np.empty_like(which)
        return others[: recall(self._known, batch.records, output.records, which, others)].tolist()

    def sound(self, slots: list[int], output: Output) -> bool:
        return are_chances(output.pattern, slots)
