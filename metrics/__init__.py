"""Metrics: fed with predictions and targets in the original image's frame; a task names the one it is judged by."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

Scores = dict[str, float | None]  # None: undefined (a class absent from the split), never 0 or 1 in its place


class Metric(ABC):
    """Update with batches, compute once."""

    @abstractmethod
    def update(self, predictions: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]) -> None:
        """Predictions as the task's `decode` gives them; targets as `data.Sample` holds them."""

    @abstractmethod
    def compute(self) -> Scores:
        """All figures by name, in [0, 1], the task's primary metric among them."""

    def per_image(self) -> "PerImage | None":
        """An empty record, image by image, of the task's primary metric; None: the metric cannot be resampled."""
        return None


class PerImage(ABC):
    """What the primary metric needs to know of every image, so that it can be computed of any multiset of them.

    measure: in words, what `each` measures of one image.
    """

    measure: str

    @abstractmethod
    def update(self, predictions: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]) -> None:
        """As Metric.update; the images are numbered in the order they come."""

    @abstractmethod
    def __len__(self) -> int:
        """Images seen."""

    @abstractmethod
    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """counts (R, N): how often each of the N images occurs in each of R multisets → the metric (R,), NaN: undefined."""

    def each(self) -> np.ndarray:
        """Score of every image by itself (N,), NaN where it has nothing to score."""
        rows = (np.eye(1, len(self), number, dtype=np.int64) for number in range(len(self)))
        return np.concatenate([self.resampled(row) for row in rows])


def number(value: Tensor) -> float | None:
    """A scalar as JSON knows it: NaN, and torchmetrics' -1 for «undefined», become None."""
    value = float(value)
    return None if value != value or value < 0 else value
