"""Experiment loggers: one file per tool that is told, besides log.jsonl, how a run goes. A flag, no part of the recipe."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

import registry
from errors import UserError


class Logger:
    """One run, told to one tool. Every hook defaults to doing nothing; the step of all is the run's global epoch.

    Constructor: (folder of the run, its resolved recipe, redo_from: the first step to be told or told again, 0 in a fresh
    run). What the tool holds of that step and later ones, left by a run that was killed, is to be dropped where the tool
    can do that. A logger sets redo_from to 0 where its tool holds nothing of the run yet.
    """

    takes_pictures = False

    def __init__(self, folder: Path, recipe: dict, redo_from: int):
        self.redo_from = redo_from

    @classmethod
    def check(cls) -> None:
        """UserError for what would keep it from logging; called before a run writes or trains anything."""

    def scalars(self, values: dict[str, float], step: int) -> None: ...

    def picture(self, name: str, picture: Image.Image, step: int) -> None: ...

    def close(self) -> None: ...

    def record(self, record: dict) -> None:
        """A record of log.jsonl, as it is written."""
        self.scalars(scalars_of(record), record["global_epoch"])

    def catch_up(self, records: Iterable[dict]) -> None:
        """After a resume: the log that is left, of which the tool lacks what comes from redo_from on."""
        for record in records:
            if record["global_epoch"] >= self.redo_from:
                self.record(record)

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def find(name: str) -> type[Logger]:
    """The logger behind a name, ready to be used. UserError for an unknown one, and for a package that is missing."""
    try:
        found = registry.load(Logger, name)[0]
    except ModuleNotFoundError as error:
        package = error.name.split(".")[0]
        raise UserError(
            f"--logger {name} needs the package {package}, which is not installed: python -m pip install {package}"
        ) from error
    found.check()
    return found


def scalars_of(record: dict) -> dict[str, float]:
    """Curves by name. Training: STAGE/loss/TERM, STAGE/lr/PART, STAGE/images_per_second; evaluation: TASK/score/METRIC.

    A task's scores keep their name in later stages: one curve shows it learned and forgotten. Undefined scores are left out.
    """
    if record["kind"] == "epoch":
        stage = record["stage"]
        losses = {f"{stage}/loss/{term.replace('.', '/')}": value for term, value in record["losses"].items()}
        rates = {f"{stage}/lr/{part}": value for part, value in record["lr"].items()}
        return {**losses, **rates, f"{stage}/images_per_second": record["images_per_second"]}
    if record["kind"] == "evaluation":
        scores = record["scores"].items()
        return {f"{record['task']}/score/{metric}": value for metric, value in scores if value is not None}
    return {}
