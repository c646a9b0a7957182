"""Direction models that are ONNX graphs, as a company may bring: one row of columns in, three chances out.

Owns one version's session; run by workers. Reads the microbatch's columns, writes `direction`, and nils
where trees have SHAP values. What must stay true: a number that is not known reaches the graph as NaN.
"""

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import COLUMN_NAMES, DIRECTION, Batch, Output, are_chances
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest

TOLERANCE = 1e-3  # of the sum of three float32 chances


class ClassifierModel:
    role = DIRECTION

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._session = Session(manifest, ("columns", (1, len(manifest.features))), {"direction": (1, 3)})
        self._columns = np.zeros(0, "i8")

    def open(self) -> None:
        unknown = sorted(set(self.manifest.features) - set(COLUMN_NAMES))
        if unknown:
            raise ModelError(
                f"{self.manifest.folder / 'model.toml'}: features: expected some of {', '.join(COLUMN_NAMES)}, "
                f"found {unknown}"
            )
        self._columns = np.array([COLUMN_NAMES.index(name) for name in self.manifest.features])
        self._session.open()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session = self._session
        for i in slots:
            np.take(batch.columns[i], self._columns, out=session.feed[0], mode="clip")
            session.run()
            output.direction[i] = session.out["direction"][0]

    def sound(self, slots: list[int], output: Output) -> bool:
        return all(
            are_chances(output.direction[i]) and abs(output.direction[i].sum() - 1.0) <= TOLERANCE for i in slots
        )
