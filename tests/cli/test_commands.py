"""The table of commands: what a mistyped one, a helpful one and a failing one look like."""

import importlib.util

import pytest

from engine import cli
from engine.cli import COMMANDS, main


def test_a_mistyped_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chek"]) == 2
    assert capsys.readouterr() == ("", "python -m engine: no command 'chek'; did you mean check?\n")


def test_an_unknown_command_is_told_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyz"]) == 2
    known = ", ".join(COMMANDS)
    assert capsys.readouterr() == ("", f"python -m engine: no command 'xyz'; known: {known}\n")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name:<8}{text}\n" in shown for name, (_, text) in COMMANDS.items())
    assert main([]) == 2
    assert capsys.readouterr().err == shown


def test_an_error_of_ours_ends_as_its_text_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["feed", "data.csv", "--rate", "1", "--config", "/none/engine.toml"]) == 1
    assert capsys.readouterr() == (
        "",
        "feed: /none/engine.toml: cannot be read (No such file or directory); "
        "expected a TOML file that this user may read\n",
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_with_both_functions(name: str) -> None:
    found = importlib.import_module(COMMANDS[name][0])
    assert callable(found.add_arguments)
    assert callable(found.main)
    assert cli.__doc__
