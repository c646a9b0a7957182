"""Many vectors, by hand: `python -m tests.replay.by_hand 100000`. Records them live, replays them in several ways.

Prints vectors a second and whether each digest is that of the live answers; exit status 1 if one is not.
"""

import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from tests.replay.recorded import Live
from tests.system.servers import ROOT

WAYS = tuple(product(("1", "7", "32"), ("1", "2")))  # max_batch, processes
TIMES = 2


def main(count: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="tickpath-tape-"))
    live = Live(folder, {"engine": {"deadline_ms": 5000}, "tape": {"path": str(folder / "tape")}})
    with live.engine as engine:
        live.open()
        began_s = time.monotonic()
        live.send(count)
        live.receive()
        print(f"live: {count} vectors, {count / (time.monotonic() - began_s):.0f} a second, {folder}", flush=True)
        cost = {name: engine.metric(f"tickpath_tape_{name}_total") for name in ("bytes", "lost")}
        live.close()
    print(f"tape: {cost['bytes'] / count:.0f} bytes a vector, {cost['lost']:.0f} lost", flush=True)
    digests = set()
    for max_batch, workers in WAYS * TIMES:
        command = [sys.executable, "-m", "engine", "replay", str(folder / "tape"), "--config", str(engine.config)]
        command += ["--json", "--max-batch", max_batch, "--workers", workers]
        told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        digests |= {told["digest"], told["live_digest"]}
        same = "as live" if told["digest"] == told["live_digest"] else f"{told['differ']} differ"
        print(f"max_batch {max_batch}, {workers} processes: {told['vectors_per_s']} vectors/s, {same}", flush=True)
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
