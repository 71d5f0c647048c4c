"""Small models for tests, built by the same functions as a run's."""

from types import SimpleNamespace

import torch
from samples import CLASSES

import checkpoint
from models import OneHead, build, build_model
from recipe import Head, Norm, Stage
from tasks import Task

TASKS = {"seg": "segmentation", "det": "detection_anchor_free", "cls": "classification"}
LITE0 = {"name": "efficientnet_lite0", "pretrained": False}
FPN = {"name": "fpn", "channels": 16}
HEAD = Head(layers=2, channels=16)
DEFAULT: dict = {}


def small_model(tasks=TASKS, *, backbone=LITE0, neck=FPN, head=HEAD, norm=DEFAULT, seed=0) -> OneHead:
    """A model with a predictor for each of `tasks` (name → a task, or a task's file name); norm: options of recipe.Norm."""
    torch.manual_seed(seed)
    recipe = SimpleNamespace(backbone=backbone, neck=neck, head=head, norm=Norm(**norm))
    model = build_model(recipe)
    for name, task in tasks.items():
        task = build(Task, {"name": task}, CLASSES) if isinstance(task, str) else task
        checkpoint.add_predictor(model, recipe, name, task)
    return model


def stage_run(model: OneHead, rates: dict[str, float], learned=(), norm=DEFAULT) -> SimpleNamespace:
    """What train.prepare_model and train.make_optimizer read of a run, in a stage with these rates."""
    stage = Stage(name="new", epochs=1, lr=0.01, weight_decay=0.1, rates=rates)
    frozen = {part for part, rate in rates.items() if rate == 0}
    recipe = SimpleNamespace(norm=Norm(**norm))
    return SimpleNamespace(model=model, stage=stage, frozen=frozen, learned=list(learned), recipe=recipe)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters and buffers that are not bit-equal to what they were."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def used_norms(module: torch.nn.Module) -> None:
    """Give every BatchNorm statistics and factors as after training, not those that make it the identity."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, std=0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.1)
