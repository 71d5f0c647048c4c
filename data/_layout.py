"""Finding a set on disk: which of the known layouts lies under --data_root, or exactly what was looked for."""

from collections.abc import Sequence
from pathlib import Path

from data.decode import IMAGE_SUFFIXES
from data.validate import DataError
from errors import nearest

SPLITS = ("train", "val")


def find_set(root: Path | str, split: str, names: Sequence[str], folder: str | None = None) -> Path:
    """The set's folder: `root/folder` where given, else `root/name` for one of `names`, or root itself if so named."""
    root = Path(root)
    if split not in SPLITS:
        raise DataError([f"unknown split '{split}'{nearest(split, SPLITS)}"])
    places = [root / name for name in ([folder] if folder else names)]
    if not folder and root.resolve().name in names:
        places.append(root)
    found = [place for place in places if place.is_dir()]
    if len(found) == 1:
        return found[0]
    looked = ", ".join(map(str, places))
    if found:
        raise DataError(
            [f"{root}: several sets found ({', '.join(map(str, found))}); name one with the option 'folder'"]
        )
    reason = "set not found" if root.is_dir() else "data_root does not exist"
    raise DataError([f"{root}: {reason}; looked for {looked}; correct --data_root or the dataset's option 'folder'"])


def find_layout(folder: Path, split: str, layouts: Sequence[tuple[str, ...]]) -> tuple[int, tuple[Path, ...]]:
    """Index of the one layout whose paths all exist under `folder`, and those paths.

    A layout is a tuple of paths relative to the set's folder, with `{split}` in them; a last part with `*` asks for at
    least one such file and stands for its folder. DataError naming all that was looked for if none or several fit.
    """
    fitting, looked = [], []
    for number, layout in enumerate(layouts):
        patterns = [part.format(split=split) for part in layout]
        missing = [pattern for pattern in patterns if not _is_there(folder, pattern)]
        looked.append(f"{' + '.join(patterns)} (missing: {', '.join(missing)})")
        if not missing:
            paths = tuple((folder / pattern).parent if "*" in pattern else folder / pattern for pattern in patterns)
            fitting.append((number, paths))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        both = " and ".join(" + ".join(map(str, paths)) for _, paths in fitting)
        raise DataError([f"{folder}: two layouts at once for split '{split}': {both}; remove or rename one"])
    options = "; or ".join(looked)
    raise DataError([f"{folder}: no known layout for split '{split}'; looked in this folder for {options}"])


def _is_there(folder: Path, pattern: str) -> bool:
    """Whether a pattern's files, its one file (it has a suffix) or its folder (it has none) exist."""
    if "*" in pattern:
        return any(folder.glob(pattern))
    path = folder / pattern
    return path.is_file() if path.suffix else path.is_dir()


def files_in(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Visible files directly in `folder` with one of the suffixes (any case), sorted by name."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(path for path in found if path.is_file())
