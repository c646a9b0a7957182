"""On a test's PYTHONPATH: the wall clock of every process of an engine, as far ahead as a file beside this one says.

CLOCK_MONOTONIC stays as it is, as it does when somebody sets a host's clock.
"""

import sys
from pathlib import Path

AHEAD = Path(__file__).parent / "ahead_s"  # exists where the clock was stepped


def arm() -> None:
    import time

    real_ns = time.time_ns

    def ahead_ns() -> int:
        try:
            return int(AHEAD.read_text()) * 10**9
        except (OSError, ValueError):
            return 0

    time.time_ns = lambda: real_ns() + ahead_ns()
    time.time = lambda: (real_ns() + ahead_ns()) / 1e9


if "engine" in sys.orig_argv or "engine.supervision.child" in sys.orig_argv:
    arm()
