"""Splits held decoded in memory, and the batches drawn from them: every draw follows from a key, never from a state."""

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from data import Dataset, Sample
from data.transforms import Augment, augmented, whole_image

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Images of one task with their targets, in the frame of the network's input.

    images: uint8 (B, 3, S, S); targets: as data.Sample; origin: "stage", or the name of the strategy that added it.
    """

    task: str
    images: Tensor
    targets: list[dict[str, Tensor]]
    ids: list[str]
    origin: str = "stage"


@dataclass
class Budget:
    """Bytes left for decoded samples, of one split or of several together."""

    left: int = 1 << 30


class Split:
    """A dataset's split; decoded samples stay in memory (uint8) as long as the budget lasts, the rest is decoded anew."""

    def __init__(self, dataset: Dataset, budget: Budget | None = None):
        self.dataset = dataset
        self._kept: dict[int, Sample] = {}
        self._budget = budget or Budget()
        self._digests: dict[int, int] = {}
        self._index_of = {id_: index for index, id_ in enumerate(dataset.ids)}

    def __len__(self) -> int:
        return len(self.dataset)

    def keep(self, index: int, sample: Sample) -> None:
        """Hold on to a decoded sample if the budget allows, and remember what it looked like."""
        tensors = [sample.image, *sample.target.values()]
        self._digests[index] = zlib.crc32(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors))
        size = sample.image.numel() + sum(value.nbytes for value in sample.target.values())
        if index not in self._kept and size <= self._budget.left:
            self._kept[index] = sample
            self._budget.left -= size

    def sample(self, index: int) -> Sample:
        if index not in self._kept:
            sample = self.dataset.read(index)
            if index in self._digests:  # read before, and more than the budget held
                return sample
            self.keep(index, sample)
            return sample
        return self._kept[index]

    def fingerprint(self) -> str:
        """Changes with any pixel or label of the split."""
        for index in range(len(self)):
            if index not in self._digests:
                self.sample(index)
        content = [(id_, self._digests[index]) for index, id_ in enumerate(self.dataset.ids)]
        return f"{zlib.crc32(repr(content).encode()):08x}"

    def indices(self, ids: Iterable[str]) -> list[int]:
        return [self._index_of[id_] for id_ in ids]

    def training_batch(
        self, task: str, indices: Sequence[int], size: int, augment: Augment, key: str, origin="stage"
    ) -> Batch:
        """Augmented views; each image's draw depends on `key` and its id alone."""
        views, targets, ids = [], [], []
        for index in indices:
            sample = self.sample(index)
            image, target = augmented(sample, size, augment, random.Random(f"{key}/{sample.id}"))
            views.append(image)
            targets.append(target)
            ids.append(sample.id)
        return Batch(task, torch.stack(views), targets, ids, origin)

    def epoch(self, task: str, batch_size: int, size: int, augment: Augment, key: str) -> Iterator[Batch]:
        """One pass in an order drawn from `key`, prepared one batch ahead. A last batch of one image is left out."""
        order = list(range(len(self)))
        random.Random(key).shuffle(order)
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        if len(chunks) > 1 and len(chunks[-1]) == 1 < batch_size:  # BatchNorm cannot train on one value per channel
            chunks.pop()
        return ahead(self.training_batch(task, chunk, size, augment, key) for chunk in chunks)

    def evaluation_batches(self, size: int, batch_size: int) -> Iterator[tuple[Tensor, list[Sample]]]:
        """uint8 (B, 3, size, size) of whole images, with the samples they come from."""
        for start in range(0, len(self), batch_size):
            samples = [self.sample(index) for index in range(start, min(start + batch_size, len(self)))]
            yield torch.stack([whole_image(sample, size) for sample in samples]), samples


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Batches that `Split.epoch` yields."""
    full, rest = divmod(images, batch_size)
    return max(full + (rest > 1), 1)


def ahead(batches: Iterator[T]) -> Iterator[T]:
    """The same batches, the next one prepared in a thread while this one is used.

    That thread has no helpers: those of both threads together would be more than the cores, and wait for each other.
    """
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as worker:
        upcoming = worker.submit(lambda: list(islice(batches, 1)))
        while ready := upcoming.result():
            upcoming = worker.submit(lambda: list(islice(batches, 1)))
            yield ready[0]
