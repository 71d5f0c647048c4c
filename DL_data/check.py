"""Checks the three sets before any time is spent on training, and lists everything that is wrong with them.

    python -m DL_data.check PATH [--sets voc coco imagefolder]

Prints the images per split and class, then every finding. Exit code 0: none; 2: some.
"""

import argparse
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data import Dataset, Sample
from data._layout import SPLITS
from data.coco import Coco
from data.imagefolder import ImageFolder
from data.validate import findings, listing, open_with_findings, vocabulary_findings
from data.voc import Voc
from errors import UserError, command

READERS: dict[str, type[Dataset]] = {"voc": Voc, "coco": Coco, "imagefolder": ImageFolder}


@dataclass
class Tally:
    """What a check adds up while the images are being read."""

    images: dict[tuple[Path, str], Counter[str]]  # (set's folder, split) → class name → images that show it
    places: dict[bytes, list[tuple[Path, str, Path]]]  # hash of the pixels → (set's folder, split, file) of each copy

    def add(self, dataset: Dataset, split: str, index: int, sample: Sample) -> None:
        self.images[dataset.folder, split].update(dataset.classes[label] for label in dataset._labels_of(sample))
        pixels = sample.image.numpy()
        digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
        self.places[digest].append((dataset.folder, split, dataset.files(index)[0]))

    def repeated(self) -> list[str]:
        """A finding for every picture (equal decoded pixels) that more than one split or set holds."""
        shared = [places for places in self.places.values() if len({place[:2] for place in places}) > 1]
        return [
            f"{places[0][2]}: the same picture in {_several(places)}: {', '.join(str(path) for _, _, path in places)}; "
            "a picture may serve one split of one set only"
            for places in shared
        ]


def check(root: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Read all of the named sets under `root`; return the lines of the tables and every finding."""
    tally, table, found = Tally(defaultdict(Counter), defaultdict(list)), [], []
    for name in names:
        splits: dict[str, Dataset] = {}
        for split in SPLITS:
            dataset, problems = open_with_findings(READERS[name], root, split)
            found += problems
            if dataset is None:
                continue
            splits[split] = dataset
            found += findings(dataset, partial(tally.add, dataset, split), f"{dataset.folder.name} {split}")
        if splits:
            table += _table(name, splits, tally)
        if len(splits) == len(SPLITS):
            found += _differences(*splits.values())
    return table, list(dict.fromkeys(found + tally.repeated()))  # a missing set is found once per split


def _differences(train: Dataset, val: Dataset) -> list[str]:
    """Class names that only one split has, or, where all agree, names that carry another number."""
    where = f"{val.folder} (val)"
    found = vocabulary_findings(val.classes, train.classes, where)
    return found or [
        f"{where}: class '{name}' has number {val.numbering[name]}, in train {number}; the readers match names, but a tool "
        "that matches numbers would mix the classes up: number both splits alike"
        for name, number in train.numbering.items()
        if val.numbering[name] != number
    ]


def _table(name: str, splits: dict[str, Dataset], tally: Tally) -> list[str]:
    """Images per split, in total and by class; an image with several objects of a class counts once."""
    datasets = list(splits.values())
    display = getattr(datasets[0], "display_names", {})
    lines = [f"{datasets[0].kind} ({name}): {datasets[0].folder}", _row("images with", splits)]
    lines.append(_row("(any)", map(len, datasets)))
    for label in dict.fromkeys(label for dataset in datasets for label in dataset.classes):
        shown = label if display.get(label, label) == label else f"{label} ({display[label]})"
        counts = [tally.images[dataset.folder, split][label] for split, dataset in splits.items()]
        if label != "background":
            lines.append(_row(shown, counts))
    return lines


def _row(head: str, cells: Iterable[object]) -> str:
    return f"  {head:<32}" + "".join(f"{cell:>8}" for cell in cells)


def _several(places: list[tuple[Path, str, Path]]) -> str:
    return " and ".join(dict.fromkeys(f"{folder.name} {split}" for folder, split, _ in places))


@command
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m DL_data.check", description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, metavar="PATH", help="folder that holds the sets, or one set's own folder")
    parser.add_argument(
        "--sets", nargs="+", choices=READERS, help="check these only (default: all that PATH should hold)"
    )
    options = parser.parse_args(arguments)
    if not options.path.is_dir():
        raise UserError(f"{options.path}: no such folder; expected one that holds the sets")
    own = [name for name, reader in READERS.items() if options.path.resolve().name in reader.folders]
    table, found = check(options.path, options.sets or own or list(READERS))
    print("\n".join([*table, listing(found, shown=len(found)) if found else "no findings"]))
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
