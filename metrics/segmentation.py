"""Mean intersection over union from one confusion matrix over all pixels of the split."""

import numpy as np
import torch
from torch import Tensor

from data import VOID
from metrics import Metric, PerImage, Scores


class IouMetric(Metric):
    """miou: over all classes with background (the VOC protocol). miou_fg: over the foreground classes, pixels whose TRUTH is
    background left out (the original system's protocol: it does not punish painting objects onto background).

    A class that occurs in neither truth nor prediction is left out of the mean and reported as None.
    """

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.long)  # rows truth, columns prediction

    def update(self, predictions, targets) -> None:
        for prediction, target in zip(predictions, targets, strict=True):
            self.confusion += confusion(target["mask"], prediction["mask"], len(self.classes))

    def compute(self) -> Scores:
        matrix = self.confusion.double()
        iou = iou_of(matrix)
        foreground = matrix.clone()
        foreground[0] = 0
        scores = {"miou": mean_defined(iou), "miou_fg": mean_defined(iou_of(foreground)[1:])}
        scores["pixel_accuracy"] = float(matrix.diag().sum() / matrix.sum().clamp(min=1))
        for name, value in zip(self.classes, iou.tolist(), strict=True):
            scores[f"iou/{name}"] = None if value != value else value
        return scores

    def per_image(self) -> "ConfusionPerImage":
        return ConfusionPerImage(len(self.classes))


class ConfusionPerImage(PerImage):
    """The confusion matrix of every image: their weighted sum is that of a multiset."""

    measure = "IoU, mean over the classes in the image's truth or answer"

    def __init__(self, classes: int):
        self.classes = classes
        self.matrices: list[np.ndarray] = []  # (C, C), rows truth

    def update(self, predictions, targets) -> None:
        for prediction, target in zip(predictions, targets, strict=True):
            self.matrices.append(confusion(target["mask"], prediction["mask"], self.classes).numpy())

    def __len__(self) -> int:
        return len(self.matrices)

    def resampled(self, counts):
        each = np.stack(self.matrices).reshape(len(self), -1).astype(np.float64)
        total = (counts @ each).reshape(-1, self.classes, self.classes)
        hit = np.diagonal(total, axis1=1, axis2=2)
        union = total.sum(1) + total.sum(2) - hit
        present = (union > 0).sum(1)
        iou = np.divide(hit, union, out=np.zeros_like(union), where=union > 0)
        return np.divide(iou.sum(1), present, out=np.full(len(counts), np.nan), where=present > 0)


def confusion(truth: Tensor, answer: Tensor, classes: int) -> Tensor:
    """Pixels by truth (rows) and answer (columns), (classes, classes); void left out. Masks (H, W): uint8, any device.

    Void is counted and cut off: sorting it out first, as torchmetrics does, takes 50 times as long.
    """
    pairs = truth.cpu().flatten().to(torch.int32) * classes + answer.cpu().flatten()
    return torch.bincount(pairs, minlength=(VOID + 1) * classes).view(-1, classes)[:classes]


def iou_of(matrix: Tensor) -> Tensor:
    """Per-class IoU of a confusion matrix (C, C); NaN for a class that neither occurs nor is predicted."""
    hit = matrix.diag()
    return hit / (matrix.sum(0) + matrix.sum(1) - hit)


def mean_defined(values: Tensor) -> float | None:
    mean = float(values.nanmean())
    return None if mean != mean else mean
