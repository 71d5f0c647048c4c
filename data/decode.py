"""Image and mask files to tensors: the one place that opens pictures."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})

# What Pillow raises on a damaged file, by format: truncated (OSError), broken PNG chunk (SyntaxError), bad header
# fields (ValueError, struct.error), a size no real photograph has (DecompressionBombError).
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(path: Path, upright: bool = False) -> Tensor:
    """Decode an image of any usual mode (grey, palette, RGBA, CMYK, 16-bit) to uint8 (3, H, W) RGB; alpha is dropped.

    `upright` applies the EXIF rotation. It stays off wherever labels have coordinates: COCO boxes and VOC masks refer to
    pixels in stored order. UserError naming the file if it is missing, truncated or no image.
    """
    with _named(path, "image"), Image.open(path) as image:
        return _pixels(image, upright)


def read_opened(image: Image.Image, name: str) -> Tensor:
    """An image that is open already, upright, as `read_image` gives it; UserError with its `name` if it cannot be decoded."""
    with _named(name, "image"):
        return _pixels(image, upright=True)


def read_mask(path: Path) -> Tensor:
    """Decode a mask to uint8 (H, W): palette indices (VOC) or 8-bit grey values, never colours.

    UserError naming the file if it is missing, truncated, no image, or stores colours instead of indices.
    """
    with _named(path, "mask"), Image.open(path) as image:
        image.load()
        mode, values = image.mode, np.array(image)
    if mode not in ("P", "L"):
        raise UserError(
            f"{path}: mask has mode {mode}, expected a palette image or 8-bit grey whose pixel values are class "
            "indices; convert it (colours do not say which class they mean)"
        )
    return torch.from_numpy(values)  # (H, W)


@contextmanager
def _named(path: Path | str, what: str) -> Iterator[None]:
    """What Pillow raises on a damaged file, as a UserError that names the file."""
    try:
        yield
    except _UNREADABLE as error:
        raise UserError(f"{path}: unreadable {what} ({_reason(error)}); replace the file") from error


def _pixels(image: Image.Image, upright: bool) -> Tensor:
    image.load()
    pixels = _rgb(ImageOps.exif_transpose(image) if upright else image)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3). Pillow's own conversion clips 16-bit grey to white, hence the shift."""
    if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" holds 16-bit values in 32-bit pixels
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values {values.min()}..{values.max()} do not fit 16 bits")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a transparent palette goes straight to RGB
    return np.array(image.convert("RGB"))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"{type(error).__name__}: {error}".split("\n")[0]
