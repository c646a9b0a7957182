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
    watched = lessons.of_walks(50_000, SEED + 100)
    fitted = pictures.fit(kind.plan, taught, watched, seed=SEED, epochs=2, report=print)
    shapes.calibrate(kind.plan, fitted.parameters, watched, path, label(path))
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


def test_minutes_correct_what_walks_need_as_far_as_they_are_many():
    """Of a network whose logits are 0.4 too low on minutes and right on walks."""
    rng = np.random.default_rng(SEED)
    near, shift = np.array([1.0, 0.0]), {}
    for minutes in (2_000, 2_000_000):
        logit = rng.normal(-5.0, 2.0, minutes)
        target = rng.random(minutes) < 1.0 / (1.0 + np.exp(-logit - 0.4))
        slope, shift[minutes] = shapes.platt(logit, target, np.full(minutes, 1.0 / shapes.OVERLAP), near)
        assert abs(slope - 1.0) < 0.06
    print(f"seed {SEED}: {shift}")
    assert abs(shift[2_000]) < 0.1 < 0.3 < shift[2_000_000] < 0.45


def test_walks_have_many_laws_and_none_is_without_shape():
    path = np.log(lessons.walks(20_000, SEED))
    moves = np.diff(path, axis=1)
    still = (moves == 0.0).mean(axis=1)
    turned = (moves[:, 1:] * moves[:, :-1]).mean(axis=1) / (moves**2).mean(axis=1)
    assert (still < 0.01).mean() > 0.05  # each minute has a quote of its own
    assert (still > 0.3).mean() > 0.2  # holes and coarse ticks
    assert (turned < -0.2).mean() > 0.1  # flicker, or steps that are taken back
    assert (turned > 0.2).mean() > 0.05
    assert (moves != 0.0).any(axis=1).all()
