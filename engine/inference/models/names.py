"""Names of a model's inputs: those that its role has, each spelled as the engine spells it.

Owns the question; run by workers at load. Reads a manifest. What must stay true: a mistyped name is an
error at load, never an input that stays empty.
"""

from collections.abc import Sequence

from engine.errors import ModelError
from engine.registry.keys import nearest
from engine.registry.manifest import Manifest


def check_names(manifest: Manifest, names: Sequence[str], otherwise: str = "") -> None:
    """ModelError for the first feature that is none of `names`; and where there is none at all."""
    file = manifest.folder / "model.toml"
    if not manifest.features:
        raise ModelError(f"{file}: features: expected some of {', '.join(names)}, found none; name them")
    for name in manifest.features:
        if name not in names:
            do = "; ".join(filter(None, [otherwise, nearest(name, names)]))
            raise ModelError(f"{file}: features: {name} is not a feature of the engine for this role; {do}")
