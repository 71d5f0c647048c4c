"""Targets as data.Sample holds them, for every kind of task, and what a perfect network would answer to them."""

import random

import torch

from data import VOID

CLASSES = ("background", "cat", "dog", "bird")
Target = dict[str, torch.Tensor]


def boxes_target(rows: list[tuple], crowds=()) -> Target:
    """rows: (x1, y1, x2, y2, label); crowds: numbers of the rows that are crowds, or are cut off."""
    flags = [number in crowds for number in range(len(rows))]
    return {
        "boxes": torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64),
        "iscrowd": torch.tensor(flags, dtype=torch.bool),
    }


def mask_target(mask) -> Target:
    return {"mask": torch.as_tensor(mask, dtype=torch.uint8)}


def some_targets(kind: str, size: int = 64, seed: int = 0) -> list[Target]:
    """Three targets in a square frame: objects big enough, and far enough apart, to be learned at stride 8."""
    make = {"segmentation": _masks, "detection": _boxes, "classification": _labels}[kind]
    return make(size, random.Random(seed))


def _masks(size: int, rng: random.Random) -> list[Target]:
    """Blocks of a third of the side, void between them."""
    masks = []
    for _ in range(3):
        mask = torch.full((size, size), VOID)
        for y in range(0, size, 24):
            for x in range(0, size, 24):
                mask[y : y + 16, x : x + 16] = rng.randrange(len(CLASSES))
        masks.append(mask_target(mask))
    return masks


def _boxes(size: int, rng: random.Random) -> list[Target]:
    """One box in each of three quarters, one of them a crowd; the second image is empty."""
    half = size // 2
    targets = []
    for image in range(3):
        rows = []
        for x, y in ((0, 0), (half, 0), (0, half)) if image != 1 else ():
            left, top = x + rng.uniform(1, 6), y + rng.uniform(1, 6)
            width, height = rng.uniform(14, 24), rng.uniform(14, 24)
            rows.append((left, top, left + width, top + height, rng.randrange(len(CLASSES))))
        targets.append(boxes_target(rows, crowds={2} if image == 2 else ()))
    return targets


def _labels(size: int, rng: random.Random) -> list[Target]:
    return [{"label": torch.tensor(label)} for label in rng.sample(range(len(CLASSES)), 3)]


def as_prediction(target: Target) -> dict[str, torch.Tensor]:
    """The target as a task's `decode` would give it, certain of everything; crowds are not predicted."""
    if "mask" in target:
        return {"mask": torch.where(target["mask"] == VOID, 0, target["mask"])}
    if "label" in target:
        return {"probabilities": torch.eye(len(CLASSES))[target["label"]]}
    real = ~target["iscrowd"]
    return {"boxes": target["boxes"][real], "labels": target["labels"][real], "scores": torch.ones(int(real.sum()))}
