"""What a pattern model says of paths, one by one, as the engine asks it."""

import numpy as np

from engine.inference.batch import Output, new_batch
from engine.inference.models.cnn import PatternModel
from engine.training.patterns import NAMES


def chances(model: PatternModel, paths: np.ndarray) -> np.ndarray:
    """(n, 64) mids -> (n, 7)."""
    batch, output = new_batch(1), Output(1)
    out = np.empty((len(paths), len(NAMES)))
    for n, path in enumerate(paths):
        batch.path[0] = path
        model.run([0], batch, output, np.ones(4, "u1"))
        out[n] = output.pattern[0]
    return out
