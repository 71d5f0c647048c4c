"""Strategies against forgetting: one file per paper. They compose: none knows another, and hooks return, only the loop adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from data.loader import Batch
from errors import UserError, nearest

if TYPE_CHECKING:
    from recipe import Recipe, Stage
    from run import Run


@dataclass
class Step:
    """One training step after its one forward pass.

    images: uint8 (B, 3, S, S), all batches one after the other; rows[i] are those of batches[i], the stage's own first.
    maps: the trunk's outputs by part. raw: task → raw predictions: of an older task on all rows, of the stage's own task on
    the rows of its own batches only (so that its norm layers see nothing else); `raw_of` cuts out one batch.
    """

    batches: list[Batch]
    rows: list[slice]
    images: Tensor
    maps: dict[str, object]
    raw: dict[str, Tensor]
    own_rows: dict[int, slice]  # batch number → its rows in raw[the stage's task]
    task: str

    def raw_of(self, task: str, number: int) -> Tensor:
        return self.raw[task][self.own_rows[number] if task == self.task else self.rows[number]]


class Strategy:
    """Every hook defaults to doing nothing. `run` gives model, tasks, splits, memory, recipe, and the seeds' key (run.key)."""

    def check(self, recipe: Recipe) -> None:
        """UserError where an option does not fit the recipe (say, names no part of it), before anything is written."""

    def before_stage(self, run: Run, stage: Stage) -> None:
        """The model still is what the previous stage left, the stage's predictor added."""

    def batches(self, run: Run) -> list[Batch]:
        """Further batches for this step's one forward pass; origin: the strategy's name."""
        return []

    def losses(self, run: Run, step: Step) -> dict[str, Tensor]:
        """Further weighted terms by name."""
        return {}

    def on_gradients(self, run: Run, step: Step) -> None:
        """After backward, before the optimiser."""

    def after_step(self, run: Run, step: Step) -> None:
        """After the optimiser."""

    def end_training(self, run: Run, stage: Stage) -> None:
        """The last place where weights may change in a stage (averaging, interpolation)."""

    def after_stage(self, run: Run, stage: Stage) -> None:
        """Weights are final: choose what to remember."""

    def state_dict(self) -> dict:
        """All that a resumed run needs, tensors and plain values only."""
        return {}

    def load_state_dict(self, state: dict, run: Run) -> None:
        """The reverse, with the run's model and stage in place."""


def check_weights(option: str, weights: dict[str, float], names: Iterable[str]) -> None:
    """UserError where a table of weights has a name that is not one of `names`, or a weight below 0."""
    names = list(names)
    for name, weight in weights.items():
        if name not in names:
            raise UserError(f"strategies.{option} has '{name}'{nearest(name, names)}")
        if not 0 <= weight < float("inf"):
            raise UserError(f"strategies.{option}.{name} is {weight}, expected 0 or more")
