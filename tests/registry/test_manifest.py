"""Manifests: what is read, what is refused, and what reaches the version table."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import limits
from engine.errors import ModelError
from engine.registry.manifest import (
    ARTEFACT_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    Kind,
    fill_versions,
    read_artefact,
    read_manifest,
    read_store,
)
from engine.tenancy.tiers import Role
from fastpath import layout

BUNDLED = Path(__file__).parents[2] / "models"


@pytest.fixture
def folder(tmp_path):
    """A copy of one bundled version, to spoil."""
    to = tmp_path / "basic_lstm" / "1.0"
    shutil.copytree(BUNDLED / "basic_lstm" / "1.0", to)
    return to


def spoil(folder: Path, old: str, new: str) -> Path:
    file = folder / "model.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


def refusal(call, *arguments) -> str:
    with pytest.raises(ModelError) as refused:
        call(*arguments)
    return str(refused.value)


def tables(versions=limits.VERSIONS_MAX, names=limits.FEATURE_NAMES_MAX):
    return np.zeros(versions, layout.version_row_dtype), np.zeros(names, f"S{limits.FEATURE_NAME_BYTES}")


def test_bundled_store_is_read_whole():
    found = {each.name: (each.kind, each.role, each.closed_minutes) for each in read_store(BUNDLED)}
    assert (
        found.items()
        >= {
            "basic_lstm 1.0": (Kind.LSTM, Role.PRICE, 49),
            "simple_pattern 1.0": (Kind.CNN, Role.PATTERN, 64),
            "cnn_patterns 1.8": (Kind.CNN, Role.PATTERN, 64),
            "xgboost_direction 3.2": (Kind.XGBOOST, Role.DIRECTION, 0),
        }.items()
    )
    for manifest in read_store(BUNDLED):
        assert len(read_artefact(manifest)) > 1000
        assert (manifest.folder / "card.md").read_text().startswith(f"# {manifest.name}\n")


def test_version_table_names_every_version_and_the_two_that_are_built_in():
    versions, names = tables()
    manifests = read_store(BUNDLED)
    fill_versions(manifests, versions, names)
    taken = versions[versions["taken"] == 1]
    assert [each.decode() for each in taken["model_id"]] == [*(each.id for each in manifests), "vote", "baseline"]
    for row, manifest in zip(versions, manifests, strict=False):
        first, count = row["feature_first"], row["feature_count"]
        assert tuple(each.decode() for each in names[first : first + count]) == manifest.features
        assert row["sha256"].decode() == manifest.sha256
        assert (row["kind"], row["role"]) == (manifest.kind, manifest.role)
    assert (versions["breaker"] == 0).all()


def test_versions_are_ordered_as_numbers(folder):
    for version in ("1.10", "1.9"):
        shutil.copytree(folder, folder.parent / version)
        spoil(folder.parent / version, 'version = "1.0"', f'version = "{version}"')
    assert [each.version for each in read_store(folder.parents[1])] == ["1.0", "1.9", "1.10"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            'id = "basic_lstm"',
            'id = "other"',
            "id: expected 'basic_lstm', as its folder is named, found 'other'; correct the manifest",
        ),
        (
            'version = "1.0"',
            'version = "2"',
            "version: expected '1.0', as its folder is named, found '2'; correct the manifest",
        ),
        (
            'kind = "lstm"',
            'kind = "gpt"',
            "kind: expected one of lstm, cnn, xgboost, ensemble, other, found 'gpt'; correct the manifest",
        ),
        (
            'role = "price"',
            'role = "PRICE"',
            "role: expected one of price, pattern, direction, ensemble, found 'PRICE'; correct the manifest",
        ),
        (
            "closed_minutes = 49",
            "closed_minutes = 241",
            "closed_minutes: expected a number from 0 to 240, found 241; correct the manifest",
        ),
        (
            "closed_minutes = 49",
            "closed_minutes = true",
            "closed_minutes: expected a number from 0 to 240, found True; correct the manifest",
        ),
        (
            "\nweight = ",
            "\nweight = nan # ",
            "weight: expected a number from 0.0 to 1000.0, found nan; correct the manifest",
        ),
        (
            "\nweight = ",
            "\n# weight = ",
            "weight: expected a number from 0.0 to 1000.0, found nothing; add it to the manifest",
        ),
        (
            'file = "model.onnx"',
            'file = "../1.1/model.onnx"',
            "artefact.file: expected a file name in the same folder that ends with .onnx, found '../1.1/model.onnx'; "
            "correct the manifest",
        ),
        (
            'file = "model.onnx"',
            'file = "/etc/passwd.onnx"',
            "artefact.file: expected a file name in the same folder that ends with .onnx, found '/etc/passwd.onnx'; "
            "correct the manifest",
        ),
        (
            'file = "model.onnx"',
            'file = "model.pkl"',
            "artefact.file: expected a file name in the same folder that ends with .onnx, found 'model.pkl'; "
            "correct the manifest",
        ),
        (
            "horizons = [1, 5, 15, 60]",
            "horizons = [1, 5, 15.5]",
            "horizons: expected a list of at most 4096 whole numbers, found something else; correct the manifest",
        ),
        (
            'features = ["move_1"',
            f'features = ["{"x" * 49}"',
            f"features: expected printable names of at most 48 bytes, found '{'x' * 49}'; correct the manifest",
        ),
        ("[quality]", "[training.quality]", "quality: expected a table, found nothing; add it to the manifest"),
        ("\nweight = ", "\nwieght = ", "wieght is unknown; did you mean weight?"),
        ("closed_minutes = ", "closed_minute = ", "closed_minute is unknown; did you mean closed_minutes?"),
        ("[range]\nlow", "[range]\nlowest", "range.lowest is unknown; did you mean low?"),
        ("\nq = ", "\nwidths = ", "calibration.widths is unknown; known: q, label"),
        ("[artefact]", "[artefact]\nsha = 1", "artefact.sha is unknown; did you mean sha256?"),
        (
            'kind = "lstm"\nrole = "price"\n',
            'kind = "xgboost"\nrole = "price"\n',
            "artefact.file: expected a file name in the same folder that ends with .ubj or .json, found 'model.onnx'; "
            "correct the manifest",
        ),
        (
            'role = "price"\n',
            'role = "price"\nextra = ["ours"]\n',
            "extra: expected none, as it is for a company's own graphs of the role direction, found ['ours']; "
            "correct the manifest",
        ),
        (
            "features = [",
            "features = [" + 129 * '"move_1", ',
            "features: expected at most 128 names, found 145; correct the manifest",
        ),
    ],
)
def test_wrong_manifests_are_refused_with_expected_and_found(folder, old, new, found):
    file = spoil(folder, old, new)
    assert refusal(read_manifest, folder) == f"{file}: {found}"


def test_trees_have_the_role_direction(folder):
    (folder / "model.onnx").rename(folder / "model.json")
    spoil(folder, 'file = "model.onnx"', 'file = "model.json"')
    file = spoil(folder, 'kind = "lstm"', 'kind = "xgboost"')
    assert refusal(read_manifest, folder) == (
        f"{file}: role: expected direction, as trees have, found 'price'; correct the manifest"
    )


@pytest.mark.parametrize("text", ["[" * 10_000, f"weight = {'9' * 5000}", "a = " + "[" * 100_000])
def test_tables_without_end_are_no_toml(folder, text):
    (folder / "model.toml").write_text(text)
    assert refusal(read_manifest, folder).startswith(f"{folder / 'model.toml'}: expected TOML, found ")


def test_a_number_of_any_length_is_not_finite(folder):
    file = spoil(folder, "q = [", f"q = [1{'0' * 400}, ")
    assert refusal(read_manifest, folder).startswith(f"{file}: calibration.q: expected a list of at most 4096 finite ")


def own_version(store: Path, model_id: str, company: str, version: str = "1.0") -> Path:
    """A company's own price model: one bundled version under another name."""
    to = store / model_id / version
    shutil.copytree(BUNDLED / "basic_lstm" / "1.0", to)
    spoil(to, 'id = "basic_lstm"', f'id = "{model_id}"\ncompany = "{company}"')
    spoil(to, 'version = "1.0"', f'version = "{version}"')
    return to


