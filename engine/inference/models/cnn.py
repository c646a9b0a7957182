"""Pattern models: convolutional networks over a picture of 64 closed minutes.

Owns one version's session; run by workers. Reads the microbatch's paths, writes `pattern`. What must
stay true: the picture is drawn by the same kernel in training.
"""

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import PATTERN, Batch, Output, are_chances
from engine.inference.image import PICTURES
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout


class PatternModel:
    role = PATTERN

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def open(self) -> None:
        features = list(self.manifest.features)
        if len(features) != 1 or features[0] not in PICTURES:
            raise ModelError(
                f"{self.manifest.folder / 'model.toml'}: features: expected one of {', '.join(PICTURES)}, "
                f"found {features}; name the picture that the model was trained on"
            )
        picture = PICTURES[features[0]]
        self._session = Session(self.manifest, ("image", picture.shape), {"pattern": (1, layout.patterns_max)})
        self._draw, self._canvas = picture.draw, self._session.feed.reshape(picture.canvas)
        self._session.open()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session = self._session
        for i in slots:
            self._draw(batch.path[i], self._canvas)
            session.run()
            output.pattern[i] = session.out["pattern"][0]

    def sound(self, slots: list[int], output: Output) -> bool:
        return all(are_chances(output.pattern[i]) for i in slots)
