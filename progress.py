"""What an interrupted run goes on from: RUN/last.pt, written after every epoch and every stage."""

from pathlib import Path

import checkpoint
from errors import UserError
from models import build
from runlog import LOG, read_log
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
        "peak_memory": run.peak_memory,
        "global_epoch": run.global_epoch,
        "strategies": {name: strategy.state_dict() for name, strategy in run.strategies.items()},
        "log_bytes": (run.folder / LOG).stat().st_size,
        "data": _data(run),
    }
    if epoch:
        content |= {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    checkpoint.save(run.folder / NAME, content)


def first_redone(state: dict | None) -> int:
    """The first global epoch of which a resumed run may say again what it said: the last one, if its stage was not closed."""
    return 0 if state is None else state["global_epoch"] + (state["epoch"] == 0)


def read(folder: Path) -> dict | None:
    """The state to go on from; None if the run was stopped before its first epoch ended."""
    path = folder / NAME
    if not path.is_file():
        return None
    state = checkpoint.read(path)
    if "epoch" not in state:
        raise UserError(
            f"{path}: a checkpoint for evaluation, expected the state that train.py writes; put that one back"
        )
    return state


def restore_run(run, state: dict) -> None:
    """Model, memory, scores and log as they were. The log loses what was written after the state."""
    for name, content in _data(run).items():
        if state["data"][name] != content:
            raise UserError(
                f"{run.recipe.data_root}: images, labels or classes of '{name}' are not those that {run.folder} began with; "
                f"restore them, or start a new run"
            )
    for name, classes in state["classes"].items():
        run.tasks[name] = build(Task, run.recipe.stages[name].task, classes)
        checkpoint.add_predictor(run.model, run.recipe, name, run.tasks[name])
    checkpoint.load_weights(run.model, state, run.folder / NAME)
    run.model.to(run.device)
    run.memory.ids.update(state["memory"])
    run.learned, run.scores = list(state["learned"]), list(state["scores"])
    run.peak_memory = dict(state.get("peak_memory", {}))  # runs begun before it was logged have none
    run.seconds, run.global_epoch = dict(state["seconds"]), state["global_epoch"]
    if not state["epoch"]:
        for name, strategy in run.strategies.items():
            strategy.load_state_dict(state["strategies"][name], run)
    with open(run.folder / LOG, "ab") as log:  # a log that was lost or cut must not keep the run from going on
        log.truncate(min(state["log_bytes"], log.tell()))
    run.logger.catch_up(read_log(run.folder))


def _data(run) -> dict[str, list]:
    """What a run learns from and is scored on, by stage."""
    return {
        name: [split.fingerprint(), run.val[name].fingerprint(), *split.dataset.classes]
        for name, split in run.splits.items()
    }


def restore_stage(run, state: dict, optimizer, scheduler) -> int:
    """Optimiser, schedule and strategies in mid-stage; returns how many epochs are done."""
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    for name, strategy in run.strategies.items():
        strategy.load_state_dict(state["strategies"][name], run)
    return state["epoch"]
