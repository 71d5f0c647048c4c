"""What an interrupted run goes on from: RUN/last.pt, written after every epoch and every stage."""

import os
from pathlib import Path

import checkpoint
from errors import UserError
from models import build
from runlog import LOG
from tasks import Task

NAME = "last.pt"


def save(run, epoch: int, optimizer=None, scheduler=None) -> None:
    """`epoch` epochs of the present stage are done; 0: the stage is finished and the next has not begun."""
    content = checkpoint.describe(run.model, run.recipe, run.tasks, run.memory.ids)
    content |= {
        "epoch": epoch,
        "learned": run.learned,
        "scores": run.scores,
        "seconds": run.seconds,
        "global_epoch": run.global_epoch,
        "strategies": {name: strategy.state_dict() for name, strategy in run.strategies.items()},
        "log_bytes": (run.folder / LOG).stat().st_size,
        "data": {name: split.fingerprint() for name, split in run.splits.items()},
    }
    if epoch:
        content |= {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    checkpoint.save(run.folder / NAME, content)


def read(folder: Path) -> dict | None:
    """The state to go on from; None if the run was stopped before its first epoch ended."""
    return checkpoint.read(folder / NAME) if (folder / NAME).is_file() else None


def restore_run(run, state: dict) -> None:
    """Model, memory, scores and log as they were. The log loses what was written after the state."""
    for name, split in run.splits.items():
        if state["data"][name] != split.fingerprint():
            raise UserError(
                f"{run.recipe.data_root}: the training images of '{name}' are not those that {run.folder} began with; restore "
                f"them, or start a new run"
            )
    for name, classes in state["classes"].items():
        run.tasks[name] = build(Task, run.recipe.stages[name].task, classes)
        checkpoint.add_predictor(run.model, run.recipe, name, run.tasks[name])
    run.model.load_state_dict(state["model"])
    run.model.to(run.device)
    run.model.stored_statistics = state["stored_statistics"]
    run.memory.ids.update(state["memory"])
    run.learned, run.scores = list(state["learned"]), list(state["scores"])
    run.seconds, run.global_epoch = dict(state["seconds"]), state["global_epoch"]
    if not state["epoch"]:
        for name, strategy in run.strategies.items():
            strategy.load_state_dict(state["strategies"][name], run)
    os.truncate(run.folder / LOG, state["log_bytes"])


def restore_stage(run, state: dict, optimizer, scheduler) -> int:
    """Optimiser, schedule and strategies in mid-stage; returns how many epochs are done."""
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    for name, strategy in run.strategies.items():
        strategy.load_state_dict(state["strategies"][name], run)
    return state["epoch"]
