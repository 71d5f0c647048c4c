"""Draws one generated scene: cluttered background, textured objects in front of each other, light and noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from DL_data.shapes import OUTLINES, Array, outline, smooth_noise, texture

SUPERSAMPLING = 2  # everything is drawn twice as large and then averaged: smooth edges
REACH = 1.02  # no outline of area 1 reaches farther from its centre, stretched or not
# Objects in a scene -> square root of the largest object's area, as a share of the image's shorter side.
LARGEST = {1: 0.5, 2: 0.42, 3: 0.36, 4: 0.33}
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Placed:
    """One object to draw. name: "texture_shape"; centre and size in pixels, size the root of the object's area."""

    name: str
    x: float
    y: float
    size: float
    period: float  # pixels per repetition of the texture


@dataclass(frozen=True)
class Scene:
    """image: uint8 (H, W, 3). coverage: per object uint8 (H, W), the share of a pixel it would cover alone, x 255."""

    image: np.ndarray
    coverage: list[np.ndarray]

    def visible(self) -> list[np.ndarray]:
        """Per object bool (H, W): the pixels in which no later object hides it."""
        masks, hidden = [], np.zeros(self.image.shape[:2], dtype=bool)
        for coverage in reversed(self.coverage):
            inside = coverage > 127
            masks.append(inside & ~hidden)
            hidden |= inside
        return masks[::-1]


def draw(size: tuple[int, int], objects: Sequence[Placed], rng: np.random.Generator) -> Scene:
    """The scene of `size` (width, height) with `objects`, the last in front."""
    width, height = size
    canvas = _background(width, height, rng)
    _clutter(canvas, rng)
    coverage = [_draw_object(canvas, item, rng) for item in objects]
    return Scene(_light(canvas.reduce(SUPERSAMPLING), rng), coverage)


def place(
    size: tuple[int, int], names: Sequence[str], rng: np.random.Generator, taken: Sequence[Placed] = ()
) -> list[Placed]:
    """Put objects at random, overlapping a little at most, with one another and with those already there (`taken`).

    The more objects the smaller they are; one that finds no room is left out. At least half of each stays visible.
    """
    width, height = size
    scale = min(width, height) * LARGEST[len(names)]
    placed: list[Placed] = []
    for name in names:
        extent = scale * rng.uniform(0.72, 1.0)
        for _ in range(30):
            margin = 0.65 * REACH * extent  # a corner may reach over the image's border
            x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
            if all(np.hypot(x - o.x, y - o.y) > 0.44 * (extent + o.size) for o in (*taken, *placed)):
                placed.append(Placed(name, x, y, extent, period=rng.uniform(8, 11)))
                break
    return placed


def place_crowd(size: tuple[int, int], name: str, rng: np.random.Generator) -> list[Placed]:
    """A group of 6 to 12 small objects of one class, in uneven rows."""
    width, height = size
    step = min(width, height) * rng.uniform(0.11, 0.14)
    columns, rows = rng.integers(3, 5), rng.integers(2, 4)
    left = rng.uniform(step, width - (columns + 1) * step)
    top = rng.uniform(step, height - (rows + 1) * step)
    group = []
    for row in range(rows):
        for column in range(columns):
            dx, dy = rng.uniform(-0.2, 0.2, 2)
            x, y = left + (column + dx + 0.5) * step, top + (row + dy + 0.5) * step
            group.append(Placed(name, x, y, 0.8 * step, period=5.0))
    return group


