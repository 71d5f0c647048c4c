"""Detection sets in COCO's JSON form; the checks of the index live in data/_coco_index.py."""

from pathlib import Path

import torch

from data import Dataset, Sample
from data._coco_index import read_index
from data._layout import find_layout, find_set
from data.decode import read_image
from data.validate import DataError, vocabulary_findings
from errors import UserError

LAYOUTS = (
    ("images/{split}", "annotations/instances_{split}.json"),
    ("{split}", "annotations/instances_{split}.json"),
    ("{split}/data", "{split}/labels.json"),
)


class Coco(Dataset):
    """One split of a COCO-like set.

    Categories are matched by name: their ids may have gaps and may differ between splits (`numbering`: name → id).
    Without `classes`, the vocabulary is the file's own, in the order of the ids. Ids of the items are file names.

    Args:
        folder: The set's folder under the data root, where it is not `mini_coco_det`.
    """

    kind = "detection"
    folders = ("mini_coco_det",)

    def __init__(self, root: Path | str, split: str, classes: tuple[str, ...] | None = None, folder: str | None = None):
        self.folder = find_set(root, split, self.folders, folder)
        _, (images, file) = find_layout(self.folder, split, LAYOUTS)
        index = read_index(file)
        problems = list(index.findings)
        self.numbering = index.categories
        self.classes = tuple(classes) if classes is not None else tuple(index.categories)
        problems += vocabulary_findings(index.categories, classes, file)
        label_of = {
            index.categories[name]: label for label, name in enumerate(self.classes) if name in index.categories
        }

        self._items = []
        for entry in sorted(index.images, key=lambda entry: entry.file_name):
            path = images / entry.file_name
            if not path.is_file():
                problems.append(f"{path}: no such image, but {file} lists it; add the image or remove its entries")
                continue
            objects = [item for item in entry.objects if item.category_id in label_of]
            target = {
                "boxes": torch.tensor([item.box_xyxy for item in objects], dtype=torch.float32).reshape(-1, 4),
                "area": torch.tensor([item.area for item in objects], dtype=torch.float32),
                "labels": torch.tensor([label_of[item.category_id] for item in objects], dtype=torch.int64),
                "iscrowd": torch.tensor([item.iscrowd for item in objects], dtype=torch.bool),
            }
            self._items.append((entry, path, target))
        self._file = file
        self.ids = tuple(entry.file_name for entry, _, _ in self._items)
        if problems:
            raise DataError(problems, self)

    def read(self, index: int) -> Sample:
        entry, path, target = self._items[index]
        image = read_image(path)
        if image.shape[1:] != (entry.height, entry.width):
            raise UserError(
                f"{path}: image is {image.shape[2]}x{image.shape[1]}, {self._file} says "
                f"{entry.width}x{entry.height} (width x height); its boxes would not fit: use the image they were made for"
            )
        return Sample(self.ids[index], image, {name: values.clone() for name, values in target.items()})

    def files(self, index: int) -> tuple[Path]:
        return (self._items[index][1],)

    def labels(self, index: int) -> set[int]:
        return set(self._items[index][2]["labels"].tolist())