def test_versions_that_cannot_be_used_are_left_out_and_each_is_told(folder):
    store = folder.parents[1]
    own_version(store, "acme_price", "acme")
    bad = spoil(own_version(store, "borg_price", "borg"), "closed_minutes = ", "closed_minute = ")
    moved = own_version(store, "acme_price", "other", "1.1") / "model.toml"
    second = own_version(store, "zzz_price", "acme") / "model.toml"
    (store / "No-Id").mkdir()
    (store / "linked").symlink_to(folder.parent)
    (folder.parent / "v2").mkdir()
    told: list[ModelError] = []
    assert [each.name for each in read_store(store, told.append)] == ["acme_price 1.0", "basic_lstm 1.0"]
    assert [str(each) for each in told] == [
        f"{store / 'No-Id'}: expected a model id of a-z, 0-9 and _, at most 64, found 'No-Id'; rename the folder",
        f"{store / 'linked'}: expected a folder of a model, found a symbolic link; put the folder itself there",
        f"{folder.parent / 'v2'}: expected a version such as 1.0, found 'v2'; rename the folder",
        f"{bad}: closed_minute is unknown; did you mean closed_minutes?",
        f"{moved}: company, user: expected ('acme', ''), as in version 1.0, found ('other', ''); a model has one "
        "owner, give this one another id",
        f"{second}: role: expected one price model for acme, found acme_price and zzz_price; "
        "keep one of them in the store",
    ]


