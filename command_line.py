"""The training command's flags, and all that happens around the loop: a fresh or resumed run, baselines, the last words."""

import argparse
import datetime
import hashlib
import json
import shlex
import sys
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser

import checkpoint
import environment
import loggers
import progress
import registry
from errors import UserError, nearest
from files import write_json, write_whole
from models import build, build_model
from pictures import draw_forgotten
from plot_log import plot_runs
from recipe import Recipe
from recipe_parser import make_recipe, read_recipe, single_task
from replay import Memory
from results import LIMIT, verdict
from run import Run
from runlog import CONFIG, LOG, read_results
from seeding import seed_of
from splits import open_train_and_val
from strategies import Strategy
from tasks import Task


def parse(argv: list[str]) -> argparse.Namespace:
    """Flags → options with `recipe`. The recipe decides which flags there are, so it is read first."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_own(first)
    argv = [flag.replace("--backbone_weights", "--backbone.weights") for flag in argv]
    known, _ = first.parse_known_args([flag for flag in argv if flag not in ("-h", "--help")])
    if known.resume and known.run_dir is None:
        raise UserError("--resume needs --run_dir: the folder of the interrupted run")
    source = Path(known.config or (Path(known.run_dir) / CONFIG if known.resume else "configs/generated.yaml"))
    if known.resume and not (Path(known.run_dir) / CONFIG).is_file():
        here = Path(known.run_dir)
        raise UserError(
            f"{here}: no run to resume (no {CONFIG}){nearest(here.name, (p.name for p in here.parent.glob('*')))}"
        )
    parser = ArgumentParser(prog="train.py", exit_on_error=False, allow_abbrev=False, description=_ABOUT)
    _add_own(parser)
    recipe, options = make_recipe(read_recipe(source), argv, str(source), parser)
    run_dir = known.run_dir or f"runs/{source.stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    return argparse.Namespace(
        recipe=recipe, run_dir=Path(run_dir), **{k: options[k] for k in ("resume", "baselines", "device", "logger")}
    )


_ABOUT = "Learn the recipe's stages one after another. Every recipe value is a flag; the recipe given decides which there are."


def _add_own(parser: ArgumentParser) -> None:
    parser.add_argument("--config", type=str, help="Recipe, a YAML file (default: configs/generated.yaml).")
    parser.add_argument("--run_dir", type=str, help="Folder of the run (default: runs/<recipe>-<date>).")
    parser.add_argument("--resume", action="store_true", help="Go on with the interrupted run in --run_dir.")
    parser.add_argument(
        "--baselines", action="store_true", help="Also train each task alone; reused from runs/baselines."
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda.")
    known = ", ".join(registry.names(loggers.Logger))
    parser.add_argument("--logger", type=str, default="none", help=f"Told what goes into log.jsonl: {known}.")


def choose_device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device '{name}'{nearest(name, ['auto', 'cpu', 'cuda'])}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU that PyTorch can use was found; leave it out to run on the CPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def start(options: argparse.Namespace) -> tuple[Run, dict | None]:
    """A run ready to train, and the state it goes on from (None: a fresh one). Nothing is written before all is checked."""
    recipe, folder = options.recipe, options.run_dir
    state = None
    if options.resume:
        state = progress.read(folder)
        _refuse_other_recipe(folder, recipe, state)
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, expected a folder; choose another --run_dir")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists and is not empty; go on with --resume, or choose another --run_dir")
    device = choose_device(options.device)
    logger_class = loggers.find(options.logger)
    splits, val = open_train_and_val(recipe)
    for stage in recipe.running():  # the last stage's options, too, are refused now and not hours later
        build(Task, stage.task, splits[stage.name].dataset.classes)
    torch.manual_seed(seed_of(f"{recipe.seed}/trunk"))
    model = build_model(recipe).to(device)
    strategies = {name: registry.load(Strategy, name)[0](**options_) for name, options_ in recipe.strategies.items()}
    for strategy in strategies.values():
        strategy.check(recipe)
    checkpoint.require_space(folder, model, checkpoints=len(recipe.running()) + 2)
    if state is None:
        _begin(folder, recipe)
    logger = logger_class(folder, recipe.resolved, progress.first_redone(state))
    run = Run(recipe, folder, device, model, strategies, splits, val, Memory(recipe.memory_per_task), logger)
    if results := read_results(folder, "baseline"):
        run.single, run.single_runs = results["baseline"]["single"], results.get("single_runs", {})
    return run, state


def how_to_go_on(options: argparse.Namespace) -> str:
    """What to tell who pressed Ctrl-C."""
    if not (options.run_dir / CONFIG).is_file():
        return "nothing was written yet: start again with the same command"
    flags = ["--baselines"] * options.baselines + ["--device", options.device] * (options.device != "auto")
    flags += ["--logger", options.logger] * (options.logger != "none")
    command = shlex.join(["python", "train.py", "--run_dir", str(options.run_dir), "--resume", *flags])
    return f"the last finished epoch is kept. Go on with: {command}"


def _refuse_other_recipe(folder: Path, recipe: Recipe, state: dict | None) -> None:
    """A run goes on by the recipe it began with; only the data may have moved, its content is compared later."""
    contents = {CONFIG: read_recipe(folder / CONFIG)}
    if state is not None:
        contents[progress.NAME] = state["recipe"]
    for source, content in contents.items():  # read as a recipe: options added since the run began have their defaults
        saved = make_recipe(content, source=str(folder / source))[0].resolved
        if saved | {"data_root": None} != recipe.resolved | {"data_root": None}:
            raise UserError(
                f"{folder}: the recipe given differs from the run's own in {source}; resume without --config or flags, and "
                f"leave {CONFIG} as it was"
            )


def _begin(folder: Path, recipe: Recipe) -> None:
    """The first files of a run. The recipe comes first, and whole: from then on the run can be resumed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / CONFIG, yaml.safe_dump(recipe.resolved, sort_keys=False))
        write_json(folder / "env.json", environment.describe())
        (folder / LOG).write_bytes(b"")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); choose another --run_dir") from error


