"""The pictures that pattern models look at: 64 closed minutes' path, drawn 16 points or 64 points high.

Owns the drawing; run by workers and by training. Reads mids, writes one picture. What must stay true:
it is free of price and of volatility (lowest mid at the bottom, highest at the top), because a
pattern is a shape; a mid between two points lights both by its distance, so nothing is rounded away.

The fine one has two layers of 64 by 64 points. The line joins every close to its neighbours, so that a
jump looks like one; the area fills what lies under the smoothed path, on which the rules look for
turning points: a column's sum is that path's height, so a small network reads levels, which rules
compare, as easily as it sees edges.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.geometry import scale, smoothed
from engine.inference.jit import kernel

HEIGHT = 16
FINE_HEIGHT = 64


@kernel
def draw(path, image):
    """path: (64,) mids; image: (16, 64), row 0 at the top, written whole."""
    image[:] = 0.0
    low, high = np.inf, -np.inf
    for n in range(IMAGE_MINUTES):
        low, high = min(low, path[n]), max(high, path[n])
    for n in range(IMAGE_MINUTES):
        height = (HEIGHT - 1) * (path[n] - low) / (high - low) if high > low else (HEIGHT - 1) / 2.0
        point = min(int(height), HEIGHT - 2)
        image[HEIGHT - 1 - point, n] = 1.0 - (height - point)
        image[HEIGHT - 2 - point, n] = height - point


@kernel
def _light(layer, n, bottom, top):
    """Each point of a column by how much of it lies between two heights, in points from below."""
    for point in range(int(bottom), min(int(top), FINE_HEIGHT - 1) + 1):
        layer[FINE_HEIGHT - 1 - point, n] = max(min(top, point + 1.0) - max(bottom, point), 0.0)


@kernel
def draw_fine(path, image):
    """path: (64,) mids; image: (2, 64, 64), the line and the area under the smoothed path, row 0 at the top."""
    image[:] = 0.0
    level, smooth = np.empty(IMAGE_MINUTES), np.empty(IMAGE_MINUTES)
    scale(path, level)
    smoothed(level, smooth)
    for n in range(IMAGE_MINUTES):
        before = 0.5 * (level[max(n - 1, 0)] + level[n])
        after = 0.5 * (level[n] + level[min(n + 1, IMAGE_MINUTES - 1)])
        # The line is one point thick.
        bottom = min(before, level[n], after) * (FINE_HEIGHT - 1)
        top = max(before, level[n], after) * (FINE_HEIGHT - 1) + 1.0
        _light(image[0], n, bottom, top)
        _light(image[1], n, 0.0, smooth[n] * FINE_HEIGHT)


class Picture(NamedTuple):
    """What a manifest's one feature names."""

    draw: Callable[..., Any]
    canvas: tuple[int, ...]  # what `draw` writes
    shape: tuple[int, int, int, int]  # the same as a model's input


PICTURES = {
    "image": Picture(draw, (HEIGHT, IMAGE_MINUTES), (1, 1, HEIGHT, IMAGE_MINUTES)),
    "image_fine": Picture(draw_fine, (2, FINE_HEIGHT, IMAGE_MINUTES), (1, 2, FINE_HEIGHT, IMAGE_MINUTES)),
}
