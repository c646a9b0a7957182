"""Direction models that are ONNX graphs, as a company may bring: one row of numbers in, three chances out.

Owns one version's session; run by workers. Reads the microbatch's columns and the company's own numbers
(`extra`), writes `direction`. What must stay true: a number that is not known reaches the graph as NaN.
"""

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import COLUMN_NAMES, COLUMNS, DIRECTION, SHARES_TOLERANCE, Batch, Output
from engine.inference.models.cuda import Device
from engine.inference.models.names import check_names
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout
from fastpath.checks import are_shares


class ClassifierModel:
    role = DIRECTION

    def __init__(self, manifest: Manifest, device: Device | None = None) -> None:
        self.manifest = manifest
        self._session = Session(manifest, ("columns", (1, len(manifest.features))), {"direction": (1, 3)}, device)
        self._columns = np.zeros(0, "i8")
        self._all = np.zeros(COLUMNS + layout.extra_max, "f4")

    def open(self) -> None:
        """What the engine computes, and the company's own numbers, which the manifest's `extra` names."""
        file, own = self.manifest.folder / "model.toml", self.manifest.extra
        if len(own) > layout.extra_max:
            raise ModelError(
                f"{file}: extra: expected at most {layout.extra_max} names, found {len(own)}; send fewer numbers"
            )
        if taken := set(own) & set(COLUMN_NAMES):
            raise ModelError(
                f"{file}: extra: expected names that no feature of the engine has, found {sorted(taken)}; rename them"
            )
        check_names(self.manifest, (*COLUMN_NAMES, *own), "name it in `extra` if your vectors carry it")
        self._columns = np.array([(*COLUMN_NAMES, *own).index(name) for name in self.manifest.features], "i8")
        self._session.open()
        self._session.place()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session = self._session
        for some in session.portions(slots):
            for n, i in enumerate(some):
                self._all[:COLUMNS], self._all[COLUMNS:] = batch.columns[i], batch.extra[i]
                np.take(self._all, self._columns, out=session.feed[n], mode="clip")
            session.run(len(some))
            for n, i in enumerate(some):
                output.direction[i] = session.out["direction"][n]

    def sound(self, slots: list[int], output: Output) -> bool:
        return are_shares(output.direction, slots, SHARES_TOLERANCE)
