"""Tasks: one file per kind of prediction. A task knows its predictor, losses, decoding, metric and drawing; no strategy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from PIL import Image
from torch import Tensor, nn

from metrics import Metric

Prediction = dict[str, Tensor]


class Task(ABC):
    """Constructor: (classes, *, own options). Losses come back already weighted by the task's own options."""

    kind: ClassVar[str]  # of the datasets it reads: data.Dataset.kind
    metric: ClassVar[str]  # the figure it is judged by, higher is better, in [0, 1]
    label: ClassVar[str]  # that figure's name in print
    flag: ClassVar[str]  # its baseline is eval.py's --base_<flag>
    headlines: ClassVar[dict[str, str]]  # metric → its name in print: what eval.py prints besides, in this order

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)

    @abstractmethod
    def build_predictor(self, channels: int, stride: int, make_norm) -> nn.Module:
        """Shared map (B, channels, h, w) → raw, one tensor with the batch first."""

    @abstractmethod
    def losses(self, raw: Tensor, targets: list[dict[str, Tensor]], stride: int) -> dict[str, Tensor]:
        """Named weighted terms. Targets as in data.Sample, moved into the frame of the network's input."""

    def replay_losses(self, raw: Tensor, targets: list[dict[str, Tensor]], stride: int) -> dict[str, Tensor]:
        """`losses` of images from the memory, while another task is learned; fewer terms where a few images would be learned
        by heart."""
        return self.losses(raw, targets, stride)

    @abstractmethod
    def distill_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Distance of raw predictions from a teacher's; 0 with gradient 0 where they are equal."""

    @abstractmethod
    def decode(self, raw: Tensor, stride: int, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Raw → one prediction per image in its original frame; sizes: (height, width) of the original images.

        The network saw each image resized to a square without keeping its aspect ratio.
        """

    def keep_above(self, score: float, overlap: float) -> None:  # noqa: B027  (most tasks select nothing)
        """From now on decode and draw only what scores above `score`, and of two objects of a class that overlap by more
        than `overlap` (IoU) only the better one. Nothing to do for a task whose predictions are not selected.
        """

    @abstractmethod
    def make_metric(self) -> Metric: ...

    @abstractmethod
    def draw(self, image: Image.Image, prediction: Prediction) -> Image.Image:
        """The image (RGB, original size) with a prediction, or a target of the same form, drawn onto a copy."""
