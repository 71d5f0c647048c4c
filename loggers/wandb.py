"""--logger wandb: Weights & Biases, on-line or into files in RUN/wandb; the environment variables WANDB_... are heeded."""

import os
import sys
import uuid
from pathlib import Path

import wandb
from PIL import Image

from errors import UserError, nearest
from loggers import Logger

MODES = ("online", "offline", "disabled", "shared")


class WeightsAndBiases(Logger):
    """Resumed, it goes on under the same run id, and is told all again: W&B writes late, so that a kill may lose any row.

    On-line, W&B ignores a step that it holds already; off-line every session is a folder of its own, and an epoch may lie in
    two of them, with the same values, for a run resumes bit for bit. Pictures that a kill has lost are not drawn again.
    """

    takes_pictures = True

    def __init__(self, folder: Path, recipe: dict, redo_from: int):
        known = folder / "wandb" / "run_id.txt"
        super().__init__(folder, recipe, redo_from=0)
        known.parent.mkdir(exist_ok=True)
        if not known.is_file():
            known.write_text(uuid.uuid4().hex[:8])  # W&B's own generator draws from Python's random state
        mode = _mode()
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "onehead"),
                name=folder.resolve().name,
                id=known.read_text().strip(),
                dir=folder,
                config=recipe,
                mode=mode,
                resume="allow" if mode == "online" else None,
                allow_val_change=True,  # a resumed run's data may have moved
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            raise UserError(f"W&B: {error}; with WANDB_MODE=offline it needs no network") from error
        if mode == "offline":
            place = folder / "wandb"
            print(f"W&B is off-line, its files lie in {place}: wandb sync {place}/offline-run-*", file=sys.stderr)
        elif mode == "online":
            print(f"W&B: {self.run.url}, files in {folder / 'wandb'}", file=sys.stderr)

    @classmethod
    def check(cls) -> None:
        mode = _mode()
        if mode not in MODES:
            raise UserError(f"WANDB_MODE: unknown mode '{mode}'{nearest(mode, MODES)}")
        if mode == "online" and not _has_key():
            raise UserError("WANDB_MODE is online, but no key is configured: wandb login, or WANDB_MODE=offline")

    def scalars(self, values: dict[str, float], step: int) -> None:
        self.run.log(values, step=step)  # all that is told of one step becomes one row

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        self.run.log({name: wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self.run.finish()


def _mode() -> str:
    """WANDB_MODE; without it off-line where no key is configured, for training must not wait for somebody to log in."""
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    wandb.setup(wandb.Settings(silent=True))  # a login that is not silent asks the server for the user's name
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.Error as error:
        raise UserError(f"W&B: {error}; mend the key, or set WANDB_MODE=offline") from error
