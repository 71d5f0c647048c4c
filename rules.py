"""The challenge's rules, each checked on the model and run at hand (PROTOCOL: The rules of the challenge)."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from models import OneHead
from results import LIMIT

PARAMETERS = 8_000_000
REPLAYED = 10  # images per task
LATENCY_MS = 150.0  # one 512 x 512 image (on a T4)
TRAINING_HOURS = 2.0  # all stages (on a T4)


@dataclass(frozen=True)
class Rule:
    """passed: None where nothing can be said (no baseline, or one too low to judge by, say)."""

    name: str
    limit: str
    figure: str
    passed: bool | None


def check_rules(
    model: OneHead,
    drops: dict[str, tuple[float | None, str]],
    seconds: dict[str, float] | None,
    memory: dict[str, list[str]],
    device: torch.device,
) -> list[Rule]:
    """Every rule with its figure.

    drops: task → drop in % against its single-task baseline (None: not known) and `results.verdict` of it; seconds: stage →
    training time (None: not known); memory: task → ids of its replayed images.
    """
    parameters = sum(p.numel() for p in model.parameters())
    neck = model.trunk["neck"]
    convolutions = sum(isinstance(module, nn.Conv2d) for module in neck.modules())
    neck_is = "one FPN layer" if neck.is_fpn_layer else f"{convolutions} conv layers"
    layers = sum(name.startswith("shared") for name in model.trunk)
    kept = {task: len(ids) for task, ids in memory.items()}
    shown = ", ".join(f"{task} {count}" for task, count in kept.items()) or "none"
    latency = milliseconds_per_image(model, device)
    rules = [
        Rule("parameters", f"< {PARAMETERS:,}", f"{parameters:,}", parameters < PARAMETERS),
        Rule("neck", "at most 2 conv layers, or one FPN layer", neck_is, neck.is_fpn_layer or convolutions <= 2),
        Rule("head", "2 to 3 layers, one branch", f"{layers} shared layers", 2 <= layers <= 3),
        Rule("outputs", "all tasks in one pass", ", ".join(model.predictors), not model.stored_statistics),
        Rule("replay", f"at most {REPLAYED} images per task", shown, max(kept.values(), default=0) <= REPLAYED),
        Rule(
            "latency", f"<= {LATENCY_MS:g} ms, 512 x 512", f"{latency:.0f} ms on {device.type}", latency <= LATENCY_MS
        ),
    ]
    for task, (drop, word) in drops.items():
        figure = word if drop is None else f"{drop:+.2f} %"
        passed = {"pass": True, "FAIL": False}.get(word)
        if passed is None and drop is not None:
            figure += f", {word}"
        rules.append(Rule(f"drop of {task}", f"<= {LIMIT:g} % of the single-task baseline", figure, passed))
    hours = None if seconds is None else sum(seconds.values()) / 3600
    figure = "no results.json" if hours is None else f"{hours:.2f} h"
    within = None if hours is None else hours <= TRAINING_HOURS
    return [*rules, Rule("training", f"<= {TRAINING_HOURS:g} h", figure, within)]


@torch.inference_mode()
def milliseconds_per_image(model: OneHead, device: torch.device, size: int = 512, repeats: int = 9) -> float:
    """Median time of one image through all tasks, decoding left out; batch 1, as the challenge measures."""
    model.eval()
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    times = []
    for _ in range(repeats + 2):  # two to warm up
        started = time.perf_counter()
        model(image)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 1000 * sorted(times[2:])[repeats // 2]
