"""How a run went: its log.jsonl and, as far as there, its results.json, read as what the figures draw."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from errors import UserError
from results import drop_percent
from runlog import LOG, RESULTS, parse_object, read_log

NUMBER = int | float
PLACE = {"stage": str, "stage_index": int, "epoch": NUMBER, "global_epoch": NUMBER}
FIELDS = {  # what a record of each kind must hold; records of other kinds are not plotted
    "epoch": {**PLACE, "epochs": NUMBER, "losses": dict},
    "evaluation": {**PLACE, "task": str, "metric": str, "scores": dict},
}
SCORE = "score"  # the panel of the scores
RESULT_FIELDS = {"tasks": list, "metrics": dict, "matrix": list, "baseline": dict}


@dataclass(frozen=True)
class History:
    """One run as far as it got. Scores are in [0, 1]; NaN stands wherever the files have null or nothing.

    epochs, evaluations: the log's records in training order; of records repeated by a resume, the last.
    stages: index → name, of the stages begun.  matrix: R[after stage i][task j] of the stages finished.
    baseline: kind ("single", "stage") → task → score; the stage's own is read off the log where not given.
    """

    epochs: list[dict]
    evaluations: list[dict]
    tasks: list[str]
    metrics: dict[str, str]
    stages: dict[int, str]
    matrix: list[list[float]]
    baseline: dict[str, dict[str, float]]

    @classmethod
    def read(cls, run: Path) -> "History":
        """From RUN/log.jsonl and, as far as there, RUN/results.json; UserError if unusable or without any epoch."""
        log, results = Path(run) / LOG, _read_results(Path(run) / RESULTS)
        epochs, evaluations = {}, {}
        for line, record in enumerate(read_log(run), start=1):
            kind = record.get("kind")
            if kind in FIELDS:
                _check(record, f"{log}:{line}")
                key = (record["stage_index"], record["epoch"])
                if kind == "epoch":
                    epochs[key] = record
                else:
                    evaluations[*key, record["task"]] = record
        if not epochs and not evaluations:
            raise UserError(f"{log}: no epoch and no evaluation to plot; expected a run that finished an epoch")
        epochs = [epochs[key] for key in sorted(epochs)]
        evaluations = sorted(evaluations.values(), key=lambda record: (record["stage_index"], record["epoch"]))
        found = {record["task"]: record["metric"] for record in evaluations}
        tasks = list(dict.fromkeys([*results.get("tasks", ()), *found]))
        stages = {record["stage_index"]: record["stage"] for record in [*epochs, *evaluations]}
        finals = _finals(epochs, evaluations)
        return cls(
            epochs=epochs,
            evaluations=evaluations,
            tasks=tasks,
            metrics={**found, **results.get("metrics", {})},
            stages=dict(sorted(stages.items())),
            matrix=_matrix(results, tasks, finals),
            baseline=_baseline(results, finals),
        )

    def drops(self, describe: bool) -> list["Term"]:
        """Drop in % over the finished stages (counted from 0), a panel for each kind of baseline.

        NaN before the task is learned. `describe` adds last drop and last score to the labels.
        """
        terms = []
        for kind, baseline in self.baseline.items():
            for j, task in enumerate(self.tasks):
                drops = [score(drop_percent(baseline.get(task), row[j])) for row in self.matrix]
                if any(map(math.isfinite, drops)):
                    label = task
                    if describe and math.isfinite(drops[-1]):
                        label += f" {drops[-1]:+.1f} %, {self.metrics.get(task, SCORE)} {self.matrix[-1][j]:.3f}"
                    terms.append(Term(kind, label, task, list(enumerate(drops))))
        return terms

    def losses(self, stage: tuple[int, str] | None) -> list["Term"]:
        """Every loss term over the epochs of one stage (index, name), or over all with a gap at each stage border."""
        own = {*self.tasks, *self.stages.values()}
        points: dict[str, list[tuple[float, float]]] = {}
        drawn_in: dict[str, int] = {}
        for record in self.epochs:
            if stage in (None, (record["stage_index"], record["stage"])):
                for name, value in record["losses"].items():
                    line = points.setdefault(name, [])
                    if drawn_in.setdefault(name, record["stage_index"]) != record["stage_index"]:
                        line.append((math.nan, math.nan))
                    drawn_in[name] = record["stage_index"]
                    line.append((record["epoch" if stage else "global_epoch"], score(value)))
        terms = []
        for name, line in points.items():
            prefix, _, rest = name.partition(".")
            panel, label = (f"{prefix} loss", rest) if rest and prefix not in own else ("loss", name)
            task = next((part for part in name.split(".") if part in own), None)
            terms.append(Term(panel, label, task, line))
        return terms

    def scores(self, stage: tuple[int, str] | None) -> list["Term"]:
        """Primary score of each task evaluated; in one stage from epoch 0, with what the stage before left."""
        points: dict[str, list[tuple[float, float]]] = {}
        left: dict[str, float] = {}
        for record in self.evaluations:
            task, value = record["task"], score(record["scores"].get(record["metric"]))
            if stage is None:
                points.setdefault(task, []).append((record["global_epoch"], value))
            elif (record["stage_index"], record["stage"]) == stage:
                start = [(0, left[task])] if task in left and record["epoch"] > 0 else []
                points.setdefault(task, start).append((record["epoch"], value))
            elif record["stage_index"] < stage[0]:
                left[task] = value
        return [
            Term(SCORE, f"{task} ({self.metrics[task]})", task, points[task]) for task in self.tasks if task in points
        ]

    def borders(self) -> tuple[tuple[str, float], ...]:
        """Name and last global epoch of each stage begun."""
        ends: dict[int, float] = {}
        for record in (*self.epochs, *self.evaluations):
            ends[record["stage_index"]] = max(ends.get(record["stage_index"], 0), record["global_epoch"])
        return tuple((name, ends[index]) for index, name in self.stages.items())


@dataclass(frozen=True)
class Term:
    """One line of a figure, of the panel of that name: (epoch, value) of one loss term or score; NaN is a gap."""

    panel: str
    label: str
    task: str | None
    points: list[tuple[float, float]]


def score(value: float | None) -> float:
    """A logged number, null as NaN."""
    return math.nan if value is None else float(value)


def _check(record: dict, where: str) -> None:
    for field, kind in FIELDS[record["kind"]].items():
        if not isinstance(record.get(field), kind):
            found = repr(record[field]) if field in record else "missing"
            wanted = getattr(kind, "__name__", kind)
            raise UserError(f"{where}: '{field}' is {found}; expected: {wanted}; was this log written by train.py?")
    for name, value in (record.get("losses") or record.get("scores") or {}).items():
        if not isinstance(value, NUMBER | None):
            raise UserError(f"{where}: '{name}' is {value!r}; expected a number or null")


def _read_results(path: Path) -> dict:
    """What is there of RESULT_FIELDS; nothing where the run has not got so far or was killed while writing."""
    if not path.is_file():
        return {}
    results = parse_object(path.read_bytes())
    if results is None:
        print(f"warning: {path}: not a JSON object; scores are taken from {LOG} alone", file=sys.stderr)
        return {}
    results = {field: results[field] for field in RESULT_FIELDS if results.get(field) is not None}
    for field, value in results.items():
        if not isinstance(value, RESULT_FIELDS[field]):
            raise UserError(
                f"{path}: '{field}' is {value!r}; expected a {RESULT_FIELDS[field].__name__}; write it anew"
            )
    rows = [(row, list) for row in results.get("matrix", ())]
    rows += [(given, dict) for given in results.get("baseline", {}).values()]
    for row, kind in rows:
        values = row.values() if isinstance(row, dict) else row
        if row is not None and not (isinstance(row, kind) and all(isinstance(v, NUMBER | None) for v in values)):
            raise UserError(f"{path}: {row!r} among the scores; expected numbers or null; write it anew")
    return results


def _finals(epochs: list[dict], evaluations: list[dict]) -> dict[tuple[int, str], float]:
    """(stage index, task) → primary score after the last epoch of a finished stage."""
    planned = {record["stage_index"]: record["epochs"] for record in epochs}
    return {
        (record["stage_index"], record["task"]): score(record["scores"].get(record["metric"]))
        for record in evaluations
        if record["epoch"] == planned.get(record["stage_index"], record["epoch"])
    }


def _matrix(results: dict, tasks: list[str], finals: dict[tuple[int, str], float]) -> list[list[float]]:
    """results.json's matrix, its gaps filled from the log; without trailing rows that say nothing."""
    known = dict(finals)
    for i, row in enumerate(results.get("matrix", ())):
        known |= {(i, task): score(value) for task, value in zip(tasks, row or (), strict=False) if value is not None}
    count = 1 + max((i for (i, _), value in known.items() if math.isfinite(value)), default=-1)
    return [[known.get((i, task), math.nan) for task in tasks] for i in range(count)]


def _baseline(results: dict, finals: dict[tuple[int, str], float]) -> dict[str, dict[str, float]]:
    """results.json's baselines; the stage's own, where not given, is the task's first score at a stage's end."""
    kinds: dict[str, dict[str, float]] = {"single": {}, "stage": {}}
    for (_, task), value in finals.items():
        kinds["stage"].setdefault(task, value)
    for kind, given in results.get("baseline", {}).items():
        kinds[kind] = kinds.get(kind, {}) | {task: value for task, value in (given or {}).items() if value is not None}
    kinds = {kind: {t: value for t, value in given.items() if math.isfinite(value)} for kind, given in kinds.items()}
    return {kind: given for kind, given in kinds.items() if given}
