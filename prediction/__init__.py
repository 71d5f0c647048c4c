"""What a model says about one image: a typed answer per task, an overlay, a plain form for JSON."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from errors import UserError, nearest
from tasks import Prediction, Task


@dataclass(frozen=True, eq=False)
class Answer:
    """What one task says; `kind` is the task's. Arrays are NumPy's, coordinates in pixels of the upright image.

    A kind that has no class of its own below keeps its arrays in `values`, named as the task's decoding names them.
    """

    kind: str
    classes: tuple[str, ...]  # the task's vocabulary; a label is an index into it
    values: dict[str, np.ndarray] = field(repr=False)

    def to_dict(self) -> dict:
        return {name: values.tolist() for name, values in self.values.items()}

    def __str__(self) -> str:
        return ", ".join(self.values)


class SegmentationAnswer(Answer):
    """A class for every pixel; index 0 is the background."""

    @property
    def mask(self) -> np.ndarray:
        """uint8 (H, W), class index."""
        return self.values["mask"]

    def shares(self) -> dict[str, float]:
        """Share of the image by class, of those present, the largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes)) / self.mask.size
        return {self.classes[label]: float(counts[label]) for label in np.argsort(-counts) if counts[label]}

    def to_dict(self) -> dict:
        """`runs`: the mask row by row as [class index, number of pixels], lossless; `shares`."""
        flat = self.mask.ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        lengths = np.diff(np.append(starts, flat.size))
        return {"runs": np.stack([flat[starts], lengths], axis=1).tolist(), "shares": self.shares()}

    def __str__(self) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in self.shares().items() if share >= 0.005)


class DetectionAnswer(Answer):
    """Objects, the best first."""

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """float32 (N, 4): left, top, right, bottom."""
        return self.values["boxes"]

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,), index into `classes`."""
        return self.values["labels"]

    @property
    def scores(self) -> np.ndarray:
        """float32 (N,) in [0, 1]."""
        return self.values["scores"]

    @property
    def names(self) -> list[str]:
        """Class name of each box."""
        return [self.classes[label] for label in self.labels]

    def to_dict(self) -> dict:
        columns = {"boxes_xyxy": self.boxes_xyxy, "labels": self.labels, "scores": self.scores}
        return {**{name: values.tolist() for name, values in columns.items()}, "names": self.names}

    def __str__(self) -> str:
        return ", ".join(f"{self.names.count(name)} {name}" for name in dict.fromkeys(self.names)) or "nothing"


class ClassificationAnswer(Answer):
    """One class for the whole image: the most probable."""

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (K,), over `classes`; they add up to 1."""
        return self.values["probabilities"]

    @property
    def index(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def name(self) -> str:
        return self.classes[self.index]

    def to_dict(self) -> dict:
        shares = dict(zip(self.classes, self.probabilities.tolist(), strict=True))
        return {"name": self.name, "index": self.index, "probabilities": shares}

    def __str__(self) -> str:
        return f"{self.name} {self.probabilities[self.index]:.2f}"


# In the order in which they are drawn over one another: a tint would hide boxes and text
ANSWERS: dict[str, type[Answer]] = {
    "segmentation": SegmentationAnswer,
    "detection": DetectionAnswer,
    "classification": ClassificationAnswer,
}


@dataclass(frozen=True, eq=False)
class Result:
    """All tasks' answers about one image.

    source: the image's path; of a video's frame PATH#NUMBER, of an image without a file "image NUMBER", both from 0.
    pixels: uint8 (3, H, W), RGB, upright: the frame of all coordinates.
    predictions: by task name, as the task decodes them, on the CPU.
    """

    source: str
    pixels: Tensor = field(repr=False)
    predictions: dict[str, Prediction] = field(repr=False)
    tasks: dict[str, Task] = field(repr=False)

    @property
    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), RGB, upright."""
        return self.pixels.permute(1, 2, 0).numpy()

    @property
    def segmentation(self) -> SegmentationAnswer | None:
        """Of the first task of that kind; None where there is none."""
        return self._first("segmentation")

    @property
    def detection(self) -> DetectionAnswer | None:
        """Of the first task of that kind; None where there is none."""
        return self._first("detection")

    @property
    def classification(self) -> ClassificationAnswer | None:
        """Of the first task of that kind; None where there is none."""
        return self._first("classification")

    def __getitem__(self, name: str) -> Answer:
        """The answer of the task with this name: the name of its stage in the recipe."""
        if name not in self.predictions:
            raise UserError(f"{self.source}: no answer of a task '{name}'{nearest(name, self.predictions)}")
        task = self.tasks[name]
        values = {key: value.numpy() for key, value in self.predictions[name].items()}
        return ANSWERS.get(task.kind, Answer)(task.kind, task.classes, values)

    def plot(self) -> Image.Image:
        """The image at its own size with everything drawn on it: mask tint, boxes with names, label."""
        drawn = Image.fromarray(self.image)
        for name in sorted(self.predictions, key=self._layer):
            drawn = self.tasks[name].draw(drawn, self.predictions[name])
        return drawn

    def to_dict(self) -> dict:
        """Plain types only; `tasks` holds every answer by task name."""
        height, width = self.pixels.shape[-2:]
        answers = {name: {"kind": self[name].kind, **self[name].to_dict()} for name in self.predictions}
        return {"source": self.source, "height": height, "width": width, "tasks": answers}

    def __str__(self) -> str:
        return f"{self.source}: " + "; ".join(f"{name}: {self[name]}" for name in self.predictions)

    def _first(self, kind: str) -> Answer | None:
        return next((self[name] for name in self.predictions if self.tasks[name].kind == kind), None)

    def _layer(self, name: str) -> int:
        kinds = list(ANSWERS)
        kind = self.tasks[name].kind
        return kinds.index(kind) if kind in kinds else len(kinds)
