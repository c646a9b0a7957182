"""Model folders: what stands in a `model.toml`, and what of it the processes share.

Owns the reading and checking of manifests; used by the supervisor, which fills the version table, by
workers at load, and by `check`. Reads `<store>/<id>/<version>/model.toml`; writes version rows. What
must stay true: no model library is imported here; nothing outside the store is ever opened, whatever
a manifest says; sizes are bounded before bytes are read.
"""

import hashlib
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine import limits
from engine.contract.names import is_model_id, is_name, is_user
from engine.errors import ModelError
from engine.tenancy.tiers import BASELINE, BY_SIZE, VOTE, Role

MANIFEST_BYTES_MAX = 256 << 10
ARTEFACT_BYTES_MAX = 64 << 20
GOLDEN_BYTES_MAX = 1 << 20
CLOSED_MINUTES_MAX = 240
NUMBERS_MAX = 4096  # of one list in a manifest
BUILT_IN_VERSION = "1.0"
WordT = TypeVar("WordT", bound=IntEnum)


class Kind(IntEnum):
    """ml.v1.ModelKind."""

    LSTM = 1
    CNN = 2
    XGBOOST = 3
    ENSEMBLE = 4
    OTHER = 5  # whatever else can be written as an ONNX graph


ONNX = (".onnx",)
SUFFIXES = {
    Kind.LSTM: ONNX, Kind.CNN: ONNX, Kind.XGBOOST: (".ubj", ".json"), Kind.ENSEMBLE: ONNX, Kind.OTHER: ONNX,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a model, as its folder describes it."""

    id: str
    version: str
    kind: Kind
    role: Role
    folder: Path
    artefact: str  # file name within the folder
    sha256: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    horizons: tuple[int, ...]  # minutes
    closed_minutes: int  # that a key needs before this model answers
    weight: float  # in a vote
    calibration: Mapping[str, tuple[float, ...]]
    range: Mapping[str, tuple[float, ...]]  # of what training saw
    training: Mapping[str, Any]
    quality: Mapping[str, Any]
    company: str = ""  # whose own it is; empty: shared
    user: str = ""  # of that company; empty: all of them
    golden: str = ""  # file of golden rows within the folder; empty: none
    golden_sha256: str = ""

    @property
    def path(self) -> Path:
        return self.folder / self.artefact

    @property
    def name(self) -> str:
        return f"{self.id} {self.version}"


def version_order(version: str) -> tuple[int, ...]:
    """1.10 comes after 1.9."""
    return tuple(int(part) for part in version.split("."))


def _is_version(text: str) -> bool:
    parts = text.split(".")
    return len(text) <= 32 and all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts)


def _folders(path: Path, what: str) -> list[Path]:
    """Plain folders, sorted; a link could lead anywhere, so it is refused."""
    found = []
    for each in sorted(path.iterdir()):
        if each.name.startswith("."):
            continue
        if each.is_symlink():
            raise ModelError(f"{each}: expected a folder of {what}, found a symbolic link; put the folder itself there")
        if each.is_dir():
            found.append(each)
    return found


def read_store(path: Path) -> list[Manifest]:
    """Every version in the store, by id and rising version; an empty or missing store is an error."""
    if not path.is_dir():
        raise ModelError(
            f"{path}: expected the folder of the model store, found none; "
            "set `models.path` or restore the bundled `models`"
        )
    manifests = []
    for model in _folders(path, "a model"):
        if not is_model_id(model.name):
            raise ModelError(
                f"{model}: expected a model id of a-z, 0-9 and _, at most 64, found {model.name!r}; rename the folder"
            )
        for version in _folders(model, "a version"):
            if not _is_version(version.name):
                raise ModelError(
                    f"{version}: expected a version such as 1.0, found {version.name!r}; rename the folder"
                )
            manifests.append(read_manifest(version))
    if not manifests:
        raise ModelError(
            f"{path}: expected at least one model, found none; set `models.path` or restore the bundled `models`"
        )
    for each in manifests:
        first = next(other for other in manifests if other.id == each.id)
        if (each.company, each.user) != (first.company, first.user):
            raise ModelError(
                f"{each.folder / 'model.toml'}: company, user: expected {(first.company, first.user)!r}, as in version "
                f"{first.version}, found {(each.company, each.user)!r}; a model has one owner, give this one another id"
            )
    return sorted(manifests, key=lambda each: (each.id, version_order(each.version)))


def read_manifest(folder: Path) -> Manifest:
    """One version's folder; ModelError says which file, what was expected and what was found."""
    file = folder / "model.toml"
    try:
        table = tomllib.loads(read_bytes(file, MANIFEST_BYTES_MAX).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: expected TOML, found {error}; correct the manifest") from error
    manifest = Manifest(
        id=_text(file, table, "id"),
        version=_text(file, table, "version"),
        kind=_word(file, table, "kind", Kind),
        role=_word(file, table, "role", Role),
        folder=folder,
        artefact=_text(file, _table(file, table, "artefact"), "file"),
        sha256=_text(file, _table(file, table, "artefact"), "sha256"),
        features=tuple(_list(file, table, "features", str)),
        outputs=tuple(_list(file, table, "outputs", str)),
        horizons=tuple(_list(file, table, "horizons", int)),
        closed_minutes=_number(file, table, "closed_minutes", int, 0, CLOSED_MINUTES_MAX),
        weight=float(_number(file, table, "weight", float, 0.0, 1e3)),
        calibration=_numbers(file, table, "calibration"),
        range=_numbers(file, table, "range") if "range" in table else {},
        training=_table(file, table, "training"),
        quality=_table(file, table, "quality"),
        company=_text(file, table, "company") if "company" in table else "",
        user=_text(file, table, "user") if "user" in table else "",
        golden=_text(file, _table(file, table, "golden"), "file") if "golden" in table else "",
        golden_sha256=_text(file, _table(file, table, "golden"), "sha256") if "golden" in table else "",
    )
    _check(file, manifest)
    return manifest


def _check(file: Path, manifest: Manifest) -> None:
    def refuse(key: str, expected: str, found: object) -> None:
        raise ModelError(f"{file}: {key}: expected {expected}, found {found!r}; correct the manifest")

    if manifest.id != manifest.folder.parent.name:
        refuse("id", f"{manifest.folder.parent.name!r}, as its folder is named", manifest.id)
    if manifest.version != manifest.folder.name:
        refuse("version", f"{manifest.folder.name!r}, as its folder is named", manifest.version)
    if manifest.id in (VOTE, BASELINE):
        refuse("id", "a name that the engine does not use for itself", manifest.id)
    suffixes = SUFFIXES[manifest.kind]
    plain = Path(manifest.artefact).name == manifest.artefact and not manifest.artefact.startswith(".")
    if not plain or not manifest.artefact.endswith(suffixes):
        refuse(
            "artefact.file", f"a file name in the same folder that ends with {' or '.join(suffixes)}", manifest.artefact
        )
    if not _is_digest(manifest.sha256):
        refuse("artefact.sha256", "64 digits of lower-case hex", manifest.sha256)
    if manifest.golden and (Path(manifest.golden).name != manifest.golden or not manifest.golden.endswith(".json")):
        refuse("golden.file", "a file name in the same folder that ends with .json", manifest.golden)
    if manifest.golden and not _is_digest(manifest.golden_sha256):
        refuse("golden.sha256", "64 digits of lower-case hex", manifest.golden_sha256)
    if manifest.company and not is_name(manifest.company):
        refuse("company", "1 to 64 of A-Z a-z 0-9 _ -", manifest.company)
    if manifest.user and not (manifest.company and is_user(manifest.user)):
        refuse("user", "1 to 128 printable characters, beside `company`", manifest.user)
    if manifest.company and any(manifest.id in shared for shared in BY_SIZE.values()):
        refuse("id", "a name that no shared model has, since this one is a company's own", manifest.id)
    for name in manifest.features:
        if not name or not name.isprintable() or len(name.encode()) > limits.FEATURE_NAME_BYTES:
            refuse("features", f"printable names of at most {limits.FEATURE_NAME_BYTES} bytes", name)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _get(file: Path, table: Mapping[str, Any], key: str, expected: str) -> Any:
    if key not in table:
        raise ModelError(f"{file}: {key}: expected {expected}, found nothing; add it to the manifest")
    return table[key]


def _typed(file: Path, table: Mapping[str, Any], key: str, kind: type, expected: str) -> Any:
    value = _get(file, table, key, expected)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelError(f"{file}: {key}: expected {expected}, found {value!r}; correct the manifest")
    return value


def _text(file: Path, table: Mapping[str, Any], key: str) -> str:
    text: str = _typed(file, table, key, str, "a text of at most 200 characters")
    if len(text) > 200:
        raise ModelError(
            f"{file}: {key}: expected a text of at most 200 characters, found {len(text)}; correct the manifest"
        )
    return text


def _table(file: Path, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _typed(file, table, key, dict, "a table")
    return found


def _word(file: Path, table: Mapping[str, Any], key: str, words: type[WordT]) -> WordT:
    known = ", ".join(each.name.lower() for each in words)
    text = _text(file, table, key)
    if text.upper() not in words.__members__ or text != text.lower():
        raise ModelError(f"{file}: {key}: expected one of {known}, found {text!r}; correct the manifest")
    return words[text.upper()]


def _number(file: Path, table: Mapping[str, Any], key: str, kind: type, low: float, high: float) -> Any:
    expected = f"a number from {low} to {high}"
    value = _typed(file, table, key, int if kind is int else int | float, expected)  # type: ignore[arg-type]
    if not low <= value <= high:
        raise ModelError(f"{file}: {key}: expected {expected}, found {value!r}; correct the manifest")
    return value


def _list(file: Path, table: Mapping[str, Any], key: str, kind: type) -> Sequence[Any]:
    expected = f"a list of at most {NUMBERS_MAX} {'texts' if kind is str else 'whole numbers'}"
    values: list[Any] = _typed(file, table, key, list, expected)
    if len(values) > NUMBERS_MAX or any(not isinstance(each, kind) or isinstance(each, bool) for each in values):
        raise ModelError(f"{file}: {key}: expected {expected}, found something else; correct the manifest")
    return values


def _numbers(file: Path, table: Mapping[str, Any], key: str) -> Mapping[str, tuple[float, ...]]:
    out = {}
    for name, values in _table(file, table, key).items():
        fits = isinstance(values, list) and len(values) <= NUMBERS_MAX
        if not fits or any(
            not isinstance(each, int | float) or isinstance(each, bool) or not np.isfinite(each) for each in values
        ):
            raise ModelError(
                f"{file}: {key}.{name}: expected a list of at most {NUMBERS_MAX} finite numbers, found {values!r}; "
                "correct the manifest"
            )
        out[name] = tuple(float(each) for each in values)
    return out


def read_bytes(file: Path, bytes_max: int) -> bytes:
    """A plain file of bounded size; a link, a pipe or a device is refused without being opened for reading."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(
            f"{file}: expected a readable file, found {error.strerror}; restore the model's folder"
        ) from error
    with os.fdopen(handle, "rb") as opened:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{file}: expected a plain file, found something else; restore the model's folder")
        if found.st_size > bytes_max:
            raise ModelError(f"{file}: expected at most {bytes_max} bytes, found {found.st_size}; use a smaller model")
        return opened.read(bytes_max)


def read_artefact(manifest: Manifest) -> bytes:
    """The artefact's bytes, if they are those that the manifest speaks of."""
    return _read_known(manifest, manifest.path, ARTEFACT_BYTES_MAX, "artefact", manifest.sha256)


def read_golden(manifest: Manifest) -> bytes:
    """The same of its golden rows; only where it has some."""
    return _read_known(manifest, manifest.folder / manifest.golden, GOLDEN_BYTES_MAX, "golden", manifest.golden_sha256)


def _read_known(manifest: Manifest, path: Path, bytes_max: int, key: str, sha256: str) -> bytes:
    data = read_bytes(path, bytes_max)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path}: expected sha256 {sha256}, found {found}; "
            f"restore the file or correct `{key}.sha256` in {manifest.folder / 'model.toml'}"
        )
    return data


def fill_versions(manifests: Sequence[Manifest], versions: np.ndarray, names: np.ndarray) -> None:
    """Version rows of all manifests, then of the vote and the baseline; and the table of feature names.

    versions: version_row array; names: array of S48. ModelError if either is too small.
    """
    if len(manifests) + 2 > len(versions):
        raise ModelError(
            f"the model store: expected at most {len(versions) - 2} versions, found {len(manifests)}; retire old ones"
        )
    versions[:] = np.zeros((), versions.dtype)
    names[:] = b""
    first = 0
    for row, manifest in zip(versions, manifests, strict=False):
        count = len(manifest.features)
        if first + count > len(names):
            raise ModelError(
                f"{manifest.folder / 'model.toml'}: features: expected at most {len(names)} names in all models, "
                "found more; retire old versions"
            )
        names[first : first + count] = [each.encode() for each in manifest.features]
        row["taken"], row["kind"], row["role"] = 1, manifest.kind, manifest.role
        row["feature_first"], row["feature_count"], row["own"] = first, count, manifest.company != ""
        row["model_id"], row["version"], row["sha256"] = (
            manifest.id.encode(),
            manifest.version.encode(),
            manifest.sha256.encode(),
        )
        first += count
    for row, built_in in zip(versions[len(manifests) :], (VOTE, BASELINE), strict=False):
        row["taken"], row["kind"], row["role"] = 1, Kind.ENSEMBLE, Role.ENSEMBLE
        row["model_id"], row["version"] = built_in.encode(), BUILT_IN_VERSION.encode()
