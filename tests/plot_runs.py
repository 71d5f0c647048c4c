"""Logs written by hand, and the lines of the figures drawn from them."""

import json
import math
from pathlib import Path

from figures import Overlay
from history import History
from runlog import append_log

REPOSITORY = Path(__file__).parents[1]
METRICS = {"river": "depth", "trees": "height", "birds": "count"}  # no name the code could know
TERMS = {"river": ["flow"], "trees": ["trunk", "crown"], "birds": ["song"]}
SCORES = [[0.5, None, None], [0.49, 0.4, None], [0.45, 0.41, 0.8]]
SINGLE = {"river": 0.5, "trees": 0.5, "birds": None}
STAGES = [(0, "river", 4), (1, "trees", 6), (2, "birds", 2)]


def write_run(run: Path, scores=SCORES, stages=STAGES, results: dict | None = None) -> Path:
    """A run as train.py logs it: losses are global epoch / 10 per term, scores at the end of each stage."""
    run.mkdir(parents=True)
    append_log(run / "log.jsonl", {"kind": "start", "version": 1})
    before, tasks = 0, [name for _, name, _ in stages]
    for index, name, epochs in stages:
        for epoch in range(1, epochs + 1):
            place = {"stage": name, "stage_index": index, "global_epoch": before + epoch}
            value = (before + epoch) / 10
            losses = {"total": 5 * value} | {f"{name}.{term}": value for term in TERMS[name]}
            for old in tasks[:index]:
                losses |= {f"lwf.{old}": 10.0**-epoch} | {f"replay.{old}.{term}": value for term in TERMS[old]}
            if index:
                losses["lwf.shared"] = None if epoch == 1 else value
            record = {"epoch": epoch, "epochs": epochs, "losses": losses, "lr": {"head": 1e-4}, "seconds": 1.5}
            append_log(run / "log.jsonl", {"kind": "epoch", **place, **record})
        before += epochs
        for task, value in zip(tasks[: index + 1], scores[index], strict=False):
            place = {"stage": name, "stage_index": index, "epoch": epochs, "global_epoch": before}
            what = {"task": task, "metric": METRICS[task], "scores": {METRICS[task]: value, "other": None}}
            append_log(run / "log.jsonl", {"kind": "evaluation", **place, **what})
    if results is not None:
        (run / "results.json").write_text(json.dumps(results))
    return run


def whole_results() -> dict:
    stage = {task: SCORES[i][i] for i, task in enumerate(METRICS)}
    return {
        "tasks": list(METRICS),
        "metrics": METRICS,
        "matrix": SCORES,
        "baseline": {"single": SINGLE, "stage": stage},
    }


def overlay(*runs: Path) -> Overlay:
    return Overlay({run.name: History.read(run) for run in runs})


def panel(figure, label: str):
    (axes,) = (axes for axes in figure.axes if axes.get_ylabel() == label)
    return axes


def line(axes, label: str):
    (found,) = (line for line in axes.get_lines() if line.get_label() == label)
    return found


def points(axes, label: str) -> list[tuple[float, float]]:
    """Finite points of a line."""
    return [tuple(p) for p in line(axes, label).get_xydata().tolist() if not math.isnan(p[1])]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]
