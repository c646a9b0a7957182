"""How often a process may die of its own before it is given up.

Owns the deaths of one child row. Runs in the supervisor. What must stay true: only deaths that the
process brought on itself count, and only those soon after a start: a loop of failing starts ends,
while a process that ran well is always started again.
"""

import signal
from collections import deque

from engine import limits

SELF_INFLICTED_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


def is_self_inflicted(status: int, killed_as_stuck: bool) -> bool:
    """Whether a death counts.

    Parameters
    ----------
    status
        As `subprocess.Popen.returncode`: negative is a signal. An end that nobody asked for counts
        whatever its status.
    killed_as_stuck
        The supervisor itself killed it, for its pulse.
    """
    return killed_as_stuck or status >= 0 or -status in SELF_INFLICTED_SIGNALS


class Budget:
    """At most `limits.RESTART_BUDGET` young deaths within `limits.RESTART_WINDOW_S`.

    Examples
    --------
    >>> budget = Budget()
    >>> [budget.spend(died_s=10.0 * n, lived_s=1.0) for n in range(5)]
    [True, True, True, True, False]
    >>> Budget().spend(died_s=0.0, lived_s=6.0)
    True
    """

    def __init__(self) -> None:
        self._young: deque[float] = deque()

    def spend(self, died_s: float, lived_s: float) -> bool:
        """Enters a self-inflicted death. False: the budget is used up."""
        if lived_s > limits.RESTART_YOUNG_S:
            return True
        self._young.append(died_s)
        while died_s - self._young[0] > limits.RESTART_WINDOW_S:
            self._young.popleft()
        return len(self._young) < limits.RESTART_BUDGET
