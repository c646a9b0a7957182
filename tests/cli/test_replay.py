"""`replay` and `explain` refuse what they cannot use, each with what they expect."""

from pathlib import Path

import pytest

from engine.cli import main

STREAM = "--stream 'acme': expected COMPANY/STREAM"
WHEN = "--from 'soon': expected a position, or a time such as 2026-11-27T02:00:00"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stream", "acme"], STREAM),
        (["--from", "soon"], WHEN),
        ([], "{tape}: expected a tape, a folder with segments or one of them; found none"),
    ],
)
def test_replay_says_what_it_expects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["replay", str(tmp_path), *words]) == 1
    assert capsys.readouterr().err == f"replay: {told.format(tape=tmp_path)}\n"


def test_a_file_that_is_no_tape_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("these are no frames at all")
    assert main(["replay", str(other)]) == 1
    told = f"replay: {other}: expected a tape, which begins with b'TICKTAPE', found b'these ar'\n"
    assert capsys.readouterr().err == told


def test_explain_needs_a_whole_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "acme/feed-0", "--tape", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "explain: 'acme/feed-0': expected a name, [<engine>/]<company>/<stream>/<epoch>/<sequence>\n"
    )
