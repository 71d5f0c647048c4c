"""python train.py --config configs/onehead.yaml --data_root DL_data: learn one stage after another, forget little.

The only training loop: main → train → train_stage → train_step.
"""

import sys
import time

import torch
from torch import Tensor
from tqdm import tqdm

import checkpoint
import command_line
import pictures
import progress
import report
from data.loader import Batch, steps_per_epoch
from environment import peak_memory, reset_peak_memory
from errors import UserError, command
from evaluation import evaluate
from models import build
from optimisation import make_optimizer, make_scheduler
from recipe import Stage
from run import Run, report_epoch, write_results
from seeding import seed_of
from strategies import Step
from tasks import Task

BAR = "{desc} {percentage:3.0f}%|{bar:12}| {elapsed}<{remaining}{postfix}"  # short: losses and scores follow


def train_step(run: Run, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """One forward over new and extra images, all losses named, one step. Returns the weighted terms, detached."""
    batches = [batch, *(extra for strategy in run.strategies.values() for extra in strategy.batches(run))]
    losses = {}
    with torch.autocast(
        run.device.type, torch.bfloat16, enabled=mixed_precision(run)
    ):  # a teacher must run as the student does
        step = forward(run, batches)
        own = run.tasks[batch.task].losses(step.raw_of(batch.task, 0), batch.targets, run.model.stride)
        losses |= {f"{batch.task}.{name}": value for name, value in own.items()}
        for owner, strategy in run.strategies.items():
            losses |= {f"{owner}.{name}": value for name, value in strategy.losses(run, step).items()}
    total = sum(losses.values())
    if not torch.isfinite(total):
        terms = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
        where = f"stage {run.stage.name}, step {run.stage_step}"
        raise UserError(f"{where}: the loss is not finite ({terms}); lower stages.{run.stage.name}.lr or set clip_norm")
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    for strategy in run.strategies.values():
        strategy.on_gradients(run, step)
    if run.stage.clip_norm:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.stage.clip_norm)
    optimizer.step()
    for strategy in run.strategies.values():
        strategy.after_step(run, step)
    run.stage_step += 1
    return {"total": total.detach(), **{name: value.detach() for name, value in losses.items()}}


def forward(run: Run, batches: list[Batch]) -> Step:
    """All batches in one pass through the trunk; older predictors on all images, the stage's own on its own."""
    images = torch.cat([b.images for b in batches]).to(run.device, non_blocking=True)
    ends = [0]
    for b in batches:
        ends.append(ends[-1] + len(b.images))
    rows = [slice(start, end) for start, end in zip(ends, ends[1:], strict=False)]
    maps = run.model.trunk_maps(images)
    shared = run.model.shared_map(maps)
    task = run.stage.name
    own = [number for number, b in enumerate(batches) if b.task == task]
    own_rows, end = {}, 0
    for number in own:
        own_rows[number] = slice(end, end := end + len(batches[number].images))
    raw = {name: run.model.predictors[name](shared) for name in run.learned}
    raw[task] = run.model.predictors[task](
        torch.cat([shared[rows[n]] for n in own]) if len(own) > 1 else shared[rows[0]]
    )
    return Step(batches, rows, images, maps, raw, own_rows, task)


def mixed_precision(run: Run) -> bool:
    wanted = run.recipe.precision
    return wanted == "bfloat16" or (wanted == "auto" and run.device.type == "cuda")


def train(run: Run, state: dict | None = None) -> None:
    """All stages that are not finished yet; `state`, from progress.read, continues an interrupted run."""
    if state is not None:
        progress.restore_run(run, state)
    stages = run.recipe.running()
    total = sum(steps_per_epoch(len(run.splits[s.name]), s.batch_size) * s.epochs for s in stages)
    with tqdm(total=total, disable=None, unit="step", dynamic_ncols=True, smoothing=0.05, bar_format=BAR) as bar:
        for stage in stages:
            steps = steps_per_epoch(len(run.splits[stage.name]), stage.batch_size)
            if stage.name in run.learned:
                bar.update(steps * stage.epochs)
                continue
            enter_stage(run, stage)
            middle = state if state is not None and state["epoch"] > 0 else None
            state = None
            if middle is not None:
                bar.update(steps * middle["epoch"])
            train_stage(run, bar, middle)
            progress.save(run, epoch=0)
            write_results(run)


def enter_stage(run: Run, stage: Stage) -> None:
    """Make a stage the present one; its task and predictor are added if they are not there."""
    run.stage = stage
    if stage.name not in run.tasks:
        run.tasks[stage.name] = build(Task, stage.task, run.splits[stage.name].dataset.classes)
        torch.manual_seed(seed_of(run.key("predictor")))
        checkpoint.add_predictor(run.model, run.recipe, stage.name, run.tasks[stage.name])
        run.model.to(run.device)


