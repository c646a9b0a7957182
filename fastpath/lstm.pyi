from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

class Network:
    portable: bool
    inputs: int
    outputs: int
    linear: int
    window: int
    def __init__(
        self,
        layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]],
        head_w: NDArray[np.float32],
        head_bias: NDArray[np.float32],
        linear: int,
        window: int,
        portable: bool = False,
    ) -> None: ...
    def run(self, rows: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...

def aligned(floats: int) -> NDArray[np.float32]: ...
