"""Checkpoints: written atomically, loaded with weights_only, carrying what is needed to rebuild the model."""

import os
import pickle
import shutil
from pathlib import Path

import torch

from errors import UserError
from files import written_whole
from models import OneHead, build, build_model, norm_maker
from recipe import Recipe
from recipe_parser import make_recipe
from tasks import Task

FORMAT = 1
_KEYS = {"recipe", "classes", "model", "stored_statistics", "memory"}
# What torch.load raises on damaged files, by where the damage lies: found by truncating and by changing single bytes.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
)


def save(path: Path, content: dict) -> None:
    """Write beside, flush to disk, then rename: a kill leaves the file before, or the complete new one.

    UserError where it cannot be written; the file before is kept then, too.
    """
    try:
        with written_whole(path) as beside, open(beside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
        raise UserError(f"{path}: cannot be written ({error}); make room, then go on with --resume") from error


def read(path: Path) -> dict:
    """A checkpoint's content; UserError if it is missing, damaged or no checkpoint of this project."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; expected a file such as RUN/final.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:100]
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}); it may be cut short: copy or write it again"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(
            f"{path}: not a checkpoint of this project (no 'format' in it); expected one written by train.py"
        )
    if content["format"] != FORMAT:
        raise UserError(f"{path}: checkpoint format {content['format']}, expected {FORMAT}; use the code that wrote it")
    if not content.keys() >= _KEYS:
        missing = ", ".join(sorted(_KEYS - content.keys()))
        raise UserError(f"{path}: not a whole checkpoint ({missing} missing); expected one written by train.py")
    return content


def describe(model: OneHead, recipe: Recipe, tasks: dict[str, Task], memory_ids: dict[str, list[str]]) -> dict:
    """What a checkpoint holds for evaluation and prediction."""
    return {
        "format": FORMAT,
        "recipe": recipe.resolved,
        "classes": {name: list(task.classes) for name, task in tasks.items()},
        "model": model.state_dict(),
        "stored_statistics": model.stored_statistics,
        "memory": memory_ids,
    }


def restore(path: Path, device: torch.device | str = "cpu") -> tuple[OneHead, dict[str, Task], Recipe, dict]:
    """Rebuild model and tasks from a checkpoint: (model in eval mode, tasks learned, recipe, content)."""
    content = read(path)
    backbone = dict(content["recipe"]["backbone"])
    unused = {"pretrained": False, "weights": None}  # all weights come from the checkpoint
    backbone |= {key: value for key, value in unused.items() if key in backbone}
    recipe = make_recipe({**content["recipe"], "backbone": backbone}, source=str(path))[0]
    model = build_model(recipe)
    tasks = {}
    for name, classes in content["classes"].items():
        tasks[name] = build(Task, recipe.stages[name].task, classes)
        add_predictor(model, recipe, name, tasks[name])
    load_weights(model, content, path)
    model.fixed = set(model.parts())
    return model.eval().to(device), tasks, recipe, content


def load_weights(model: OneHead, content: dict, path: Path) -> None:
    """Put a checkpoint's weights and statistics into a model with the same predictors; UserError if they do not fit."""
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise UserError(
            f"{path}: weights of another architecture than its recipe describes: {str(error)[:300]}"
        ) from error
    model.stored_statistics = content["stored_statistics"]


def add_predictor(model: OneHead, recipe: Recipe, name: str, task: Task) -> None:
    make_norm = norm_maker(recipe.norm.layer)
    model.predictors[name] = task.build_predictor(model.channels, model.stride, make_norm)
    model.to(memory_format=torch.channels_last)


def stage_file(number: int, name: str, last: bool) -> str:
    """The name of a finished stage's checkpoint; number: of the stage, from 1."""
    return "final.pt" if last else f"stage{number}_{name}.pt"


def require_space(folder: Path, model: OneHead, checkpoints: int) -> None:
    """UserError if the disk cannot hold `checkpoints` of this model, optimiser state included; the folder may not exist yet."""
    needed = 4 * sum(value.nbytes for value in model.state_dict().values()) * checkpoints
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{folder}: {free >> 20} MB free, {checkpoints} checkpoints need about {needed >> 20} MB; make room"
        )
