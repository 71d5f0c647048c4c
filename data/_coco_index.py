"""A COCO annotation file, read and checked: every malformed entry is a finding, the rest is usable."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.validate import DataError

LARGEST = 1e9  # pixels; beyond it a coordinate is as good as infinite
SECTIONS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Object:
    """One annotated box, clipped to its image: xyxy in pixels. area: the annotation's (COCO's: of the mask), else the box's."""

    box_xyxy: tuple[float, float, float, float]
    area: float
    category_id: int
    iscrowd: bool


@dataclass
class Entry:
    """One image as the file describes it."""

    file_name: str
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)


@dataclass(frozen=True)
class Index:
    """What a COCO file says: `categories` is name → id in the order of the ids; `findings` what had to be left out."""

    images: list[Entry]
    categories: dict[str, int]
    findings: list[str]


def read_index(file: Path) -> Index:
    """Parse the file. DataError if it is not COCO JSON at all or lists no image or category; else see `Index`."""
    sections = _sections(file)
    found: list[str] = []
    categories = _categories(sections["categories"], found)
    images = _images(sections["images"], found)
    _fill_objects(sections, images, categories, found)
    return Index(list(images.values()), categories, [f"{file}: {finding}" for finding in found])


def _sections(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: bad JSON or bad UTF-8
        raise DataError([f"{file}: unreadable JSON ({error}); expected a COCO annotation file"]) from error
    if not isinstance(content, dict):
        raise DataError([f"{file}: holds a {type(content).__name__}, expected an object with {', '.join(SECTIONS)}"])
    wrong = [f"{file}: '{name}' is not a list" for name in SECTIONS if not isinstance(content.get(name), list)]
    wrong += [f"{file}: lists no {name}" for name in ("images", "categories") if content.get(name) == []]
    if wrong:
        raise DataError([f"{finding}; expected {', '.join(SECTIONS)} as in COCO" for finding in wrong])
    return content


def _categories(entries: list[Any], found: list[str]) -> dict[str, int]:
    ids: dict[int, str] = {}
    for name, entry in _objects(entries, "category", found):
        if not _is_int(entry.get("id")) or not isinstance(entry.get("name"), str) or not entry["name"]:
            found.append(f"{name}: expected an integer 'id' and a 'name'")
        elif entry["id"] in ids:
            found.append(f"{name}: duplicate category id (also '{ids[entry['id']]}')")
        elif entry["name"] in ids.values():
            found.append(f"{name}: duplicate category name '{entry['name']}'")
        else:
            ids[entry["id"]] = entry["name"]
    return {ids[number]: number for number in sorted(ids)}


def _images(entries: list[Any], found: list[str]) -> dict[int, Entry]:
    images: dict[int, Entry] = {}
    file_names: set[str] = set()
    for name, entry in _objects(entries, "image", found):
        file_name, width, height = entry.get("file_name"), entry.get("width"), entry.get("height")
        if not _is_int(entry.get("id")) or not isinstance(file_name, str) or not file_name:
            found.append(f"{name}: expected an integer 'id' and a 'file_name'")
        elif not (_is_int(width) and _is_int(height) and width > 0 and height > 0):
            found.append(f"{name}: width {width!r} and height {height!r}, expected positive integers")
        elif entry["id"] in images:
            found.append(f"{name}: duplicate image id ({images[entry['id']].file_name} and {file_name})")
        elif file_name in file_names:
            found.append(f"{name}: duplicate file_name {file_name}")
        else:
            images[entry["id"]] = Entry(file_name, width, height)
            file_names.add(file_name)
    return images


def _fill_objects(
    sections: dict[str, list[Any]], images: dict[int, Entry], categories: dict[str, int], found: list[str]
) -> None:
    """Add each sound annotation to its image. Those of an image or category already found faulty are left out tacitly."""
    image_ids, category_ids = _ids(sections["images"]), _ids(sections["categories"])
    seen: set[int] = set()
    for name, entry in _objects(sections["annotations"], "annotation", found):
        number, image_id, category_id = entry.get("id"), entry.get("image_id"), entry.get("category_id")
        problems = []
        if not _is_int(number):
            problems.append("expected an integer 'id'")
        elif number in seen:
            problems.append("duplicate annotation id")
        else:
            seen.add(number)
        if not _is_int(image_id) or image_id not in image_ids:
            problems.append(f"image_id {image_id!r} is not among the images")
        if not _is_int(category_id) or category_id not in category_ids:
            problems.append(f"unknown category_id {category_id!r}, the file's categories are {sorted(category_ids)}")
        if entry.get("iscrowd", 0) not in (0, 1):
            problems.append(f"iscrowd {entry['iscrowd']!r}, expected 0 or 1")
        area = entry.get("area", 1.0)
        if not (_is_int(area) or isinstance(area, float)) or not 0 <= area < LARGEST**2:
            problems.append(f"area {area!r}, expected a number of pixels, 0 or more")
        image = images.get(image_id) if _is_int(image_id) else None
        box = _clipped(entry.get("bbox"), image, problems)
        if not problems and image is not None and category_id in categories.values():
            area = entry.get("area", (box[2] - box[0]) * (box[3] - box[1]))
            image.objects.append(Object(box, area, category_id, bool(entry.get("iscrowd", 0))))
        found.extend(f"{name}: {problem}" for problem in problems)


def _clipped(bbox: Any, image: Entry | None, problems: list[str]) -> tuple[float, ...] | None:
    """[x, y, width, height] → xyxy inside the image; a finding if there is no such box."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_int(v) or isinstance(v, float) for v in bbox):
        problems.append(f"bbox {bbox!r}, expected four numbers [x, y, width, height]")
        return None
    if not all(abs(value) < LARGEST for value in bbox):  # false for NaN too
        problems.append(f"bbox {bbox} is not finite")
        return None
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        problems.append(f"bbox {bbox} has no area, expected width and height above 0")
        return None
    if image is None:
        return None
    x1, x2 = (min(max(value, 0), image.width) for value in (x, x + width))
    y1, y2 = (min(max(value, 0), image.height) for value in (y, y + height))
    if not (np.float32(x1) < np.float32(x2) and np.float32(y1) < np.float32(y2)):  # as the target stores it
        problems.append(f"bbox {bbox} lies outside its image {image.file_name} ({image.width}x{image.height})")
        return None
    return x1, y1, x2, y2


def _objects(entries: list[Any], kind: str, found: list[str]) -> Iterator[tuple[str, dict]]:
    """Each entry with a name for messages: by its id where it has one, else by its place in the list."""
    for place, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield f"{kind} {entry['id']}" if "id" in entry else f"{kind} at position {place}", entry
        else:
            found.append(f"{kind} at position {place}: {entry!r}, expected an object")


def _ids(entries: list[Any]) -> set[int]:
    return {entry["id"] for entry in entries if isinstance(entry, dict) and _is_int(entry.get("id"))}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
