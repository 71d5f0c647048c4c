"""Experience replay: images of finished tasks, with their labels (Chaudhry et al. 2019; a fixed list per finished task)."""

import random

import torch

from errors import UserError, nearest
from replay import SELECTIONS, select
from strategies import Strategy, check_weights


class Replay(Strategy):
    """Keeps at most `run.memory.limit` images of every finished task and adds a batch of each old task to every step.

    Args:
        batch_size: Replayed images per step, split over the old tasks (the cost does not grow with their number).
        selection: "uniform", "class_balanced" or "herding".
        weights: Stage name → weight of its labelled loss on replayed images (default 1).
        labels: Use the labels; without, the images only feed distillation (the original system).
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        selection: str = "uniform",
        weights: dict[str, float] | None = None,
        labels: bool = True,
    ):
        if selection not in SELECTIONS:
            raise UserError(f"unknown replay selection '{selection}'{nearest(selection, SELECTIONS)}")
        if batch_size < 1:
            raise UserError(f"strategies.replay.batch_size is {batch_size}, expected at least 1")
        self.batch_size = batch_size
        self.selection = selection
        self.weights = weights or {}
        self.labels = labels

    def check(self, recipe):
        if recipe.memory_per_task == 0:
            raise UserError("strategies.replay has no memory: memory_per_task is 0; raise it, or leave out replay")
        check_weights("replay.weights", self.weights, recipe.stages)

    def batches(self, run):
        old = [task for task, ids in run.memory.ids.items() if ids and task != run.stage.name]
        batches = []
        for turn, task in enumerate(old):
            share = len(range(turn, self.batch_size, len(old))) or 1
            split = run.splits[task]
            indices = split.indices(_deal(run.memory.ids[task], share, run.stage_step, run.key("replay", task)))
            key = run.key("replay", task, run.stage_step)
            augment = run.recipe.stages[task].augment
            batches.append(split.training_batch(task, indices, run.recipe.image_size, augment, key, origin="replay"))
        return batches

    def losses(self, run, step):
        terms = {}
        if not self.labels:
            return terms
        for number, batch in enumerate(step.batches):
            weight = self.weights.get(batch.task, 1.0)
            if (
                batch.origin == "replay" and weight
            ):  # a zero gradient would still let weight decay move the old predictor
                raw = step.raw_of(batch.task, number)
                for name, value in run.tasks[batch.task].replay_losses(raw, batch.targets, run.model.stride).items():
                    terms[f"{batch.task}.{name}"] = weight * value
        return terms

    def after_stage(self, run, stage):
        split = run.splits[stage.name]
        limit = len(split) if run.memory.limit is None else run.memory.limit
        features = _pooled_features(run, split) if self.selection == "herding" else None
        run.memory.keep(stage.name, select(self.selection, split, limit, run.key("select", stage.name), features))


def _deal(ids: list[str], count: int, step: int, key: str) -> list[str]:
    """`count` ids for this step: the list is gone through in shuffled order, reshuffled each time it is used up."""
    dealt = []
    for position in range(step * count, (step + 1) * count):
        turn, place = divmod(position, len(ids))
        order = list(ids)
        random.Random(f"{key}/{turn}").shuffle(order)
        dealt.append(order[place])
    return dealt


@torch.no_grad()
def _pooled_features(run, split) -> torch.Tensor:
    """Shared maps averaged over space, (N, C), of the un-augmented training images."""
    run.model.eval()
    pooled = []
    for images, _ in split.evaluation_batches(run.recipe.image_size, 16):
        maps = run.model.trunk_maps(images.to(run.device))
        pooled.append(run.model.shared_map(maps).mean((2, 3)).float().cpu())
    return torch.cat(pooled)
