"""Metrics against counting by hand and against an independent use of the COCO evaluation."""

import random

import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from samples import CLASSES, as_prediction, boxes_target, mask_target, some_targets
from torchmetrics.classification import MulticlassConfusionMatrix

import registry
from data import VOID
from metrics.classification import AccuracyMetric
from metrics.detection import CocoMetric
from metrics.segmentation import IouMetric, confusion
from models import build
from tasks import Task


@pytest.mark.parametrize("name", registry.names(Task))
def test_the_truth_scores_1(name):
    task = build(Task, {"name": name}, CLASSES)
    metric = task.make_metric()
    for seed in range(3):
        targets = some_targets(task.kind, seed=seed)
        metric.update([as_prediction(target) for target in targets], targets)
    scores = metric.compute()
    assert all(scores[headline] == pytest.approx(1) for headline in task.headlines)
    assert all(value == pytest.approx(1) for value in scores.values() if value is not None)


@pytest.mark.parametrize("name", registry.names(Task))
def test_scores_do_not_depend_on_how_the_images_are_batched(name):
    task = build(Task, {"name": name}, CLASSES)
    targets = [target for seed in range(3) for target in some_targets(task.kind, seed=seed)]
    wrong = [as_prediction(target) for target in targets[1:] + targets[:1]]
    together, apart = task.make_metric(), task.make_metric()
    together.update(wrong, targets)
    for prediction, target in zip(wrong, targets, strict=True):
        apart.update([prediction], [target])
    assert apart.compute() == pytest.approx(together.compute())
    assert 0 < together.compute()[task.metric] < 1


def test_iou_by_hand():
    """Truth and prediction pixel by pixel; 3 never occurs, 2 is only predicted."""
    truth = [[0, 0, 0, 1, 1], [1, 1, 1, VOID, VOID]]
    answer = [[0, 1, 2, 1, 0], [1, 0, 2, 2, 0]]
    metric = IouMetric(CLASSES)
    metric.update([mask_target(answer)], [mask_target(truth)])
    scores = metric.compute()
    assert scores["iou/background"] == pytest.approx(1 / 5)  # one hit; two missed, two too many
    assert scores["iou/cat"] == pytest.approx(2 / 6)  # two hits; three missed, one too many
    assert scores["iou/dog"] == 0
    assert scores["iou/bird"] is None
    assert scores["miou"] == pytest.approx((1 / 5 + 2 / 6 + 0) / 3)
    assert scores["miou_fg"] == pytest.approx(
        (2 / 5 + 0) / 2
    )  # the three pixels whose truth is background do not count
    assert scores["pixel_accuracy"] == pytest.approx(3 / 8)


def test_iou_is_of_all_pixels_of_the_split_not_a_mean_over_images():
    metric = IouMetric(CLASSES)
    metric.update([mask_target([[1] * 8])], [mask_target([[1] * 8])])
    metric.update([mask_target([[0, 0]])], [mask_target([[1, 1]])])
    assert metric.compute()["iou/cat"] == pytest.approx(8 / 10)


def test_confusion_is_torchmetrics():
    torch.manual_seed(0)
    truth, answer = torch.randint(0, 4, (2, 40, 30), dtype=torch.uint8)
    truth[torch.rand(40, 30) < 0.2] = VOID
    reference = MulticlassConfusionMatrix(4, ignore_index=VOID)
    reference.update(answer.long(), truth.long())
    assert torch.equal(confusion(truth, answer, 4), reference.compute())


def test_iou_of_an_image_without_foreground_or_without_anything():
    metric = IouMetric(CLASSES)
    metric.update([mask_target([[0, 0]])], [mask_target([[0, 0]])])
    assert metric.compute()["miou"] == 1
    assert metric.compute()["miou_fg"] is None
    metric = IouMetric(CLASSES)
    metric.update([mask_target([[2, 1]])], [mask_target([[VOID, VOID]])])
    assert metric.compute()["miou"] is None


def test_top1_by_hand():
    labels, answers = [0, 0, 0, 1, 1, 2], [0, 1, 0, 1, 1, 0]
    metric = AccuracyMetric(CLASSES)
    probabilities = torch.full((len(answers), len(CLASSES)), 0.1)
    probabilities[range(len(answers)), answers] = 0.7
    for chosen in (slice(0, 4), slice(4, 6)):
        truth = [{"label": torch.tensor(label)} for label in labels[chosen]]
        metric.update([{"probabilities": row} for row in probabilities[chosen]], truth)
    assert metric.compute() == pytest.approx(
        {"top1": 4 / 6, "top1/background": 2 / 3, "top1/cat": 1.0, "top1/dog": 0.0, "top1/bird": None}
    )


