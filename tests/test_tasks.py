"""The contract of every task in the folder's listing; segmentation's and classification's losses by hand."""

import math

import pytest
import torch
from PIL import Image
from samples import CLASSES, as_prediction, mask_target, some_targets
from torch import nn
from torchvision.transforms.v2.functional import to_pil_image

import registry
from data import VOID
from errors import UserError
from models import build
from tasks import Task

SIZE, STRIDE, CHANNELS = 64, 8, 12


@pytest.fixture(params=registry.names(Task))
def task(request) -> Task:
    return build(Task, {"name": request.param}, CLASSES)


def raw_of(task: Task, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    """A raw prediction for three images, as varied as a trained network's; a leaf that takes gradients."""
    torch.manual_seed(seed)
    predictor = task.build_predictor(CHANNELS, STRIDE, nn.BatchNorm2d)
    shape = predictor(torch.rand(3, CHANNELS, SIZE // STRIDE, SIZE // STRIDE)).shape
    return (scale * torch.randn(shape)).requires_grad_()


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(losses.values())


def test_losses_are_named_finite_scalars_and_reach_every_parameter_of_the_predictor(task):
    torch.manual_seed(0)
    predictor = task.build_predictor(CHANNELS, STRIDE, nn.BatchNorm2d)
    raw = predictor(torch.rand(3, CHANNELS, 8, 8))
    assert isinstance(raw, torch.Tensor)
    assert len(raw) == 3
    losses = task.losses(raw, some_targets(task.kind), STRIDE)
    assert losses
    assert all(value.shape == () and torch.isfinite(value) and value >= 0 for value in losses.values())
    total(losses).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in predictor.parameters())


def test_losses_leave_targets_and_raw_as_they_were_and_take_half_precision(task):
    raw, targets = raw_of(task), some_targets(task.kind)
    before = raw.detach().clone()
    full = total(task.losses(raw, targets, STRIDE)).detach()
    half = total(task.losses(raw.bfloat16(), targets, STRIDE)).detach()
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(full), rel=0.05)
    assert torch.equal(raw, before)
    for target, same in zip(targets, some_targets(task.kind), strict=True):
        assert all(torch.equal(target[key], same[key]) for key in same)


def test_a_batch_twice_over_or_in_another_order_is_the_same_loss(task):
    raw, targets = raw_of(task).detach(), some_targets(task.kind)
    once = task.losses(raw, targets, STRIDE)
    twice = task.losses(torch.cat([raw, raw]), targets * 2, STRIDE)
    turned = task.losses(raw.flip(0), targets[::-1], STRIDE)
    for name, value in once.items():
        assert float(twice[name]) == pytest.approx(float(value), rel=1e-5)
        assert float(turned[name]) == pytest.approx(float(value), rel=1e-5)


def test_where_the_loss_is_least_decoding_gives_the_truth(task):
    """Raw predictions trained by themselves, no network: loss, decoder and metric agree about what is right."""
    raw, targets = raw_of(task, scale=0.1), some_targets(task.kind)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        total(task.losses(raw, targets, STRIDE)).backward()
        optimizer.step()
    metric = task.make_metric()
    metric.update(task.decode(raw.detach(), STRIDE, [(SIZE, SIZE)] * 3), targets)
    assert metric.compute()[task.metric] > 0.99


def test_distance_from_a_teacher_is_0_with_gradient_0_where_they_agree(task):
    student = raw_of(task)
    distance = task.distill_loss(student, student.detach().clone(), 2.0)
    distance.backward()
    assert distance.item() == pytest.approx(0, abs=1e-6)
    assert float(student.grad.abs().max()) < 1e-6


def test_distance_from_a_teacher_falls_as_the_student_comes_nearer(task):
    teacher, start = raw_of(task, seed=1).detach(), raw_of(task, seed=2).detach()
    distances = []
    for share in (0.0, 0.5, 0.9):
        student = torch.lerp(start, teacher, share).requires_grad_()
        distance = task.distill_loss(student, teacher, 2.0)
        (gradient,) = torch.autograd.grad(distance, student)
        assert (gradient * (teacher - student)).sum() < 0  # a step against the gradient leads to the teacher
        distances.append(distance.item())
    assert distances[0] > distances[1] > distances[2] > 0


def test_distance_from_a_teacher_is_a_mean_over_images(task):
    student, teacher = raw_of(task, seed=1).detach(), raw_of(task, seed=2).detach()
    once = float(task.distill_loss(student, teacher, 2.0))
    assert float(task.distill_loss(torch.cat([student] * 3), torch.cat([teacher] * 3), 2.0)) == pytest.approx(once)


def test_decoding_gives_each_image_a_prediction_that_its_metric_can_score(task):
    sizes = [(48, 80), (64, 64), (30, 20)]
    predictions = task.decode(raw_of(task).detach(), STRIDE, sizes)
    assert len(predictions) == 3
    for prediction, (height, width) in zip(predictions, sizes, strict=True):
        if "mask" in prediction:
            assert prediction["mask"].shape == (height, width)
        if "boxes" in prediction:
            assert (prediction["boxes"] >= 0).all()
            assert (prediction["boxes"] <= torch.tensor([width, height] * 2)).all()
    metric = task.make_metric()
    metric.update(task.decode(raw_of(task).detach(), STRIDE, [(SIZE, SIZE)] * 3), some_targets(task.kind))
    scores = metric.compute()
    assert {task.metric, *task.headlines} <= set(scores)
    assert task.headlines[task.metric] == task.label
    assert all(value is None or 0 <= value <= 1 for value in scores.values())


def test_drawing_shows_targets_and_predictions_on_a_copy(task):
    image = to_pil_image(torch.full((3, SIZE, SIZE), 128, dtype=torch.uint8))
    (target, *_), raw = some_targets(task.kind), raw_of(task).detach()
    for shown in (target, as_prediction(target), task.decode(raw, STRIDE, [(SIZE, SIZE)] * 3)[0]):
        drawn = task.draw(image, shown)
        assert isinstance(drawn, Image.Image)
        assert (drawn.size, drawn.mode) == (image.size, "RGB")
        assert drawn.tobytes() != image.tobytes()
        assert set(image.tobytes()) == {128}


def by_hand(logits: torch.Tensor, mask: torch.Tensor) -> float:
    """Cross-entropy over the pixels that are not void, in plain Python."""
    terms = []
    for image, y, x in (mask != VOID).nonzero().tolist():
        row = logits[image, :, y, x].tolist()
        terms.append(math.log(sum(math.exp(v) for v in row)) - row[mask[image, y, x]])
    return sum(terms) / max(len(terms), 1)


def test_segmentation_is_cross_entropy_over_pixels_that_are_not_void():
    torch.manual_seed(0)
    task = build(Task, {"name": "segmentation"}, CLASSES)
    mask = torch.randint(0, 4, (2, 8, 6), dtype=torch.uint8)
    mask[0, 2:5] = VOID
    raw = torch.randn(2, 4, 8, 6, requires_grad=True)
    (loss,) = task.losses(raw, [mask_target(m) for m in mask], 1).values()
    assert loss.item() == pytest.approx(by_hand(raw, mask), rel=1e-5)
    loss.backward()
    assert not raw.grad[0, :, 2:5].any()
    assert raw.grad.abs().sum(1)[mask != VOID].all()


@pytest.mark.parametrize(("step", "kept"), [(2, [1, 2, 5, 6, 9, 10, 13, 14]), (4, [2, 5, 10, 13])])
def test_segmentation_at_a_coarser_resolution_reads_the_mask_without_a_shift(step, kept):
    torch.manual_seed(0)
    mask = torch.randint(0, 4, (2, 16, 16), dtype=torch.uint8)
    raw = torch.randn(2, 4, 4, 4)
    task = build(Task, {"name": "segmentation", "loss_stride": step}, CLASSES)
    logits = nn.functional.interpolate(raw, scale_factor=4 // step, mode="bilinear")
    (loss,) = task.losses(raw, [mask_target(m) for m in mask], 4).values()
    assert loss.item() == pytest.approx(by_hand(logits, mask[:, kept][..., kept]), rel=1e-5)
    middles = [(place + 0.5) * step for place in range(16 // step)]  # where the logits lie, in pixels of the mask
    assert sum(place + 0.5 for place in kept) == sum(middles)


def test_segmentation_distillation_can_leave_what_the_teacher_takes_for_background():
    task = build(Task, {"name": "segmentation", "distill_background": 0.0}, CLASSES)
    plain = build(Task, {"name": "segmentation"}, CLASSES)
    teacher, student = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2, requires_grad=True)
    teacher[0, 0] = torch.tensor(
        [[40.0, -40.0], [40.0, -40.0]]
    )  # certainly background on the left, certainly not on the right
    (gradient,) = torch.autograd.grad(task.distill_loss(student, teacher, 2.0), student)
    assert not gradient[..., 0].any()
    assert gradient[..., 1].any(1).all()
    objects = plain.distill_loss(student[..., 1:], teacher[..., 1:], 2.0)  # the mean is over the pixels that count
    assert task.distill_loss(student, teacher, 2.0).item() == pytest.approx(objects.item(), rel=1e-5)


def test_segmentation_of_nothing_but_void_is_0_with_gradient_0():
    task = build(Task, {"name": "segmentation"}, CLASSES)
    raw = torch.randn(2, 4, 2, 2, requires_grad=True)
    loss = total(task.losses(raw, [mask_target(torch.full((16, 16), VOID))] * 2, 8))
    loss.backward()
    assert loss.item() == 0
    assert not raw.grad.any()


def test_segmentation_is_decoded_at_the_size_of_each_image():
    task = build(Task, {"name": "segmentation"}, CLASSES)
    raw = torch.full((1, 4, 2, 2), -9.0)
    for label, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        raw[0, label, y, x] = 9.0
    mask = task.decode(raw, 8, [(20, 30)])[0]["mask"]
    assert mask.dtype == torch.uint8
    assert [int(mask[y, x]) for y in (4, 15) for x in (7, 22)] == [0, 1, 2, 3]


def test_classification_is_cross_entropy_and_decodes_to_probabilities():
    task = build(Task, {"name": "classification"}, CLASSES)
    raw = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 3.0]])
    (loss,) = task.losses(raw, [{"label": torch.tensor(1)}, {"label": torch.tensor(0)}], 8).values()
    expected = by_hand(raw[..., None, None], torch.tensor([[[1]], [[0]]]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    probabilities = task.decode(raw, 8, [(1, 1)] * 2)[0]["probabilities"].tolist()
    whole = sum(math.exp(v) for v in raw[0].tolist())
    assert probabilities == pytest.approx([math.exp(v) / whole for v in raw[0].tolist()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "segmentation", "loss_stride": 3}, "loss_stride is 3, expected 1, 2 or 4"),
        ({"name": "classification", "pooling": "mean"}, "unknown classification.pooling 'mean'"),
        ({"name": "detection"}, "unknown name 'detection' for a task; did you mean"),
    ],
)
def test_wrong_options_are_the_users(options, message):
    with pytest.raises(UserError, match=message):
        build(Task, options, CLASSES)


@pytest.mark.parametrize(("pooling", "expected"), [("avg", [2.5]), ("max", [4.0]), ("avg+max", [2.5, 4.0])])
def test_classification_pools_the_map_as_named(pooling, expected):
    task = build(Task, {"name": "classification", "pooling": pooling}, CLASSES)
    predictor = task.build_predictor(1, 8, nn.BatchNorm2d)
    shared = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    torch.testing.assert_close(predictor(shared), predictor.linear(torch.tensor([expected])))
