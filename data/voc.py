"""Segmentation sets in the manner of PASCAL VOC: photographs and masks of class indices."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from data import VOID, Dataset, Sample
from data._layout import files_in, find_layout, find_set
from data.decode import IMAGE_SUFFIXES, read_image, read_mask
from data.validate import DataError, vocabulary_findings
from errors import UserError

LAYOUTS = (
    ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    ("{split}/JPEGImages", "{split}/SegmentationClass"),
    ("{split}/*.png",),  # ID.jpg and ID.png side by side
)
LISTS = {"train": ("train240.txt", "train.txt"), "val": ("val60.txt", "val.txt")}  # preferred first
MASKS = frozenset({".png"})
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class Voc(Dataset):
    """One split of a VOC-like set.

    Mask values are 0 (background), 1.. (foreground classes) and 255 (void). The foreground classes are VOC's twenty, or
    the lines of a `classes.txt` beside the masks' folder (or in the set's folder), which may open with `background`.

    Args:
        folder: The set's folder under the data root, where it is not `mini_voc_seg`.
    """

    kind = "segmentation"
    folders = ("mini_voc_seg",)

    def __init__(self, root: Path | str, split: str, classes: tuple[str, ...] | None = None, folder: str | None = None):
        self.folder = find_set(root, split, self.folders, folder)
        layout, paths = find_layout(self.folder, split, LAYOUTS)
        images, masks = paths[0], paths[min(1, len(paths) - 1)]
        own, source = _vocabulary(self.folder, masks)
        self.classes = tuple(classes) if classes is not None else own
        self.numbering = {name: value for value, name in enumerate(own)}
        problems = vocabulary_findings(own, classes, source)
        self._value_to_index = torch.full(
            (256,), -1, dtype=torch.int16
        )  # mask value on disk → class index, -1: unknown
        self._value_to_index[VOID] = VOID
        for value, name in enumerate(own):
            self._value_to_index[value] = self.classes.index(name) if name in self.classes else -1

        self._pairs: dict[str, tuple[Path, Path]] = {}
        wanted, listed_in = (None, None) if layout else _listed(paths[2], split)
        problems += self._pair(images, masks, wanted, listed_in)
        self.ids = tuple(self._pairs)
        if problems or not self.ids:
            raise DataError(problems or [f"{listed_in or images}: split '{split}' holds no image"], self)

    def _pair(self, images: Path, masks: Path, wanted: list[str] | None, listed_in: Path | None) -> list[str]:
        """Fill `_pairs`, sorted by id, with the ids wanted (None: all that lie there); return what has no partner."""
        photographs = IMAGE_SUFFIXES - MASKS if images == masks else IMAGE_SUFFIXES
        image_files, mask_files = _by_stem(files_in(images, photographs)), _by_stem(files_in(masks, MASKS))
        problems = [f"{listed_in}: '{name}' is listed {n} times" for name, n in Counter(wanted).items() if n > 1]
        origin = f" (listed in {listed_in})" if listed_in else ""
        for name in sorted(set(wanted) if wanted is not None else image_files.keys() | mask_files.keys()):
            if name not in image_files:
                problems.append(f"{images}: no image named '{name}' with a suffix of {_suffixes(photographs)}{origin}")
            if name not in mask_files:
                problems.append(f"{masks}: no mask named '{name}.png'{origin}")
            if len(image_files.get(name, ())) > 1:
                problems.append(f"{images}: {', '.join(path.name for path in image_files[name])} share an id; keep one")
            if name in image_files and name in mask_files:
                self._pairs[name] = image_files[name][0], mask_files[name][0]
        return problems

    def read(self, index: int) -> Sample:
        image_file, mask_file = self._pairs[self.ids[index]]
        problems: list[str] = []
        image = _attempt(read_image, image_file, problems)
        values = _attempt(read_mask, mask_file, problems)
        if image is not None and values is not None and image.shape[1:] != values.shape:
            problems.append(
                f"{mask_file}: mask is {_size(values)}, its image {image_file} is {_size(image)} (width x height); "
                "both must be equal"
            )
        if values is not None:
            mask = self._value_to_index[values.int()]  # (H, W)
            unknown = values[mask < 0].unique().tolist()
            if unknown:
                problems.append(
                    f"{mask_file}: mask values {', '.join(map(str, unknown))} mean no class, expected "
                    f"0..{len(self.numbering) - 1} or {VOID} (void)"
                )
        if problems:
            raise DataError(problems)
        return Sample(self.ids[index], image, {"mask": mask.to(torch.uint8)})

    def files(self, index: int) -> tuple[Path, Path]:
        return self._pairs[self.ids[index]]


def _vocabulary(folder: Path, masks: Path) -> tuple[tuple[str, ...], Path]:
    """Class names by mask value, background first, and the file (or folder) that says so."""
    files = [place / "classes.txt" for place in (masks.parent, folder) if (place / "classes.txt").is_file()]
    if not files:
        return ("background", *VOC_CLASSES), folder
    names = _lines(files[0])
    names = names[1:] if names[:1] == ["background"] else names
    if not names or len(names) > VOID - 1 or len(set(names)) < len(names) or "background" in names:
        finding = (
            f"{files[0]}: {len(names)} class names, {len(set(names))} of them different; expected 1 to {VOID - 1} "
            "different foreground classes, one a line, 'background' (always value 0) at most on the first line"
        )
        raise DataError([finding])
    return ("background", *names), files[0]


def _listed(lists: Path, split: str) -> tuple[list[str], Path]:
    """The ids of a split and the list they come from: a preferred name, or the only one that starts with the split's."""
    found = [path for path in sorted(lists.glob(f"{split}*.txt")) if not path.name.startswith("trainval")]
    preferred = [lists / name for name in LISTS[split] if (lists / name) in found]
    choice = preferred[:1] or found
    if not choice:
        raise DataError([f"{lists}: no list for split '{split}'; looked for {', '.join(LISTS[split])}, {split}*.txt"])
    if len(choice) > 1:
        names = ", ".join(path.name for path in choice)
        raise DataError([f"{lists}: several lists for split '{split}' ({names}); rename one to {LISTS[split][0]}"])
    return _lines(choice[0]), choice[0]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError([f"{path}: unreadable ({error}); expected UTF-8 text, one name a line"]) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _by_stem(files: list[Path]) -> dict[str, list[Path]]:
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    return by_stem


def _attempt(read, path: Path, problems: list[str]) -> Tensor | None:
    try:
        return read(path)
    except UserError as error:
        problems.append(str(error))
        return None


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-1]}x{pixels.shape[-2]}"


def _suffixes(suffixes: frozenset[str]) -> str:
    return ", ".join(sorted(suffixes))
