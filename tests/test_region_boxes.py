"""Boxes around the regions of a mask, and the segmentation that learns them besides."""

import random

import pytest
import torch
from samples import CLASSES, some_targets
from torch import nn

from data import VOID
from errors import UserError
from models import build
from tasks import Task
from tasks._regions import region_boxes

STRIDE = 8


def found(rows: list[str], least: int = 0) -> list[tuple]:
    """Rows of digits, # for void → sorted (x0, y0, x1, y1, label, ignored)."""
    mask = torch.tensor([[VOID if cell == "#" else int(cell) for cell in row] for row in rows], dtype=torch.uint8)
    return as_tuples(region_boxes(mask, least))


def as_tuples(target: dict) -> list[tuple]:
    values = zip(target["boxes"].tolist(), target["labels"].tolist(), target["iscrowd"].tolist(), strict=True)
    return sorted((*map(int, box), label, crowd) for box, label, crowd in values)


@pytest.mark.parametrize(
    ("rows", "expected"),
    {
        "nothing": (["000", "0#0"], []),
        "corners touch": (["100", "010", "001"], [(0, 0, 3, 3, 0, False)]),
        "classes touch": (["1122", "1122"], [(0, 0, 2, 2, 0, False), (2, 0, 4, 2, 1, False)]),
        "void parts them": (["1#1", "1#1"], [(0, 0, 1, 2, 0, False), (2, 0, 3, 2, 0, False)]),
        "joined late, from both sides": (["101", "101", "111"], [(0, 0, 3, 3, 0, False)]),
        "one around another": (["111", "121", "111"], [(0, 0, 3, 3, 0, False), (1, 1, 2, 2, 1, False)]),
        "at a line's end and the next one's start": (["001", "100"], [(0, 1, 1, 2, 0, False), (2, 0, 3, 1, 0, False)]),
    }.values(),
)
def test_regions_by_hand(rows, expected):
    assert found(rows) == expected


def test_small_regions_are_to_be_ignored():
    assert found(["1100", "1002"], least=3) == [(0, 0, 2, 2, 0, False), (3, 1, 4, 2, 1, True)]


def by_flooding(mask: torch.Tensor) -> list[tuple]:
    height, width = mask.shape
    left = {(y, x) for y in range(height) for x in range(width) if mask[y, x] not in (0, VOID)}
    regions = []
    while left:
        open_, region = [left.pop()], []
        label = int(mask[open_[0]])
        while open_:
            y, x = open_.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            joined = {place for place in near if int(mask[place]) == label}
            left -= joined
            open_ += joined
        ys, xs = zip(*region, strict=True)
        regions.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1, label - 1, False))
    return sorted(regions)


def test_regions_against_flooding():
    rng = random.Random(0)
    for _ in range(60):
        height, width = rng.randint(1, 14), rng.randint(1, 14)
        values = rng.choices([0, 1, 2, VOID], [5, 3, 2, 1], k=height * width)
        mask = torch.tensor(values, dtype=torch.uint8).reshape(height, width)
        assert as_tuples(region_boxes(mask, 0)) == by_flooding(mask)


@pytest.fixture
def pair() -> tuple[Task, Task]:
    return tuple(build(Task, {"name": "segmentation", "region_boxes": weight}, CLASSES) for weight in (0.0, 1.0))


def test_masks_are_learned_distilled_and_decoded_as_without_boxes(pair):
    plain, task = pair
    torch.manual_seed(0)
    predictor = task.build_predictor(12, STRIDE, nn.BatchNorm2d)
    raw, other = predictor(torch.rand(2, 12, 8, 8)), predictor(torch.rand(2, 12, 8, 8))
    masks, targets = raw[:, : len(CLASSES)], some_targets("segmentation")[:2]
    expected = plain.losses(masks, targets, STRIDE)
    losses = task.losses(raw, targets, STRIDE)
    assert torch.equal(losses["cross_entropy"], expected["cross_entropy"])
    assert losses.keys() - expected.keys() == {"region_class", "region_box", "region_centerness"}
    assert task.replay_losses(raw, targets, STRIDE).keys() == expected.keys()
    distance = plain.distill_loss(masks, other[:, : len(CLASSES)], 2.0)
    assert torch.equal(task.distill_loss(raw, other, 2.0), distance)
    for one, same in zip(
        task.decode(raw, STRIDE, [(9, 7)] * 2), plain.decode(masks, STRIDE, [(9, 7)] * 2), strict=True
    ):
        assert torch.equal(one["mask"], same["mask"])


def test_box_losses_are_the_detectors_on_the_masks_regions(pair):
    task = build(Task, {"name": "segmentation", "region_boxes": 0.5}, CLASSES)
    detector = build(Task, {"name": "detection_anchor_free"}, CLASSES[1:])
    torch.manual_seed(0)
    raw, target = torch.randn(1, 2 * len(CLASSES) + 4, 8, 8), some_targets("segmentation")[0]
    losses = task.losses(raw, [target], STRIDE)
    for name, value in detector.losses(raw[:, len(CLASSES) :], [region_boxes(target["mask"], 48)], STRIDE).items():
        assert losses[f"region_{name}"] == pytest.approx(0.5 * float(value))


def test_a_weight_below_0_is_refused():
    with pytest.raises(UserError, match="region_boxes is -1.0, expected 0 or more"):
        build(Task, {"name": "segmentation", "region_boxes": -1.0}, CLASSES)
