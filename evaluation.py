"""Scoring a model on a split: one forward pass per batch, decoding and metric in the original image's frame."""

from collections.abc import Iterable
from contextlib import contextmanager

import torch

from data.loader import Split
from errors import UserError, nearest
from metrics import Metric, PerImage, Scores
from models import OneHead
from tasks import Prediction, Task


@contextmanager
def evaluating(model: OneHead):
    """Eval mode, no gradient; the mode before is put back. Buffers and random state are not touched."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def predict(model: OneHead, name: str, task: Task, images: torch.Tensor, sizes) -> list[Prediction]:
    """uint8 images (B, 3, S, S) → one prediction per image, in original frames of `sizes` (height, width)."""
    return predict_all(model, {name: task}, images, sizes)[name]


def predict_all(model: OneHead, tasks: dict[str, Task], images: torch.Tensor, sizes) -> dict[str, list[Prediction]]:
    """As `predict`, for several tasks by name from one forward pass."""
    with evaluating(model):
        raw = model(images, tasks)
        return {name: task.decode(raw[name].float(), model.stride, sizes) for name, task in tasks.items()}


def choose_tasks(wanted: Iterable[str], learned: Iterable[str]) -> list[str]:
    """The tasks wanted, each once; "all" among them: all that are learned. UserError for one that is not."""
    wanted, learned = list(wanted), list(learned)
    if "all" in wanted:
        return learned
    for name in wanted:
        if name not in learned:
            raise UserError(f"the checkpoint has not learned the task '{name}'{nearest(name, [*learned, 'all'])}")
    return list(dict.fromkeys(wanted))


def feed(
    metric: Metric | PerImage, model: OneHead, name: str, task: Task, split: Split, image_size: int, device
) -> None:
    """Show a model's answers on all images of a split, and the truth, to a metric."""
    for images, samples in split.evaluation_batches(image_size, batch_size=16):
        sizes = [tuple(sample.image.shape[-2:]) for sample in samples]
        predictions = predict(model, name, task, images.to(device), sizes)
        metric.update(predictions, [sample.target for sample in samples])


def evaluate(model: OneHead, name: str, task: Task, split: Split, image_size: int, device: torch.device) -> Scores:
    """All scores of one task on a split."""
    metric = task.make_metric()
    feed(metric, model, name, task, split, image_size, device)
    return metric.compute()
