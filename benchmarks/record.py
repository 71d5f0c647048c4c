"""python -m benchmarks.record: rerun the record over seeds, with single-task baselines; rewrite the README's table, picture.

Resumable: what is finished is skipped, what was interrupted goes on.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import readme
from errors import UserError, command
from recipe_parser import make_recipe, read_recipe
from runlog import CONFIG, read_results

ROOT = Path(__file__).parents[1]


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--config", type=Path, default=ROOT / "configs/onehead.yaml", help="Recipe.")
    parser.add_argument("--data_root", type=Path, default=ROOT / "DL_data", help="Folder of the real mini sets.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="One run for each.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/record", help="Where the runs lie.")
    options = parser.parse_args(argv)
    folders = [options.runs / f"{options.config.stem}-seed{seed}" for seed in options.seeds]
    for seed, folder in zip(options.seeds, folders, strict=True):
        if (folder / CONFIG).is_file():
            _refuse_another_recipe(options, seed, folder)
    for seed, folder in zip(options.seeds, folders, strict=True):
        if not _finished(folder):
            _train(options, seed, folder)
    readme.main([*map(str, folders)])


def _finished(folder: Path) -> bool:
    results = read_results(folder, "drop_percent")
    return results is not None and None not in results["drop_percent"]["single"].values()


def _refuse_another_recipe(options: argparse.Namespace, seed: int, folder: Path) -> None:
    """A folder's figures may only be taken for those of the recipe as it is now; the data may have moved."""
    saved = make_recipe(read_recipe(folder / CONFIG), source=str(folder / CONFIG))[0].resolved
    wanted = make_recipe(read_recipe(options.config), ["--seed", str(seed)])[0].resolved
    other = [key for key in wanted if key != "data_root" and wanted[key] != saved.get(key)]
    if other:
        raise UserError(
            f"{folder}: was not trained by {options.config} as it is now ({', '.join(other)}: another value); move the folder "
            "away, or choose another --runs"
        )


def _train(options: argparse.Namespace, seed: int, folder: Path) -> None:
    words = [sys.executable, ROOT / "train.py", "--baselines", "--run_dir", folder]
    words += ["--config", options.config, "--seed", seed, "--data_root", options.data_root]
    if (folder / CONFIG).is_file():
        words.append("--resume")
    if subprocess.run(list(map(str, words)), cwd=ROOT).returncode:
        raise UserError(
            f"{folder}: training ended early, see above; mend what it says, then give the same command again"
        )


if __name__ == "__main__":
    sys.exit(main())