def train_stage(run: Run, bar: tqdm, state: dict | None) -> None:
    """Epochs of one stage, then its last words: strategies, scores, checkpoint. `state` continues an interrupted stage."""
    stage, split = run.stage, run.splits[run.stage.name]
    reset_peak_memory(run.device)
    prepare_model(run)
    if state is None:
        for strategy in run.strategies.values():
            strategy.before_stage(run, stage)
    steps = steps_per_epoch(len(split), stage.batch_size)
    optimizer = make_optimizer(run)
    scheduler = make_scheduler(optimizer, stage, steps * stage.epochs)
    first = 0
    if state is not None:
        first = progress.restore_stage(run, state, optimizer, scheduler)
    for epoch in range(first, stage.epochs):
        started = time.perf_counter()
        torch.manual_seed(seed_of(run.key("epoch", epoch)))
        run.stage_step = epoch * steps
        averages = train_epoch(run, epoch, optimizer, scheduler, bar)
        run.global_epoch += 1
        seconds = time.perf_counter() - started
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        speed = {"seconds": round(seconds, 3), "images_per_second": round(len(split) / seconds, 2)}
        run.log("epoch", epoch=epoch + 1, epochs=stage.epochs, losses=averages, lr=rates, **speed)
        scores = score_epoch(run, epoch)
        if stage.schedule == "plateau":
            scheduler.step(watched_score(run, scores))
        run.seconds[stage.name] = run.seconds.get(stage.name, 0.0) + time.perf_counter() - started
        report_epoch(run, epoch, averages, scores, bar)
        progress.save(run, epoch + 1, optimizer, scheduler)
    finish_stage(run)


def prepare_model(run: Run) -> None:
    """Freeze what the stage's rates freeze, and fix norm statistics by policy."""
    model = run.model
    model.zero_grad(
        set_to_none=True
    )  # else the gradients of a part frozen from now on would stay, and count in clipping
    model.freeze(run.frozen)
    fixed = run.frozen | set(run.learned)  # a finished task's predictor keeps its statistics under every policy
    if run.recipe.norm.backbone == "fixed":
        fixed.add("backbone")
    if model.statistics == "frozen" and run.learned:
        fixed |= set(model.trunk)
    model.fixed = fixed


def train_epoch(run: Run, epoch: int, optimizer, scheduler, bar: tqdm) -> dict[str, float]:
    """One pass over the stage's images; average of every term."""
    stage = run.stage
    bar.set_description(f"{stage.name} {epoch + 1}/{stage.epochs}")
    sums: dict[str, Tensor] = {}
    steps = 0
    run.model.train()
    split, size = run.splits[stage.name], run.recipe.image_size
    for batch in split.epoch(stage.name, stage.batch_size, size, stage.augment, run.key("images", epoch)):
        losses = train_step(run, batch, optimizer)
        if stage.schedule != "plateau":
            scheduler.step()
        for name, value in losses.items():
            sums[name] = sums[name] + value if name in sums else value
        steps += 1
        bar.update(1)
    return {name: float(value) / steps for name, value in sums.items()}


def score_epoch(run: Run, epoch: int) -> dict[str, dict]:
    """Val scores where the recipe or the schedule asks for them in mid-stage."""
    every = run.recipe.eval_every
    if every and (epoch + 1) % every == 0 and epoch + 1 < run.stage.epochs:
        return score(run, [*run.learned, run.stage.name], epoch + 1)
    return score(run, [run.stage.name], epoch + 1) if run.stage.schedule == "plateau" else {}


def watched_score(run: Run, scores: dict[str, dict]) -> float:
    """What schedule "plateau" waits for; UserError where val cannot give it."""
    name, metric = run.stage.name, run.tasks[run.stage.name].metric
    if scores[name][metric] is None:
        raise UserError(
            f"stages.{name}.schedule 'plateau' watches {metric}, undefined on a val split without labelled objects"
        )
    return scores[name][metric]


def score(run: Run, names: list[str], epoch: int) -> dict[str, dict]:
    scores = {}
    for name in names:
        scores[name] = evaluate(run.model, name, run.tasks[name], run.val[name], run.recipe.image_size, run.device)
        run.log("evaluation", epoch=epoch, task=name, metric=run.tasks[name].metric, scores=scores[name])
    return scores


def finish_stage(run: Run) -> None:
    """Final weights, memory, scores of every task learned so far, checkpoint of the stage."""
    stage = run.stage
    started = time.perf_counter()
    for strategy in run.strategies.values():
        strategy.end_training(run, stage)
    if run.model.statistics == "per_stage":
        run.model.store_statistics(stage.name)
    for strategy in run.strategies.values():
        strategy.after_stage(run, stage)
    run.scores.append(score(run, [*run.learned, stage.name], stage.epochs))
    run.shown = {name: row[run.tasks[name].metric] for name, row in run.scores[-1].items()}
    run.seconds[stage.name] += time.perf_counter() - started
    run.peak_memory[stage.name] = peak_memory(run.device)
    number = len(run.learned) + 1
    file = checkpoint.stage_file(number, stage.name, last=number == len(run.recipe.running()))
    content = checkpoint.describe(run.model, run.recipe, run.tasks, run.memory.ids)
    checkpoint.save(run.folder / file, content)
    run.learned.append(stage.name)
    pictures.log_predictions(run)


@command
def main(argv: list[str] | None = None) -> int:
    """Train by the command line's recipe; command_line.py holds its flags and what happens around the loop."""
    options = command_line.parse(sys.argv[1:] if argv is None else argv)
    try:
        run, state = command_line.start(options)
        with run.logger:
            train(run, state)
        if options.baselines:
            single = command_line.baselines(options, run, train)
            run.single = {name: row[run.tasks[name].metric] for name, row in single.items()}
        results = write_results(run)
        command_line.draw(run)
        report.report_run(run)
    except KeyboardInterrupt:
        print(f"\nstopped; {command_line.how_to_go_on(options)}", file=sys.stderr)
        return 130
    print(command_line.table(results, {name: task.label for name, task in run.tasks.items()}))
    print(f"checkpoints, results.json and log.jsonl lie in {run.folder}, figures in {run.folder / 'figures'}")
    print(f"all of it on one page: {run.folder / report.NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
