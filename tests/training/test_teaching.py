"""Labels teach a pattern model, and shuffled ones do not."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="the extra `train` is not installed")
pytest.importorskip("optax", reason="the extra `train` is not installed")

from engine.training import lessons, pictures, shapes
from engine.training.patterns import label

SEED = 20260117


def test_labels_teach_and_shuffled_labels_do_not():
    taught, fresh = lessons.of_walks(200_000, SEED), lessons.walks(30_000, SEED - 1)
    path, held = lessons.walks(30_000, SEED - 2), label(fresh)
    kind = shapes.SIMPLE
    fitted = pictures.fit(kind.plan, taught, lessons.of_walks(50_000, SEED + 100), seed=SEED, epochs=2, report=print)
    shapes.calibrate(fitted.parameters, pictures.logits(kind.plan, fitted.parameters, path), label(path))
    blind = shapes.shuffled(kind, taught, path, label(path), SEED)
    print(f"seed {SEED}")
    rate = label(path).mean(0)
    worse = {}
    for name, parameters in (("taught", fitted.parameters), ("shuffled", blind)):
        said = shapes.chances_of(kind.plan, parameters)(fresh)
        worse[name] = ((said - held) ** 2 - (rate - held) ** 2).sum(axis=1)
    found = {name: each.mean() / (each.std() / np.sqrt(len(each))) for name, each in worse.items()}
    assert found["taught"] < -3.0, found
    assert worse["shuffled"].mean() > 0.1 * worse["taught"].mean(), found
    assert fitted.watched_loss[1] < fitted.watched_loss[0]
