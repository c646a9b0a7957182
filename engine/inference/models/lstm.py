"""Price models: recurrent networks over 49 closed minutes and the open one.

Owns one version's session; run by workers. Reads the microbatch's rows, writes `move` and `rise`.
What must stay true: inputs of a row are that slot's own, and outputs are checked by the caller.
"""

import numpy as np

from engine.inference.batch import LSTM_MINUTES, PRICE, Batch, Output, are_chances, are_finite
from engine.inference.features import FEATURE_NAMES
from engine.inference.models.names import check_names
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout


class PriceModel:
    role = PRICE

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        shape = (1, LSTM_MINUTES + 1, len(manifest.features))
        outs = {"move": (1, layout.horizons), "rise": (1, layout.horizons)}
        self._session = Session(manifest, ("rows", shape), outs)
        self._columns = np.zeros(0, "i8")

    def open(self) -> None:
        check_names(self.manifest, FEATURE_NAMES)
        self._columns = np.array([FEATURE_NAMES.index(name) for name in self.manifest.features])
        self._session.open()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session = self._session
        for i in slots:
            np.take(batch.rows[i], self._columns, axis=1, out=session.feed[0], mode="clip")
            session.run()
            output.move[i] = session.out["move"][0]
            output.rise[i] = session.out["rise"][0]

    def sound(self, slots: list[int], output: Output) -> bool:
        """Whether every number is finite and every chance one."""
        return all(are_finite(output.move[i]) and are_chances(output.rise[i]) for i in slots)
