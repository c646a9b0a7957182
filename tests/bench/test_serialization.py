"""The benchmark of serialization in small, and that its contenders say the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import serialization


def test_every_contender_gets_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.serialization", "--seconds", "0.1", "--seed", "5"]
    done = subprocess.run([*command, "--results", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "goal (at most 5 us): an answer written: " in done.stdout
    found = json.loads((tmp_path / "serialization.json").read_text())["ways"]
    messages = ("1 vector", "answer to 1", "10 vectors", "answer to 10")
    contenders = ("this engine", "google.protobuf", "JSON, orjson")
    assert [(each["message"], each["contender"]) for each in found] == [(m, c) for m in messages for c in contenders]
    for each in found:
        ours = each["contender"] == "this engine"
        timed = {name for name in ("encode", "decode") if each["times_ns"][name]}
        assert timed == ({"encode" if "answer" in each["message"] else "decode"} if ours else {"encode", "decode"})
    sizes = {(each["message"], each["contender"]): each["bytes"] for each in found}
    assert all(2 * sizes[name, "this engine"] < sizes[name, "JSON, orjson"] for name in messages)


def test_a_contender_that_says_something_else_is_told() -> None:
    unordered = b"\x1a\x01b\x12\x01a"  # a message as google.protobuf would not write it
    with pytest.raises(RuntimeError) as caught:
        serialization.ways("1 vector", unordered, serialization.FeatureVectorBatch, None, None)
    assert str(caught.value) == "1 vector: google.protobuf writes other bytes"
