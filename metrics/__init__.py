"""Metrics: fed with predictions and targets in the original image's frame; a task names the one it is judged by."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

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


def number(value: Tensor) -> float | None:
    """A scalar as JSON knows it: NaN, and torchmetrics' -1 for «undefined», become None."""
    value = float(value)
    return None if value != value or value < 0 else value
