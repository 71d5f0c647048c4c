"""Checkpoints: written atomically, loaded with weights_only, carrying what is needed to rebuild the model."""

import os
import pickle
import shutil
from pathlib import Path

import torch

from errors import UserError
from models import OneHead, build, build_model, norm_maker
from recipe import Recipe, make_recipe
from tasks import Task

FORMAT = 1


def save(path: Path, content: dict) -> None:
    """Write beside, flush to disk, then rename: a kill leaves the file before, or the complete new one."""
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def read(path: Path) -> dict:
    """A checkpoint's content; UserError if it is missing, damaged or no checkpoint of this project."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; expected a file such as RUN/final.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}); it may be cut short: copy or write it again"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(
            f"{path}: not a checkpoint of this project (no 'format' in it); expected one written by train.py"
        )
    if content["format"] != FORMAT:
        raise UserError(f"{path}: checkpoint format {content['format']}, expected {FORMAT}; use the code that wrote it")
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
    plain = content["recipe"]
    plain = {**plain, "backbone": {**plain["backbone"], "pretrained": False, "weights": None}}  # its weights follow
    recipe = make_recipe(plain, source=str(path))[0]
    model = build_model(recipe)
    tasks = {}
    for name, classes in content["classes"].items():
        tasks[name] = build(Task, recipe.stages[name].task, classes)
        add_predictor(model, recipe, name, tasks[name])
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise UserError(
            f"{path}: weights of another architecture than its recipe describes: {str(error)[:300]}"
        ) from error
    model.stored_statistics = content["stored_statistics"]
    model.fixed = set(model.parts())
    return model.eval().to(device), tasks, recipe, content


def add_predictor(model: OneHead, recipe: Recipe, name: str, task: Task) -> None:
    make_norm = norm_maker(recipe.norm.layer)
    model.predictors[name] = task.build_predictor(model.channels, model.stride, make_norm)
    model.to(memory_format=torch.channels_last)


def require_space(folder: Path, model: OneHead, checkpoints: int) -> None:
    """UserError if the disk cannot hold `checkpoints` of this model, optimiser state included."""
    needed = 4 * sum(value.nbytes for value in model.state_dict().values()) * checkpoints
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free >> 20} MB free, {checkpoints} checkpoints need about {needed >> 20} MB; make room"
        )