def random_detections(rng: random.Random, images: int) -> tuple[list[dict], list[dict]]:
    """Truths with crowds and empty images; predictions near them, doubled, of the wrong class, and out of nowhere.

    Class 3 never occurs as an object; class 2 only in the first half of the images.
    """
    truths, predictions = [], []
    for number in range(images):
        rows, found = [], []
        for _ in range(rng.randrange(5)):
            x, y, w, h = rng.uniform(0, 200), rng.uniform(0, 150), rng.uniform(8, 150), rng.uniform(8, 150)
            rows.append((x, y, x + w, y + h, rng.choice((0, 1, 2) if number < images // 2 else (0, 1))))
        for x1, y1, x2, y2, label in rows:
            for _ in range(rng.choice((0, 1, 1, 2))):
                shift = [rng.gauss(0, 0.12) * side for side in (x2 - x1, y2 - y1) * 2]
                box = (x1 + shift[0], y1 + shift[1], x2 + shift[2], y2 + shift[3])
                found.append((*box, label if rng.random() < 0.9 else rng.randrange(4)))
        for _ in range(rng.randrange(3)):
            x, y = rng.uniform(0, 200), rng.uniform(0, 200)
            found.append((x, y, x + rng.uniform(8, 90), y + rng.uniform(8, 90), rng.randrange(4)))
        truth = boxes_target(rows, crowds={n for n in range(len(rows)) if rng.random() < 0.2})
        box_area = (truth["boxes"][:, 2:] - truth["boxes"][:, :2]).prod(-1)
        truths.append({**truth, "area": box_area * rng.uniform(0.2, 1.0)})  # a mask fills its box in part
        prediction = boxes_target(found)
        predictions.append({**prediction, "scores": torch.tensor([rng.random() for _ in found])})
    return truths, predictions


def coco_evaluation(truths: list[dict], predictions: list[dict]) -> COCOeval_faster:
    """The same boxes written as COCO JSON (xywh, ids with gaps) and scored with the reference settings."""

    def annotations(entries: list[dict], keys: tuple[str, ...]) -> list[dict]:
        rows = []
        for image, entry in enumerate(entries):
            for row, (x1, y1, x2, y2) in enumerate(entry["boxes"].tolist()):
                box = [x1, y1, x2 - x1, y2 - y1]
                category = 7 + 10 * int(entry["labels"][row])
                extra = {key.removesuffix("s"): entry[key][row].item() for key in keys}
                rows.append({"image_id": 100 + image, "category_id": category, "bbox": box, **extra})
        return [{"id": number, **row} for number, row in enumerate(rows, start=1)]

    truth = COCO(
        {
            "images": [{"id": 100 + number, "width": 400, "height": 400} for number in range(len(truths))],
            "categories": [{"id": 7 + 10 * label, "name": name} for label, name in enumerate(CLASSES)],
            "annotations": [{**a, "iscrowd": int(a["iscrowd"])} for a in annotations(truths, ("iscrowd", "area"))],
        }
    )
    evaluation = COCOeval_faster(
        truth, truth.loadRes(annotations(predictions, ("scores",))), "bbox", print_function=lambda *_: 0
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def test_average_precision_is_cocos():
    truths, predictions = random_detections(random.Random(0), 300)
    assert sum(int(t["iscrowd"].sum()) for t in truths) > 5
    assert any(len(t["boxes"]) == 0 for t in truths)
    metric = CocoMetric(CLASSES)
    for start in range(0, len(truths), 16):
        metric.update(predictions[start : start + 16], truths[start : start + 16])
    scores = metric.compute()
    evaluation = coco_evaluation(truths, predictions)
    names = ("ap", "ap50", "ap75", "ap/small", "ap/medium", "ap/large")
    assert [scores[name] for name in names] == pytest.approx(list(evaluation.stats[:6]), abs=1e-6)
    assert 0.1 < scores["ap"] < scores["ap50"] < 0.9
    precision = evaluation.eval["precision"][..., 0, -1].mean(1)  # (IoU .50, .55, ...; class)
    assert (precision[0, :3] > precision[1, :3]).all()
    assert [scores[f"ap50/{name}"] for name in CLASSES[:3]] == pytest.approx(precision[0, :3].tolist(), abs=1e-6)
    assert scores["ap50/bird"] is None


def test_crowds_neither_count_as_missed_nor_punish_what_is_found_in_them():
    truth = boxes_target([(0, 0, 10, 10, 1), (20, 20, 90, 90, 1)], crowds={1})
    found = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [30, 30, 45, 45], [50, 50, 70, 70]]),
        "labels": torch.tensor([1, 1, 1]),
    }
    for scores in ([0.5, 0.9, 0.8], [0.9, 0.2, 0.1]):
        metric = CocoMetric(CLASSES)
        metric.update([{**found, "scores": torch.tensor(scores)}], [truth])
        assert metric.compute()["ap50"] == pytest.approx(1)


def test_average_precision_with_nothing_found_is_0_and_with_nothing_to_find_undefined():
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    one = boxes_target([(0, 0, 10, 10, 1)])
    metric = CocoMetric(CLASSES)
    metric.update([nothing, nothing], [one, boxes_target([])])
    scores = metric.compute()
    assert (scores["ap50"], scores["ap"], scores["ap50/cat"], scores["ap50/dog"]) == (0, 0, 0, None)
    metric = CocoMetric(CLASSES)
    metric.update([{**as_prediction(one)}, nothing], [boxes_target([]), boxes_target([(0, 0, 9, 9, 2)], crowds={0})])
    assert set(metric.compute().values()) == {None}
