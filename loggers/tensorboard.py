"""--logger tensorboard: event files in RUN/tensorboard."""

import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from loggers import Logger


class TensorBoard(Logger):
    """Resumed, it adds an event file to the folder whose first event makes TensorBoard drop all from redo_from on."""

    takes_pictures = True

    def __init__(self, folder: Path, recipe: dict, redo_from: int):
        place = folder / "tensorboard"
        begun = any(place.glob("events.out.tfevents.*"))
        super().__init__(folder, recipe, redo_from if begun else 0)
        self.writer = SummaryWriter(place, purge_step=self.redo_from if begun else None)
        if not begun:
            self.writer.add_text("recipe", f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```")
            for summary in hparams(_flat(recipe), {}):  # add_hparams would write a second run beside this one
                self.writer.file_writer.add_summary(summary)
        print(f"TensorBoard's files lie in {place}: tensorboard --logdir {place}", file=sys.stderr)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # before last.pt moves on: a kill must not lose an epoch that is never redone

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        self.writer.add_image(name, np.asarray(picture), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def _flat(recipe: dict, prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested values by dotted name, as the flags of train.py are; lists as text."""
    flat = {}
    for key, value in recipe.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value if isinstance(value, str | int | float) else str(value)
    return flat
