"""`python -m engine.inference.warm`: compiles every kernel once, so that no worker ever does.

Run by `make setup`. Reads the model store, writes the folder of compiled kernels. What must stay
true: afterwards a worker's start compiles nothing.
"""

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import event

from engine import limits
from engine.inference import jit, microbatch
from engine.inference.predictor import Predictor
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from fastpath import layout

ROOT = Path(__file__).parent.parent.parent


class Progress(event.Listener):
    """A line for each kernel that was compiled rather than found."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.compiled = 0

    def on_start(self, event: Any) -> None:
        pass

    def on_end(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if function.__module__.startswith("engine."):
            self.compiled += 1
            print(
                f"{time.monotonic() - self.began:6.1f} s  compiled {function.__module__}.{function.__qualname__}",
                file=sys.stderr,
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.inference.warm", description="Compiles every kernel once.")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="model store")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    versions = np.zeros(limits.VERSIONS_MAX, layout.version_row_dtype)
    names = np.zeros(limits.FEATURE_NAMES_MAX, f"S{limits.FEATURE_NAME_BYTES}")
    manifests = read_store(arguments.models, lambda error: print(f"left out: {error}", file=sys.stderr))
    plans = np.zeros(layout.plans_max, layout.plan_row_dtype)
    fill_versions(manifests, versions, names)
    fill_plans(manifests, plans)
    progress = Progress()
    with event.install_listener("numba:compile", progress):
        microbatch.warm(np.zeros(1, layout.request_slot_dtype), np.zeros(1, layout.answer_slot_dtype))
        Predictor(arguments.models, versions, plans, np.zeros(1, layout.child_row_dtype), 4).load()
    print(f"{progress.compiled} kernels compiled, {len(jit.kernels)} ready in {jit.FOLDER}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
