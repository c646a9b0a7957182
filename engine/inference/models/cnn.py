"""Pattern models: convolutional networks over a picture of 64 closed minutes.

Owns one version's session, and each key's last path with its answer; run by workers. Reads the microbatch's paths,
writes `pattern`. What must stay true: the picture is drawn by the same kernel in training; an answer is used again for
the same path to the bit alone.
"""

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import IMAGE_MINUTES, PATTERN, Batch, Output, are_chances, record
from engine.inference.image import PICTURES
from engine.inference.jit import kernel
from engine.inference.models.cuda import Device
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout

Known = record(
    ("there", "u1"),  # 1: the key has one
    ("path", "i8", IMAGE_MINUTES),  # its bits, so that NaN is like NaN
    ("pattern", "f8", layout.patterns_max),
)


@kernel
def recall(known, batch, output, i):
    """What was said of this path, if it is the key's last one to the bit. Whether it is."""
    key = batch[i].key
    if key < 0 or key >= len(known) or known[key].there == 0:
        return False
    last, path = known[key].path, batch[i].path.view(np.int64)
    for n in range(IMAGE_MINUTES):
        if last[n] != path[n]:
            return False
    output[i].pattern[:] = known[key].pattern
    return True


@kernel
def remember(known, batch, output, i):
    key = batch[i].key
    if 0 <= key < len(known) and are_chances(output[i].pattern):
        known[key].there = 1
        known[key].path[:] = batch[i].path.view(np.int64)
        known[key].pattern[:] = output[i].pattern


@kernel
def usable(output, i):
    return are_chances(output[i].pattern)


class PatternModel:
    role = PATTERN

    def __init__(self, manifest: Manifest, device: Device | None = None) -> None:
        self.manifest = manifest
        self._device = device
        self.keep(0)

    def keep(self, keys: int) -> None:
        """Forgets all, and has room for so many keys: a path changes once a minute, vectors come more often."""
        self._known = np.zeros(keys, Known)

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
        session, known, given, said = self._session, self._known, batch.records, output.records
        for some in session.portions(slots):
            asked = [i for i in some if not recall(known, given, said, i)]
            for n, i in enumerate(asked):
                self._draw(batch.path[i], self._canvas[n])
            if asked:
                session.run(len(asked))
            for n, i in enumerate(asked):
                output.pattern[i] = session.out["pattern"][n]
                remember(known, given, said, i)

    def sound(self, slots: list[int], output: Output) -> bool:
        return all(usable(output.records, i) for i in slots)
