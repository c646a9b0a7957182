"""The project's own rules: who imports whom, how long files are, words that stand nowhere, and the linters."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = {"engine": 350, "fastpath": 350, "bench": 350, "tests": 400}
A_TABLE = "fastpath/layout.pxd"  # every shared struct stands in one place, however many there are
GENERATED = ("engine/contract/common/", "engine/contract/ml/", "engine/contract/trading/")

LEAVES = {"child", "contract", "cores", "errors", "gpus", "knobs", "limits", "logs", "records", "settings", "shared"}
STAGES = {"ingress", "inference", "egress"}
# What each package may import besides itself and the leaves. The stages know nothing of each other, and
# supervision knows them by the names of their roles alone.
ALLOWED = {
    "bus": set(),
    "tenancy": set(),
    "registry": {"tenancy"},
    "ingress": {"bus", "tenancy"},
    "inference": {"registry", "tenancy"},
    "egress": {"bus", "tenancy"},
    "kafka": {"bus"},
    "supervision": {"registry"},
    "control": {"tenancy"},
    "watch": set(),
    "replay": {"egress", "inference", "ingress", "registry", "tenancy", "watch"},
    "client": {"bus"},
    "training": {"inference", "registry", "tenancy"},
    "cli": {
        "bus",
        "client",
        "inference",
        "registry",
        "replay",
        "supervision",
        "supervision.supervisor",
        "tenancy",
    },
    "__main__": {"cli"},
}


@cache
def tracked() -> tuple[str, ...]:
    """Files of the project: those in git, and those about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return tuple(sorted({name for name in names if name and (ROOT / name).is_file()}))


