"""Outlines and textures of the generated objects: what tells one class from another there."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
TURN = 2 * np.pi


def outline(shape: str) -> Array:
    """Polygon of a named shape: float32 (N, 2), xy around the origin. Area 1 for every shape, so size tells nothing."""
    points = np.asarray(OUTLINES[shape](), dtype=np.float32)
    x, y = points.T
    area = 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))  # shoelace formula
    return points / np.sqrt(area)


def texture(name: str, side: int, period: float, rng: np.random.Generator) -> Array:
    """Field of a named texture: float32 (side, side) in [0, 1], the share of the object's second colour.

    `period` is the length of one repetition in pixels; angle and phase are random, so neither tells the class.
    """
    axis = (np.arange(side, dtype=np.float32) - side / 2) / period
    angle = rng.uniform(0, TURN)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x = cos * axis[None, :] - sin * axis[:, None]
    y = sin * axis[None, :] + cos * axis[:, None]
    return TEXTURES[name](x, y, rng).astype(np.float32)


def smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> Array:
    """Noise float32 (height, width) in [-1, 1] that varies over about 1 / `cells` of the picture."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), -1, 1)


def _regular(corners: int) -> Array:
    angles = np.arange(corners) * TURN / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Array:
    return _regular(10) * np.where(np.arange(10) % 2, 0.45, 1.0)[:, None]


def _cross() -> list[tuple[int, int]]:
    return [(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1), (-1, 3)]


OUTLINES: dict[str, Callable[[], Array | list[tuple[int, int]]]] = {
    "disc": lambda: _regular(48),
    "square": lambda: _regular(4),
    "triangle": lambda: _regular(3),
    "star": _star,
    "cross": _cross,
}


def _striped(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _phase(x, rng) < 0.5


def _dotted(x: Array, y: Array, rng: np.random.Generator) -> Array:
    dx, dy = _phase(x, rng) - 0.5, _phase(y, rng) - 0.5
    return dx * dx + dy * dy < 0.32**2


def _checked(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return (_phase(x, rng) < 0.5) ^ (_phase(y, rng) < 0.5)


def _zigzag(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _phase(x + 2 * np.abs(_phase(0.5 * y, rng) - 0.5), rng) < 0.5


def _netted(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return (_phase(x, rng) < 0.22) | (_phase(y, rng) < 0.22)


def _bricked(x: Array, y: Array, rng: np.random.Generator) -> Array:
    height = 1.4 * y + np.float32(rng.uniform())
    row = np.floor(height)
    return (height - row < 0.25) | (_phase(0.7 * x + 0.5 * (row % 2), rng) < 0.13)


def _speckled(x: Array, y: Array, rng: np.random.Generator) -> Array:
    periods = np.hypot(x[0, -1] - x[0, 0], y[0, -1] - y[0, 0])  # across the tile
    return np.clip(0.5 + 1.5 * smooth_noise(*x.shape, round(2.6 * float(periods)), rng), 0, 1)


def _spoked(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _phase(np.arctan2(y, x) * np.float32(9 / TURN), rng) < 0.5


def _phase(distance: Array, rng: np.random.Generator) -> Array:
    """Position within a repetition, in [0, 1), after a random shift."""
    shifted = distance + np.float32(rng.uniform())
    return shifted - np.floor(shifted)  # twice as fast as % 1


TEXTURES: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "zigzag": _zigzag,
    "netted": _netted,
    "bricked": _bricked,
    "speckled": _speckled,
    "spoked": _spoked,
}
