"""python -m benchmarks.speed: what the loop, the losses and the evaluation cost, as ratios measured side by side in one run.

Both sides of a ratio take turns, so that a busy machine slows both; the median over the turns counts.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

import command_line
import environment
import train
from benchmarks.loops import decode_by_loop
from data.loader import steps_per_epoch
from errors import UserError, command
from evaluation import evaluate, evaluating
from files import write_json
from models import build
from optimisation import make_optimizer, make_scheduler
from recipe import Recipe
from recipe_parser import make_recipe, read_recipe
from run import Run
from runlog import read_results
from tasks import Task

ROOT = Path(__file__).parents[1]
TURNS = 5


@dataclass(frozen=True)
class Measure:
    """One ratio or figure. goal: as issue and README state it; met: whether it is."""

    name: str
    value: float
    goal: str
    met: bool
    detail: str


def at_least(name: str, value: float, bound: float, detail: str) -> Measure:
    return Measure(name, value, f">= {bound:g}", value >= bound, detail)


def at_most(name: str, value: float, bound: float, detail: str) -> Measure:
    return Measure(name, value, f"<= {bound:g}", value <= bound, detail)


def in_turns(first: Callable[[], object], second: Callable[[], object], turns: int = TURNS) -> tuple[float, float]:
    """Median seconds of each, called by turns; one call of each to warm up."""
    times = ([], [])
    for turn in range(turns + 1):
        for action, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            action()
            if turn:
                kept.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def run_at(recipe: Recipe, name: str, folder: Path) -> Run:
    """A run about to train a stage, the stages before it passed through untrained: time does not depend on weights."""
    options = argparse.Namespace(recipe=recipe, run_dir=folder, resume=False, device="cpu", logger="none")
    run, _ = command_line.start(options)
    for stage in recipe.running():
        train.enter_stage(run, stage)
        train.prepare_model(run)
        for strategy in run.strategies.values():
            strategy.before_stage(run, stage)
        if stage.name == name:
            return run
        for strategy in run.strategies.values():
            strategy.after_stage(run, stage)
        run.learned.append(stage.name)
    raise ValueError(name)


def stepper(run: Run, steps: int = 1, batch_size: int | None = None) -> Callable[[], None]:
    """Some training steps of the run's stage, images prepared as in training."""
    split, stage, size = run.splits[run.stage.name], run.stage, run.recipe.image_size
    optimizer = make_optimizer(run)
    run.model.train()

    def act() -> None:
        epoch = split.epoch(stage.name, batch_size or stage.batch_size, size, stage.augment, run.key("images", 0))
        for batch in islice(epoch, steps):
            train.train_step(run, batch, optimizer)

    return act


