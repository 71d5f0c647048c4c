"""Both detectors: assignment, losses and decoding against brute force, cell by cell; crowds, empty images, NMS."""

import math
import random

import pytest
import torch
from samples import CLASSES, boxes_target
from torchvision.ops import batched_nms

import registry
from boxes import assign_centre_sampling, cell_centres, ltrb_to_xyxy, pad_boxes, select_boxes
from models import build
from tasks import Task

STRIDE = 8
DETECTORS = [name for name in registry.names(Task) if name.startswith("detection")]


@pytest.fixture(params=DETECTORS)
def task(request) -> Task:
    return build(Task, {"name": request.param}, CLASSES)


def random_targets(rng: random.Random, images: int, side: float) -> list[dict]:
    """None to five boxes an image, from smaller than a cell to the whole image, overlapping; some are ignored."""
    targets = []
    for _ in range(images):
        rows = []
        for _ in range(rng.randrange(6)):
            width, height = (side * rng.uniform(0.02, 1) ** 2 for _ in range(2))
            left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
            rows.append((left, top, left + width, top + height, rng.randrange(len(CLASSES))))
        targets.append(boxes_target(rows, crowds={n for n in range(len(rows)) if rng.random() < 0.25}))
    return targets


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def cells_of(raw: torch.Tensor):
    """image, row, column, centre x, centre y, values of each cell of a raw prediction."""
    for image, plane in enumerate(raw.tolist()):
        for y in range(len(plane[0])):
            for x in range(len(plane[0][0])):
                yield image, y, x, (x + 0.5) * STRIDE, (y + 0.5) * STRIDE, [channel[y][x] for channel in plane]


def contains(box, x: float, y: float) -> bool:
    return box[0] < x < box[2] and box[1] < y < box[3]


def assign_by_loop(centres, target: dict, radius: float) -> tuple[list[int], list[bool]]:
    owner, smallest = [-1] * len(centres), [math.inf] * len(centres)
    boxes, ignored = target["boxes"].tolist(), target["iscrowd"].tolist()
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        far = [max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) for x, y in centres]
        near = [a for a, (x, y) in enumerate(centres) if contains(boxes[number], x, y) and far[a] < radius * STRIDE]
        for cell in near or [far.index(min(far))]:
            if not ignored[number] and (x2 - x1) * (y2 - y1) < smallest[cell]:
                owner[cell], smallest[cell] = number, (x2 - x1) * (y2 - y1)
    regions = [box for box, flag in zip(boxes, ignored, strict=True) if flag]
    return owner, [owner[a] < 0 and any(contains(box, x, y) for box in regions) for a, (x, y) in enumerate(centres)]


@pytest.mark.parametrize("radius", [0.6, 1.5, 3.0])
def test_assignment_is_that_of_a_loop_over_boxes_and_cells(radius):
    rng = random.Random(0)
    positives = ignored = shared = 0
    for _ in range(20):
        targets = random_targets(rng, 4, 64)
        boxes, _, ignore = pad_boxes(targets, "cpu")
        centres = cell_centres(8, 8, STRIDE)
        index, skipped = assign_centre_sampling(centres, boxes, ignore, STRIDE, radius)
        for image, target in enumerate(targets):
            owner, regions = assign_by_loop(centres.tolist(), target, radius)
            assert index[image].tolist() == owner
            assert skipped[image].tolist() == regions
            positives += sum(number >= 0 for number in owner)
            ignored += sum(regions)
            shared += len(set(owner) - {-1}) > 1
    assert min(positives, ignored, shared) > 20  # the case was there


def test_a_box_smaller_than_a_cell_gets_the_nearest_one():
    boxes = torch.tensor([[[17.0, 33.0, 19.0, 35.0]]])  # holds no centre; (20, 36) is the nearest
    index, _ = assign_centre_sampling(cell_centres(8, 8, STRIDE), boxes, torch.tensor([[False]]), STRIDE, 1.5)
    assert (index[0] >= 0).nonzero().flatten().tolist() == [4 * 8 + 2]


def giou_loss(a, b) -> float:
    inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return 1 - (inter / union - (hull - union) / hull)


