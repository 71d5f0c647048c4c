"""Optimiser and learning-rate schedule of a stage: one group per part, each at its own factor of the base rate."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from recipe import Stage
from run import Run


def make_optimizer(run: Run) -> torch.optim.AdamW:
    """AdamW, one group per trainable part, at the stage's rate times the part's factor."""
    stage = run.stage
    groups = []
    for name, part in run.model.parts().items():
        parameters = [p for p in part.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr": stage.lr * stage.rates.get(name, 1.0), "name": name})
    return torch.optim.AdamW(groups, lr=stage.lr, weight_decay=stage.weight_decay, fused=True)


def make_scheduler(optimizer: torch.optim.Optimizer, stage: Stage, steps: int):
    """Per step, but for "plateau" (per epoch, on the val score). Every group keeps its own factor."""
    if stage.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=stage.factor, patience=stage.patience)
    warmup = round(stage.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        share = (step - warmup) / max(steps - warmup, 1)
        return 1.0 if stage.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * min(share, 1)))

    return LambdaLR(optimizer, factor)
