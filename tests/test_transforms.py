"""Views of a sample: image, mask and boxes move together; without randomness they are the plain resize."""

import random

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from data import VOID, Sample
from data.transforms import Augment, _move_boxes, augmented, whole_image

SIZE, HEIGHT, WIDTH = 96, 200, 260
EVERYTHING = Augment(flip=0.5, zoom_min=0.5, zoom_max=2.0, stretch=1.6)


def marked(box=(100, 60, 164, 108), height: int = HEIGHT, width: int = WIDTH) -> Sample:
    """Black but for one white rectangle, which is also class 1 of the mask and the only box."""
    x1, y1, x2, y2 = box
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    target = {"mask": (image[0] > 0).to(torch.uint8), "boxes": torch.tensor([box], dtype=torch.float32)}
    target |= {"labels": torch.tensor([1]), "iscrowd": torch.tensor([False])}
    return Sample("marked", image, target)


def view(sample: Sample, augment: Augment, key, size: int = SIZE):
    return augmented(sample, size, augment, random.Random(key))


def extent(where: torch.Tensor) -> list[float]:
    """The box around the true pixels, as x1, y1, x2, y2."""
    ys, xs = where.nonzero(as_tuple=True)
    return [float(xs.min()), float(ys.min()), float(xs.max()) + 1, float(ys.max()) + 1]


@pytest.mark.parametrize(
    "augment",
    [
        Augment(flip=1),
        Augment(flip=0, zoom_min=1.3, zoom_max=1.3),
        Augment(flip=0, zoom_min=0.4, zoom_max=1),
        Augment(flip=0, stretch=1.8),
        EVERYTHING,
    ],
    ids=["flip", "zoom in", "zoom out", "stretch", "everything"],
)
def test_image_mask_and_box_move_together(augment):
    for key in range(60):
        image, target = view(marked(), augment, key)
        white = image[0] > 145  # half way up from the grey around a shrunk image would not do: that is 114
        if not len(target["boxes"]):
            assert (target["mask"] == 1).sum() <= 2 * SIZE  # at most a sliver is left
            continue
        assert target["boxes"].shape == (1, 4)
        assert target["boxes"][0].tolist() == pytest.approx(extent(target["mask"] == 1), abs=1.2)
        assert target["boxes"][0].tolist() == pytest.approx(extent(white), abs=1.7)
        assert ((target["mask"] == VOID) == (image == 114).all(0)).float().mean() > 0.97


def test_mask_and_box_are_not_shifted_against_the_image():
    """Over many views the middles agree to a small part of a pixel: rounding errs either way, a shift does not."""
    rng = random.Random(0)
    offsets = []
    for key in range(300):
        x, y = rng.randrange(60, 100), rng.randrange(40, 70)
        sample = marked((x, y, x + rng.randrange(50, 90), y + rng.randrange(50, 80)))
        image, target = view(sample, Augment(flip=0, zoom_min=0.6, zoom_max=1.0), key)
        box, mask = target["boxes"][0], extent(target["mask"] == 1)
        light = torch.where(target["mask"] == VOID, 0, image[0]).float()
        place = torch.arange(SIZE) + 0.5
        middle = [float((light.sum(axis) * place).sum() / light.sum()) for axis in (0, 1)]
        for axis in (0, 1):
            box_middle, mask_middle = float(box[axis] + box[axis + 2]) / 2, (mask[axis] + mask[axis + 2]) / 2
            offsets.append([box_middle - middle[axis], mask_middle - middle[axis]])
    shift = torch.tensor(offsets).mean(0)
    assert shift.abs().max() < 0.08, shift


