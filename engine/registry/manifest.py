"""Model folders: what stands in a `model.toml`, and what of it the processes share.

Owns the reading and checking of manifests; used by the supervisor, which fills the version table, by
workers at load, and by `check`. Reads `<store>/<id>/<version>/model.toml`; writes version rows. What
must stay true: no model library is imported here; nothing outside the store is ever opened, whatever
a manifest says; sizes are bounded before bytes are read.
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from engine import limits
from engine.contract.names import is_model_id, is_name, is_user
from engine.errors import ModelError
from engine.registry import keys
from engine.registry.files import Level, plain_folders, read_bytes
from engine.tenancy.tiers import BASELINE, BY_SIZE, VOTE, Role

MANIFEST_BYTES_MAX = 256 << 10
ARTEFACT_BYTES_MAX = 64 << 20
GOLDEN_BYTES_MAX = 1 << 20
CLOSED_MINUTES_MAX = 240
BUILT_IN_VERSION = "1.0"
FILE, RANGE = ("file", "sha256"), ("low", "high")


class Kind(IntEnum):
    """ml.v1.ModelKind."""

    LSTM = 1
    CNN = 2
    XGBOOST = 3
    ENSEMBLE = 4
    OTHER = 5  # whatever else can be written as an ONNX graph


ONNX = (".onnx",)
KEYS = (
    "id", "version", "company", "user", "kind", "role", "features", "extra", "closed_minutes", "outputs", "horizons",
    "weight", "artefact", "golden", "calibration", "range", "training", "quality",
)  # fmt: skip
CALIBRATION = {
    Role.PRICE: ("q", "label"), Role.PATTERN: ("label_rates", "rise_rates", "touch_bias", "touch_slope"),
    Role.DIRECTION: ("slope", "bias"), Role.ENSEMBLE: ("penalty",),
}  # fmt: skip
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
    extra: tuple[str, ...] = ()  # what the company's vectors carry in `extra`, in that order

    @property
    def path(self) -> Path:
        return self.folder / self.artefact

    @property
    def name(self) -> str:
        return f"{self.id} {self.version}"

    @property
    def owner(self) -> str:
        """For people: company, or company and user; empty: shared."""
        return f"{self.company}/{self.user}" if self.user else self.company


def version_order(version: str) -> tuple[int, ...]:
    """1.10 comes after 1.9."""
    return tuple(int(part) for part in version.split("."))


def _is_version(text: str) -> bool:
    parts = text.split(".")
    return len(text) <= 32 and all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts)


MODELS = Level("a model", "a model id of a-z, 0-9 and _, at most 64", is_model_id)
VERSIONS = Level("a version", "a version such as 1.0", _is_version)


def _refuse(error: ModelError) -> None:
    raise error


def read_store(path: Path, left_out: Callable[[ModelError], None] = _refuse) -> list[Manifest]:
    """Every version in the store that can be used, by id and rising version.

    left_out: told of each version that cannot be used; without it, the first one is an error. An empty or
    missing store always is.
    """
    if not path.is_dir():
        raise ModelError(
            f"{path}: expected the folder of the model store, found none; "
            "set `models.path` or restore the bundled `models`"
        )
    manifests = []
    for model in plain_folders(path, MODELS, left_out):
        for version in plain_folders(model, VERSIONS, left_out):
            try:
                manifests.append(read_manifest(version))
            except ModelError as error:
                left_out(error)
    manifests.sort(key=lambda each: (each.id, version_order(each.version)))
    fitting: list[Manifest] = []
    for each in manifests:
        if clash := _clash(each, fitting):
            left_out(ModelError(f"{each.folder / 'model.toml'}: {clash}"))
        else:
            fitting.append(each)
    if not fitting:
        raise ModelError(
            f"{path}: expected at least one model, found none; set `models.path` or restore the bundled `models`"
        )
    return fitting


def _clash(manifest: Manifest, before: Sequence[Manifest]) -> str:
    """Why a version cannot stand beside those before it in the store; empty if it can."""
    owner = (manifest.company, manifest.user)
    for other in before:
        theirs = (other.company, other.user)
        if other.id == manifest.id and theirs != owner:
            return (
                f"company, user: expected {theirs!r}, as in version {other.version}, found {owner!r}; "
                "a model has one owner, give this one another id"
            )
        if manifest.company and theirs == owner and other.role == manifest.role and other.id != manifest.id:
            return (
                f"role: expected one {manifest.role.word} model for {manifest.owner}, found {other.id} and "
                f"{manifest.id}; keep one of them in the store"
            )
    return ""


def read_manifest(folder: Path) -> Manifest:
    """One version's folder; ModelError says which file, what was expected and what was found."""
    file = folder / "model.toml"
    try:
        table = tomllib.loads(read_bytes(file, MANIFEST_BYTES_MAX).decode())
    except (ValueError, RecursionError) as error:  # not text, not TOML, or tables within tables without end
        raise ModelError(f"{file}: expected TOML, found {error}; correct the manifest") from error
    keys.known(file, table, KEYS)
    manifest = Manifest(
        id=keys.text_of(file, table, "id"),
        version=keys.text_of(file, table, "version"),
        kind=keys.word_of(file, table, "kind", Kind),
        role=keys.word_of(file, table, "role", Role),
        folder=folder,
        artefact=keys.text_of(file, keys.table_of(file, table, "artefact"), "file"),
        sha256=keys.text_of(file, keys.table_of(file, table, "artefact"), "sha256"),
        features=tuple(keys.list_of(file, table, "features", str)),
        outputs=tuple(keys.list_of(file, table, "outputs", str)),
        horizons=tuple(keys.list_of(file, table, "horizons", int)),
        closed_minutes=keys.number_of(file, table, "closed_minutes", int, 0, CLOSED_MINUTES_MAX),
        weight=float(keys.number_of(file, table, "weight", float, 0.0, 1e3)),
        calibration=keys.numbers_of(file, table, "calibration"),
        range=keys.numbers_of(file, table, "range") if "range" in table else {},
        training=keys.table_of(file, table, "training"),
        quality=keys.table_of(file, table, "quality"),
        company=keys.text_of(file, table, "company") if "company" in table else "",
        user=keys.text_of(file, table, "user") if "user" in table else "",
        golden=keys.text_of(file, keys.table_of(file, table, "golden"), "file") if "golden" in table else "",
        golden_sha256=keys.text_of(file, keys.table_of(file, table, "golden"), "sha256") if "golden" in table else "",
        extra=tuple(keys.list_of(file, table, "extra", str)) if "extra" in table else (),
    )
    for key, allowed in (
        ("artefact", FILE),
        ("golden", FILE),
        ("range", RANGE),
        ("calibration", _numbers_of(manifest)),
    ):
        keys.known(file, table.get(key, {}), allowed, f"{key}.")
    _check(file, manifest)
    return manifest


