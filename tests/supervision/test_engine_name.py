"""An engine's name on its host: one holder, freed with the last process that has it."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from engine.errors import ArenaError
from engine.supervision.supervisor import claim_name
from tests.system.servers import until


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("engine.limits.NAME_WAIT_S", 0.1)
    return f"t-{uuid.uuid4().hex}"


def refusal(name: str) -> str:
    """Empty: the name was free."""
    try:
        claim_name(name).close()
    except ArenaError as error:
        return str(error)
    return ""


def test_a_second_engine_of_a_name_is_refused_and_one_of_another_is_not(name: str) -> None:
    holder = claim_name(name)
    assert refusal(name) == (
        f"engine.name: an engine named {name!r} runs on this host already; end it or choose another name"
    )
    assert refusal(f"{name}-other") == ""
    holder.close()
    assert refusal(name) == ""


def test_a_name_is_held_until_its_last_child_ended(name: str) -> None:
    holder = claim_name(name)
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[holder.fileno()],
    )
    holder.close()
    assert refusal(name)
    child.kill()
    child.wait()
    assert child.stdin is not None
    child.stdin.close()
    assert until(lambda: not refusal(name), 10, "the name is free")


def test_a_start_waits_for_a_name_that_is_being_freed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.limits.NAME_WAIT_S", 10.0)
    holder = claim_name(name)
    code = "import os, sys; sys.stdin.read(1); os._exit(0)"
    child = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, pass_fds=[holder.fileno()])
    holder.close()
    assert child.stdin is not None
    child.stdin.write(b"x")
    child.stdin.close()
    claim_name(name).close()
    child.wait()


def test_nothing_of_a_name_is_in_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    holder = claim_name(name)
    assert list(tmp_path.iterdir()) == []
    holder.close()
