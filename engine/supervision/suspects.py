"""What a worker had in hand when it died: what its successor takes one by one, and what it does not try a third time.

Owns the words of the supervisor board about each requests ring's last dead worker. Runs in the
supervisor, after a worker was reaped and before its row is cleared. Whoever takes the seat reads them.
What must stay true: only deaths that a worker brought on itself make a slot suspect; two on one slot make it
poison.
"""

import numpy as np

from engine.shared import Phase
from fastpath.ring import Ring

WORDS = ("suspect_first", "suspect_end", "suspect_model", "poison", "poison_deaths")


def remember(board: np.void, worker: int, hand: np.void, requests: Ring, self_inflicted: bool) -> int:
    """Writes down what the dead worker had in hand.

    Parameters
    ----------
    board
        `supervisor_board` row.
    worker
        Index of the ring that it served.
    hand
        Its `child_row`, not cleared yet.

    Returns
    -------
    int
        Row of the version that it died in, -1: in none, or it is not to blame.
    """
    first, end, model = (int(hand[name]) for name in ("hand_first", "hand_end", "hand_model"))
    first = max(first, requests.tail)
    board["hand_end"][worker] = end
    if not self_inflicted:
        return -1
    if first >= end:  # all was answered: it died of something else, or in a rehearsal, of no slot
        return model - 1 if int(hand["phase"]) == Phase.IN_MODEL else -1
    if int(board["suspect_first"][worker]) <= first < int(board["suspect_end"][worker]):
        again = int(board["poison"][worker]) == first + 1
        board["poison_deaths"][worker] = int(board["poison_deaths"][worker]) + 1 if again else 2
        board["poison"][worker] = first + 1
    else:
        for name, value in zip(WORDS, (first, end, model, 0, 0), strict=True):
            board[name][worker] = value
    return model - 1
