"""What a report finds out itself: the checkpoints scored image by image, and the images they are scored on."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import checkpoint
import registry
from data import Dataset
from data.loader import Budget, Split
from errors import UserError
from evaluation import feed
from metrics import PerImage
from recipe import Recipe
from reporting.reading import RunRecord, Snapshot
from splits import open_splits

TOLERANCE = 0.005  # between a score as logged and as found here: what mixed precision on another device may change


@dataclass
class Images:
    """The val and train images of every task that is at hand (stage name → split)."""

    val: dict[str, Split] = field(default_factory=dict)
    train: dict[str, Split] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass
class Evidence:
    """per_image: task → snapshot label → its record over the val images, in the split's order."""

    snapshots: list[Snapshot]
    per_image: dict[str, dict[str, PerImage]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def open_images(record: RunRecord, snapshots: list[Snapshot], data_root: str | None) -> Images:
    """The data of the run's recipe, or below `data_root`; UserError only if what the caller names cannot be used."""
    own = [snapshot for snapshot in snapshots if snapshot.stage is not None]
    if record.recipe is None or not own:
        return Images()
    recipe = replace(record.recipe, data_root=data_root or record.recipe.data_root)
    classes = checkpoint.read(own[-1].path)["classes"]
    if data_root is None and not Path(recipe.data_root).is_dir():
        return Images(
            missing=[f"The run's data are not at hand ({recipe.data_root}): {_WITHOUT}; name them: --data_root."]
        )
    try:
        val = open_splits(recipe, [recipe.stages[name] for name in classes], "val", classes)
        train = {name: Split(_training_set(recipe, name, classes[name]), Budget(0)) for name in classes}
    except UserError as error:
        if data_root is not None:
            raise
        return Images(missing=[f"The run's data cannot be used: {_WITHOUT}. {error}"])
    return Images(val, train)


_WITHOUT = "no pictures, no intervals, no replayed images"


def _training_set(recipe: Recipe, name: str, classes: list[str]) -> Dataset:
    """Its index only: of all the images just the replayed ones are looked at."""
    options = dict(recipe.stages[name].dataset)
    reader = registry.load(Dataset, options.pop("name"))[0]
    return reader(Path(recipe.data_root), "train", classes, **options)


def collect(record: RunRecord, snapshots: list[Snapshot], val: dict[str, Split], device: torch.device) -> Evidence:
    """Score every snapshot on every task it has learned. UserError: a damaged checkpoint."""
    evidence = Evidence(snapshots)
    for snapshot in snapshots:
        model, tasks, recipe, _ = checkpoint.restore(snapshot.path, device)
        for name, task in tasks.items():
            if snapshot.task not in (None, name) or name not in val:
                continue
            found = _same_model(evidence, snapshot, name) or task.make_metric().per_image()
            if found is None:
                evidence.missing.append(
                    f"{task.label} of {name} cannot be resampled: no intervals and no best or worst."
                )
                continue
            if not len(found):
                feed(found, model, name, task, val[name], recipe.image_size, device)
            evidence.per_image.setdefault(name, {})[snapshot.label] = found
            evidence.missing += _differs(record, snapshot, name, found)
    evidence.missing = list(dict.fromkeys(evidence.missing))
    return evidence


def _same_model(evidence: Evidence, snapshot: Snapshot, name: str) -> PerImage | None:
    """The first stage's checkpoint is its task's single-task run as well: it is scored once."""
    same = [s.label for s in evidence.snapshots if s.path == snapshot.path]
    scored = evidence.per_image.get(name, {})
    return next((scored[label] for label in same if label in scored), None)


def _differs(record: RunRecord, snapshot: Snapshot, task: str, found: PerImage) -> list[str]:
    """A sentence where the score found here is not the run's own: then these are other images than the run's."""
    matrix, single = record.history.matrix, record.history.baseline.get("single", {})
    logged = single.get(task) if snapshot.stage is None else matrix[snapshot.stage][record.history.tasks.index(task)]
    here = float(found.resampled(np.ones((1, len(found)), dtype=np.int64))[0])
    if logged is None or abs(here - logged) <= TOLERANCE or (np.isnan(here) and np.isnan(logged)):
        return []
    figures = f"{task} {snapshot.label}: {here:.4f} here, {logged:.4f} logged"
    return [
        f"The images at hand do not give the run's own score ({figures}): intervals and pictures rest on other images."
    ]