def _numbers_of(manifest: Manifest) -> Sequence[str]:
    """What its calibration may hold; of direction models, only trees have one."""
    graph = manifest.role == Role.DIRECTION and manifest.kind != Kind.XGBOOST
    return () if graph else CALIBRATION[manifest.role]


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
    if manifest.kind == Kind.XGBOOST and manifest.role != Role.DIRECTION:
        refuse("role", "direction, as trees have", manifest.role.word)
    takes_extra = manifest.company and manifest.role == Role.DIRECTION and manifest.kind != Kind.XGBOOST
    if manifest.extra and not takes_extra:
        refuse("extra", "none, as it is for a company's own graphs of the role direction", list(manifest.extra))
    for key, names in (("features", manifest.features), ("extra", manifest.extra)):
        if len(names) > limits.FEATURES_MAX:
            refuse(key, f"at most {limits.FEATURES_MAX} names", len(names))
    if len(set(manifest.extra)) < len(manifest.extra):
        refuse("extra", "names that differ", list(manifest.extra))
    for name in (*manifest.features, *manifest.extra):
        if not name or not name.isprintable() or len(name.encode()) > limits.FEATURE_NAME_BYTES:
            refuse("features", f"printable names of at most {limits.FEATURE_NAME_BYTES} bytes", name)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


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
