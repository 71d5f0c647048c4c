"""The challenge's rules, each checked on the model and run at hand (PROTOCOL: The rules of the challenge)."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from models import OneHead
from results import LIMIT, drop_percent

PARAMETERS = 8_000_000
REPLAYED = 10  # images per task
LATENCY_MS = 150.0  # one 512 x 512 image (on a T4)
TRAINING_HOURS = 2.0  # all stages (on a T4)


@dataclass(frozen=True)
class Rule:
    """passed: None where the figure is not known (no results beside the checkpoint, say)."""

    name: str
    limit: str
    figure: str
    passed: bool | None


def check_rules(model: OneHead, results: dict | None, memory: dict[str, list[str]], device: torch.device) -> list[Rule]:
    """Every rule with its figure. `results` is the run's results.json, None if there is none."""
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
    return rules + _rules_of_run(results)


def _rules_of_run(results: dict | None) -> list[Rule]:
    limit = f"<= {LIMIT:g} % of the single-task baseline"
    time_limit = f"<= {TRAINING_HOURS:g} h"
    if results is None:
        return [Rule("drop", limit, "no results.json", None), Rule("training", time_limit, "no results.json", None)]
    rules = []
    for task, final in results["final"].items():
        drop = drop_percent(results["baseline"]["single"][task], final)
        figure = "no single-task baseline" if drop is None else f"{drop:+.2f} %"
        rules.append(Rule(f"drop of {task}", limit, figure, None if drop is None else drop <= LIMIT))
    hours = sum(results["seconds"].values()) / 3600
    return [*rules, Rule("training", time_limit, f"{hours:.2f} h", hours <= TRAINING_HOURS)]


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
