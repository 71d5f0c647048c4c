"""The README's results as a picture: each score after every stage, over seeds, with the single-task and published ones."""

from pathlib import Path
from statistics import mean

import matplotlib.style
from matplotlib import pyplot

import figures

# task, metric, its title, and the original's published scores: after the stage that learned it, after the last
PANELS = (
    ("seg", "miou", "mIoU", ()),
    ("seg", "miou_fg", "mIoU_fg", (0.5594, 0.5452)),
    ("det", "ap50", "mAP@0.5", (0.0199, 0.0205)),
    ("cls", "top1", "Top-1", (0.7167, 0.7167)),
)
STAGES = ("seg", "det", "cls")
MARKERS = "os^Dvp"


def draw(recipes: dict[str, list[dict]], path: Path) -> None:
    """recipes: name → `results` of its runs, one a seed. Drawn: mean and range over seeds, dashes alone, crosses published."""
    with matplotlib.style.context(["default", figures.STYLE]):
        figure, panels = pyplot.subplots(1, len(PANELS), figsize=(8.5, 2.6), layout="constrained")
        for panel, (task, metric, title, published) in zip(panels, PANELS, strict=True):
            for (name, runs), colour, marker in zip(recipes.items(), figures.COLOURS, MARKERS, strict=False):
                _lines(panel, name, runs, task, metric, {"color": colour, "marker": marker})
            if published:
                panel.plot((STAGES.index(task), 2), published, "x", color="black", label="original, published")
            panel.set(title=title, xlim=(-0.3, 2.3), ylim=(0, 1.12 * panel.dataLim.y1))
            panel.set_xticks(range(3), [f"after\n{stage}" for stage in STAGES])
        panels[1].legend(loc="lower left")
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _lines(panel, name: str, runs: list[dict], task: str, metric: str, look: dict) -> None:
    """One recipe's score from the stage that learned the task on; nothing if its stages are others, or in another order."""
    if tuple(runs[0]["tasks"]) != STAGES:
        return
    rows = range(STAGES.index(task), 3)
    scores = [[run["scores"][row][task][metric] for run in runs] for row in rows]
    means = [mean(values) for values in scores]
    below = [m - min(values) for m, values in zip(means, scores, strict=True)]
    above = [max(values) - m for m, values in zip(means, scores, strict=True)]
    panel.errorbar(rows, means, (below, above), capsize=2, label=name, **look)
    alone = [run["baseline"]["single"][task] for run in runs]
    if metric == runs[0]["metrics"][task] and None not in alone:
        panel.axhline(mean(alone), color=look["color"], dashes=(4, 3), linewidth=0.9)
