"""Videos in and out through PyAV, which only videos need."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from data import Sample
from errors import UserError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


def require_av(path: Path | str) -> ModuleType:
    """PyAV; UserError with the line that installs it."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: videos need PyAV, which is not installed: python -m pip install av") from error
    return av


@dataclass(frozen=True)
class VideoFacts:
    """frames: how many, 0 where the file does not say. rate: of frames per second."""

    frames: int
    rate: Fraction


def describe(path: Path) -> VideoFacts:
    """What a video's header says; UserError if it is no readable video."""
    with _opened(path) as (container, stream):
        return VideoFacts(stream.frames, stream.average_rate or Fraction(25))


def read_frames(path: Path | str) -> Iterator[Sample]:
    """All frames in order, upright, one at a time: uint8 (3, H, W); ids PATH#0, PATH#1, …

    UserError if it is no readable video, or where it is damaged: the frames before have been yielded by then.
    """
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            turns = round(frame.rotation / 90)  # telephones store what the sensor saw, and how to turn it
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
            yield Sample(f"{path}#{number}", torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous(), {})


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[tuple]:
    av = require_av(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: unreadable video (no picture in it); it may be cut short: copy it again")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise UserError(f"{path}: unreadable video ({error.strerror}); replace the file") from error


class VideoWriter:
    """Writes pictures of one size as H.264 in MP4. The file appears when it is complete: use it in a `with`."""

    def __init__(self, path: Path, rate: Fraction):
        self.path = path
        self.rate = rate
        self._beside = path.with_name(f".{path.name}.part{path.suffix}")
        self._container = None
        self._stream = None

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, picture: Image.Image) -> None:
        """The next frame, RGB."""
        av = require_av(self.path)
        with self._reported(av):
            if self._stream is None:
                self._container = av.open(str(self._beside), "w")
                self._stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": "18"})
                self._stream.width, self._stream.height = picture.size
                odd = picture.width % 2 or picture.height % 2  # halved colour needs even sides
                self._stream.pix_fmt = "yuv444p" if odd else "yuv420p"
            if picture.size != (self._stream.width, self._stream.height):  # a stream may change its size
                picture = picture.resize((self._stream.width, self._stream.height))
            self._container.mux(self._stream.encode(av.VideoFrame.from_image(picture)))

    def __exit__(self, kind, error, trace) -> None:
        if self._container is None:
            return
        try:
            if kind is None:
                with self._reported(require_av(self.path)):
                    self._container.mux(self._stream.encode())
                    self._container.close()
                os.replace(self._beside, self.path)
            else:
                self._container.close()
        finally:
            self._beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _reported(self, av: ModuleType) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise UserError(f"{self.path}: cannot be written ({error}); choose another --out") from error
