"""Datasets: one file per format, found by its name; every reader yields the same `Sample`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

VOID = 255  # mask value of pixels that neither train nor score
MECHANISMS = {"decode", "loader", "transforms", "validate"}  # files of this folder that are no dataset format


@dataclass(frozen=True)
class Sample:
    """One image with its labels, as they lie on disk (no resizing, no augmentation).

    image: uint8 (3, H, W), RGB.
    target, by the dataset's `kind`:
      segmentation    {"mask": uint8 (H, W), class index, VOID = 255 ignored}
      detection       {"boxes": float32 (N, 4) xyxy in pixels of this image, "labels": int64 (N,) index into
                       `classes`, "iscrowd": bool (N,), "area": float32 (N,), by which metrics tell small objects from
                       large ones: COCO's is the mask's}; N may be 0
      classification  {"label": int64 ()}
    """

    id: str
    image: Tensor
    target: dict[str, Tensor]


class Dataset(ABC):
    """One split of one labelled set. The constructor finds the layout and reads the index (cheap), never the images.

    A subclass's constructor takes (root, split, classes=None, **options): `root` is the user's --data_root, `split` is
    "train" or "val", `classes` the vocabulary to match categories against BY NAME (None: the split's own). It raises
    UserError, naming every place it looked, where the set is missing, and on an unknown or missing category.
    """

    kind: ClassVar[str]  # "segmentation" | "detection" | "classification"
    classes: tuple[str, ...]  # index = label value; segmentation: index 0 is "background"
    ids: tuple[str, ...]  # unique within the split, stable, what a replay list names
    folder: Path  # where the set was found

    @classmethod
    def display_name(cls, name: str) -> str:
        """A class's name for people, where the set's own is a code."""
        return name

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Decode one image and its labels; UserError (file, finding, remedy) if either is unusable."""

    @abstractmethod
    def files(self, index: int) -> Sequence[Path]:
        """The files holding image and labels of one item (labels in a shared index file do not count)."""

    def labels(self, index: int) -> set[int]:
        """Class indices present in one item (segmentation: without background and void), for balanced selection."""
        return self._labels_of(self.read(index))

    def _labels_of(self, sample: Sample) -> set[int]:
        (values,) = (sample.target[key] for key in ("mask", "labels", "label") if key in sample.target)
        present = set(values.flatten().unique().tolist())
        return present - {0, VOID} if "mask" in sample.target else present

    def __len__(self) -> int:
        return len(self.ids)


class Subset(Dataset):
    """Some items of another data set: a fold."""

    def __init__(self, whole: Dataset, indices: Sequence[int]):
        self.whole = whole
        self.indices = list(indices)
        self.kind, self.classes, self.folder = whole.kind, whole.classes, whole.folder
        self.ids = tuple(whole.ids[index] for index in self.indices)

    def read(self, index: int) -> Sample:
        return self.whole.read(self.indices[index])

    def files(self, index: int) -> Sequence[Path]:
        return self.whole.files(self.indices[index])

    def labels(self, index: int) -> set[int]:
        return self.whole.labels(self.indices[index])