def loop_overhead(recipe: Recipe, folder: Path) -> Measure:
    """An epoch of train.py against forward, loss, backward and step on one batch of tensors that lies in memory."""
    name = recipe.running()[0].name
    run = run_at(recipe, name, folder / "loop")
    split, stage = run.splits[name], run.stage
    steps = steps_per_epoch(len(split), stage.batch_size)
    optimizer = make_optimizer(run)
    batch = next(split.epoch(name, stage.batch_size, recipe.image_size, stage.augment, "bench"))
    bar = train.tqdm(disable=True)

    def bare() -> None:
        run.model.train()
        for _ in range(steps):
            raw = run.model.predictors[name](run.model.shared_map(run.model.trunk_maps(batch.images)))
            loss = sum(run.tasks[name].losses(raw, batch.targets, run.model.stride).values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def ours() -> None:
        scheduler = make_scheduler(optimizer, stage, steps)
        train.train_epoch(run, 0, optimizer, scheduler, bar)

    loop, plain = in_turns(ours, bare, 3)
    rates = f"{len(split) / loop:.1f} against {len(split) / plain:.1f} images/s"
    return at_least("images/s of stage 1 against a bare loop", plain / loop, 0.90, rates)


def protected_step(recipe: Recipe, folder: Path) -> Measure:
    """A step with distillation and replay against plain fine-tuning on as many images."""
    name = recipe.running()[1].name
    ours = run_at(recipe, name, folder / "lwf")
    images = sum(len(b.images) for s in ours.strategies.values() for b in s.batches(ours)) + ours.stage.batch_size
    plain = run_at(_with(recipe, strategies={}), name, folder / "plain")
    protected, tuned = in_turns(stepper(ours, 4), stepper(plain, 4, images))
    limit = 1.25 if "backbone" in ours.frozen else 1.5
    what = f"{protected / 4:.3f} s against {tuned / 4:.3f} s, {images} images"
    return at_most("step of lwf + replay against fine-tuning", protected / tuned, limit, what)


def more_tasks(recipe: Recipe, folder: Path) -> Measure:
    """The same stage after two old tasks and after one."""
    stages = [stage.name for stage in recipe.running()]
    two = run_at(recipe, stages[2], folder / "two")
    one = run_at(_with(recipe, order=[stages[0], stages[2]]), stages[2], folder / "one")
    slow, quick = in_turns(stepper(two, 4), stepper(one, 4))
    what = f"{slow / 4:.3f} s against {quick / 4:.3f} s"
    return at_most("step with two old tasks against one", slow / quick, 1.1, what)


def detection_loss(recipe: Recipe, folder: Path) -> Measure:
    """Assignment and losses of 32 images as a share of the step they belong to."""
    run = run_at(_with(recipe, order=["det"]), "det", folder / "loss")
    split = run.splits["det"]
    batch = next(split.epoch("det", 32, recipe.image_size, run.stage.augment, "bench"))
    optimizer = make_optimizer(run)
    run.model.train()
    raw = torch.randn(len(batch.images), 5 + len(split.dataset.classes), *[recipe.image_size // run.model.stride] * 2)

    def losses() -> None:
        answer = raw.clone().requires_grad_()
        sum(run.tasks["det"].losses(answer, batch.targets, run.model.stride).values()).backward()

    step, loss = in_turns(lambda: train.train_step(run, batch, optimizer), losses)
    what = f"{1000 * loss:.0f} ms of {1000 * step:.0f} ms"
    return at_most("detection loss, share of a step of 32 images", loss / step, 0.05, what)


def evaluation_overhead(recipe: Recipe, folder: Path) -> Measure:
    """All three tasks' evaluation, metrics included, against the forward passes alone."""
    last = recipe.running()[-1].name
    run = run_at(recipe, last, folder / "evaluation")

    def ours() -> None:
        for name, task in run.tasks.items():
            evaluate(run.model, name, task, run.val[name], recipe.image_size, run.device)

    def bare() -> None:
        with evaluating(run.model):
            for name in run.tasks:
                for start in range(0, len(run.val[name]), 16):
                    count = min(16, len(run.val[name]) - start)
                    run.model(torch.zeros(count, 3, recipe.image_size, recipe.image_size, dtype=torch.uint8), [name])

    ours_s, bare_s = in_turns(ours, bare, 3)
    what = f"{ours_s:.1f} s against {bare_s:.1f} s for {sum(map(len, run.val.values()))} images"
    return at_most("evaluation against the bare forward", ours_s / bare_s, 1.3, what)


def decoding(recipe: Recipe, folder: Path) -> Measure:
    """Decoding and NMS of a grid detector's answers, vectorised, against the original's form: loops over image, row, column."""
    classes = [str(number) for number in range(10)]
    task = build(Task, {"name": "detection_grid"}, classes)
    torch.manual_seed(0)
    raw, stride, images = torch.randn(16, 15, 14, 14), 16, 16  # the original's grid at 224 px
    batches = 20  # in a row, as in an evaluation: one takes 2 ms, of which the timer's noise would be a large part
    quick, slow = in_turns(
        lambda: [task.decode(raw, stride, [(224, 224)] * images) for _ in range(batches)],
        lambda: decode_by_loop(raw, stride, task.score_floor, task.nms_iou),
    )
    quick /= batches
    what = f"{1000 * quick / images:.2f} ms against {1000 * slow / images:.0f} ms an image"
    return at_least("detection decoding + NMS, times faster than loops", slow / quick, 100, what)


def one_pass(recipe: Recipe, folder: Path) -> Measure:
    """One network for three tasks in one pass, against three passes of a network each."""
    run = run_at(recipe, recipe.running()[-1].name, folder / "pass")
    images = torch.zeros(1, 3, recipe.image_size, recipe.image_size, dtype=torch.uint8)
    with evaluating(run.model):
        three, one = in_turns(lambda: [run.model(images, [name]) for name in run.tasks], lambda: run.model(images), 20)
    what = f"{1000 * one:.0f} ms against {1000 * three:.0f} ms, one image of {recipe.image_size} px"
    return at_least("one pass for three tasks, times faster than three networks", three / one, 2.5, what)


def peak_memory(recipe: Recipe, folder: Path) -> Measure:
    """Largest resident memory of train.py's first stage at batch 32, after the first epoch and after the third."""
    peaks = [_peak_of_run(recipe, folder / f"memory{epochs}", epochs) for epochs in (1, 3)]
    met = peaks[1] <= 2.5 and peaks[1] <= 1.1 * peaks[0]
    what = f"{peaks[0]:.2f} GB after one epoch, {peaks[1]:.2f} GB after three"
    return Measure("peak memory, batch 32 (GB)", peaks[1], "<= 2.5, flat", met, what)


def _peak_of_run(recipe: Recipe, folder: Path, epochs: int) -> float:
    name = recipe.running()[0].name
    folder.mkdir()
    file = folder / "recipe.yaml"
    write_json(file, recipe.resolved)  # JSON is YAML
    words = [
        "--config",
        file,
        "--order",
        f"[{name}]",
        f"--stages.{name}.epochs",
        epochs,
        f"--stages.{name}.batch_size",
        32,
    ]
    argv = [sys.executable, "train.py", *words, "--run_dir", folder / "run", "--device", "cpu"]
    ended = subprocess.run(list(map(str, argv)), cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"{folder}: train.py ended with exit code {ended.returncode}: {ended.stderr.strip()[-2000:]}")
    return read_results(folder / "run", "memory")["memory"][name] / 1e9


def _with(recipe: Recipe, **changes) -> Recipe:
    return make_recipe({**recipe.resolved, **changes})[0]


MEASURES = (
    loop_overhead,
    protected_step,
    more_tasks,
    detection_loss,
    evaluation_overhead,
    decoding,
    one_pass,
    peak_memory,
)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--config", type=Path, default=ROOT / "configs/onehead.yaml", help="Recipe with three stages.")
    parser.add_argument("--data_root", type=Path, default=ROOT / "DL_data", help="Folder of the data sets.")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/speed.json", help="Where the figures go.")
    options = parser.parse_args(argv)
    recipe = make_recipe(read_recipe(options.config), ["--data_root", str(options.data_root.resolve())])[0]
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for measure in MEASURES:
            found = measure(recipe, Path(folder))
            measured.append(found)
            verdict = "met" if found.met else "MISSED"
            print(f"{found.name}: {found.value:.3g} (goal {found.goal}: {verdict}); {found.detail}", flush=True)
    env = environment.describe()
    env.pop("command")
    write_json(
        options.json, {"recipe": options.config.stem, "env": env, "measures": [asdict(found) for found in measured]}
    )


if __name__ == "__main__":
    sys.exit(main())
