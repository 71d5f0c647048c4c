"""A run in progress: its state, its log, its results."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

import registry
from data.loader import Split
from files import write_json
from loggers import Logger
from models import OneHead
from recipe import Recipe, Stage
from replay import Memory
from results import summarise
from runlog import LOG, RESULTS, append_log
from strategies import Strategy
from tasks import Task


@dataclass
class Run:
    """One training run in progress: what strategies may read."""

    recipe: Recipe
    folder: Path
    device: torch.device
    model: OneHead
    strategies: dict[str, Strategy]
    splits: dict[str, Split]  # stage → training images
    val: dict[str, Split]
    memory: Memory
    logger: Logger  # told what goes into the log
    tasks: dict[str, Task] = field(default_factory=dict)
    learned: list[str] = field(default_factory=list)  # finished stages
    scores: list[dict] = field(default_factory=list)  # after each finished stage: task → all figures
    single: dict[str, float | None] = field(default_factory=dict)  # single-task baselines, where known
    single_runs: dict[str, str] = field(default_factory=dict)  # task → folder of its baseline, below baselines/
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int | None] = field(
        default_factory=dict
    )  # bytes, by finished stage: environment.peak_memory
    shown: dict[str, float | None] = field(default_factory=dict)  # last known score of each task, for the progress bar
    stage: Stage | None = None
    stage_step: int = 0
    global_epoch: int = 0

    @property
    def frozen(self) -> set[str]:
        return self.recipe.frozen(self.stage)

    def key(self, *parts) -> str:
        """Names a random draw: every draw follows from the seed and its place in the run, never from a state."""
        return "/".join(map(str, (self.recipe.seed, self.stage.name, *parts)))

    def log(self, kind: str, **record) -> None:
        place = {"stage": self.stage.name, "stage_index": len(self.learned), "global_epoch": self.global_epoch}
        record = {"kind": kind, **place, **record}
        append_log(self.folder / LOG, record)
        self.logger.record(record)


def report_epoch(run: Run, epoch: int, averages: dict[str, float], scores: dict[str, dict], bar: tqdm) -> None:
    """Stage, epoch, losses and the last known scores: beside the bar on a terminal, as one plain line elsewhere."""
    run.shown |= {name: row[run.tasks[name].metric] for name, row in scores.items()}
    sums: dict[str, float] = {}
    for name, value in averages.items():
        if name != "total":
            source = name.split(".")[0]
            sums[source] = sums.get(source, 0.0) + value
    losses = " + ".join(f"{source} {value:.2f}" for source, value in sums.items())
    figures = [f"loss {averages['total']:.2f} = {losses}"]
    figures += [f"{name} {run.tasks[name].label} {_shown(value)}" for name, value in run.shown.items()]
    if bar.disable:
        print(f"{run.stage.name} {epoch + 1}/{run.stage.epochs}: {', '.join(figures)}", flush=True)
    else:
        bar.set_postfix_str(", ".join(figures))


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def write_results(run: Run) -> dict:
    """results.json: the score matrix so far and what follows from it."""
    names = [stage.name for stage in run.recipe.running()]
    metrics = {name: registry.load(Task, run.recipe.stages[name].task["name"])[0].metric for name in names}
    content = summarise(names, metrics, run.scores, run.single)
    content["parameters"] = sum(p.numel() for p in run.model.parameters())
    kept = {"per_task": run.memory.limit, "ids": run.memory.ids, "bytes": run.memory.bytes(run.splits)}
    content |= {"replay": kept, "seconds": {name: round(value, 1) for name, value in run.seconds.items()}}
    content |= {"memory": run.peak_memory, "single_runs": run.single_runs}
    write_json(run.folder / RESULTS, content)
    return content