def _background(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Gradient between two random colours under noise of three scales, as a canvas SUPERSAMPLING times as large."""
    first, second = rng.uniform(0.1, 0.9, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    ramp = 0.5 + 0.7 * (np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None])
    pixels = first + (second - first) * np.clip(ramp, 0, 1)[..., None].astype(np.float32)
    for cells, amplitude in ((3, 0.18), (11, 0.10), (int(rng.integers(24, 60)), 0.10)):
        tint = rng.uniform(0.4, 1.0, 3).astype(np.float32) * amplitude
        pixels = pixels + smooth_noise(height, width, cells, rng)[..., None] * tint
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    return _to_image(pixels).resize(size, Image.Resampling.BILINEAR)


def _clutter(canvas: Image.Image, rng: np.random.Generator) -> None:
    """Untextured distractors: ellipses, plain shapes of the vocabulary, and lines, half transparent."""
    brush = ImageDraw.Draw(canvas, "RGBA")
    width, height = canvas.size
    for _ in range(rng.integers(2, 5)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        rx, ry = rng.uniform(0.03, 0.2, 2) * width
        brush.ellipse((x - rx, y - ry, x + rx, y + ry), fill=_random_fill(rng))
    for shape in rng.choice(list(OUTLINES), rng.integers(1, 4)):
        points = _turned(outline(str(shape)), rng) * rng.uniform(0.08, 0.25) * width
        points = points + rng.uniform(0, 1, 2) * (width, height)
        brush.polygon([tuple(point) for point in points.tolist()], fill=_random_fill(rng))
    for _ in range(rng.integers(3, 8)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        brush.line(ends.flatten().tolist(), fill=_random_fill(rng), width=int(rng.integers(1, 4)) * SUPERSAMPLING)


def _draw_object(canvas: Image.Image, item: Placed, rng: np.random.Generator) -> np.ndarray:
    """Paste one object on the canvas; returns its coverage, uint8 (H, W) at the scene's own size."""
    texture_name, shape = item.name.split("_")
    size, period = item.size * SUPERSAMPLING, item.period * SUPERSAMPLING
    side = int(np.ceil(2 * REACH * size))
    points = _turned(outline(shape), rng) * size
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in (points + side / 2).tolist()], fill=255)

    field = texture(texture_name, side, period, rng)
    dark, bright = (_shaded(colour, side, rng) for colour in _contrasting_colours(rng))
    tile = Image.composite(bright, dark, Image.fromarray((field * 255).astype(np.uint8)))

    corner = (round(item.x * SUPERSAMPLING - side / 2), round(item.y * SUPERSAMPLING - side / 2))
    canvas.paste(tile, corner, mask)
    whole = Image.new("L", canvas.size)
    whole.paste(mask, corner)
    return np.asarray(whole.reduce(SUPERSAMPLING))


def _light(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Uneven light and sensor noise."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    light = rng.uniform(0.85, 1.1) + 0.2 * smooth_noise(*pixels.shape[:2], 2, rng)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0.01, 0.03)
    return np.asarray(_to_image(pixels * light[..., None] + noise))


def _turned(points: Array, rng: np.random.Generator) -> Array:
    """The outline turned by a random angle and stretched a little, its area kept."""
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.88, 1.14)
    cos, sin = np.cos(angle), np.sin(angle)
    return (points * (stretch, 1 / stretch)) @ np.array([[cos, sin], [-sin, cos]])


def _shaded(colour: Array, side: int, rng: np.random.Generator) -> Image.Image:
    """A square of one colour, lit unevenly."""
    corners = colour * rng.uniform(0.75, 1.15, (2, 2, 1))
    return _to_image(corners).resize((side, side), Image.Resampling.BILINEAR)


def _contrasting_colours(rng: np.random.Generator) -> Array:
    """Two random colours, (2, 3) in [0, 1], in random order, 0.35 apart in luminance so that a texture shows."""
    while True:
        pair = rng.uniform(0.03, 0.97, (2, 3)).astype(np.float32)
        if abs(float((pair[1] - pair[0]) @ LUMINANCE)) > 0.35:
            return pair


def _random_fill(rng: np.random.Generator) -> tuple[int, ...]:
    return (*rng.integers(0, 256, 3).tolist(), int(rng.integers(90, 220)))


def _to_image(pixels: Array) -> Image.Image:
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
