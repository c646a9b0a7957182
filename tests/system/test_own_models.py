"""The guide to models of one's own, followed word by word: its scripts, its commands, a real engine."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.contract.ml.ml_predictions_pb2 import Prediction
from tests.system.servers import ROOT, EngineProcess, Issuer
from tests.system.traffic import Stream, connected, eventually

GUIDE = ROOT / "docs" / "models.md"
OWN = {"acme_direction": "direction", "acme_price": "price"}


def script(name: str, folder: Path) -> Path:
    """The guide's code block that begins with this file name."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(f"# {name} ")]
    (folder / name).write_text(found)
    return folder / name


def follow(*command: str | Path) -> str:
    """A command of the guide."""
    about = {**os.environ, "PYTHONPATH": str(ROOT)}  # as if the engine was installed
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=about, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """One file of the bundled minutes, so that the scripts are quick."""
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data" / "fx_m1" / "EURUSD.csv.gz", folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def store(folder: Path, data: Path) -> Path:
    """The bundled models, and what the guide's scripts make beside them."""
    pytest.importorskip("skl2onnx")
    store = folder / "models"
    shutil.copytree(ROOT / "models", store)
    follow(script("train_direction.py", folder), store, data)
    if importlib.util.find_spec("torch"):
        follow(script("train_price.py", folder), store, data)
    own = [name for name in OWN if (store / name).exists()]
    told = follow("-m", "engine.training.golden", *own, "--store", store)
    assert told == f"golden rows written: {', '.join(f'{name} 1.0' for name in own)}\n"
    return store


def ask(url: str, stream: Stream) -> Prediction:
    async def answered() -> Prediction:
        async with connected(url) as (client, reader):
            await client.publish(stream.subject, stream.message([stream.vector("EURUSD", 240)]))
            await eventually(lambda: reader.named(stream), 15, "the vector is answered")
            assert reader.reports == []
            return reader.named(stream)[0].batch.predictions[0]

    return asyncio.run(answered())


@contextmanager
def reading(folder: Path, url: str) -> Iterator[Iterator[str]]:
    """Lines of the guide's reader, which listens by now."""
    command = [sys.executable, "-u", script("read_answers.py", folder), url, "acme"]
    about = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=about, stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            assert next(reader.stdout) == "listening\n"
            yield iter(reader.stdout)
        finally:
            reader.kill()


def members(prediction: Prediction) -> set[str]:
    return {each.model.model_id for each in prediction.ensemble.contributions}


def test_models_of_the_guide_answer_their_company_and_nobody_else(
    folder: Path, store: Path, issuer: Issuer, nats_url: str
) -> None:
    own = {name for name in OWN if (store / name).exists()}
    mixed = folder / "mixed"  # beside them, somebody else's manifest that cannot be read
    shutil.copytree(store, mixed)
    broken = mixed / "borg_direction" / "1.0" / "model.toml"
    shutil.copytree(mixed / "acme_direction" / "1.0", broken.parent)
    broken.write_text(broken.read_text().replace("acme", "borg").replace("closed_minutes", "closed_minute"))
    settings = {"engine": {"deadline_ms": 10_000}, "models": {"path": str(mixed)}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as engine, reading(folder, nats_url) as lines:
        engine.wait_ready()
        assert (
            f"a model version is left out, its fallback answers: {broken}: closed_minute is unknown; "
            "did you mean closed_minutes?"
        ) in engine.log()
        acme = ask(nats_url, Stream("acme", "feed", issuer.token("acme")))
        shown = [next(lines) for _ in range(1 + len(acme.ensemble.contributions))]
        assert shown[0].startswith("EURUSD OK ")
        assert {line.split()[0] for line in shown[1:]} == members(acme)
        assert not any("stands in" in line for line in shown)
        assert members(acme) >= own
        assert not any(each.fallback for each in acme.ensemble.contributions if each.model.model_id in own)
        chances = (acme.direction.buy_probability, acme.direction.hold_probability, acme.direction.sell_probability)
        assert abs(sum(chances) - 1.0) < 1e-5
        other = ask(nats_url, Stream("other", "feed", issuer.token("other")))
        pro = ask(nats_url, Stream("acme", "slow", issuer.token("acme", tier="pro")))
        assert (members(other) | members(pro)) & own == set()
        told = engine.get("/health")[1] + engine.get("/metrics")[1]
        assert b"xgboost_direction" in told
        assert b"acme" not in told
        assert engine.stop() == 0


def test_recurrent_network_of_the_guide_finds_its_own_minutes_familiar(folder: Path, store: Path, data: Path) -> None:
    """That it answers is told by the test above, which leaves it out where PyTorch is not installed."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    told = follow(script("unfamiliar.py", folder), store / "acme_price" / "1.0" / "model.toml", data)
    shares = [float(line.split()[-1].rstrip("%")) for line in told.splitlines()]
    assert len(shares) == 17
    assert max(shares) < 1.0


def test_check_names_the_models_and_a_second_one_of_the_same_role(store: Path, tmp_path: Path, issuer: Issuer) -> None:
    twice = tmp_path / "models"
    shutil.copytree(store, twice)
    shutil.copytree(twice / "acme_direction", twice / "acme_second")
    manifest = twice / "acme_second" / "1.0" / "model.toml"
    manifest.write_text(manifest.read_text().replace('id = "acme_direction"', 'id = "acme_second"'))
    engine = EngineProcess(tmp_path, issuer, "nats://127.0.0.1:1", settings={"models": {"path": str(twice)}})
    command = [sys.executable, "-m", "engine", "check", "--config", engine.config]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert (
        f"{manifest}: role: expected one direction model for acme, found acme_direction and acme_second; "
        "keep one of them in the store"
    ).replace(" ", "") in said.replace(" ", "")