def test_flip_turns_everything_left_to_right():
    image, target = view(marked(), Augment(flip=0), 0)
    turned, moved = view(marked(), Augment(flip=1), 0)
    assert torch.equal(turned, image.flip(-1))
    assert torch.equal(moved["mask"], target["mask"].flip(-1))
    x1, y1, x2, y2 = target["boxes"][0].tolist()
    assert moved["boxes"][0].tolist() == pytest.approx([SIZE - x2, y1, SIZE - x1, y2])
    assert x1 + x2 != SIZE  # it was not in the middle


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (50, 70), (SIZE, SIZE)])
def test_without_randomness_it_is_the_plain_resize(height, width):
    sample = marked((3, 5, 33, 35), height, width)
    noisy = torch.randint(0, 256, sample.image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sample = Sample("noise", noisy, sample.target)
    image, target = view(sample, Augment(flip=0), 0)
    assert image.dtype == torch.uint8
    assert torch.equal(image, F.resize(sample.image, [SIZE, SIZE], antialias=True))
    assert torch.equal(image, whole_image(sample, SIZE))
    middles = [((torch.arange(SIZE) + 0.5) * side / SIZE).long() for side in (height, width)]
    assert torch.equal(target["mask"], sample.target["mask"][middles[0][:, None], middles[1]])
    factor = torch.tensor([SIZE / width, SIZE / height] * 2)
    torch.testing.assert_close(target["boxes"], sample.target["boxes"] * factor)
    assert not target["iscrowd"].any()


def test_zooming_out_shows_the_whole_image_with_void_around_it():
    for key in range(10):
        image, target = view(marked((0, 0, WIDTH, HEIGHT)), Augment(flip=0, zoom_min=0.5, zoom_max=0.5), key)
        assert int((target["mask"] == 1).sum()) == (SIZE // 2) ** 2
        assert int((target["mask"] == VOID).sum()) == SIZE**2 - (SIZE // 2) ** 2
        assert (image[:, target["mask"] == VOID] == 114).all()
        assert target["boxes"][0].tolist() == pytest.approx(extent(target["mask"] == 1), abs=0.51)


def test_zooming_in_never_leaves_the_image():
    for key in range(10):
        _, target = view(marked(), Augment(zoom_min=1.2, zoom_max=3.0), key)
        assert not (target["mask"] == VOID).any()


def test_zooms_and_stretches_are_what_was_asked_for():
    """The visible share of a fully white image tells the zoom, its shape the stretch."""
    sides = []
    for key in range(200):
        _, target = view(marked((0, 0, WIDTH, HEIGHT)), Augment(zoom_min=0.4, zoom_max=0.7, stretch=1.44), key, 400)
        x1, y1, x2, y2 = extent(target["mask"] == 1)
        sides.append(((x2 - x1) / 400, (y2 - y1) / 400))
    zooms = torch.tensor([(w * h) ** 0.5 for w, h in sides])
    stretches = torch.tensor([w / h for w, h in sides])
    assert 0.395 < zooms.min() < 0.42
    assert 0.66 < zooms.max() < 0.705
    assert 1 / 1.46 < stretches.min() < 1 / 1.38
    assert 1.38 < stretches.max() < 1.46
    assert 80 < int((zooms < (0.4 * 0.7) ** 0.5).sum()) < 120  # log-uniform


def test_boxes_out_of_view_are_cut_ignored_or_dropped():
    window = ((100.0, 200.0), (50.0, 100.0))  # x, y; at size 100 x grows 1 time, y 2 times
    rows = {
        "inside": (110, 60, 150, 80),
        "half seen": (80, 60, 120, 80),
        "a fifth seen": (20, 60, 120, 80),
        "gone": (10, 10, 90, 40),
        "a sliver": (60, 60, 100.5, 80),
        "crowd": (150, 50, 200, 100),
    }
    target = {
        "boxes": torch.tensor(list(rows.values()), dtype=torch.float32),
        "labels": torch.arange(6),
        "iscrowd": torch.tensor([name == "crowd" for name in rows]),
    }
    moved = _move_boxes(target, window, 100)
    assert moved["boxes"].tolist() == [[10, 20, 50, 60], [0, 20, 20, 60], [0, 20, 20, 60], [50, 0, 100, 100]]
    assert moved["labels"].tolist() == [0, 1, 2, 5]
    assert moved["iscrowd"].tolist() == [False, False, True, True]


def test_an_image_without_boxes_keeps_their_shape():
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "iscrowd": torch.zeros(0) > 0}
    for key in range(5):
        _, moved = view(Sample("none", marked().image, target), EVERYTHING, key)
        assert moved["boxes"].shape == (0, 4)
        assert moved["iscrowd"].dtype == torch.bool


def test_a_class_label_stays_and_the_sample_is_never_changed():
    sample = Sample("label", marked().image, {"label": torch.tensor(3)})
    before = sample.image.clone()
    _, target = view(sample, Augment(zoom_min=0.5, zoom_max=2.0, jitter=0.5), 0)
    assert target["label"] == 3
    assert torch.equal(sample.image, before)
    sample = marked()
    view(sample, EVERYTHING, 1)
    assert all(torch.equal(value, marked().target[key]) for key, value in sample.target.items())


def test_jitter_changes_colours_and_nothing_else():
    sample = marked()
    grey = Sample("grey", sample.image // 2 + 40, sample.target)
    plain, target = view(grey, Augment(flip=0), 0)
    jittered, same = view(grey, Augment(flip=0, jitter=0.4), 0)
    assert jittered.dtype == torch.uint8
    assert not torch.equal(jittered, plain)
    assert all(torch.equal(target[key], same[key]) for key in target)
    assert extent(jittered[0] > jittered[0].float().mean()) == extent(plain[0] > plain[0].float().mean())


def test_all_randomness_comes_from_the_generator_given():
    torch.manual_seed(0)
    random.seed(0)
    states = torch.get_rng_state(), random.getstate()
    augment = Augment(zoom_min=0.5, zoom_max=2.0, stretch=1.5, jitter=0.3)
    first, again, other = (view(marked(), augment, key)[0] for key in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
