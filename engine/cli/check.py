"""`check`: what would keep an engine with this configuration from running well on this host.

Owns the list of what is looked at, each a function that gives findings; the judging is done by the
modules that the engine itself uses. Runs in a process of its own; reads the configuration, key and
model files, /proc, and connects to the buses; changes nothing. What must stay true: every problem is
told, not the first alone, each with what was found and what to do; exit status 1 if the engine would
not start or could not answer.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator

from engine import knobs
from engine.cli import checks_host, checks_models, checks_outside
from engine.cli.findings import FAIL, OK, Finding
from engine.errors import TickpathError
from engine.settings import Settings, read

CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "keys": checks_outside.keys,
    "models": checks_models.models,
    "buses": checks_outside.buses,
    "http": checks_outside.http,
    "name": checks_host.name,
    "memory": checks_host.memory,
    "cores": checks_host.cores,
    "gpus": checks_host.gpus,
    "processor": checks_host.processor,
    "kernels": checks_host.kernels,
    "files": checks_host.files,
}
OF_THE_HOST = ("processor", "kernels")  # whatever the configuration says


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the engine's settings (TOML)")
    parser.add_argument("--json", action="store_true", help="findings as JSON")


def main(arguments: argparse.Namespace) -> int:
    findings = examine(arguments.config)
    good = all(finding.level != FAIL for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": good, "findings": [dataclasses.asdict(each) for each in findings]}, ensure_ascii=False))
    else:
        for finding in findings:
            print(finding)
    return 0 if good else 1


def examine(path: str | None) -> list[Finding]:
    """Everything that was found; what depends on a bad setting is examined with its default."""
    unreadable = knobs.read_toml(path)[1] if path is not None else []
    settings, problems = read(path)
    findings = [Finding(FAIL, "settings", problem) for problem in problems]
    if not problems:
        findings.append(Finding(OK, "settings", path or "defaults and environment"))
    for what, check in CHECKS.items():
        if unreadable and what not in OF_THE_HOST:
            continue
        # A key file that was refused above would only be refused again.
        if what == "keys" and any("auth." in problem or "_AUTH__" in problem for problem in problems):
            continue
        findings += _run(what, check, settings)
    return findings


def _run(what: str, check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check(settings))
    except TickpathError as error:
        findings.append(Finding(FAIL, what, str(error)))
    except ImportError as error:
        findings.append(Finding(FAIL, what, f"the installation is not whole: {error}", "run make setup"))
    return findings
