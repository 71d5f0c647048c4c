"""Top-1 accuracy, over images and per class."""

import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from metrics import Metric, Scores


class AccuracyMetric(Metric):
    """top1: share of images whose most probable class is the true one; per class the same over its own images."""

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes
        self.confusion = MulticlassConfusionMatrix(num_classes=len(classes))

    def update(self, predictions, targets) -> None:
        predicted = torch.stack([p["probabilities"].argmax() for p in predictions]).cpu()
        self.confusion.update(predicted, torch.stack([t["label"] for t in targets]).cpu())

    def compute(self) -> Scores:
        matrix = self.confusion.compute().double()
        images = matrix.sum(1)
        scores = {"top1": float(matrix.diag().sum() / matrix.sum())}
        for row, name in enumerate(self.classes):
            scores[f"top1/{name}"] = float(matrix[row, row] / images[row]) if images[row] else None
        return scores
