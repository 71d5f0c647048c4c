"""What was forgotten, shown: the val images that lost most and least, with truth and the answer after each stage."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

import checkpoint
from data import Sample
from data.loader import Split
from data.transforms import whole_image
from evaluation import predict
from reporting.evidence import Evidence
from reporting.reading import Snapshot

SIDE = 320  # pixels of the longer side of a picture, and of a replayed thumbnail:
THUMBNAIL = 128
SHOWN_REPLAYED = 40  # thumbnails per task: a memory without a limit holds whole training sets
EXAMPLES = 4  # images in each group


@dataclass
class Picture:
    """uri: the image itself as a data URI; score: of this answer on this image, None for the truth or if undefined."""

    label: str
    uri: str
    size: tuple[int, int]
    score: float | None = None


@dataclass
class Example:
    """One val image. pictures: truth, then each model's answer; change: last stage's score minus the first's."""

    id: str
    pictures: list[Picture]
    change: float | None


@dataclass
class TaskGallery:
    """groups: heading → examples; stages: labels of the answers, in order; measure: what a score says, in words."""

    task: str
    measure: str
    stages: list[str]
    groups: dict[str, list[Example]]


def make_galleries(evidence: Evidence, val: dict[str, Split], device: torch.device, examples: int = EXAMPLES):
    """One TaskGallery per task scored, in the order learned; predictions are made anew, for the chosen images only."""
    chosen = {task: _choose(_stage_scores(evidence, task), examples) for task in evidence.per_image}
    indices = {task: [index for group in groups.values() for index in group] for task, groups in chosen.items()}
    samples = {task: [val[task].sample(index) for index in found] for task, found in indices.items()}
    columns: dict[str, list[list[Picture]]] = {task: [] for task in chosen}
    for snapshot in evidence.snapshots:
        model, tasks, recipe, _ = checkpoint.restore(snapshot.path, device)
        for name, task in tasks.items():
            if name not in chosen or snapshot.task not in (None, name) or _shown_already(evidence, snapshot):
                continue
            if not columns[name]:
                columns[name].append([_picture("truth", task, sample, sample.target) for sample in samples[name]])
            batch = torch.stack([whole_image(sample, recipe.image_size) for sample in samples[name]]).to(device)
            answers = predict(model, name, task, batch, [tuple(sample.image.shape[-2:]) for sample in samples[name]])
            each = evidence.per_image[name][snapshot.label].each()[indices[name]]
            columns[name].append(
                [_picture(snapshot.label, task, *pair) for pair in zip(samples[name], answers, strict=True)]
            )
            for picture, score in zip(columns[name][-1], each.tolist(), strict=True):
                picture.score = None if score != score else score
    return [_gallery(evidence, task, chosen[task], samples[task], columns[task]) for task in chosen]


def _shown_already(evidence: Evidence, snapshot: Snapshot) -> bool:
    """The first stage's answers are its task's trained alone: one column is enough."""
    return snapshot.stage is None and any(s.stage is not None and s.path == snapshot.path for s in evidence.snapshots)


def _stage_scores(evidence: Evidence, task: str) -> np.ndarray:
    """(stages since the task was learned, images); NaN: nothing to score."""
    labels = [s.label for s in evidence.snapshots if s.stage is not None]
    records = evidence.per_image[task]
    return np.stack([records[label].each() for label in labels if label in records])


def _choose(scores: np.ndarray, examples: int) -> dict[str, list[int]]:
    """Heading → images, at most `examples` each and none twice, by change since learned; by score if just learned."""
    several = len(scores) > 1
    by = scores[-1] - scores[0] if several else scores[0]
    tied = scores[0] if several else np.zeros_like(by)
    known = np.flatnonzero(np.isfinite(by))
    order = known[np.lexsort((known, -tied[known], np.round(by[known], 6)))].tolist()  # worst first
    count = min(examples, len(order) // 2)
    if several:
        return {"Forgotten most": order[:count], "Kept best": order[::-1][:count]}
    return {"Answered worst": order[:count], "Answered best": order[::-1][:count]}


def _gallery(evidence, task: str, groups: dict[str, list[int]], samples: list[Sample], columns) -> TaskGallery:
    """Columns of pictures, one entry per chosen image, become examples in their groups."""
    stages = [s.label for s in evidence.snapshots if s.stage is not None and s.label in evidence.per_image[task]]
    rows = iter(zip(samples, *columns, strict=True))
    filled = {}
    for heading, indices in groups.items():
        filled[heading] = []
        for _ in indices:
            sample, *pictures = next(rows)
            scores = {picture.label: picture.score for picture in pictures}
            change = scores[stages[-1]] - scores[stages[0]] if len(stages) > 1 else None
            filled[heading].append(Example(sample.id, pictures, change))
    return TaskGallery(task, next(iter(evidence.per_image[task].values())).measure, stages, filled)


def _picture(label: str, task, sample: Sample, answer: dict) -> Picture:
    answer = {key: value.cpu() for key, value in answer.items()}
    drawn = task.draw(Image.fromarray(sample.image.permute(1, 2, 0).numpy()), answer)
    uri, size = encode(drawn, SIDE)
    return Picture(label, uri, size)


def encode(image: Image.Image, side: int) -> tuple[str, tuple[int, int]]:
    """A data URI of the image as WebP, its longer side at most `side`, and its size (width, height) then."""
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(), image.size


def replayed_thumbnails(ids: dict[str, list[str]], tasks: dict, train: dict[str, Split]) -> tuple[dict, list[str]]:
    """Task → pictures of its kept images with their labels; and sentences on those that are not there."""
    found: dict[str, list[Picture]] = {}
    missing = []
    for name, kept in ids.items():
        if name not in train or name not in tasks:
            continue
        known = set(train[name].dataset.ids)
        if lost := [id_ for id_ in kept if id_ not in known]:
            missing.append(f"{len(lost)} replayed images of {name} are not among the data at hand, {lost[0]} for one.")
        present = [id_ for id_ in kept if id_ in known][:SHOWN_REPLAYED]
        found[name] = []
        for index in train[name].indices(present):
            sample = train[name].sample(index)
            drawn = tasks[name].draw(Image.fromarray(sample.image.permute(1, 2, 0).numpy()), sample.target)
            found[name].append(Picture(sample.id, *encode(drawn, THUMBNAIL)))
    return found, missing
