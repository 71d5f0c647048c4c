"""What is predicted: files found by what the user named, and images of every accepted form as one."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import Sample
from data.decode import IMAGE_SUFFIXES, read_image, read_opened
from errors import UserError
from prediction.video import VIDEO_SUFFIXES, describe, read_frames, require_av

Picture = str | os.PathLike | Image.Image | np.ndarray | Tensor | Sample
BATCH_BYTES = 128 << 20  # of decoded images: sixteen photographs of a telephone would take 600 MB


@dataclass(frozen=True)
class Input:
    """A file to predict. `name`: of what is written for it, without suffix; no two inputs share one, whatever the case."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(arguments: Sequence[str], outputs: Sequence[Path] = ()) -> list[Input]:
    """Files, folders (all images below them) and glob patterns, in this order, each file once.

    `outputs` are about to be written: what lies there is left out of a folder, since it stems from an earlier call.
    UserError for an argument that leads to no file, or to one that would be written over.
    """
    found: dict[str, Path] = {}  # absolute path → the name wished for
    paths: dict[str, Path] = {}
    for argument in arguments:
        for path, name in _expand(argument, outputs):
            absolute = os.path.abspath(path)
            if any(is_within(path, place) for place in outputs):
                raise UserError(f"{path}: lies where results will be written; choose another --out, or move it away")
            found.setdefault(absolute, name)
            paths.setdefault(absolute, path)
    taken: set[str] = set()
    return [Input(paths[absolute], _free(name, taken)) for absolute, name in found.items()]


def is_within(path: Path, place: Path) -> bool:
    """Whether a path is `place` or lies below it."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(place))


def _expand(argument: str, outputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Paths and the names wished for: a file's own, in a folder also those of the folders below it."""
    path = Path(argument)
    if path.is_file():
        return [(path, _stem(Path(path.name)))]
    if path.is_dir():
        below = [(file, file.relative_to(path)) for file in sorted(path.rglob("*"))]
        images = [
            (file, _stem(inside))
            for file, inside in below
            if file.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in inside.parts)
            and not any(is_within(file, place) for place in outputs)
            and file.is_file()
        ]
        if not images:
            raise UserError(f"{path}: no image in this folder or below it; looked for {_listed(IMAGE_SUFFIXES)}")
        return images
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    files = [(match, _stem(Path(match.name))) for match in matches if match.is_file()]
    files = [(match, name) for match, name in files if match.suffix.lower() in suffixes]
    if not files:
        if not glob.has_magic(argument):
            raise UserError(f"{path}: no such file or folder; expected images, folders of images, globs or videos")
        others = f" ({len(matches)} other files or folders match)" if matches else ""
        raise UserError(f"{argument}: no image found by this pattern{others}; looked for {_listed(suffixes)}")
    return files


def _stem(path: Path) -> Path:
    """Without suffix; a video keeps it, since its frames get a folder of that name."""
    return path if path.suffix.lower() in VIDEO_SUFFIXES else path.with_suffix("")


def _free(wish: Path, taken: set[str]) -> str:
    """The name wished for, or with -2, -3, … behind it; file systems that ignore case are allowed for."""
    names = (wish.as_posix() + (f"-{number}" if number > 1 else "") for number in count(1))
    name = next(name for name in names if name.casefold() not in taken)
    taken.add(name.casefold())
    return name


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffixes))


class Reader:
    """Reads inputs one after another, frame by frame where they are videos; what cannot be read is noted and passed over."""

    def __init__(self, inputs: list[Input]):
        self.inputs = inputs
        self.unreadable: list[str] = []
        self.places: dict[str, tuple[str, Fraction | None]] = {}  # a sample's id → name of its files, a video's rate

    def __iter__(self) -> Iterator[Sample]:
        for item in self.inputs:
            try:
                if item.is_video:
                    yield from self._frames(item)
                else:
                    sample = as_sample(item.path)
                    self.places[sample.id] = item.name, None
                    yield sample
            except UserError as error:
                self.unreadable.append(str(error))

    def _frames(self, item: Input) -> Iterator[Sample]:
        rate = describe(item.path).rate
        for number, sample in enumerate(read_frames(item.path)):
            self.places[sample.id] = f"{item.name}/{number:06d}", rate
            yield sample

    def count(self) -> int | None:
        """Of images and frames; None where a video does not say. UserError if PyAV is needed and missing."""
        total = 0
        for item in self.inputs:
            frames = 1
            if item.is_video:
                require_av(item.path)
                try:
                    frames = describe(item.path).frames
                except UserError:  # reported when it is its turn
                    continue
            if not frames:
                return None
            total += frames
        return total


def as_sample(picture: Picture, number: int = 0) -> Sample:
    """An image of any accepted form, upright; the id is its path, or "image NUMBER".

    picture: a path or a PIL image (EXIF rotation applied), a NumPy array (H, W, 3) or a tensor (3, H, W), RGB, both uint8 or
    floating with values in [0, 1]; a Sample is passed through. UserError for anything else, and for unreadable files.
    """
    name = f"image {number}"
    if isinstance(picture, Sample):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Sample(str(picture), read_image(Path(picture), upright=True), {})
    if isinstance(picture, Image.Image):
        name = str(getattr(picture, "filename", "")) or name
        return Sample(name, read_opened(picture, name), {})
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
            raise _refused(name, "array", picture, "(H, W, 3)", "np.stack([grey] * 3, axis=-1)")
        if not (picture.dtype == np.uint8 or np.issubdtype(picture.dtype, np.floating)):
            raise _refused(name, "array", picture, "(H, W, 3)")
        picture = torch.from_numpy(np.array(picture, order="C")).permute(
            2, 0, 1
        )  # a copy: a camera's buffer may change
    elif isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
            raise _refused(name, "tensor", picture, "(3, H, W)", "grey.expand(3, -1, -1)")
        if not (picture.dtype == torch.uint8 or picture.is_floating_point()):
            raise _refused(name, "tensor", picture, "(3, H, W)")
        picture = picture.detach().cpu().clone()
    else:
        raise UserError(
            f"{name}: a {type(picture).__name__}, expected a path, a PIL image, a NumPy array (H, W, 3), a tensor "
            "(3, H, W), or a list of these"
        )
    return Sample(name, _to_uint8(picture, name).contiguous(), {})


def _to_uint8(pixels: Tensor, name: str) -> Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    if not ((pixels >= 0) & (pixels <= 1)).all():  # false for NaN too
        least, most = pixels.min().item(), pixels.max().item()
        raise UserError(
            f"{name}: floating values {least:g} to {most:g}, expected 0 to 1; divide by the largest value possible, or pass "
            "uint8 (undo a normalisation first: the model normalises by itself)"
        )
    return (pixels.float() * 255).round().to(torch.uint8)


def _refused(name: str, what: str, picture, shape: str, remedy: str = "") -> UserError:
    grey = f"; make three channels of one: {remedy}" if remedy else ""
    return UserError(
        f"{name}: {what} of shape {tuple(picture.shape)} and type {picture.dtype}, expected {shape} in RGB, uint8 or floating "
        f"in [0, 1]; pass several images as a list{grey}"
    )


def batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """At most `size` samples at a time, and fewer where they are large."""
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size or sum(kept.image.nbytes for kept in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
