"""Extensions by file name: one new file in a folder, nothing else touched, adds a name to recipes."""

import importlib
import inspect
from pathlib import Path

from errors import UserError, nearest

_HERE = Path(__file__).parent


def names(contract: type) -> list[str]:
    """Names of the extensions in the contract's folder: its files, but for _private ones and the folder's MECHANISMS."""
    folder = _HERE / contract.__module__
    mechanisms = getattr(importlib.import_module(contract.__module__), "MECHANISMS", set())
    return sorted(
        path.stem for path in folder.glob("*.py") if not path.stem.startswith("_") and path.stem not in mechanisms
    )


def load(contract: type, name: str) -> tuple[type, dict[str, str]]:
    """The class behind a recipe's name, and the constructor arguments that the name itself fixes.

    `fpn` is the one subclass of the contract in necks/fpn.py. A name may go on where a file's name ends: then the rest is the
    class's `variant`: efficientnet_lite0 is backbones/efficientnet_lite.py with variant="0". Only the named file is imported;
    its own errors propagate. Raises UserError for an unknown name.
    """
    known = names(contract)
    if name in known:
        return _the_subclass(contract, name), {}
    for stem in sorted((s for s in known if name.startswith(s)), key=len, reverse=True):
        found = _the_subclass(contract, stem)
        if "variant" in inspect.signature(found).parameters:
            return found, {"variant": name.removeprefix(stem).lstrip("_")}
    raise UserError(f"unknown name '{name}' for a {contract.__name__.lower()}{nearest(name, known)}")


def _the_subclass(contract: type, stem: str) -> type:
    module = importlib.import_module(f"{contract.__module__}.{stem}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, contract) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__file__} must hold exactly one subclass of {contract.__name__}, found {len(found)}")
    return found[0]
