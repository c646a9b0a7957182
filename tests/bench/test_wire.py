"""The whole benchmark in small: echoes through a real nats-server."""

import json

import pytest

from bench import host
from bench.contenders import CONTENDERS, Contender, start_echo
from bench.load import BATCHES, LOADS, SINGLES
from bench.report import Measured, as_json, as_text
from bench.wire import main, measure

ECHOES = [each for each in CONTENDERS if each.is_echo]
ABOUT = {"seed": 5, "seconds": 2.0, "over": "one nats-server"}


def test_echo_beside_echo_gives_figures_for_both_loads(tmp_path, capsys):
    status = main(["--seconds", "2", "--seed", "5", "--only", "echo", "echo-again", "--results", str(tmp_path)])
    said = capsys.readouterr()
    assert status == 0, said
    assert "seed 5, 2 s of load" in said.out
    assert "A/A: the noise of this run" in said.out
    found = json.loads((tmp_path / "wire.json").read_text())
    assert found["host"]["cores"] >= 1
    for load, rounds in zip(found["loads"], (2, 2), strict=True):
        for name in ("echo", "echo-again"):
            part = load["contenders"][name]
            assert part["problems"] == {}
            assert len(part["rounds"]) == rounds
            assert part["summary"]["messages"] == sum(len(each["latencies_ns"]) for each in part["rounds"])
            assert all(late <= whole for each in part["rounds"] for late, whole in
                       zip(each["late_ns"], each["latencies_ns"], strict=True))  # fmt: skip
        assert load["ratios_of_medians"]["echo-again/echo"]["rounds"] == rounds


def test_contender_that_answers_wrongly_has_no_figure():
    def start_short(contender, place, sizes):
        start_echo(contender, place, {name: count - 1 for name, count in sizes.items()})

    wrong = Contender("echo-again", "an echo that answers a byte less", True, start_short)
    contenders = [ECHOES[0], wrong]
    measured = measure(contenders, seconds=1.0, seed=5)
    text = as_text(measured, contenders, {**ABOUT, "host": host.describe()})
    assert not measured.problems("echo", BATCHES)
    count = len(measured.parts["echo-again", SINGLES.name].of("latencies_ns"))
    assert f"  echo-again: {count} x an echo of 1229 bytes, expected 1230" in text.splitlines()
    for load in as_json(measured, contenders, ABOUT)["loads"]:
        assert load["contenders"]["echo"]["summary"] is not None
        assert load["contenders"]["echo-again"]["summary"] is None
        assert load["ratios_of_medians"] == {}


@pytest.mark.parametrize("load", LOADS)
def test_nothing_measured_is_no_figure(load):
    measured = Measured()
    assert measured.problems("echo", load) == {"nothing measured": 1}
    assert "no figure" in as_text(measured, ECHOES[:1], {**ABOUT, "host": host.describe()})
