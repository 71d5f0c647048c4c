"""The memory: an explicit list of image ids per finished task, bounded, counted in bytes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from data.loader import Split
from errors import UserError, nearest

SELECTIONS = ("uniform", "class_balanced", "herding")


@dataclass
class Memory:
    """What may be replayed. `limit` images per task; None lifts the limit (the original system's whole training set)."""

    limit: int | None
    ids: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, task: str, ids: Sequence[str]) -> None:
        if self.limit is not None and len(ids) > self.limit:
            raise ValueError(f"{len(ids)} images of '{task}' for a memory of {self.limit} per task")
        self.ids[task] = list(ids)

    def bytes(self, splits: dict[str, Split]) -> int:
        """Size of the kept image and label files, as they lie on disk."""
        total = 0
        for task, ids in self.ids.items():
            split = splits[task]
            total += sum(path.stat().st_size for index in split.indices(ids) for path in split.dataset.files(index))
        return total


def select(selection: str, split: Split, count: int, key: str, features: Tensor | None = None) -> list[str]:
    """Ids of `count` training images.

    uniform: drawn without replacement. class_balanced: classes take turns, rarest first, each time an image that holds the
    class. herding (iCaRL, Rebuffi et al. 2017, algorithm 4): greedily the image that brings the mean of the chosen normalised
    `features` (N, C) closest to the mean of all. Deviation: one mean over the task, since its images hold several classes.
    """
    order = list(range(len(split)))
    random.Random(key).shuffle(order)
    count = min(count, len(order))
    if selection == "uniform":
        chosen = order[:count]
    elif selection == "class_balanced":
        chosen = _take_turns([split.dataset.labels(index) for index in range(len(split))], order, count)
    elif selection == "herding":
        chosen = herd(features, count)
    else:
        raise UserError(f"unknown replay selection '{selection}'{nearest(selection, SELECTIONS)}")
    return [split.dataset.ids[index] for index in chosen]


def _take_turns(labels: list[set[int]], order: list[int], count: int) -> list[int]:
    holders = {label: [i for i in order if label in labels[i]] for label in set().union(*labels)}
    chosen: list[int] = []
    while len(chosen) < count:
        before = len(chosen)
        held = {label: sum(label in labels[i] for i in chosen) for label in holders}
        for label in sorted(holders, key=lambda label: (held[label], len(holders[label]), label)):
            candidate = next((i for i in holders[label] if i not in chosen), None)
            if candidate is not None and len(chosen) < count:
                chosen.append(candidate)
                break
        if len(chosen) == before:  # no labelled image left
            chosen += [i for i in order if i not in chosen][: count - len(chosen)]
    return chosen


def herd(features: Tensor, count: int) -> list[int]:
    """Indices in the order chosen, without replacement. features (N, C)."""
    features = torch.nn.functional.normalize(features.double(), dim=1)
    mean = features.mean(0)
    total = torch.zeros_like(mean)
    chosen: list[int] = []
    for taken in range(1, count + 1):
        distance = ((total + features) / taken - mean).norm(dim=1)
        distance[chosen] = torch.inf
        best = int(distance.argmin())
        chosen.append(best)
        total += features[best]
    return chosen
