"""Pattern models: convolutional networks over the picture of 64 closed minutes.

Owns one version's session; run by workers. Reads the microbatch's paths, writes `pattern`. What must
stay true: the picture is drawn by the same kernel in training.
"""

import numpy as np

from engine.inference.batch import IMAGE_MINUTES, PATTERN, Batch, Output, are_chances
from engine.inference.image import HEIGHT, draw
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout


class PatternModel:
    role = PATTERN

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._session = Session(
            manifest, ("image", (1, 1, HEIGHT, IMAGE_MINUTES)), {"pattern": (1, layout.patterns_max)}
        )

    def open(self) -> None:
        self._session.open()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session = self._session
        for i in slots:
            draw(batch.path[i], session.feed[0, 0])
            session.run()
            output.pattern[i] = session.out["pattern"][0]

    def sound(self, slots: list[int], output: Output) -> bool:
        return all(are_chances(output.pattern[i]) for i in slots)
