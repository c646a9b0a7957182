"""Every example in a docstring prints what it says."""

import doctest
import importlib

import pytest

MODULES = ("bootstrap", "plots", "reliability", "scores", "simulate", "svg", "truth")


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(f"engine.training.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
