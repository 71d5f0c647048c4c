"""From a sample as it lies on disk to the network's square input: image, mask and boxes move together."""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data import VOID, Sample

VISIBLE = 0.25  # share of a box that must stay in view for it to count; less: the region is ignored


@dataclass(frozen=True)
class Augment:
    """Random view of a training image.

    A window of the image is resized to the input: zoom 1 shows the whole image, 2 a quarter of its area, 0.5 the image
    shrunk to half the width with grey (mask: void) around it.

    Args:
        flip: Probability of a horizontal flip.
        zoom_min: Smallest zoom.
        zoom_max: Largest zoom; drawn log-uniformly.
        stretch: Aspect ratio changes by up to this factor, either way.
        jitter: Brightness, contrast and saturation change by up to this share.
    """

    flip: float = 0.5
    zoom_min: float = 1.0
    zoom_max: float = 1.0
    stretch: float = 1.0
    jitter: float = 0.0


def whole_image(sample: Sample, size: int) -> Tensor:
    """uint8 (3, size, size): the image resized without keeping its aspect ratio; what evaluation and prediction see."""
    return F.resize(sample.image, [size, size], antialias=True)


def augmented(sample: Sample, size: int, augment: Augment, rng: random.Random) -> tuple[Tensor, dict[str, Tensor]]:
    """A random view: uint8 (3, size, size) and the target in its frame. All randomness comes from `rng`."""
    zoom = math.exp(rng.uniform(math.log(augment.zoom_min), math.log(augment.zoom_max)))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(augment.stretch) / 2)
    height, width = sample.image.shape[-2:]
    window = _window(width, zoom * stretch, rng), _window(height, zoom / stretch, rng)
    image = _resample(sample.image, window, size, 114, antialias=True)
    target = {
        name: values for name, values in sample.target.items() if name != "area"
    }  # a metric's, of the whole image
    if "mask" in target:
        target["mask"] = _resample(target["mask"][None], window, size, VOID, antialias=None)[0]
    if "boxes" in target:
        target |= _move_boxes(target, window, size)
    if rng.random() < augment.flip:
        image = image.flip(-1)
        if "mask" in target:
            target["mask"] = target["mask"].flip(-1)
        if "boxes" in target:
            left, top, right, bottom = target["boxes"].unbind(-1)
            target["boxes"] = torch.stack([size - right, top, size - left, bottom], dim=-1)
    if augment.jitter:
        image = _jitter(image, augment.jitter, rng)
    return image, target


def _window(length: int, zoom: float, rng: random.Random) -> tuple[float, float]:
    """Start and end, in pixels, of the part of an axis that is seen: whole pixels, or from beyond the image where zoom < 1."""
    seen = length / zoom
    start = rng.uniform(min(0.0, length - seen), max(0.0, length - seen))
    if zoom < 1:
        return start, start + seen
    first = min(round(start), length - 1)
    return first, min(first + max(round(seen), 1), length)


def _resample(image: Tensor, window, size: int, fill: int, antialias: bool | None) -> Tensor:
    """The window (x, y ranges in pixels) of an image (C, H, W) at size x size; nearest where antialias is None."""
    (x0, x1), (y0, y1) = window
    height, width = image.shape[-2:]
    left, right, top, bottom = max(0, round(x0)), min(width, round(x1)), max(0, round(y0)), min(height, round(y1))
    to_x, to_y = size / (x1 - x0), size / (y1 - y0)
    out_left, out_right = round((left - x0) * to_x), round((right - x0) * to_x)
    out_top, out_bottom = round((top - y0) * to_y), round((bottom - y0) * to_y)
    # NEAREST would take each step's first pixel and shift the mask by half a step; NEAREST_EXACT takes the middle one
    mode = F.InterpolationMode.NEAREST_EXACT if antialias is None else F.InterpolationMode.BILINEAR
    shape = [max(out_bottom - out_top, 1), max(out_right - out_left, 1)]
    view = F.resize(image[:, top:bottom, left:right], shape, mode, antialias=bool(antialias))
    if shape == [size, size]:
        return view
    canvas = torch.full((image.shape[0], size, size), fill, dtype=image.dtype)
    canvas[:, out_top:out_bottom, out_left:out_right] = view
    return canvas


def _move_boxes(target: dict[str, Tensor], window, size: int) -> dict[str, Tensor]:
    """Boxes into the window's frame, clipped; those mostly out of view become ignore regions, those gone are dropped."""
    (x0, x1), (y0, y1) = window
    offset = torch.tensor([x0, y0, x0, y0])
    factor = torch.tensor([size / (x1 - x0), size / (y1 - y0)] * 2)
    moved = (target["boxes"] - offset) * factor
    clipped = moved.clamp(0, size)
    area = (moved[:, 2:] - moved[:, :2]).prod(-1)
    seen = (clipped[:, 2:] - clipped[:, :2]).prod(-1)
    kept = ((clipped[:, 2:] - clipped[:, :2]) > 1).all(-1)
    ignore = target["iscrowd"] | (seen < VISIBLE * area)
    return {"boxes": clipped[kept], "labels": target["labels"][kept], "iscrowd": ignore[kept]}


def _jitter(image: Tensor, amount: float, rng: random.Random) -> Tensor:
    for change in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
        image = change(image, 1 + rng.uniform(-amount, amount))
    return image
