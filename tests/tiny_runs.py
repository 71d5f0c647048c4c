"""Complete runs that take a second or two: three stages on a few generated images, through the real loop."""

import argparse
import copy
import json
from pathlib import Path

import torch
import yaml

import command_line
import progress
import train
from recipe_parser import make_recipe
from run import Run

TRAIN, VAL = 8, 6  # images per task: with 4 per step, two steps an epoch
EPOCHS = {"seg": 2, "det": 2, "cls": 1}
ALL = {"lwf": {}, "replay": {"batch_size": 4}, "ema": {"decay": 0.9}}
_STAGES = {
    "seg": {"task": {"name": "segmentation"}, "dataset": {"name": "voc"}},
    "det": {"task": {"name": "detection_anchor_free"}, "dataset": {"name": "coco"}},
    "cls": {"task": {"name": "classification"}, "dataset": {"name": "imagefolder"}},
}


def tiny_recipe(data_root: Path, strategies=ALL, stages=(), **changes) -> dict:
    """A recipe's plain form. `stages`: name → changed options; `changes` replace whole entries of the recipe."""
    recipe = {
        "seed": 0,
        "image_size": 64,
        "data_root": str(data_root),
        "memory_per_task": 3,
        "backbone": {"name": "efficientnet_lite0", "pretrained": False},
        "neck": {"name": "fpn", "channels": 16},
        "head": {"layers": 2, "channels": 16},
        "stages": {n: {**copy.deepcopy(s), "epochs": EPOCHS[n], "batch_size": 4} for n, s in _STAGES.items()},
        "strategies": copy.deepcopy(strategies),
        **changes,
    }
    for name, options in dict(stages).items():
        recipe["stages"][name] |= options
    return recipe


def write_recipe(path: Path, plain: dict) -> Path:
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def begin(plain: dict, folder: Path, resume: bool = False, logger: str = "none") -> tuple[Run, dict | None]:
    """A run ready to train and the state to go on from, as train.main has them."""
    recipe = make_recipe(plain)[0]
    options = argparse.Namespace(recipe=recipe, run_dir=folder, resume=resume, device="cpu", logger=logger)
    return command_line.start(options)


def trained(plain: dict, folder: Path) -> Run:
    run, state = begin(plain, folder)
    train.train(run, state)
    return run


def at_stage(run: Run, name: str, before=("seg",)) -> Run:
    """Enter a stage as the loop does; the stages before it count as learned, without having been trained."""
    for earlier in before:
        train.enter_stage(run, run.recipe.stages[earlier])
        for strategy in run.strategies.values():
            strategy.after_stage(run, run.stage)
        run.learned.append(earlier)
    train.enter_stage(run, run.recipe.stages[name])
    train.prepare_model(run)
    for strategy in run.strategies.values():
        strategy.before_stage(run, run.stage)
    run.model.train()
    return run


def first_batch(run: Run):
    stage = run.stage
    split = run.splits[stage.name]
    return next(split.epoch(stage.name, stage.batch_size, run.recipe.image_size, stage.augment, run.key("images", 0)))


def first_step(run: Run):
    """The forward pass of the stage's first step: train.Step."""
    return train.forward(run, [first_batch(run), *(b for s in run.strategies.values() for b in s.batches(run))])


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Parameters and buffers in a checkpoint."""
    return torch.load(path, weights_only=True)["model"]


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return weights(folder / "final.pt")


def same(one, other) -> bool:
    """Equal through nested dicts, tensors bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def different(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Names that only one has, or whose values are not bit-equal."""
    return {
        name for name in one | other if name not in one or name not in other or not torch.equal(one[name], other[name])
    }


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def saved_state(folder: Path) -> dict:
    return progress.read(folder)
