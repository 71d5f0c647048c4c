"""python eval.py --weights RUN/final.pt --data_root DL_data --tasks all: scores, drops against baselines, rules."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import checkpoint
import registry
from command_line import choose_device
from errors import UserError, command
from evaluation import choose_tasks, evaluate
from files import write_json
from recipe import Recipe
from results import LIMIT, drop_percent, drop_points, verdict
from rules import Rule, check_rules
from runlog import RESULTS, read_results
from splits import open_splits
from tasks import Task


@command
def main(argv: list[str] | None = None) -> int:
    """Score a checkpoint on val, print what is asked for, write the same as JSON."""
    flags = _parse(argv)
    device = choose_device(flags.device)
    if flags.json and Path(flags.json).name == RESULTS:
        raise UserError(f"{flags.json}: a run keeps its score matrix under this name; choose another file for --json")
    model, tasks, recipe, content = checkpoint.restore(Path(flags.weights), device)
    recipe = replace(recipe, data_root=flags.data_root or recipe.data_root, fold=None if flags.val else recipe.fold)
    names = choose_tasks(flags.tasks, tasks)
    _refuse_shared_baselines(flags, {n: tasks[n].flag for n in names})
    splits = open_splits(recipe, [recipe.stages[n] for n in names], "val", {n: tasks[n].classes for n in names})
    scores = {n: evaluate(model, n, tasks[n], splits[n], recipe.image_size, device) for n in names}
    results = read_results(Path(flags.weights).parent, "baseline", "seconds")
    report = {"weights": flags.weights, "data_root": recipe.data_root, "scores": scores}
    report["drops"] = {n: _drops(tasks[n], scores[n], _baselines(n, tasks[n], results, flags)) for n in names}
    for name in names:
        print(f"{name}: {len(splits[name])} images of {_source(recipe)}")
        _print_scores(tasks[name], scores[name])
    _print_drops(tasks, report["drops"])
    if flags.rules:
        rows = {n: kinds.get("given") or kinds["single"] for n, kinds in report["drops"].items()}
        drops = {n: (row["drop_percent"], row["verdict"]) for n, row in rows.items()}
        rules = check_rules(model, drops, results and results["seconds"], content["memory"], device)
        report["rules"] = [asdict(rule) for rule in rules]
        _print_rules(rules)
    if flags.json:
        try:
            write_json(Path(flags.json), report)
        except OSError as error:
            raise UserError(f"{flags.json}: cannot be written ({error}); choose another file for --json") from error
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval.py", description=__doc__.split(": ", 1)[1], allow_abbrev=False)
    parser.add_argument("--weights", required=True, help="checkpoint, RUN/final.pt or RUN/stageN_NAME.pt")
    parser.add_argument("--data_root", help="folder of the data sets (default: the recipe's)")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="all (default), or some of seg det cls …")
    parser.add_argument(
        "--val", action="store_true", help="score val, also where the recipe holds a fold of the training set out"
    )
    parser.add_argument("--json", help="write everything printed to this file too")
    parser.add_argument("--rules", action="store_true", help="check the challenge's rules")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    for flag, label in sorted({(t.flag, t.label) for t in (registry.load(Task, n)[0] for n in registry.names(Task))}):
        parser.add_argument(
            f"--base_{flag}", type=_share, help=f"baseline {label}, 0 to 1 (default: from results.json)"
        )
    return parser.parse_args(argv)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1 (scores are shares, not percent)")
    return value


def _refuse_shared_baselines(flags: argparse.Namespace, flag_of: dict[str, str]) -> None:
    """A figure given is one task's: UserError where several of the tasks scored go by its flag."""
    for flag in set(flag_of.values()):
        names = [name for name, own in flag_of.items() if own == flag]
        if len(names) > 1 and getattr(flags, f"base_{flag}") is not None:
            raise UserError(f"--base_{flag} is one baseline for {' and '.join(names)}; choose one of them with --tasks")


def _source(recipe: Recipe) -> str:
    return "val" if recipe.fold is None else f"fold {recipe.fold} of the training set, held out (--val: score val)"


def _baselines(name: str, task: Task, results: dict | None, flags: argparse.Namespace) -> dict[str, float | None]:
    given = getattr(flags, f"base_{task.flag}")
    if given is not None:
        return {"given": given}
    kinds = results["baseline"] if results else {}
    return {kind: kinds.get(kind, {}).get(name) for kind in ("single", "stage")}


def _drops(task: Task, scores: dict, baselines: dict[str, float | None]) -> dict[str, dict]:
    final = scores[task.metric]
    return {
        kind: {
            "metric": task.metric,
            "baseline": baseline,
            "final": final,
            "drop_percent": drop_percent(baseline, final),
            "drop_points": drop_points(baseline, final),
            "verdict": verdict(baseline, final),
        }
        for kind, baseline in baselines.items()
    }


def _print_scores(task: Task, scores: dict) -> None:
    for metric, label in task.headlines.items():
        print(f"{label} {_figure(scores[metric])}")
    details = {key: value for key, value in scores.items() if key not in task.headlines}
    print("  " + ", ".join(f"{key} {_figure(value, '.3f')}" for key, value in details.items()))


def _print_drops(tasks: dict[str, Task], drops: dict[str, dict]) -> None:
    print(f"\n{'task':6}{'metric':10}{'baseline':>18}{'final':>10}{'drop %':>10}{'points':>9}  drop <= {LIMIT:g} %")
    for name, kinds in drops.items():
        for kind, row in kinds.items():
            baseline = f"{kind} {_figure(row['baseline'])}"
            figures = f"{_figure(row['final']):>10}{_figure(row['drop_percent'], '+.2f'):>10}"
            points = _figure(row["drop_points"], "+.2f")
            print(f"{name:6}{tasks[name].label:10}{baseline:>18}{figures}{points:>9}  {row['verdict']}")


def _print_rules(rules: list[Rule]) -> None:
    print(f"\n{'rule':14}{'limit':42}{'figure':34}")
    for rule in rules:
        word = {True: "pass", False: "FAIL", None: "not known"}[rule.passed]
        print(f"{rule.name:14}{rule.limit:42}{rule.figure:34}{word}")


def _figure(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
