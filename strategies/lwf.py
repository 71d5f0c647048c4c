"""Learning without Forgetting (Li & Hoiem 2016), for any mix of tasks, with feature distillation."""

import torch

from distill import map_distance
from distill.teacher import Teacher
from errors import UserError, nearest
from strategies import Strategy, check_weights

IMAGES = ("new", "replayed", "both")


class Lwf(Strategy):
    """The model before the stage is the teacher; each old task's raw predictions are held to its.

    Args:
        weights: Stage name → weight of its distillation loss (default 1), one value or, by the stage being learned, several:
            {seg: {det: 8, cls: 3}} holds seg more strongly while det is learned than while cls is.
        temperature: Softens class distributions; one value, or stage name → value.
        features: Trunk part → weight of the distance of its map from the teacher's.
        relative: Feature distances in units of the teacher map's mean square; false: plain mean squared error.
        images: "new": the stage's images, as in the paper; "replayed": every old task on its own replayed images, as in the
            original system; "both": every old task on all images of the step.
    """

    def __init__(
        self,
        *,
        weights: dict[str, float | dict[str, float]] | None = None,
        temperature: float | dict[str, float] = 2.0,
        features: dict[str, float] | None = None,
        relative: bool = True,
        images: str = "both",
    ):
        if images not in IMAGES:
            raise UserError(f"unknown lwf images '{images}'{nearest(images, IMAGES)}")
        self.weights = weights or {}
        self.temperature = temperature
        self.features = features or {}
        self.relative = relative
        self.images = images
        self.teacher: Teacher | None = None
        self.old: list[str] = []

    def check(self, recipe):
        if recipe.norm.statistics == "per_stage":
            raise UserError(
                "strategies.lwf needs one set of norm statistics: its teacher answers for all old tasks in one pass; "
                "set norm.statistics to frozen or running, or leave out lwf"
            )
        by_stage = {old: weight for old, weight in self.weights.items() if isinstance(weight, dict)}
        check_weights("lwf.weights", self.weights | dict.fromkeys(by_stage, 1.0), recipe.stages)
        for old, weights in by_stage.items():
            check_weights(f"lwf.weights.{old}", weights, recipe.stages)
        one_map = [part for part in recipe.trunk_parts() if part != "backbone"]  # the backbone has one at each stride
        check_weights("lwf.features", self.features, one_map)
        if self.images == "replayed" and not ("replay" in recipe.strategies and recipe.memory_per_task != 0):
            raise UserError(
                "strategies.lwf.images is replayed, but no image is: add strategies.replay and memory_per_task, or choose "
                "new or both"
            )
        by_task = self.temperature if isinstance(self.temperature, dict) else {"": self.temperature}
        if by_task is self.temperature:
            check_weights("lwf.temperature", by_task, recipe.stages)
        for value in by_task.values():
            if not 0 < value < float("inf"):
                raise UserError(f"strategies.lwf.temperature is {value}, expected more than 0")

    def before_stage(self, run, stage):
        self.old = [task for task in run.learned if task != stage.name]
        if self.old:
            self.teacher = Teacher(run.model, run.frozen)

    def losses(self, run, step):
        if not self.old:
            return {}
        every = self._rows(step, None)
        if not every:
            return {}
        asked = slice(every[0].start, every[-1].stop)  # no more than these rows need the teacher's answers
        maps, raw = self.teacher(step.images[asked], {part: _cut(value, asked) for part, value in step.maps.items()})
        terms = {}
        for task in self.old:
            rows, weight = self._rows(step, task), self._weight(task, run.stage.name)
            if not rows or weight == 0:
                continue
            temperature = self.temperature.get(task, 2.0) if isinstance(self.temperature, dict) else self.temperature
            student, wanted = _take(step.raw[task], rows), _take(raw[task], rows, asked.start)
            terms[task] = weight * run.tasks[task].distill_loss(student, wanted, temperature)
        for part, weight in self.features.items():
            if weight:
                student, wanted = _take(step.maps[part], every), _take(maps[part], every, asked.start)
                terms[part] = weight * map_distance(student, wanted, self.relative)
        return terms

    def after_stage(self, run, stage):
        self.teacher, self.old = None, []  # the next stage makes its own: nothing to keep, or to save

    def _weight(self, old: str, learning: str) -> float:
        weight = self.weights.get(old, 1.0)
        return weight.get(learning, 1.0) if isinstance(weight, dict) else weight

    def _rows(self, step, task: str | None) -> list[slice]:
        """Rows on which a task (None: the features) is distilled."""
        chosen = []
        for batch, rows in zip(step.batches, step.rows, strict=True):
            new = batch.origin == "stage"
            own = task in (None, batch.task)
            if (
                self.images == "both"
                or (self.images == "new" and new)
                or (self.images == "replayed" and own and not new)
            ):
                chosen.append(rows)
        return chosen

    def state_dict(self):
        return {"old": self.old, "teacher": self.teacher.model.state_dict() if self.teacher else None}

    def load_state_dict(self, state, run):
        self.old = list(state["old"])
        if state["teacher"] is not None:
            self.teacher = Teacher(run.model, run.frozen)
            self.teacher.model.load_state_dict(state["teacher"])


def _take(values: torch.Tensor, rows: list[slice], first: int = 0) -> torch.Tensor:
    """Some rows of a step; `first`: the step's row with which `values` begins."""
    taken = [values[r.start - first : r.stop - first] for r in rows]
    return taken[0] if len(taken) == 1 else torch.cat(taken)


def _cut(maps, rows: slice):
    """Rows of a trunk part's output: a map, or several by stride."""
    return {stride: value[rows] for stride, value in maps.items()} if isinstance(maps, dict) else maps[rows]