def anchor_free_by_loop(raw, targets: list[dict], radius: float, box_weight: float, class_weight: float) -> dict:
    centres = cell_centres(*raw.shape[-2:], STRIDE).tolist()
    assigned = [assign_by_loop(centres, target, radius) for target in targets]
    focal = box_loss = centre_loss = quality_sum = 0.0
    positives = sum(number >= 0 for owner, _ in assigned for number in owner)
    for image, y, x, cx, cy, values in cells_of(raw):
        cell = y * raw.shape[-1] + x
        owner, skipped = assigned[image][0][cell], assigned[image][1][cell]
        for label, logit in enumerate(values[5:]):
            if owner >= 0 and int(targets[image]["labels"][owner]) == label:
                focal += 0.25 * (1 - sigmoid(logit)) ** 2 * -math.log(sigmoid(logit))
            elif not skipped:
                focal += 0.75 * sigmoid(logit) ** 2 * -math.log(1 - sigmoid(logit))
        if owner >= 0:
            x1, y1, x2, y2 = targets[image]["boxes"][owner].tolist()
            left, top, right, bottom = cx - x1, cy - y1, x2 - cx, y2 - cy
            quality = 0.0
            if min(left, top, right, bottom) > 0:
                quality = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
            quality = max(math.sqrt(quality), 0.1)
            ltrb = [math.exp(v) * STRIDE for v in values[:4]]
            box_loss += quality * giou_loss((cx - ltrb[0], cy - ltrb[1], cx + ltrb[2], cy + ltrb[3]), (x1, y1, x2, y2))
            probability = sigmoid(values[4])
            centre_loss -= quality * math.log(probability) + (1 - quality) * math.log(1 - probability)
            quality_sum += quality
    count = max(positives, 1)
    box_loss *= box_weight / max(quality_sum, 1.0)
    return {"class": class_weight * focal / count, "box": box_loss, "centerness": centre_loss / count}


