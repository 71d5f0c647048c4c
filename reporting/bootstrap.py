"""How sure a drop is: image-level paired bootstrap (Efron and Tibshirani 1993, ch. 13) of baseline score minus final score."""

from dataclasses import dataclass

import numpy as np

from metrics import PerImage

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a drop, positive: worse than the baseline.

    points: of baseline minus final, in points of 0..100.  percent: of the same in % of the baseline's score; None if some
    resample's baseline scores 0.  resamples: how many the interval rests on; those without anything to score are left out.
    """

    points: tuple[float, float]
    percent: tuple[float, float] | None
    resamples: int


def draw_counts(images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, images): how often each image is drawn when as many as there are are drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples)


def paired_drop(baseline: PerImage, final: PerImage, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """Interval of a task's drop between two models scored on the same images in the same order.

    Every resample draws the same images for both, so that what makes an image hard for both cancels out. The same seed
    gives the same interval. None where no resample has anything to score. ValueError: not the same number of images.
    """
    if len(baseline) != len(final) or not len(final):
        raise ValueError(f"{len(baseline)} and {len(final)} images; expected the same, and some")
    counts = draw_counts(len(final), resamples, seed)
    before, after = baseline.resampled(counts), final.resampled(counts)
    defined = np.isfinite(before) & np.isfinite(after)
    before, after = before[defined], after[defined]
    if not len(before):
        return None
    percent = _interval(100 * (before - after) / before) if (before > 0).all() else None
    return Interval(_interval(100 * (before - after)), percent, len(before))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
