"""The benchmark of ingress in small."""

import json
import subprocess
import sys
from pathlib import Path

from bench.ingress import MESSAGES, SIZES


def test_every_size_gets_its_figures_and_every_message_is_accepted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.ingress", "--seconds", "0.5", "--seed", "5", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed 5, 0.5 s" in done.stdout
    assert "goals (medians): a message of one vector at most 60 us: " in done.stdout
    found = json.loads((tmp_path / "ingress.json").read_text())
    assert [each["vectors"] for each in found["sizes"]] == list(SIZES)
    for each in found["sizes"]:
        for name in ("ingress", "parse"):
            assert len(each[name]) >= 2
            assert {len(part) for part in each[name]} == {MESSAGES}
            assert min(map(min, each[name])) > 0
    assert found["sizes"][0]["message_bytes"] < found["sizes"][-1]["message_bytes"]
    assert found["further_vector_ns"]["ingress"] > 0
