"""Which kind of model a version is, and its opening.

Owns the table of kinds; run by workers at load, by `check` and by training. Reads a version's folder. What must stay
true: of ONNX graphs the role decides which tensors they have, whoever made them; an error of a library is a ModelError.
"""

from typing import Any, Protocol

import numpy as np

from engine.errors import ModelError
from engine.inference import constants
from engine.inference.batch import Batch, Output
from engine.inference.ensemble import Book
from engine.inference.models.classifier import ClassifierModel
from engine.inference.models.cnn import PatternModel
from engine.inference.models.cuda import Device
from engine.inference.models.lstm import PriceModel
from engine.inference.models.stacker import StackerModel
from engine.inference.models.trees import DirectionModel
from engine.registry.manifest import Kind, Manifest
from engine.tenancy.tiers import Role


class Model(Protocol):
    """One loaded version."""

    role: int
    manifest: Manifest

    def open(self) -> None:
        """Read, check and prepare; ModelError if it cannot be used."""

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        """Answer these slots of the microbatch, into the role's part of `output`."""

    def sound(self, slots: list[int], output: Output) -> bool:
        """Whether what was answered is finite, and chances are chances."""


# Of ONNX graphs the role decides which tensors they have; only XGBoost's own files are read otherwise.
ONNX_ROLES: dict[Role, type[Any]] = {
    Role.PRICE: PriceModel, Role.PATTERN: PatternModel, Role.DIRECTION: ClassifierModel, Role.ENSEMBLE: StackerModel,
}  # fmt: skip


def made(manifest: Manifest, device: Device | None) -> Model:
    """The right kind of model, not opened yet."""
    if manifest.kind == Kind.XGBOOST:
        return DirectionModel(manifest)
    model: Model = ONNX_ROLES[manifest.role](manifest, device)
    return model


def opened(manifest: Manifest, book: Book, row: int, device: Device | None = None) -> Model:
    """Read and checked, its constants in the book; ModelError if it cannot be used.

    device: where ONNX Runtime runs what the engine does not run by itself; None: on the processor.
    """
    constants.enter_version(book, row, manifest)
    model = made(manifest, device)
    try:
        model.open()
    except ModelError:
        raise
    except Exception as error:  # a library's, of an artefact that it does not understand
        found = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{manifest.path}: expected a model that can be opened, found {found}; save it again"
        ) from error
    return model
