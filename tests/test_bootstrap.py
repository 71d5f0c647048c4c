"""Bootstrap intervals: every metric on multisets of images against the metric itself fed with the drawn images one by one."""

import random

import numpy as np
import pytest
import torch
from samples import CLASSES, as_prediction, boxes_target, some_targets
from test_metrics import random_detections

from data import VOID
from metrics._matching import match
from metrics.classification import AccuracyMetric
from metrics.detection import CocoMetric
from metrics.segmentation import IouMetric
from reporting import bootstrap
from reporting.bootstrap import draw_counts, paired_drop


def masks(seed: int, images: int = 9) -> tuple[list[dict], list[dict]]:
    """Truths with void, a class (3) in the first image only; answers that are right in most pixels."""
    rng = np.random.default_rng(seed)
    truths, answers = [], []
    for number in range(images):
        truth = rng.integers(0, 4 if number == 0 else 3, (6, 7))
        answer = np.where(rng.random((6, 7)) < 0.7, truth, rng.integers(0, 3, (6, 7)))
        truths.append({"mask": torch.tensor(np.where(rng.random((6, 7)) < 0.1, VOID, truth), dtype=torch.uint8)})
        answers.append({"mask": torch.tensor(answer, dtype=torch.uint8)})
    return truths, answers


def labels(seed: int, images: int = 12) -> tuple[list[dict], list[dict]]:
    generator = torch.Generator().manual_seed(seed)
    truths = [{"label": torch.tensor(number % 4)} for number in range(images)]
    logits = torch.randn(images, 4, generator=generator)
    logits[range(images), [number % 4 for number in range(images)]] += 1
    return truths, [{"probabilities": row} for row in logits.softmax(1)]


def boxes(seed: int, images: int = 14) -> tuple[list[dict], list[dict]]:
    return random_detections(random.Random(seed), images)


CASES = {"miou": (IouMetric, masks), "top1": (AccuracyMetric, labels), "ap50": (CocoMetric, boxes)}


def score_of(metric_class, name: str, truths: list[dict], answers: list[dict], drawn) -> float:
    """The slow way: a new metric, fed with every drawn image as often as it was drawn."""
    metric = metric_class(CLASSES)
    metric.update([answers[i] for i in drawn], [truths[i] for i in drawn])
    value = metric.compute()[name]
    return np.nan if value is None else value


def per_image(metric_class, truths, answers):
    record = metric_class(CLASSES).per_image()
    for truth, answer in zip(truths, answers, strict=True):
        record.update([answer], [truth])
    return record


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_resampled_scores_are_the_metrics_own(name, seed):
    metric_class, make = CASES[name]
    truths, answers = make(seed)
    record = per_image(metric_class, truths, answers)
    assert len(record) == len(truths)
    counts = draw_counts(len(truths), resamples=8, seed=seed)
    counts = np.concatenate([np.ones((1, len(truths)), dtype=int), counts])
    slow = [score_of(metric_class, name, truths, answers, np.repeat(np.arange(len(truths)), row)) for row in counts]
    assert record.resampled(counts) == pytest.approx(slow, abs=1e-6)
    assert len({round(value, 4) for value in slow}) > 2  # or equal values would prove little


def test_ap50_of_many_images_with_crowds_is_cocos():
    truths, answers = random_detections(random.Random(7), 250)
    record = per_image(CocoMetric, truths, answers)
    slow = score_of(CocoMetric, "ap50", truths, answers, range(250))
    assert record.resampled(np.ones((1, 250), dtype=int)) == pytest.approx([slow], abs=1e-6)


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    record = per_image(CocoMetric, *boxes(1))
    counts = draw_counts(len(record), resamples=50)
    whole = record.resampled(counts)
    monkeypatch.setattr("metrics._matching.CELLS", 7)
    assert np.array_equal(record.resampled(counts), whole)


@pytest.mark.parametrize("name", ["miou", "ap50"])
def test_the_score_of_one_image_is_that_of_the_image_alone(name):
    metric_class, make = CASES[name]
    truths, answers = make(5)
    each = per_image(metric_class, truths, answers).each()
    slow = [score_of(metric_class, name, truths, answers, [number]) for number in range(len(truths))]
    assert each == pytest.approx(slow, abs=1e-6, nan_ok=True)


