"""Price models: recurrent networks over 49 closed minutes and the open one.

Owns one version's network with its windows in flight, or where its graph is another, its session; run by workers.
Reads the microbatch's rows, writes `move` and `rise`. What must stay true: inputs of a row are that slot's own, and
outputs are checked by the caller; which of the two runs a version is decided once, at load.
"""

import numpy as np

from engine.inference.batch import LSTM_MINUTES, PRICE, Batch, Output
from engine.inference.features import FEATURE_NAMES
from engine.inference.models.cuda import Device
from engine.inference.models.names import check_names
from engine.inference.models.onnx_graph import Unfit
from engine.inference.models.recurrent import difference, read_weights
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest, read_artefact
from fastpath import layout
from fastpath.checks import are_chances, are_finite
from fastpath.lanes import Lanes, block_bytes
from fastpath.lstm import Network

DIFFERENCE_MAX = 1e-5  # to ONNX Runtime, the oracle


class PriceModel:
    role = PRICE

    def __init__(self, manifest: Manifest, device: Device | None = None) -> None:
        self.manifest = manifest
        shape = (1, LSTM_MINUTES + 1, len(manifest.features))
        outs = {"move": (1, layout.horizons), "rise": (1, layout.horizons)}
        self._session = Session(manifest, ("rows", shape), outs, device)
        self._columns = np.zeros(0, "i8")
        self.unfit = ""  # why ONNX Runtime runs it; empty: the lanes do
        self._bound: tuple[Batch, Output] | None = None

    def open(self) -> None:
        check_names(self.manifest, FEATURE_NAMES)
        self._columns = np.array([FEATURE_NAMES.index(name) for name in self.manifest.features])
        self._session.open()
        try:
            self._lanes = Lanes(self._network(), 0)
        except Unfit as error:
            self.unfit = str(error)
            self._session.place()
        else:
            self._session.close()

    def _network(self) -> Network:
        """The same weights as ONNX Runtime's, seen to give the same answers; Unfit where they cannot be had."""
        network = read_weights(read_artefact(self.manifest)).network(LSTM_MINUTES + 1)
        expected = len(self._columns), 2 * layout.horizons, layout.horizons
        if (network.inputs, network.outputs, network.linear) != expected:
            raise Unfit(f"it has {network.inputs} inputs, and {network.linear} of {network.outputs} outputs are moves")
        try:
            found = difference(network, self._by_session)
        except Exception as error:  # a library's; the proof of a loaded version tells it
            raise Unfit(f"ONNX Runtime does not run it: {type(error).__name__}") from error
        if not found <= DIFFERENCE_MAX:
            raise Unfit(f"its answers by lanes lie {found:.1e} from ONNX Runtime's")
        return network

    def _by_session(self, rows: np.ndarray) -> np.ndarray:
        session = self._session
        session.feed[0] = rows
        session.run()
        return np.concatenate([session.out["move"][0], session.out["rise"][0]])

    @property
    def lanes_bytes(self) -> int:
        """Of one key."""
        return block_bytes(self._lanes.network)

    def keep_lanes(self, keys: int) -> Lanes:
        """Windows in flight for so many keys; without, each window runs whole."""
        self._lanes, self._bound = Lanes(self._lanes.network, keys), None
        return self._lanes

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        if self.unfit:
            self._run_session(slots, batch, output)
            return
        if self._bound is None or self._bound[0] is not batch or self._bound[1] is not output:
            self._lanes.bind(
                batch.rows, self._columns, batch.closing, batch.key, batch.generation, batch.step,
                output.move, output.rise,
            )  # fmt: skip
            self._bound = batch, output
        self._lanes.run(slots)

    def _run_session(self, slots: list[int], batch: Batch, output: Output) -> None:
        session = self._session
        for some in session.portions(slots):
            for n, i in enumerate(some):
                session.feed[n] = batch.rows[i][:, self._columns]
            session.run(len(some))
            for n, i in enumerate(some):
                output.move[i], output.rise[i] = session.out["move"][n], session.out["rise"][n]

    def sound(self, slots: list[int], output: Output) -> bool:
        """Whether every number is finite and every chance one."""
        return are_finite(output.move, slots) and are_chances(output.rise, slots)
