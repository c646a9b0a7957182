"""A real nats-server, and the commands as a person runs them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import ROOT, Command, nats_server


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_server(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
def engine() -> Command:
    """`python -m engine ...` with the environment given and nothing else that could be a setting."""

    def run(*arguments: object, **environ: str) -> "subprocess.CompletedProcess[str]":
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKPATH_")}
        return subprocess.run(
            [sys.executable, "-m", "engine", *map(str, arguments)],
            cwd=ROOT,
            env={**clean, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A shared secret, and beside it `engine.toml` that names it."""
    path = tmp_path / "secret"
    path.write_text("an example secret of 40 characters, no more")
    path.chmod(0o600)
    (tmp_path / "engine.toml").write_text(
        f'[auth]\nalgorithms = ["HS256"]\nhs256_secret_file = "{path}"\n[http]\nlisten = "127.0.0.1:0"\n'
    )
    return path