def test_an_images_score_in_classification_is_the_probability_of_its_class():
    truths, answers = labels(0)
    each = per_image(AccuracyMetric, truths, answers).each()
    assert each == pytest.approx([float(a["probabilities"][t["label"]]) for t, a in zip(truths, answers, strict=True)])


def test_interval_against_a_slow_loop():
    """Each resample drawn anew by the same counts, both models scored by the metric, percentiles by sorting."""
    truths, before = masks(1, images=10)
    _, after = masks(2, images=10)
    interval = paired_drop(
        per_image(IouMetric, truths, before), per_image(IouMetric, truths, after), resamples=40, seed=3
    )
    drops, shares = [], []
    for row in draw_counts(10, resamples=40, seed=3):
        drawn = [i for i, count in enumerate(row) for _ in range(count)]
        assert len(drawn) == 10
        first, second = (score_of(IouMetric, "miou", truths, answers, drawn) for answers in (before, after))
        drops.append(100 * (first - second))
        shares.append(100 * (first - second) / first)
    assert interval.points == pytest.approx(np.percentile(drops, [2.5, 97.5]), abs=1e-6)
    assert interval.percent == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=1e-6)
    assert interval.resamples == 40 and interval.points[0] < interval.points[1]


def test_the_same_seed_gives_the_same_interval_and_another_another():
    truths, before = masks(1)
    records = per_image(IouMetric, truths, before), per_image(IouMetric, truths, masks(2)[1])
    assert paired_drop(*records, seed=1) == paired_drop(*records, seed=1) != paired_drop(*records, seed=2)


def test_pairing_leaves_nothing_of_a_difference_that_is_none():
    record = per_image(IouMetric, *masks(1))
    assert paired_drop(record, record).points == (0, 0)


def test_every_image_worse_is_a_drop_beyond_doubt_and_the_sign_is_the_papers():
    truths = [{"label": torch.tensor(0)} for _ in range(20)]
    right, wrong = ([{"probabilities": torch.eye(4)[label]}] * 20 for label in (0, 1))
    good, bad = (per_image(AccuracyMetric, truths, answers) for answers in (right, wrong))
    assert paired_drop(good, bad).points == (100, 100)
    assert paired_drop(bad, good).points == (-100, -100)
    assert paired_drop(bad, good).percent is None  # a baseline of 0 has no percentage


def test_resamples_without_any_object_are_left_out_and_counted():
    truths = [boxes_target([(0, 0, 9, 9, 1)]), boxes_target([])]
    found = [{**as_prediction(truth)} for truth in truths]
    record = per_image(CocoMetric, truths, found)
    interval = paired_drop(record, record, resamples=200)
    assert 120 < interval.resamples < 180  # a quarter draws the empty image twice
    nothing = per_image(CocoMetric, truths[1:], found[1:])
    assert paired_drop(nothing, nothing) is None


def test_other_images_are_refused():
    record = per_image(IouMetric, *masks(1))
    with pytest.raises(ValueError, match="9 and 8 images"):
        paired_drop(record, per_image(IouMetric, *masks(1, images=8)))


def test_a_box_takes_the_free_object_it_overlaps_most_and_crowds_only_then():
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 90, 90]])
    iscrowd = np.array([False, False, True])
    found = torch.tensor(
        [[0.0, 0, 10, 9.5], [0, 0, 10, 10], [0, 0, 10, 10], [60, 60, 65, 65], [60, 60, 70, 70], [20, 20, 30, 30]]
    )
    assert match(found, truth, iscrowd) == [1, 1, 0, -1, -1, 0]


def test_counts_draw_as_many_images_as_there_are():
    counts = draw_counts(60)
    assert counts.shape == (bootstrap.RESAMPLES, 60) and (counts.sum(1) == 60).all()
    assert counts.mean(0) == pytest.approx(np.ones(60), abs=0.15)


def test_some_targets_cover_all_kinds():
    """Every metric can be resampled: no task of this project goes without an interval."""
    for kind, (metric_class, _) in zip(("segmentation", "classification", "detection"), CASES.values(), strict=True):
        targets = some_targets(kind)
        record = per_image(metric_class, targets, [as_prediction(target) for target in targets])
        assert record.resampled(np.ones((1, 3), dtype=int)) == pytest.approx([1])
        assert record.measure
