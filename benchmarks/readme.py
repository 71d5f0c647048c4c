"""python -m benchmarks.readme [RUN ...]: keep results of runs in benchmarks/results, rewrite the README's table and picture."""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev

import yaml

from benchmarks import picture
from errors import UserError, command
from files import write_json

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PICTURE = HERE.parent / "docs/record.png"
SEED = "-seed"  # what a run of one seed among several has behind its recipe's name
SPEED = HERE / "speed.json"


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.split(": ", 1)[1])
    parser.add_argument(
        "runs", nargs="*", type=Path, help="folders of finished runs to take in, named after their recipe"
    )
    for run in parser.parse_args(argv).runs:
        _take_in(run)
    kept = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    if not kept:
        raise UserError(f"{HERE / 'results'}: no results yet; name finished runs")
    _put("results", table(kept))
    if SPEED.is_file():
        _put("speed", speed_table(json.loads(SPEED.read_text())))
    picture.draw({name: [entry["results"] for entry in entries] for name, entries in by_recipe(kept).items()}, PICTURE)


def _put(name: str, text: str) -> None:
    """Between the README's two marks of that name."""
    begin, end = f"<!-- {name}: python -m benchmarks.readme -->", f"<!-- end of {name} -->"
    before, rest = README.read_text().split(begin)
    README.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def _take_in(run: Path) -> None:
    """A run's figures and what they were measured on, without its images' ids."""
    for name in ("results.json", "env.json", "config.yaml"):
        if not (run / name).is_file():
            raise UserError(f"{run / name}: missing; expected the folder of a finished run")
    results = json.loads((run / "results.json").read_text())
    if len(results["matrix"]) < len(results["tasks"]):
        raise UserError(f"{run}: not all stages are finished; go on with python train.py --run_dir {run} --resume")
    results.pop("replay")
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    env = json.loads((run / "env.json").read_text())
    env.pop("command")  # holds paths of one machine; the README gives the command
    kept = {"name": run.name, "seed": recipe["seed"], "results": results, "env": env}
    alone = {
        task: run.parent / "baselines" / folder / "env.json" for task, folder in results.get("single_runs", {}).items()
    }
    kept["baselines"] = {task: json.loads(path.read_text())["git"] for task, path in alone.items()}
    (HERE / "results").mkdir(exist_ok=True)
    write_json(HERE / "results" / f"{run.name}.json", kept)


def by_recipe(kept: list[dict]) -> dict[str, list[dict]]:
    """Recipe → what was kept of its runs, one a seed."""
    names = sorted({entry["name"].split(SEED)[0] for entry in kept})
    return {name: [entry for entry in kept if entry["name"].split(SEED)[0] == name] for name in names}


def table(kept: list[dict]) -> str:
    """Score after the stage that learned it → after the last stage, drop against both baselines, minutes."""
    lines = [
        "| run | mIoU | mIoU_fg | mAP@0.5 | Top-1 | drop % vs stage: seg / det / cls | drop % vs single | minutes |",
        "|---|---|---|---|---|---|---|---|",
        _published(),
    ]
    lines += [_row(name, entries) for name, entries in by_recipe(kept).items()]
    machines = {f"{e['env']['processor']}, {e['env']['cores']} cores, {e['env']['date'][:10]}" for e in kept}
    footer = f"Measured on {'; '.join(sorted(machines))}. Scores: right after learning → after the last stage."
    sources = "; ".join(f"{name} {_source(entries)}" for name, entries in by_recipe(kept).items())
    return "\n".join(
        [*lines, "", footer, f"Threads and code (git revision; in brackets, the single-task runs'): {sources}."]
    )


def _source(entries: list[dict]) -> str:
    """Threads and revisions that a row's runs were trained with."""
    threads = sorted({str(entry["env"]["threads"]) for entry in entries})
    own = sorted({_short(entry["env"]["git"]) for entry in entries})
    alone = sorted({_short(revision) for entry in entries for revision in entry["baselines"].values()})
    return f"{'/'.join(threads)}, {', '.join(own)}" + (f" ({', '.join(alone)})" if alone else "")


def _short(revision: str | None) -> str:
    """A commit's first letters, with what environment.describe says behind it."""
    commit, *changes = (revision or "unknown").split("+")
    return "+".join([commit[:7], *changes])


def speed_table(measured: dict) -> str:
    """What benchmarks.speed found, a line a measure."""
    lines = ["| measure | value | goal | |", "|---|---|---|---|"]
    for found in measured["measures"]:
        verdict = "met" if found["met"] else "**missed**"
        lines.append(f"| {found['name']} | {found['value']:.3g} | {found['goal']} | {verdict}; {found['detail']} |")
    env = measured["env"]
    return "\n".join(
        [*lines, "", f"{env['processor']}, {env['cores']} cores, {env['date'][:10]}, {measured['recipe']}.yaml."]
    )


def _published() -> str:
    pairs = [f"{scores[0]:.4f} → {scores[1]:.4f}" if scores else "– → –" for *_, scores in picture.PANELS]
    return f"| original, published (B0, RTX 5090, one seed) | {' | '.join(pairs)} | – | – | – |"


def _row(name: str, entries: list[dict]) -> str:
    """One recipe's figures: of its one run, or mean ± standard deviation over its seeds."""
    results = [entry["results"] for entry in entries]
    tasks = results[0]["tasks"]
    cells = []
    for task, metric, *_ in picture.PANELS:
        if task in tasks:
            learned = [r["scores"][tasks.index(task)][task][metric] for r in results]
            cells.append(f"{_spread(learned)} → {_spread([r['scores'][-1][task][metric] for r in results])}")
        else:
            cells.append("–")
    for kind in ("stage", "single"):
        cells.append(" / ".join(_spread([r["drop_percent"][kind][task] for r in results], "+.1f") for task in tasks))
    cells.append(_spread([sum(r["seconds"].values()) / 60 for r in results], ".0f"))
    seeds = sorted(entry["seed"] for entry in entries)
    return f"| {name} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}) | " + " | ".join(cells) + " |"


def _spread(values: list[float | None], form: str = ".4f") -> str:
    if None in values:
        return "–"
    deviation = f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
