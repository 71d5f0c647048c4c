"""A run's folder as a report reads it: what is there, how far it got, and which checkpoints its figures come from."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from checkpoint import stage_file
from errors import UserError
from history import History
from pictures import stage_checkpoints
from recipe import Recipe
from recipe_parser import make_recipe
from runlog import CONFIG, RESULTS, parse_object, read_results

# beside what History reads
_EXTRAS = {"replay": dict, "seconds": dict, "memory": dict, "single_runs": dict, "parameters": int}


@dataclass(frozen=True)
class RunRecord:
    """One run. `results` and `environment` are {} and `recipe` None where their file is missing: `missing` says so.

    planned: names of all stages, in order.  missing: sentences on what is left out of a report and why.
    """

    folder: Path
    name: str
    history: History
    results: dict
    environment: dict
    recipe: Recipe | None
    recipe_text: str
    missing: list[str]

    @property
    def planned(self) -> list[str]:
        return [stage.name for stage in self.recipe.running()] if self.recipe else self.history.tasks

    @property
    def finished(self) -> bool:
        return len(self.history.matrix) == len(self.planned)

    def progress(self) -> str:
        """How far an unfinished run got, as a sentence."""
        names, matrix = list(self.history.stages.values()), self.history.matrix
        if not self.history.epochs:
            return f"Not finished: {len(matrix)} of {len(self.planned)} stages done when this page was written."
        last = self.history.epochs[-1]
        place = f"stage {len(names)} of {len(self.planned)} ({names[-1]}), epoch {last['epoch']} of {last['epochs']}"
        return f"Not finished, still in training or interrupted: {place} when this page was written."

    def stage_scores(self) -> list[dict[str, dict[str, float | None]]]:
        """After each finished stage: task → all its figures."""
        rows: list[dict] = [{} for _ in self.history.matrix]
        for record in self.history.evaluations:  # in order: the last of a stage stands
            if record["stage_index"] < len(rows):
                rows[record["stage_index"]][record["task"]] = record["scores"]
        return rows


def read_run(folder: Path, name: str) -> RunRecord:
    """UserError: no run, a run without a finished epoch, or a damaged file. Missing files are only noted."""
    results = _read_results(folder / RESULTS)
    history = History.read(folder)
    missing = []
    if results is None:
        missing.append(f"No {RESULTS} yet: replayed images, memory and size of the network are not known.")
    environment = _read_object(folder / "env.json", "remove it to write a report without it")
    if environment is None:
        missing.append("No env.json: environment and command are not known.")
    recipe, text = None, ""
    if (folder / CONFIG).is_file():
        recipe, text = _read_recipe(folder / CONFIG)
    else:
        missing.append(f"No {CONFIG}: the recipe is not known, and no checkpoint can be scored.")
    return RunRecord(folder, name, history, results or {}, environment or {}, recipe, text, missing)


def _read_results(path: Path) -> dict | None:
    results = _read_object(path, "remove it, and go on with --resume to write it anew")
    for field, kind in _EXTRAS.items() if results else ():
        if not isinstance(results.get(field, kind()), kind):
            raise UserError(f"{path}: '{field}' is {results[field]!r}; expected a {kind.__name__}; write it anew")
    return results


def _read_object(path: Path, remedy: str) -> dict | None:
    """A JSON file's object, None where there is no file; UserError, with the remedy, where it holds something else."""
    if not path.is_file():
        return None
    content = parse_object(path.read_bytes())
    if content is None:
        raise UserError(f"{path}: not a JSON object; {remedy}")
    return content


def _read_recipe(path: Path) -> tuple[Recipe, str]:
    try:
        text = path.read_text()
        plain = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file ({error}); put the run's own back") from error
    if not isinstance(plain, dict):
        raise UserError(f"{path}: not a recipe; expected the {CONFIG} that train.py wrote")
    return make_recipe(plain, source=str(path))[0], text


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint that figures come from: after stage `stage` (from 0), or None: the single-task run of `task` alone."""

    path: Path
    label: str
    stage: int | None
    task: str | None = None


def snapshots(record: RunRecord) -> tuple[list[Snapshot], list[str]]:
    """The finished stages' checkpoints and the single-task runs', and sentences on those that are not there."""
    found, missing = [], []
    paths = {path.name: path for path in stage_checkpoints(record.folder)}
    for number, name in enumerate(record.planned[: len(record.history.matrix)]):
        file = stage_file(number + 1, name, last=number == len(record.planned) - 1)
        if file in paths:
            found.append(Snapshot(paths[file], f"after {name}", number))
        else:
            missing.append(f"No {file}: no pictures and no intervals of what stands after stage {name}.")
    for position, name in enumerate(record.planned):
        score = record.history.baseline.get("single", {}).get(name)
        if score is None or record.recipe is None:
            continue
        if position == 0:  # it is its own single-task run, and not trained twice
            found += [Snapshot(s.path, "trained alone", None, name) for s in found if s.stage == 0]
        elif path := _single_checkpoint(record, name, score):
            found.append(Snapshot(path, "trained alone", None, name))
        else:
            missing.append(
                f"The checkpoint of {name} trained alone is not there (train.py --resume --baselines): no interval."
            )
    return found, missing


def _single_checkpoint(record: RunRecord, task: str, score: float) -> Path | None:
    """Of the run that gave the single-task baseline: beside this one, with that very score."""
    folder = record.folder.resolve().parent / "baselines" / record.results.get("single_runs", {}).get(task, "none")
    results = read_results(folder, "matrix")
    fits = results is not None and results["matrix"] == [[score]] and (folder / "final.pt").is_file()
    return folder / "final.pt" if fits else None
