"""`run`: the engine, until it is told to stop.

Runs the supervisor in this process. Reads the settings and the model store's manifests. What must stay
true: what `check` would call wrong ends here with the same words, before anything is started.
"""

import argparse
from pathlib import Path

from engine.cores import cores_for
from engine.errors import SettingsError
from engine.gpus import usable
from engine.logs import open_log
from engine.registry.manifest import read_store
from engine.settings import Settings, load
from engine.shared import worker_count
from engine.supervision.supervisor import Supervisor
from engine.tenancy.tokens import Verifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings (TOML); without it, defaults and the environment")


def main(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config)
    refuse(settings)
    log = open_log("supervisor")
    manifests = read_store(
        Path(settings.models.path),
        lambda error: log.error("a model version is left out, its fallback answers: %s", error),
    )
    gpus, why = usable(settings)
    if why:
        log.warning("a GPU is not there for models: %s", why)
    workers = worker_count(settings, cores_for(settings), len(gpus))
    supervisor = Supervisor(settings, manifests, workers, gpus, log)
    supervisor.open()
    try:
        return supervisor.run()
    finally:
        supervisor.close()


def refuse(settings: Settings) -> None:
    """What no engine can run without."""
    bus = settings.bus
    if not (bus.nats.url or bus.kafka.bootstrap or bus.local.path):
        raise SettingsError(
            "bus: none is set; give bus.nats.url, bus.kafka.bootstrap, or bus.local.path for producers on this host"
        )
    Verifier(settings.auth, settings.limits.token_bytes).open()
