"""The cut: balanced, and a function of seed and labels alone."""

import random

import pytest

from DL_data.cut import balanced_cut
from errors import UserError


def test_cut_covers_rare_classes_evenly_and_depends_on_seed_and_ids_only():
    draw = random.Random(1)
    labels = {str(number): {1} | ({draw.randint(2, 10)} if number % 5 == 0 else set()) for number in range(2000)}
    labels["rare"] = {11}
    chosen = balanced_cut(labels, range(1, 12), 60, seed=0)
    held = {label: sum(label in labels[name] for name in chosen) for label in range(1, 12)}
    assert len(set(chosen)) == 60 and chosen == sorted(chosen)
    assert held[11] == 1 and min(held[label] for label in range(2, 11)) >= 6
    shuffled = dict(draw.sample(sorted(labels.items()), len(labels)))
    assert balanced_cut(shuffled, range(1, 12), 60, seed=0) == chosen
    assert balanced_cut(labels, range(1, 12), 60, seed=1) != chosen


def test_cut_is_the_same_on_every_machine():
    labels = {f"image{number}": {number % 3} for number in range(12)}
    assert balanced_cut(labels, range(3), 4, seed=0) == ["image0", "image4", "image8", "image9"]


@pytest.mark.parametrize(("classes", "count"), [((0, 1, 2), 3), ((0, 1), 11)])
def test_cut_that_cannot_be_made(classes, count):
    with pytest.raises(UserError, match=f"cannot cut {count} images out of 10"):
        balanced_cut({str(number): {number % 2} for number in range(10)}, classes, count, seed=0)