def baselines(options: argparse.Namespace, run: Run, train) -> dict[str, dict]:
    """All scores of each task trained alone: same architecture, epochs, seed and images. Finished ones are reused.

    The first stage of a run is its own single-task run, draw for draw, and is not trained twice.
    """
    single = {}
    for position, stage in enumerate(run.recipe.running()):
        if position == 0:
            single[stage.name] = run.scores[0][stage.name]
            continue
        recipe = single_task(run.recipe, stage.name)
        folder = run.folder.parent / "baselines" / f"{stage.name}-{_identity(recipe, stage.name, run)}"
        done = _finished(folder, stage.name)
        if done is None:
            print(f"baseline: {stage.name} alone, in {folder}", file=sys.stderr)
            again = (folder / CONFIG).is_file()
            own = {"recipe": recipe, "run_dir": folder, "resume": again}
            alone, state = start(argparse.Namespace(**{**vars(options), **own}))
            with alone.logger:
                train(alone, state)
            done = alone.scores[0][stage.name]
        single[stage.name], run.single_runs[stage.name] = done, folder.name
    return single


def draw(run) -> None:
    """Curves, score matrix and the pictures of what was forgotten, into the run's figures."""
    plot_runs([run.folder], run.folder / "figures")
    draw_forgotten(run.folder, run.val, run.folder / "figures")


def _identity(recipe: Recipe, name: str, run: Run) -> str:
    """Changes with all that a single-task score depends on: recipe, training images, val images."""
    plain = {key: value for key, value in recipe.resolved.items() if key not in ("data_root", "eval_every")}
    plain["stages"] = {name: plain["stages"][name]}
    text = json.dumps(plain, sort_keys=True) + run.splits[name].fingerprint() + run.val[name].fingerprint()
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _finished(folder: Path, name: str) -> dict | None:
    results = read_results(folder, "scores")
    return results["scores"][0][name] if results and (folder / "final.pt").is_file() else None


def table(results: dict, labels: dict[str, str]) -> str:
    """The score matrix, drops and verdicts as text."""
    tasks = results["tasks"]
    head = f"{'':16}" + "".join(f"{t + ' ' + labels[t]:>16}" for t in tasks)
    lines = [head]
    for stage, row in zip(tasks, results["matrix"], strict=False):
        lines.append(f"{'after ' + stage:16}" + "".join(f"{_figure(value):>16}" for value in row))
    for kind in ("stage", "single"):
        drops = results["drop_percent"][kind]
        lines.append(
            f"{kind + ' baseline':16}" + "".join(f"{_figure(results['baseline'][kind][t]):>16}" for t in tasks)
        )
        lines.append(f"{'  drop %':16}" + "".join(f"{_figure(drops[t], '+.2f'):>16}" for t in tasks))
        verdicts = [verdict(results["baseline"][kind][t], results["final"][t]) for t in tasks]
        lines.append(f"{f'  <= {LIMIT:g} %':16}" + "".join(f"{v.split(':')[0]:>16}" for v in verdicts))
    lines.append(
        f"BWT {_figure(results['bwt'], '+.4f')}, ACC {_figure(results['acc'])}, parameters {results['parameters']:,}"
    )
    return "\n".join(lines)


def _figure(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)
