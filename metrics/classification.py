"""Top-1 accuracy, over images and per class."""

import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from metrics import Metric, PerImage, Scores


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

    def per_image(self) -> "HitPerImage":
        return HitPerImage()


class HitPerImage(PerImage):
    """Hit or miss of every image, and the probability that its true class was given."""

    measure = "probability of the true class"

    def __init__(self):
        self.hit: list[bool] = []
        self.probability: list[float] = []

    def update(self, predictions, targets) -> None:
        for prediction, target in zip(predictions, targets, strict=True):
            probabilities, label = prediction["probabilities"], int(target["label"])
            self.hit.append(int(probabilities.argmax()) == label)
            self.probability.append(float(probabilities[label]))

    def __len__(self) -> int:
        return len(self.hit)

    def resampled(self, counts):
        with np.errstate(invalid="ignore"):
            return counts @ np.array(self.hit, dtype=np.float64) / counts.sum(1)

    def each(self):
        """Finer than hit or miss, of which many images would share the worst."""
        return np.array(self.probability)
