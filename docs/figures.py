"""python -m docs.figures: draws docs/concepts.md's figures. `norms.png` is measured (about a minute), `drops.png` a scheme.

Colours: Okabe and Ito's, told apart by the colour-blind; lines differ in dashes as well.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot
from matplotlib.patches import Rectangle

import command_line
import train
from data.transforms import Augment
from DL_data.generate import generate
from errors import command
from evaluation import evaluate
from figures import COLOURS
from recipe_parser import make_recipe, read_recipe
from results import drop_percent

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN = COLOURS[:3]
TASKS = ("seg", "det", "cls")
MADE_UP = ((0.50, None, None), (0.48, 0.20, None), (0.47, 0.21, 0.80))  # R[after stage, task]: round figures, no run's
ALONE = (0.50, 0.25, 0.90)
LINES = {  # which parts' norm statistics move while another task's images pass
    "all parts": (ORANGE, "-", ("backbone", "neck", "shared1", "shared2", "shared3")),
    "neck and head": (BLUE, "--", ("neck", "shared1", "shared2", "shared3")),
    "none (frozen)": (GREEN, ":", ()),
}


def draw_drops(path: Path) -> None:
    """Score matrix, the row of single-task scores, and one task's drop against either baseline."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.1), layout="constrained")
    rows = [*MADE_UP, ALONE]
    marks = {(1, 1): BLUE, (3, 1): ORANGE}
    for y, scores in enumerate(rows):
        for x, score in enumerate(scores):
            face = "#ffffff" if score is None else "#e6e6e6" if y == 3 else "#f4f4f4"
            axes.add_patch(Rectangle((x, y), 0.94, 0.9, facecolor=face, edgecolor="#999999"))
            axes.text(x + 0.47, y + 0.45, "–" if score is None else f"{score:.2f}", ha="center", va="center")
    for (y, x), colour in {**marks, (2, 1): "black"}.items():
        axes.add_patch(Rectangle((x, y), 0.94, 0.9, fill=False, edgecolor=colour, linewidth=2.4))
    final = MADE_UP[2][1]
    for kind, (y, baseline), colour in (("stage", (1, MADE_UP[1][1]), BLUE), ("single", (3, ALONE[1]), ORANGE)):
        text = f"{kind} baseline {baseline:.2f}\ndrop ({baseline:.2f} − {final:.2f}) / {baseline:.2f}"
        drop = f"{drop_percent(baseline, final):+.1f} %".replace("-", "−")
        axes.text(3.15, y + 0.45, f"{text} = {drop}", color=colour, va="center")
    axes.text(3.15, 2.45, f"final score of det {final:.2f}", va="center")
    axes.set(xlim=(-0.02, 5.9), ylim=(4, 0), xlabel="task (numbers made up, to show the arithmetic)")
    axes.set_xticks([x + 0.47 for x in range(3)], TASKS)
    axes.set_yticks([y + 0.45 for y in range(4)], ["after seg", "after det", "after cls", "trained alone"])
    axes.xaxis.set_label_coords(0.24, -0.12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def measure_norms(data_root: Path, epochs: int = 5, size: int = 96, batches: int = 16) -> dict[str, list[float]]:
    """mIoU on val after 0, 1, 2, 4 … batches of classification images have passed, by which statistics were free to move.

    The network learns segmentation first. Then only forward passes follow: no loss, no gradient, no optimiser.
    """
    plain = read_recipe(Path(command_line.__file__).parent / "configs" / "generated.yaml")
    plain |= {"data_root": str(data_root), "image_size": size, "order": ["seg"], "strategies": {}}
    plain["norm"] = {"layer": "batch", "statistics": "running", "backbone": "fixed"}
    plain["stages"]["seg"]["epochs"] = epochs
    with tempfile.TemporaryDirectory() as folder:
        run, _ = _start(plain, Path(folder) / "run")
        train.train(run)
        others, _ = _start(plain | {"order": ["cls"]}, Path(folder) / "other")
    model, trained = run.model, {name: value.clone() for name, value in run.model.state_dict().items()}
    curves = {}
    for line, (_, _, moving) in LINES.items():
        model.load_state_dict(trained)
        model.fixed = set(model.trunk) - set(moving)
        curves[line] = [_miou(run)]
        for number, images in enumerate(_images(others, batches), start=1):
            model.train()
            with torch.no_grad():
                model.trunk_maps(images)
            if number & (number - 1) == 0:
                curves[line].append(_miou(run))
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, trained[name])}
        assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
        assert bool(changed) == bool(moving)
    return curves


def draw_norms(curves: dict[str, list[float]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(5.6, 3.2), layout="constrained")
    for line, scores in curves.items():
        colour, dashes, _ = LINES[line]
        passed = [0, *(2**n for n in range(len(scores) - 1))]
        axes.plot(passed, scores, dashes, color=colour, marker="o", markersize=4, label=line)
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xticks(passed, passed)
    axes.set(xlabel="batches of classification images passed, no weight changed", ylabel="mIoU on val", ylim=(0, None))
    axes.legend(title="statistics that move", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _start(plain: dict, folder: Path):
    recipe = make_recipe(plain)[0]
    return command_line.start(
        argparse.Namespace(recipe=recipe, run_dir=folder, resume=False, device="cpu", logger="none")
    )


def _miou(run) -> float:
    name = run.stage.name
    scores = evaluate(run.model, name, run.tasks[name], run.val[name], run.recipe.image_size, run.device)
    return scores[run.tasks[name].metric]


def _images(run, batches: int):
    """That many batches of 8, un-augmented; the split is gone through again where it is too small."""
    (name,) = run.splits
    seen = 0
    while seen < batches:
        for batch in run.splits[name].epoch(name, 8, run.recipe.image_size, Augment(flip=0.0), f"figure/{seen}"):
            yield batch.images
            seen += 1
            if seen == batches:
                return


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="docs.figures", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the figures (default: docs)")
    options = parser.parse_args(argv)
    matplotlib.use("Agg")
    options.out.mkdir(parents=True, exist_ok=True)
    draw_drops(options.out / "drops.png")
    curves = measure_norms(generate())
    draw_norms(curves, options.out / "norms.png")
    for line, scores in curves.items():
        print(f"{line:14}", *(f"{score:.3f}" for score in scores))


if __name__ == "__main__":
    sys.exit(main())
