"""Tiny sets in every layout, and the means to break them: what the tests of readers and of DL_data.check stand on."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data import VOID
from data.coco import Coco
from data.imagefolder import ImageFolder
from data.validate import findings, open_with_findings
from data.voc import Voc

WIDTH, HEIGHT = 12, 10
SPLITS = {"train": ("a", "b", "c"), "val": ("d", "e")}
CATEGORIES = {"cat": 7, "bird": 3, "dog": 90}  # name → id: with gaps, not in the order of the names
BOXES = [("cat", [1, 2, 4, 3], 0), ("dog", [-2, 4, 6, 20], 0), ("bird", [0, 0, 12, 10], 1)]  # name, xywh, iscrowd


def photo(path: Path, seed: str, size=(WIDTH, HEIGHT)) -> Path:
    """A picture of coarse random blocks; equal seeds give equal pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(list(seed.encode())).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size).save(path)
    return path


def mask_values(name: str) -> np.ndarray:
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    values[2:6, 1:9] = 1 + ord(name) % 3
    values[6, 1:9] = VOID
    return values


def write_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(values)
    mask.putpalette([(17 * value) % 256 for value in range(768)])
    mask.save(path)


def write_voc(root: Path, layout: str) -> Path:
    folder = root / "mini_voc_seg"
    for split, names in SPLITS.items():
        images, masks = {
            "lists": ("JPEGImages", "SegmentationClass"),
            "folders": (f"{split}/JPEGImages", f"{split}/SegmentationClass"),
            "side by side": (split, split),
        }[layout]
        for name in names:
            photo(folder / images / f"{name}.jpg", f"voc {name}")
            write_mask(folder / masks / f"{name}.png", mask_values(name))
        if layout == "lists":
            write_list(folder, f"{split}.txt", names[::-1])
    return folder


def write_list(folder: Path, name: str, ids) -> Path:
    path = folder / "ImageSets" / "Segmentation" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id_}\n" for id_ in ids))
    return path


def coco_index(split: str) -> dict:
    """Every image but the last of its split carries BOXES; the last has no objects."""
    names = SPLITS[split]
    images = [
        {"id": 10 + n, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names)
    ]
    annotations = [
        {"image_id": image["id"], "category_id": CATEGORIES[name], "bbox": box, "iscrowd": crowd}
        for image in images[:-1]
        for name, box, crowd in BOXES
    ]
    return {
        "images": images[::-1],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations)],
        "categories": [{"id": number, "name": name} for name, number in CATEGORIES.items()],
    }


def write_coco(root: Path, layout: str) -> Path:
    folder = root / "mini_coco_det"
    for split, names in SPLITS.items():
        images, file = {
            "images": (f"images/{split}", f"annotations/instances_{split}.json"),
            "split": (split, f"annotations/instances_{split}.json"),
            "labels.json": (f"{split}/data", f"{split}/labels.json"),
        }[layout]
        for name in names:
            photo(folder / images / f"{name}.jpg", f"coco {name}")
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(coco_index(split)))
    return folder


def write_imagefolder(root: Path, name: str) -> Path:
    folder = root / name
    for split, names in SPLITS.items():
        for wnid in ("n02102040", "n01440764"):
            for image, suffix in zip(names, (".JPEG", ".png", ".jpg"), strict=False):
                photo(folder / split / wnid / f"{image}{suffix}", f"cls {wnid} {image}")
    return folder


LAYOUTS = [
    *((Voc, write_voc, layout) for layout in ("lists", "folders", "side by side")),
    *((Coco, write_coco, layout) for layout in ("images", "split", "labels.json")),
    *((ImageFolder, write_imagefolder, layout) for layout in ("imagenette-160", "imagenette_160")),
]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_all(root: Path) -> Path:
    write_voc(root, "lists")
    write_coco(root, "images")
    write_imagefolder(root, "imagenette-160")
    return root


def everything_wrong(reader, root: Path, split: str, classes=None) -> list[str]:
    dataset, found = open_with_findings(reader, root, split, classes)
    return found + (findings(dataset) if dataset else [])


def assert_found(found: list[str], expected: list[tuple[str, ...]]) -> None:
    """Each expectation (words of one finding) is met by a finding of its own, and nothing else is found."""
    assert len(found) == len(expected), found
    for words in expected:
        assert any(all(word in finding for word in words) for finding in found), (words, found)