def sources(*roots: str, suffixes: tuple[str, ...] = (".py",)) -> list[str]:
    return [
        name
        for name in tracked()
        if name.startswith(tuple(f"{root}/" for root in roots))
        and name.endswith(suffixes)
        and not name.startswith(GENERATED)
    ]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def module_of(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(name: str) -> Iterator[str]:
    """Full names of what a file imports, within functions too; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(text(name))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name}: a relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    """`engine.ingress.main.Ingress` -> `ingress`; of supervision the module too."""
    words = module.split(".")
    return ".".join(words[1:3]) if words[1] == "supervision" and len(words) > 2 else words[1]


def test_fastpath_imports_nothing_of_the_engine() -> None:
    found = [
        f"{name}: {line}"
        for name in sources("fastpath", suffixes=(".py", ".pyx", ".pxd", ".pyi"))
        for line in text(name).splitlines()
        if re.match(r"\s*(from|import|cimport)\s+engine\b", line)
    ]
    assert found == []


@pytest.mark.parametrize("name", [name for name in sources("engine") if name != "engine/__init__.py"])
def test_a_module_imports_only_what_its_package_may(name: str) -> None:
    own = part(module_of(name))
    package = own.split(".")[0]
    if package in LEAVES:
        allowed = LEAVES
    else:
        assert package in ALLOWED, f"{name}: a new package; say in ALLOWED what it may import"
        allowed = LEAVES | ALLOWED[package]
    found = {part(each) for each in imports(name) if each.startswith("engine.")}
    assert {each for each in found if each != own and each.split(".")[0] != package} - allowed == set()


def test_the_stages_do_not_know_each_other() -> None:
    for stage in STAGES:
        assert ALLOWED[stage] & STAGES == set()
    assert ALLOWED["supervision"] & STAGES == set()


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("engine.supervision.supervisor", {"onnxruntime", "numba", "xgboost", "nats", "google.protobuf", "starlette"}),
        ("engine.supervision.child", {"onnxruntime", "numba", "xgboost", "nats", "starlette"}),
        ("engine.ingress.main", {"onnxruntime", "numba", "xgboost", "engine.egress", "engine.inference"}),
        ("engine.egress.main", {"onnxruntime", "numba", "xgboost", "engine.ingress", "engine.inference"}),
        ("engine.control.main", {"onnxruntime", "numba", "xgboost", "nats", "engine.ingress", "engine.egress"}),
        ("engine.watch.main", {"onnxruntime", "numba", "xgboost", "nats", "google.protobuf", "starlette"}),
        ("engine.inference.main", {"nats", "starlette", "engine.ingress", "engine.egress"}),
        ("engine.cli", {"numpy", "nats", "engine.settings"}),
    ],
)
def test_a_process_loads_nothing_that_is_not_its_business(module: str, unwanted: set[str]) -> None:
    assert loaded_by(module) & unwanted == set()


def test_files_are_short_enough_to_be_read() -> None:
    long = {}
    for root, most in LINES_MAX.items():
        lengths = {name: text(name).count("\n") for name in sources(root, suffixes=(".py", ".pyx", ".pxd", ".h"))}
        long |= {name: lines for name, lines in lengths.items() if lines > most}
    long.pop(A_TABLE, None)
    assert long == {}


@pytest.mark.parametrize("name", sources("engine", "fastpath", "bench", "tests", suffixes=(".py", ".pyx")))
def test_a_module_says_what_it_is_for(name: str) -> None:
    content = text(name)
    if not content.strip() or name == "engine/__main__.py":
        return
    if name.endswith(".pyx"):
        assert re.match(r'(#.*\n)*"""\S', content), f"{name}: no docstring"
    else:
        assert ast.get_docstring(ast.parse(content)), f"{name}: no docstring"


def test_no_module_is_dead() -> None:
    imported = defaultdict(set)
    for name in sources("engine", "bench", "tests") + sources("fastpath"):
        for each in imports(name):
            imported[each].add(name)
            imported[each.rpartition(".")[0]].add(name)
    by_name = "\n".join(text(name) for name in ("engine/cli/__init__.py", "engine/supervision/roles.py"))
    dead = [
        module
        for name in sources("engine")
        if (module := module_of(name))
        and not name.endswith(("__init__.py", "__main__.py"))
        and '__name__ == "__main__"' not in text(name)  # started by name
        and not {each for each in imported[module] if not each.startswith("tests/")}
        and f'"{module}"' not in by_name
    ]
    assert dead == []


FORBIDDEN = {
    r"\b(TODO|FIXME|XXX|HACK)\b": ("", "unfinished work stands where it is tracked, not in the code"),
    r"\b(pickle|joblib|dill|cloudpickle)\b": ("engine/", "nothing that can run code when it is loaded"),
    r"(?<![\w.])(/home/|/root/|/Users/|/work/)": ("", "a path of one machine"),
    r"\bshell=True\b": ("engine/", "no shell is needed"),
    r"\b(eval|exec)\(": ("engine/", "nothing is run that was read"),
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_words_that_must_not_stand_anywhere(pattern: str) -> None:
    where, why = FORBIDDEN[pattern]
    suffixes = (".py", ".pyx", ".pxd", ".pyi", ".h", ".md", ".toml", ".proto", ".sh", "Makefile")
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in tracked()
        if name.startswith(where) and name.endswith(suffixes) and name != "tests/test_tidy.py"
        for number, line in enumerate(text(name).splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], why


def raised(name: str) -> Iterator[tuple[int, str]]:
    """(line, class) of each `raise Class(...)`."""
    for node in ast.walk(ast.parse(text(name))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield node.lineno, node.exc.func.id


def test_what_is_raised_can_be_caught_as_something() -> None:
    vague = ("Exception", "BaseException")
    assert [f"{name}:{line}" for name in sources("engine") for line, kind in raised(name) if kind in vague] == []


def ran(*command: str) -> str:
    """What a linter complains about, empty where it is content."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ruff_has_no_complaint() -> None:
    assert ran("ruff", "check", ".") == ""


def test_sources_are_formatted() -> None:
    assert ran("ruff", "format", "--check", "engine", "fastpath", "bench", "tests", "setup.py") == ""


def test_types_hold() -> None:
    assert ran("mypy") == ""
