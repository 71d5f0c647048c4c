"""Classification sets: one folder per class, as Imagenette and ImageNet are laid out."""

from pathlib import Path

import torch

from data import Dataset, Sample
from data._layout import files_in, find_layout, find_set
from data.decode import IMAGE_SUFFIXES, read_image
from data.validate import DataError, vocabulary_findings

LAYOUTS = (("{split}",),)
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


class ImageFolder(Dataset):
    """One split of `{train,val}/<class>/*.jpg`.

    Classes are the folders' names, sorted. `display_names` maps each to a name for people (Imagenette's folders are
    WordNet ids), or to itself.

    Args:
        folder: The set's folder under the data root, where it is not `imagenette-160` or `imagenette_160`.
        upright: Turn photographs by their EXIF rotation, which a label without coordinates permits.
    """

    kind = "classification"
    folders = ("imagenette-160", "imagenette_160")

    def __init__(
        self,
        root: Path | str,
        split: str,
        classes: tuple[str, ...] | None = None,
        folder: str | None = None,
        upright: bool = False,
    ):
        self.folder = find_set(root, split, self.folders, folder)
        _, (directory,) = find_layout(self.folder, split, LAYOUTS)
        own = {path.name: files_in(path) for path in sorted(directory.iterdir()) if _is_class(path)}
        if not own:
            raise DataError([f"{directory}: no class folders; expected {directory}/<class>/<image>"])
        problems = vocabulary_findings(own, classes, directory)
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        problems += [
            f"{directory / name}: empty class folder; add its images ({suffixes}) or remove it in both splits"
            for name, files in own.items()
            if not files
        ]
        self.classes = tuple(classes) if classes is not None else tuple(own)
        self.numbering = {name: value for value, name in enumerate(own)}
        self.display_names = {name: self.display_name(name) for name in self.classes}
        self._upright = upright
        known = {name: files for name, files in own.items() if name in self.classes}
        items = {f"{name}/{path.name}": (path, self.classes.index(name)) for name in known for path in known[name]}
        self.ids = tuple(sorted(items))
        self._items = [items[key] for key in self.ids]
        if problems:
            raise DataError(problems, self)

    @classmethod
    def display_name(cls, name: str) -> str:
        return IMAGENETTE.get(name, name)

    def read(self, index: int) -> Sample:
        path, label = self._items[index]
        return Sample(self.ids[index], read_image(path, self._upright), {"label": torch.tensor(label)})

    def files(self, index: int) -> tuple[Path]:
        return (self._items[index][0],)

    def labels(self, index: int) -> set[int]:
        return {self._items[index][1]}


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
