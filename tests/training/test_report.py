"""Cards and report say what the manifests say, and nothing else."""

import re
import shutil
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("jax", reason="the extra `train` is not installed")

from engine.training import price_card, report
from tests.inference.conftest import STORE

PRICES = sorted(path.parent for name in ("basic_lstm", "advanced_lstm") for path in (STORE / name).glob("*/model.toml"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy of the bundled manifests."""
    for path in STORE.glob("*/*/model.toml"):
        folder = tmp_path / path.relative_to(STORE).parent
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
    return tmp_path


def changed(store: Path, model: str, pattern: str, into: str) -> None:
    (file,) = (store / model).glob("*/model.toml")
    text, count = re.subn(pattern, into, file.read_text(), count=1)
    assert count == 1
    file.write_text(text)


@pytest.mark.parametrize("folder", PRICES, ids=lambda folder: folder.parent.name)
def test_a_price_models_card_and_plots_are_those_of_its_manifest(folder):
    manifest = tomllib.loads((folder / "model.toml").read_text())
    assert (folder / "card.md").read_text() == price_card.page(manifest)
    for name, picture in price_card.drawings(manifest).items():
        assert (folder / name).read_text() == picture, name


def test_the_report_is_that_of_the_manifests():
    """After a manifest has changed: `python -m engine.training.report`."""
    text, pictures = report.made(STORE)
    assert (STORE / "report.md").read_text() == text
    assert {path.name: path.read_text() for path in (STORE / "report").glob("*.svg")} == pictures


def test_a_number_of_a_manifest_stands_in_the_report_wherever_it_belongs(store):
    changed(store, "basic_lstm", r"(?m)^brier = \[[^,]*,", "brier = [0.123456,")
    changed(store, "simple_pattern", r"(?m)^brier = \[[^,]*,", "brier = [0.023457,")
    changed(store, "xgboost_direction", r"(?m)^side = \[[^,]*,", "side = [0.345678,")
    text, _ = report.made(store)
    assert text.count("0.12346") == 1
    assert text.count("0.02346") == 1
    assert text.count("0.3457") == 1


def test_losses_by_epoch_are_drawn_of_whatever_model_recorded_them(store):
    before = report.made(store)[1]
    (file,) = (store / "simple_pattern").glob("*/model.toml")
    if "loss_by_epoch" not in file.read_text():
        assert "simple_pattern_learning.svg" not in before
        losses = "[quality]\nloss_by_epoch = [0.9, 0.8, 0.7]\nwatched_loss_by_epoch = [0.95, 0.9, 0.91]\n"
        changed(store, "simple_pattern", r"\[quality\]\n", losses)
    text, pictures = report.made(store)
    assert "(report/simple_pattern_learning.svg)" in text
    assert "watched" in pictures["simple_pattern_learning.svg"]
    assert {"basic_lstm_learning.svg", "advanced_lstm_learning.svg"} <= set(pictures)


def test_a_report_names_all_its_pictures_and_no_others(store):
    (store / "report").mkdir()
    (store / "report" / "old.svg").write_text("<svg/>")
    written = report.write(store)
    text = (store / "report.md").read_text()
    named = re.findall(r"\]\(report/([^)]+)\)", text)
    assert sorted(named) == sorted(path.name for path in (store / "report").iterdir())
    assert written == ["report.md", *(f"report/{name}" for name in report.made(store)[1])]
    for name in named:
        root = ElementTree.fromstring((store / "report" / name).read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_every_model_of_the_store_has_its_section(store):
    text, _ = report.made(store)
    found = re.findall(r"(?m)^## (\w+) [\d.]+$", text)
    assert sorted(found) == sorted({path.parent.parent.name for path in store.glob("*/*/model.toml")})
