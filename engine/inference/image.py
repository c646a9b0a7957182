"""The picture that pattern models look at: 64 closed minutes' path, drawn 16 points high.

Owns the drawing; run by workers and by training. Reads mids, writes one image. What must stay true:
it is free of price and of volatility (lowest mid at the bottom, highest at the top), because a
pattern is a shape; a mid between two points lights both by its distance, so nothing is rounded away.
"""

import numpy as np

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.jit import kernel

HEIGHT = 16


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
