"""The three generated sets, each with its own vocabulary, in the layout of the real set that it stands in for.

Within a set every outline comes with two textures and every texture with two outlines, so neither alone tells the
class; colours, positions, angles and sizes are random. The sets share outlines and clutter but no texture.
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageFilter

from DL_data.scenes import Scene, draw, place, place_crowd
from palette import voc_palette

SPLITS = ("train", "val")
VOID = 255
JPEG = {"format": "JPEG", "quality": 92}


class StandIn(ABC):
    """One generated set: a vocabulary, and how its images and labels are written."""

    name: ClassVar[str]
    vocabulary: ClassVar[tuple[str, ...]]

    def __init__(self, root: Path, seed: int):
        self.folder = root / self.name
        self.seed = seed

    @abstractmethod
    def write_split(self, split: str, count: int) -> None:
        """Draw and write `count` images with their labels."""

    def generator(self, split: str, index: int) -> np.random.Generator:
        """Random numbers of one image, independent of every other image and of the order in which they are made."""
        return np.random.default_rng([self.seed, *self.name.encode(), SPLITS.index(split), index])

    def names(self, index: int, count: int, rng: np.random.Generator) -> list[str]:
        """Classes of `count` objects: the first balanced over the images, the others at random."""
        first = self.vocabulary[index % len(self.vocabulary)]
        return [first, *rng.choice(self.vocabulary, count - 1).tolist()]

    def path(self, *parts: str) -> Path:
        """A file of this set, its folder made if need be."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class Segmentation(StandIn):
    """As PASCAL VOC: palette masks, void (255) where an object's border runs; classes.txt names index 0, 1, 2, ..."""

    name = "mini_voc_seg"
    vocabulary = ("striped_disc", "dotted_disc", "dotted_star", "checked_star", "checked_cross", "striped_cross")

    def write_split(self, split: str, count: int) -> None:
        ids = [self._write_image(split, index) for index in range(count)]
        self.path("ImageSets", "Segmentation", f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
        self.path("classes.txt").write_text("".join(f"{name}\n" for name in ("background", *self.vocabulary)))

    def _write_image(self, split: str, index: int) -> str:
        rng = self.generator(split, index)
        size = _random_size(rng)
        objects = place(size, self.names(index, int(rng.integers(1, 5)), rng), rng)
        scene = draw(size, objects, rng)
        image_id = f"{split}_{index:04d}"
        Image.fromarray(scene.image).save(self.path("JPEGImages", f"{image_id}.jpg"), **JPEG)
        mask = Image.fromarray(self._mask(scene, [self.vocabulary.index(item.name) + 1 for item in objects]))
        mask.putpalette(voc_palette())
        mask.save(self.path("SegmentationClass", f"{image_id}.png"))
        return image_id

    @staticmethod
    def _mask(scene: Scene, labels: list[int]) -> np.ndarray:
        """uint8 (H, W): labels of the frontmost objects, a void band two pixels wide along each one's border."""
        mask = np.zeros(scene.image.shape[:2], dtype=np.uint8)
        for coverage, label in zip(scene.coverage, labels, strict=True):
            inside = Image.fromarray(coverage).point(lambda value: 255 * (value > 127))
            mask[np.asarray(inside.filter(ImageFilter.MaxFilter(3))) > 0] = VOID
            mask[np.asarray(inside.filter(ImageFilter.MinFilter(3))) > 0] = label
        return mask


class Detection(StandIn):
    """As COCO: boxes of what is visible; some images with a crowd (a group under one box), some without objects."""

    name = "mini_coco_det"
    vocabulary = ("netted_square", "zigzag_square", "zigzag_triangle", "netted_triangle")
    category_ids = (3, 17, 44, 81)  # with gaps, as COCO's
    first_image_id: ClassVar[dict[str, int]] = {"train": 1, "val": 500_001}

    def write_split(self, split: str, count: int) -> None:
        records = [self._write_image(split, index) for index in range(count)]
        annotations = [annotation for record in records for annotation in record["annotations"]]
        pairs = zip(self.category_ids, self.vocabulary, strict=True)
        index = {
            "images": [record["image"] for record in records],
            "annotations": [{"id": number, **a} for number, a in enumerate(annotations, start=1)],
            "categories": [{"id": number, "name": name} for number, name in pairs],
        }
        self.path("annotations", f"instances_{split}.json").write_text(json.dumps(index))

    def _write_image(self, split: str, index: int) -> dict[str, Any]:
        rng = self.generator(split, index)
        size = _random_size(rng)
        empty, crowded = index % 15 == 7, index % 12 == 5
        crowd = place_crowd(size, str(rng.choice(self.vocabulary)), rng) if crowded else []
        count = 0 if empty else int(rng.integers(2, 4)) if crowded else int(rng.integers(1, 5))
        objects = place(size, self.names(index, count, rng), rng, taken=crowd) if count else []
        scene = draw(size, [*crowd, *objects], rng)

        image_id = self.first_image_id[split] + index
        image = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": size[0], "height": size[1]}
        Image.fromarray(scene.image).save(self.path("images", split, image["file_name"]), **JPEG)
        visible = scene.visible()
        annotations = [self._annotation(o.name, m, 0) for o, m in zip(objects, visible[len(crowd) :], strict=True)]
        if crowd:
            annotations.append(self._annotation(crowd[0].name, np.any(visible[: len(crowd)], axis=0), 1))
        return {"image": image, "annotations": [{**a, "image_id": image_id} for a in annotations]}

    def _annotation(self, name: str, visible: np.ndarray, iscrowd: int) -> dict[str, Any]:
        rows, columns = (np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0)))
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
        category = self.category_ids[self.vocabulary.index(name)]
        return {"category_id": category, "bbox": box, "area": int(visible.sum()), "iscrowd": iscrowd}


class Classification(StandIn):
    """As Imagenette: one folder per class; one large object per image."""

    name = "imagenette-160"
    vocabulary = (
        "bricked_disc",
        "speckled_disc",
        "speckled_star",
        "spoked_star",
        "spoked_triangle",
        "bricked_triangle",
    )

    def write_split(self, split: str, count: int) -> None:
        for index in range(count):
            self._write_image(split, index)

    def _write_image(self, split: str, index: int) -> None:
        rng = self.generator(split, index)
        size = _random_size(rng)
        objects = place(size, self.names(index, 1, rng), rng)
        path = self.path(split, objects[0].name, f"{objects[0].name}_{split}_{index:04d}.JPEG")
        Image.fromarray(draw(size, objects, rng).image).save(path, **JPEG)


SETS: tuple[type[StandIn], ...] = (Segmentation, Detection, Classification)


def _random_size(rng: np.random.Generator) -> tuple[int, int]:
    width, height = rng.integers(128, 161, 2).tolist()
    return width, height
