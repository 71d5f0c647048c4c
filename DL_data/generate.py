"""Writes the embedded default data: a deterministic, generated stand-in for the three real sets.

    python -m DL_data.generate [--root DL_data/generated] [--force]

It is written once, beside its final place and then renamed, so that a folder of that name is always whole.
"""

import argparse
import contextlib
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from DL_data.stand_in import SETS, SPLITS
from errors import UserError, command

VERSION = 1  # raise it with every change to what is drawn: sets of another version are then written anew
MANIFEST = "generated.json"
DEFAULT_ROOT = Path(__file__).with_name("generated")


def generate(root: Path = DEFAULT_ROOT, *, seed: int = 0, train: int = 120, val: int = 40, force: bool = False) -> Path:
    """Make sure that `root` holds the three generated sets, `train` + `val` images each, and return it.

    A complete set of the same version, seed and counts is left untouched (unless `force`); an older or damaged one is
    replaced. Of two processes that call this at once, one writes and the other waits. Raises UserError where `root` is
    something else than a generated set, or cannot be written.
    """
    root = Path(root).resolve()
    wanted = {"version": VERSION, "seed": seed, "train": train, "val": val}
    try:
        if is_complete(root, wanted) and not force:
            return root
        _refuse_foreign(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            if force or not is_complete(root, wanted):  # another process may have written it meanwhile
                _build(root, wanted)
    except OSError as error:
        raise UserError(
            f"{root}: the generated sets could not be written ({error.strerror or error}); expected a writable folder "
            f"with {_megabytes(train + val)} MB free; choose another with --root, or make room"
        ) from error
    return root


def is_complete(root: Path, wanted: dict[str, int]) -> bool:
    """Whether the manifest in `root` is the wanted one and every file that it lists is there in its full length."""
    manifest = _read_manifest(root) or {}
    if any(manifest.get(key) != value for key, value in wanted.items()):
        return False
    sizes = manifest.get("files")
    return isinstance(sizes, dict) and all(_size(root / name) == size for name, size in sizes.items())


def _build(root: Path, wanted: dict[str, int]) -> None:
    building, outdated = (root.with_name(f".{root.name}.{state}") for state in ("building", "outdated"))
    for leftover in (building, outdated):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir()
    try:
        _write_sets(building, wanted)
        if root.exists():
            root.rename(outdated)
        building.rename(root)
    finally:
        for leftover in (building, outdated):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_sets(folder: Path, wanted: dict[str, int]) -> None:
    """Write the sets, then the manifest, which lists every file with its size in bytes."""
    with tqdm(total=len(SETS) * len(SPLITS), desc="generated data", unit="split", disable=None) as bar:
        for make in SETS:
            stand_in = make(folder, wanted["seed"])
            for split in SPLITS:
                stand_in.write_split(split, wanted[split])
                bar.update()
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): _size(path) for path in paths}
    (folder / MANIFEST).write_text(json.dumps({**wanted, "files": files}, indent=1))


def _refuse_foreign(root: Path) -> None:
    """Never replace anything but a generated set: what lies at `root` may be the user's only copy of real data."""
    if not root.exists() or _read_manifest(root) is not None:
        return
    if not root.is_dir() or any(root.iterdir()):
        raise UserError(
            f"{root}: holds something that was not generated here (no {MANIFEST}); expected an empty or absent folder; "
            "choose another with --root, or remove this one yourself"
        )


def _read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest in `root`, empty if unusable, None if there is none."""
    try:
        content = json.loads((root / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the lock beside `root`; the system frees it even if the process is killed."""
    with root.with_name(f".{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _megabytes(images_per_task: int) -> int:
    """Rough need: 16 kB per image and 1 MB for the rest."""
    return 1 + len(SETS) * images_per_task * 16 // 1000


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m DL_data.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder to write (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="write it anew even if it is complete")
    options = parser.parse_args(arguments)
    print(f"generated data: {generate(options.root, force=options.force)}")


if __name__ == "__main__":
    sys.exit(main())
