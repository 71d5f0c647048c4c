"""Opens the sets that a recipe names, and refuses to start on anything unusable."""

import random
from pathlib import Path

import registry
from data import Dataset, Subset
from data.loader import Budget, Split
from data.validate import findings, listing, open_with_findings
from errors import UserError
from recipe import Recipe, Stage
from recipe_limits import FOLDS
from tasks import Task

MEMORY_BUDGET = 1 << 30  # bytes of decoded images kept, over all splits of a run


def open_splits(recipe: Recipe, stages: list[Stage], which: str, classes: dict | None = None) -> dict[str, Split]:
    """Stage name → its "train" or "val" split. Every image and label is read once; all findings come in one UserError.

    Val is matched by name against the vocabularies in `classes` (stage → names).
    """
    splits, found = _read(recipe, stages, which, classes or {})
    _refuse(recipe, found)
    return splits


def open_train_and_val(recipe: Recipe) -> tuple[dict[str, Split], dict[str, Split]]:
    """Both splits of every stage that runs, val matched against train's vocabulary; the findings of both in one UserError."""
    train, found = _read(recipe, recipe.running(), "train", {})
    classes = {name: split.dataset.classes for name, split in train.items()}
    val, more = _read(recipe, recipe.running(), "val", classes)
    _refuse(recipe, found + more)
    return train, val


def _refuse(recipe: Recipe, found: list[str]) -> None:
    if found:
        raise UserError(f"{recipe.data_root}: cannot be used: {listing(list(dict.fromkeys(found)))}")


def _read(recipe: Recipe, stages: list[Stage], which: str, classes: dict) -> tuple[dict[str, Split], list[str]]:
    root = Path(recipe.data_root)
    splits, found = {}, []
    budget = Budget(MEMORY_BUDGET // 2)
    for stage in stages:
        source = "train" if recipe.fold is not None else which
        dataset, problems = _open(stage, root, source, classes.get(stage.name))
        found += problems
        if dataset is not None and recipe.fold is not None:
            dataset = Subset(dataset, _fold(len(dataset), recipe, which))
        if dataset is not None:
            splits[stage.name] = split = Split(dataset, budget)
            found += findings(dataset, split.keep, f"checking {stage.name}/{which}")
    return splits, found


def _fold(count: int, recipe: Recipe, which: str) -> list[int]:
    """Items of the training set that play `which` in this fold; the same partition for every seed."""
    order = list(range(count))
    random.Random("folds").shuffle(order)
    held_out = set(order[recipe.fold :: FOLDS])
    return [index for index in range(count) if (index in held_out) == (which == "val")]


def _open(stage: Stage, root: Path, which: str, classes) -> tuple[Dataset | None, list[str]]:
    options = dict(stage.dataset)
    reader = registry.load(Dataset, options.pop("name"))[0]
    task = registry.load(Task, stage.task["name"])[0]
    if reader.kind != task.kind:
        message = f"stages.{stage.name}: task '{stage.task['name']}' needs {task.kind} data, dataset '{stage.dataset['name']}'"
        raise UserError(f"{message} holds {reader.kind}")
    return open_with_findings(reader, root, which, classes, **options)