def test_infinite_calibration_is_refused(folder):
    file = spoil(folder, "q = [", "q = [inf, ")
    found = refusal(read_manifest, folder)
    assert found.startswith(f"{file}: calibration.q: expected a list of at most 4096 finite numbers, found [inf, ")
    assert found.endswith("]; correct the manifest")


def test_manifest_that_is_no_toml_is_refused(folder):
    (folder / "model.toml").write_text("id = \n")
    assert refusal(read_manifest, folder) == (
        f"{folder / 'model.toml'}: expected TOML, found Invalid value (at line 1, column 6); correct the manifest"
    )


def test_missing_manifest_is_refused(folder):
    (folder / "model.toml").unlink()
    assert refusal(read_manifest, folder) == (
        f"{folder / 'model.toml'}: expected a readable file, found No such file or directory; "
        "restore the model's folder"
    )


def test_links_are_never_followed(folder, tmp_path):
    store, artefact = folder.parents[1], folder / "model.onnx"
    manifest = read_manifest(folder)
    artefact.unlink()
    artefact.symlink_to(BUNDLED / "basic_lstm" / "1.0" / "model.onnx")
    assert refusal(read_artefact, manifest) == (
        f"{artefact}: expected a readable file, found Too many levels of symbolic links; restore the model's folder"
    )
    (store / "linked").symlink_to(folder.parent)
    assert refusal(read_store, store) == (
        f"{store / 'linked'}: expected a folder of a model, found a symbolic link; put the folder itself there"
    )


def test_pipes_and_folders_are_no_artefacts(folder):
    manifest = read_manifest(folder)
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    assert refusal(read_artefact, manifest) == (
        f"{folder / 'model.onnx'}: expected a plain file, found something else; restore the model's folder"
    )


@pytest.mark.parametrize(
    ("name", "bytes_max"), [("model.toml", MANIFEST_BYTES_MAX), ("model.onnx", ARTEFACT_BYTES_MAX)]
)
def test_sizes_are_checked_before_anything_is_read(folder, name, bytes_max):
    manifest = read_manifest(folder)
    os.truncate(folder / name, bytes_max + 1)
    call, argument = (read_manifest, folder) if name == "model.toml" else (read_artefact, manifest)
    assert refusal(call, argument) == (
        f"{folder / name}: expected at most {bytes_max} bytes, found {bytes_max + 1}; use a smaller model"
    )


def test_names_of_folders_are_checked(folder):
    store = folder.parents[1]
    (folder.parent / "v2").mkdir()
    assert refusal(read_store, store) == (
        f"{folder.parent / 'v2'}: expected a version such as 1.0, found 'v2'; rename the folder"
    )
    (folder.parent / "v2").rmdir()
    (store / "No-Id").mkdir()
    assert refusal(read_store, store) == (
        f"{store / 'No-Id'}: expected a model id of a-z, 0-9 and _, at most 64, found 'No-Id'; rename the folder"
    )


def test_store_without_models_is_refused(tmp_path):
    advice = "set `models.path` or restore the bundled `models`"
    assert refusal(read_store, tmp_path) == f"{tmp_path}: expected at least one model, found none; {advice}"
    assert (
        refusal(read_store, tmp_path / "x")
        == f"{tmp_path / 'x'}: expected the folder of the model store, found none; {advice}"
    )


def test_names_of_the_built_in_ones_are_taken(folder):
    to = folder.parents[1] / "vote" / "1.0"
    shutil.copytree(folder, to)
    file = spoil(to, 'id = "basic_lstm"', 'id = "vote"')
    assert refusal(read_manifest, to) == (
        f"{file}: id: expected a name that the engine does not use for itself, found 'vote'; correct the manifest"
    )


def test_too_many_versions_or_features_are_refused():
    manifests = read_store(BUNDLED)
    assert refusal(fill_versions, manifests, *tables(versions=4)) == (
        f"the model store: expected at most 2 versions, found {len(manifests)}; retire old ones"
    )
    counts = np.cumsum([len(each.features) for each in manifests])
    over = manifests[int((counts > 20).argmax())]
    assert refusal(fill_versions, manifests, *tables(names=20)) == (
        f"{over.folder / 'model.toml'}: features: expected at most 20 names in all "
        "models, found more; retire old versions"
    )
