"""The originals of the three sets: where they lie, and how a mini set is cut from each.

Train images come from an original's train split, val images from its val split. Archives are read member by member and
written under names made here, from patterns without separators: a path inside an archive is never followed.
"""

import json
import re
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image
from tqdm import tqdm

from data import VOID, Dataset
from data.coco import Coco
from data.decode import read_image
from data.imagefolder import IMAGENETTE, ImageFolder
from data.voc import VOC_CLASSES, Voc
from DL_data.cut import balanced_cut
from download import Source

COCO_CLASSES = ("person", "car", "bird", "cat", "dog", "bottle", "cup", "chair", "dining table", "book")
COCO_URL = "http://images.cocodataset.org"
COCO_BULK = frozenset({"segmentation", "license", "flickr_url", "coco_url", "date_captured"})


@dataclass(frozen=True)
class Order:
    """What the builders are told: the cut's seed, the images per split, and how to get further files."""

    seed: int
    counts: Mapping[str, int]
    fetch: Callable[[Sequence[Source]], list[Path]]


@dataclass(frozen=True)
class MiniSet:
    """One of the three sets: what it is cut from, how, and who reads the result."""

    archive: Source
    build: Callable[[Path, Path, Order], None]
    reader: type[Dataset]


def build_voc(archive: Path, folder: Path, order: Order) -> None:
    """Mini-VOC-Seg: the masks decide which classes an image holds, not the object lists, which name more."""
    pattern = r"VOCdevkit/VOC2012/(ImageSets/Segmentation|JPEGImages|SegmentationClass)/(\w+)\.(?:txt|jpg|png)"
    with tarfile.open(archive) as tar:
        members = _members(tar, pattern)
        for split, count in order.counts.items():
            listed = tar.extractfile(members["ImageSets/Segmentation", split]).read().decode().split()
            masks = {name: tar.extractfile(members["SegmentationClass", name]) for name in listed}
            labels = {name: _mask_values(mask) for name, mask in tqdm(masks.items(), split, disable=None, leave=False)}
            chosen = balanced_cut(labels, range(1, len(VOC_CLASSES) + 1), count, order.seed)
            for name in chosen:
                for place, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
                    content = tar.extractfile(members[place, name]).read()
                    _write(folder / place / f"{name}.{suffix}", content)
            _write(folder / "ImageSets" / "Segmentation" / f"{split}{count}.txt", "\n".join([*chosen, ""]).encode())


def build_imagenette(archive: Path, folder: Path, order: Order) -> None:
    """Imagenette-160: equally many of each class, as `balanced_cut` gives where an image has one class."""
    with tarfile.open(archive) as tar:
        members = _members(tar, r"imagenette2-160/(train|val)/(n\d{8})/(\w+\.JPEG)")
        chosen = []
        for split, count in order.counts.items():
            labels = {f"{label}/{name}": {label} for part, label, name in members if part == split}
            chosen += [(split, *key.split("/")) for key in balanced_cut(labels, sorted(IMAGENETTE), count, order.seed)]
        for key in sorted(chosen, key=lambda key: members[key].offset):  # a gzip cannot go back without starting anew
            _write(folder.joinpath(*key), tar.extractfile(members[key]).read())


def build_coco(archive: Path, folder: Path, order: Order) -> None:
    """Mini-COCO-Det: annotations cut down to ten categories, numbered 1..10; images one by one."""
    images: dict[Path, Source] = {}
    for split, count in order.counts.items():
        with zipfile.ZipFile(archive) as content, content.open(f"annotations/instances_{split}2017.json") as file:
            index = json.load(file, object_hook=_without_bulk)
        cut = _cut_coco(index, count, order.seed)
        _write(folder / "annotations" / f"instances_{split}.json", json.dumps(cut).encode())
        for name in (f"{split}2017/{image['file_name']}" for image in cut["images"]):
            images[folder / "images" / split / Path(name).name] = Source(name, (f"{COCO_URL}/{name}",))
    for target, file in zip(images, order.fetch(list(images.values())), strict=True):
        read_image(file)  # single images have no checksum; UserError names the file in the cache
        _write(target, file.read_bytes())


def _cut_coco(index: dict, count: int, seed: int) -> dict:
    """The chosen images of a COCO index with all their objects of the ten categories, crowds among them.

    An image counts as showing a category by its single objects, not its crowds. Two images of COCO 2017 have a box
    without area (cocoapi issue 355); such an image is not chosen, since its labels are wrong.
    """
    numbers = {
        category["id"]: COCO_CLASSES.index(category["name"]) + 1
        for category in index["categories"]
        if category["name"] in COCO_CLASSES
    }
    objects = defaultdict(list)
    for item in index["annotations"]:
        if item["category_id"] in numbers:
            objects[item["image_id"]].append({**item, "category_id": numbers[item["category_id"]]})
    sound = {
        f"{image['id']:012d}.jpg": image
        for image in index["images"]
        if all(item["bbox"][2] > 0 and item["bbox"][3] > 0 for item in objects[image["id"]])
    }
    labels = {
        name: {item["category_id"] for item in objects[image["id"]] if not item["iscrowd"]}
        for name, image in sound.items()
    }
    chosen = balanced_cut(labels, range(1, len(COCO_CLASSES) + 1), count, seed)
    kept = [item for name in chosen for item in objects[sound[name]["id"]]]
    fields = ("image_id", "category_id", "bbox", "area", "iscrowd")
    return {
        "images": [
            {**{key: sound[name][key] for key in ("id", "width", "height")}, "file_name": name} for name in chosen
        ],
        "annotations": [{"id": number, **{key: item[key] for key in fields}} for number, item in enumerate(kept, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(COCO_CLASSES, 1)],
    }


def _members(tar: tarfile.TarFile, pattern: str) -> dict[tuple[str, ...], tarfile.TarInfo]:
    """The plain files of an archive whose path fits `pattern`, by its groups."""
    fitting = ((re.fullmatch(pattern, member.name), member) for member in tar if member.isreg())
    return {match.groups(): member for match, member in fitting if match}


def _mask_values(mask: IO[bytes]) -> set[int]:
    with Image.open(mask) as image:
        return {value for _, value in image.getcolors()} - {0, VOID}


def _without_bulk(entry: dict) -> dict:
    """Drops what is not used while the JSON is still being parsed: outlines are most of it."""
    return {key: value for key, value in entry.items() if key not in COCO_BULK}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# Where the checksums come from. VOC and Imagenette: pinned by torchvision 0.29 (datasets/voc.py and imagenette.py).
# COCO publishes none; this one is pinned by MLCommons (mlcommons/mlperf-automations, script/get-dataset-coco) and many
# other public projects. Single COCO images have no published checksum: they are decoded, and their sizes compared with
# the annotations. No archive could be downloaded where this was written, so none was compared at first hand.
SETS = {
    "seg": MiniSet(
        Source(
            "VOCtrainval_11-May-2012.tar",
            (
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            ),
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
        ),
        build_voc,
        Voc,
    ),
    "det": MiniSet(
        Source(
            "annotations_trainval2017.zip",
            (f"{COCO_URL}/annotations/annotations_trainval2017.zip",),
            "md5:f4bbac642086de4f52a3fdda2de5fa2c",
            note="the next run lists the images to fetch",
        ),
        build_coco,
        Coco,
    ),
    "cls": MiniSet(
        Source(
            "imagenette2-160.tgz",
            ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",),
            "md5:e793b78cc4c9e9a4ccc0c1155377a412",
        ),
        build_imagenette,
        ImageFolder,
    ),
}
