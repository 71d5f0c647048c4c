"""Splits in memory: a byte budget, batches whose every view follows from key and id alone, no image left out."""

import threading
from pathlib import Path

import pytest
import torch

from data import Dataset, Sample
from data.loader import Budget, Split, ahead, steps_per_epoch
from data.transforms import Augment, whole_image

VARIED = Augment(zoom_min=0.6, zoom_max=1.6, stretch=1.3, jitter=0.3)
BYTES = 3 * 8 * 10 + 8  # of one sample: the image and an int64 label


class Noise(Dataset):
    """`count` random images of 8 x 10 pixels; counts how often each is decoded."""

    kind = "classification"
    classes = ("even", "odd")
    folder = Path("noise")

    def __init__(self, count: int):
        self.ids = tuple(f"image {number}" for number in range(count))
        self.decoded = [0] * count
        self.shade = 0

    def read(self, index: int) -> Sample:
        self.decoded[index] += 1
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 255, (3, 8, 10), dtype=torch.uint8, generator=generator)
        return Sample(self.ids[index], image + (self.shade if index == 1 else 0), {"label": torch.tensor(index % 2)})

    def files(self, index: int) -> list[Path]:
        return []


def batch(split: Split, indices, key="0/seg/images/3", size=32):
    return split.training_batch("cls", indices, size, VARIED, key)


def test_a_view_follows_from_key_and_id_whatever_else_is_in_the_batch():
    split = Split(Noise(6))
    together = batch(split, [0, 3, 5])
    alone = batch(Split(Noise(6), Budget(0)), [3])
    assert together.ids == ["image 0", "image 3", "image 5"]
    assert torch.equal(together.images[1], alone.images[0])
    assert together.images.dtype == torch.uint8
    assert together.images.shape == (3, 3, 32, 32)
    assert [int(t["label"]) for t in together.targets] == [0, 1, 1]
    assert not torch.equal(batch(split, [3], key="0/seg/images/4").images, alone.images)


@pytest.mark.parametrize(("samples", "kept"), [(0, 0), (2, 2), (2.9, 2), (100, 6)])
def test_samples_stay_decoded_as_long_as_the_budget_lasts(samples, kept):
    dataset = Noise(6)
    split = Split(dataset, Budget(int(samples * BYTES)))
    first = [split.sample(index) for index in range(6)]
    assert dataset.decoded == [1] * 6
    second = [split.sample(index) for index in range(6)]
    assert dataset.decoded == [1] * kept + [2] * (6 - kept)
    assert all(torch.equal(a.image, b.image) and a.id == b.id for a, b in zip(first, second, strict=True))


def test_several_splits_share_a_budget():
    sets, budget = (Noise(3), Noise(3)), Budget(4 * BYTES)
    splits = [Split(dataset, budget) for dataset in sets]
    for _ in range(2):
        for split in splits:
            for index in range(3):
                split.sample(index)
    assert [dataset.decoded for dataset in sets] == [[1] * 3, [1] + [2] * 2]


def test_a_sample_kept_by_the_check_is_not_decoded_again():
    dataset = Noise(2)
    split = Split(dataset, Budget(2 * BYTES))
    for index in (0, 0, 1):  # twice over costs the budget once
        split.keep(index, dataset.read(index))
    split.sample(0)
    split.sample(1)
    assert dataset.decoded == [2, 1]


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_the_fingerprint_is_of_every_pixel_whether_kept_or_not(budget):
    def fingerprint(shade: int, count: int = 3) -> str:
        dataset = Noise(count)
        dataset.shade = shade
        return Split(dataset, Budget(budget)).fingerprint()

    assert fingerprint(0) == fingerprint(0)
    assert len({fingerprint(0), fingerprint(1), fingerprint(0, 4)}) == 3


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_an_epoch_shows_every_image_once_in_the_number_of_steps_that_the_schedule_expects(count, batch_size):
    split = Split(Noise(count))
    shown = list(split.epoch("cls", batch_size, 32, VARIED, "key"))
    assert len(shown) == steps_per_epoch(count, batch_size)
    ids = [id_ for one in shown for id_ in one.ids]
    assert len(set(ids)) == len(ids)
    left_out = int(count > batch_size > 1 and count % batch_size == 1)  # a lone last image cannot train BatchNorm
    assert len(ids) == count - left_out
    assert all(one.task == "cls" and one.origin == "stage" for one in shown)


def test_the_order_follows_from_the_key():
    split = Split(Noise(20))
    orders = [[one.ids for one in split.epoch("cls", 4, 32, VARIED, key)] for key in ("a", "a", "b")]
    assert orders[0] == orders[1] != orders[2]


def test_evaluation_sees_whole_images_in_their_own_order():
    dataset = Noise(5)
    batches = list(Split(dataset).evaluation_batches(32, 2))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    samples = [sample for _, some in batches for sample in some]
    assert [sample.id for sample in samples] == list(dataset.ids)
    assert torch.equal(batches[1][0][1], whole_image(dataset.read(3), 32))


def test_a_failure_while_preparing_ahead_reaches_the_loop_and_no_thread_stays():
    def failing():
        yield "first"
        raise OSError("disk gone")

    before = threading.active_count()
    prepared = ahead(failing())
    with pytest.raises(OSError, match="disk gone"):
        list(prepared)
    stopped = ahead(iter(range(5)))
    assert next(stopped) == 0
    stopped.close()
    assert threading.active_count() == before
