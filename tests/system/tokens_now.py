"""The table of bad tokens, made for the present time: a real engine has no other clock.

The tables of `tests/tenancy` are bad at a time of their own. They are loaded here a second time, under
names of their own, so that those tests keep the first copy.
"""

import importlib.util
import sys
import time
from types import ModuleType

from tests.system.servers import ROOT

FOLDER = ROOT / "tests" / "tenancy"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for imports of each other, and for dataclasses
    spec.loader.exec_module(module)
    return module


def set_clock(*modules: ModuleType) -> None:
    """Tokens that they make from here on are good, or bad, now."""
    for module in modules:
        module.NOW = float(int(time.time()))  # type: ignore[attr-defined]


def load() -> tuple[ModuleType, ModuleType]:
    """(`issuer`, `bad_tokens`), of now where `set_clock` says so."""
    names = ("issuer", "bad_tokens")
    before = {name: sys.modules.pop(name, None) for name in names}
    try:
        issuer, bad_tokens = (_load(name) for name in names)
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    return issuer, bad_tokens
