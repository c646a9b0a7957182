"""Golden rows as a command for people: what is written, what is refused, and that one failure stops no other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference.test_own_models import add_own, classifier

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "fx_m1"

pytest.importorskip("onnx")


def write(store: Path, *arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "engine.training.golden", "--store", str(store), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def renamed(folder: Path, model_id: str, company: str, old: str = "", new: str = "") -> Path:
    to = folder.parents[1] / model_id / "1.0"
    to.parent.mkdir()
    folder.rename(to)
    text = (to / "model.toml").read_text().replace("acme_sides", model_id).replace('"acme"', f'"{company}"')
    (to / "model.toml").write_text(text.replace(old, new, 1))
    return to


def test_a_model_that_is_of_no_use_gets_no_rows_and_stops_no_other(tmp_path: Path) -> None:
    broken = renamed(add_own(tmp_path, artefact=classifier("Log")), "broken", "one")
    mistyped = renamed(add_own(tmp_path), "mistyped", "two", "weight", "wieght")
    fine = add_own(tmp_path)
    before = contents(broken)
    status, told = write(tmp_path, "broken", "mistyped", "acme_sides", "nobody")
    assert status == 1
    assert told[:3] == [
        f"left out: {mistyped / 'model.toml'}: wieght is unknown; did you mean weight?",
        f"mistyped: no version in {tmp_path} that can be read; nothing written",
        f"nobody: no version in {tmp_path} that can be read; nothing written",
    ]
    assert told[3].startswith(
        f"broken 1.0: {broken / 'model.onnx'}: no usable numbers for row 1: direction: expected three chances that sum "
        "to 1, found ["
    )
    assert told[3].endswith("]; correct its output; nothing written")
    assert told[4:] == ["golden rows written: acme_sides 1.0"]
    assert contents(broken) == before
    rows = json.loads((fine / "golden.json").read_text())["rows"]
    assert len(rows) == 6
    first = contents(fine)
    (fine / "model.toml").write_text((fine / "model.toml").read_text().replace("[golden]", "[golden]  # ours"))
    assert write(tmp_path, "acme_sides") == (0, ["golden rows written: acme_sides 1.0"])
    assert contents(fine) == first


def test_what_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
    assert write(tmp_path / "none") == (
        1,
        [
            f"golden: {tmp_path / 'none'}: expected the folder of the model store, found none; "
            "set `models.path` or restore the bundled `models`"
        ],
    )
    assert write(ROOT / "models", "--data", str(tmp_path)) == (
        1,
        [f"golden: {tmp_path}: expected files of one-minute bars, *.csv.gz, found none; give --data"],
    )