def grid_by_loop(raw, targets: list[dict], box_weight: float, empty_weight: float) -> dict[str, float]:
    width, height = raw.shape[-1] * STRIDE, raw.shape[-2] * STRIDE
    box_loss = objectness = class_loss = 0.0
    objects = 0
    for image, y, x, cx, cy, values in cells_of(raw):
        rows = list(zip(*(targets[image][key].tolist() for key in ("boxes", "labels", "iscrowd")), strict=True))
        inside = [
            (box, label)
            for box, label, ignored in rows
            if not ignored and (int((box[0] + box[2]) / 2 // STRIDE), int((box[1] + box[3]) / 2 // STRIDE)) == (x, y)
        ]
        if not inside:
            if not any(ignored and contains(box, cx, cy) for box, _, ignored in rows):
                objectness -= empty_weight * math.log(1 - sigmoid(values[4]))
            continue
        box, label = max(inside, key=lambda item: (item[0][2] - item[0][0]) * (item[0][3] - item[0][1]))
        objects += 1
        objectness -= math.log(sigmoid(values[4]))
        wanted = [(box[0] + box[2]) / 2 / STRIDE - x, (box[1] + box[3]) / 2 / STRIDE - y]
        wanted += [math.sqrt((box[2] - box[0]) / width), math.sqrt((box[3] - box[1]) / height)]
        box_loss += box_weight * sum((sigmoid(v) - w) ** 2 for v, w in zip(values[:4], wanted, strict=True))
        class_loss += math.log(sum(math.exp(v) for v in values[5:])) - values[5 + label]
    count = max(objects, 1)
    return {"box": box_loss / count, "objectness": objectness / count, "class": class_loss / count}


@pytest.mark.parametrize(
    ("name", "options", "by_loop"),
    [
        ("detection_anchor_free", {"radius": 1.2, "box_weight": 3.0, "class_weight": 0.7}, anchor_free_by_loop),
        ("detection_grid", {"box_weight": 3.0, "empty_weight": 0.3}, grid_by_loop),
    ],
)
def test_losses_are_those_of_a_loop_over_cells(name, options, by_loop):
    task = build(Task, {"name": name, **options}, CLASSES)
    rng = random.Random(1)
    torch.manual_seed(1)
    for _ in range(12):
        targets = random_targets(rng, 3, 32)
        raw = torch.randn(3, 5 + len(CLASSES), 4, 4)
        losses = {key: float(value) for key, value in task.losses(raw, targets, STRIDE).items()}
        assert losses == pytest.approx(by_loop(raw, targets, *options.values()), rel=1e-4, abs=1e-5)


def test_a_box_smaller_than_a_cell_is_worth_finding():
    """Its cell's centre may lie outside the box; with quality 0 it would be learned as no object at all."""
    target = {
        "boxes": torch.tensor([[17.0, 33.0, 19.0, 35.0]]),
        "labels": torch.tensor([1]),
        "iscrowd": torch.tensor([False]),
    }
    raw = torch.zeros(1, 5 + len(CLASSES), 8, 8, requires_grad=True)
    losses = build(Task, {"name": "detection_anchor_free"}, CLASSES).losses(raw, [target], STRIDE)
    losses["box"].backward()
    assert raw.grad[0, :4, 4, 2].abs().sum() > 0


def ideal_raw(name: str, target: dict, cells: int) -> torch.Tensor:
    """The raw prediction (1, 5 + classes, cells, cells) of a network that knows the boxes and is sure of them."""
    raw = torch.full((1, 5 + len(CLASSES), cells, cells), -12.0)
    side = cells * STRIDE
    for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        x, y = int((x1 + x2) / 2 // STRIDE), int((y1 + y2) / 2 // STRIDE)
        if name == "detection_grid":
            shares = torch.tensor([(x1 + x2) / 2 / STRIDE - x, (y1 + y2) / 2 / STRIDE - y])
            sizes = torch.tensor([(x2 - x1) / side, (y2 - y1) / side]).sqrt()
            box = torch.cat([shares, sizes]).logit()
        else:
            cx, cy = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
            box = (torch.tensor([cx - x1, cy - y1, x2 - cx, y2 - cy]) / STRIDE).log()
        raw[0, :4, y, x] = box
        raw[0, [4, 5 + label], y, x] = 12.0
    return raw


@pytest.mark.parametrize("size", [(128, 128), (64, 96), (300, 200)])
@pytest.mark.parametrize("name", DETECTORS)
def test_an_ideal_prediction_decodes_to_the_boxes_in_the_original_frame(name, size):
    rows = [(3, 5, 60, 40, 1), (70.5, 12, 120, 66, 0), (10, 70, 50, 121, 3), (88, 90, 104, 106, 1), (57, 82, 83, 91, 2)]
    target = boxes_target(rows)
    found = build(Task, {"name": name}, CLASSES).decode(ideal_raw(name, target, 16), STRIDE, [size])[0]
    sure = found["scores"] > 0.5
    factor = torch.tensor([size[1] / 128, size[0] / 128] * 2)
    got = sorted(zip(found["boxes"][sure].tolist(), found["labels"][sure].tolist(), strict=True))
    wanted = sorted(zip((target["boxes"] * factor).tolist(), target["labels"].tolist(), strict=True))
    assert [label for _, label in got] == [label for _, label in wanted]
    torch.testing.assert_close(
        torch.tensor([b for b, _ in got]), torch.tensor([b for b, _ in wanted]), atol=0.02, rtol=0
    )


def test_empty_images_give_finite_losses_and_teach_that_there_is_nothing(task):
    raw = torch.randn(2, 5 + len(CLASSES), 4, 4, requires_grad=True)
    losses = task.losses(raw, [boxes_target([])] * 2, STRIDE)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(raw.grad).all()
    assert raw.grad.any()
    assert (raw.grad >= 0).all()  # every score falls, nothing else is asked for
    assert not raw.grad[:, :4].any()


def test_cells_inside_a_crowd_or_a_cut_off_object_do_not_train(task):
    """Neither as the object nor as background: the loss does not feel them."""
    crowd = boxes_target([(8, 8, 32, 24, 1), (40, 40, 60, 60, 2)], crowds={0})
    raw = torch.randn(1, 5 + len(CLASSES), 8, 8, requires_grad=True)
    sum(task.losses(raw, [crowd], STRIDE).values()).backward()
    touched = raw.grad[0].abs().sum(0) > 0
    expected = torch.ones(8, 8, dtype=torch.bool)
    expected[1:3, 1:4] = False
    assert torch.equal(touched, expected)


def test_an_object_inside_a_crowd_still_trains(task):
    both = boxes_target([(0, 0, 64, 64, 1), (20, 20, 44, 44, 2)], crowds={0})
    raw = torch.randn(1, 5 + len(CLASSES), 8, 8, requires_grad=True)
    sum(task.losses(raw, [both], STRIDE).values()).backward()
    assert raw.grad[0, :4].any()
    assert raw.grad[0, 5 + 2].min() < 0
    assert (raw.grad[0, 5 + 1] >= 0).all()


@pytest.mark.parametrize("keep", [3, 100, 1000])
@pytest.mark.parametrize("power", [1, 8], ids=["many above the floor", "few"])
def test_the_best_few_suffice_for_nms(keep, power):
    """select_boxes looks at the best boxes first; all at once gives the same."""
    torch.manual_seed(0)
    corner = torch.rand(3, 300, 2) * 50
    boxes, scores = torch.cat([corner, corner + 60 * torch.rand(3, 300, 2)], -1), torch.rand(3, 300, 5) ** power
    scores[1] = 0
    chosen = select_boxes(boxes, scores, 0.05, 0.4, keep, candidates=1000)
    for found, box, score in zip(chosen, boxes, scores, strict=True):
        top, place = score.flatten().topk(1000)
        place = place[top > 0.05]
        order = batched_nms(box[place // 5].double(), top[top > 0.05].double(), place % 5, 0.4)[:keep]
        assert torch.equal(found["scores"], top[order])
        assert torch.equal(found["boxes"], box[place[order] // 5]) and torch.equal(found["labels"], place[order] % 5)


def test_overlapping_boxes_of_one_class_are_one_detection_those_of_two_classes_are_two():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10]]])
    scores = torch.zeros(1, 4, 3)
    scores[0, 0, 1], scores[0, 1, 1], scores[0, 2, 1], scores[0, 3, 2] = 0.9, 0.8, 0.7, 0.6
    (found,) = select_boxes(boxes, scores, 0.05, 0.5, 100)
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert found["labels"].tolist() == [1, 1, 2]
    assert torch.equal(found["boxes"], boxes[0, [0, 2, 3]])
    assert select_boxes(boxes, scores, 0.05, 0.5, 2)[0]["labels"].tolist() == [1, 1]
    assert select_boxes(boxes, scores, 0.65, 0.5, 100)[0]["labels"].tolist() == [1, 1]
    assert select_boxes(boxes, scores, 0.95, 0.5, 100)[0]["boxes"].shape == (0, 4)


def test_boxes_that_leave_the_image_do_not_suppress_those_of_other_classes():
    """torchvision keeps classes apart by shifting them by the largest coordinate: negative ones would reach back."""
    raw = torch.full((1, 5 + len(CLASSES), 8, 8), -12.0)
    raw[0, :4, 4, 4] = (torch.tensor([70.0, 70, 29, 29]) / STRIDE).log()  # class 0, [-34, -34, 65, 65] from (36, 36)
    raw[0, :4, 0, 0] = (torch.tensor([104.0, 104, 1, 1]) / STRIDE).log()  # class 1, [-100, -100, 5, 5] from (4, 4)
    raw[0, [4, 5], 4, 4] = raw[0, [4, 6], 0, 0] = 12.0
    (found,) = build(Task, {"name": "detection_anchor_free"}, CLASSES).decode(raw, STRIDE, [(64, 64)])
    sure = found["scores"] > 0.5
    assert sorted(found["labels"][sure].tolist()) == [0, 1]
    assert sorted(found["boxes"][sure].flatten().tolist()) == pytest.approx([0, 0, 0, 0, 5, 5, 64, 64])


def test_cells_and_distances_are_in_pixels_x_before_y():
    centres = cell_centres(2, 3, STRIDE)
    assert centres.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert ltrb_to_xyxy(centres[1], torch.tensor([1.0, 2, 3, 4])).tolist() == [11, 2, 15, 8]
