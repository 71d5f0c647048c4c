"""python -m benchmarks.record: rerun the record over seeds, with single-task baselines; rewrite the README's table, picture.

Resumable: what is finished is skipped, what was interrupted goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import readme
from errors import UserError, command

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
        if not _finished(folder):
            _train(options, seed, folder)
    readme.main([*map(str, folders)])


def _finished(folder: Path) -> bool:
    results = folder / "results.json"
    return results.is_file() and None not in json.loads(results.read_text())["drop_percent"]["single"].values()


def _train(options: argparse.Namespace, seed: int, folder: Path) -> None:
    words = [sys.executable, ROOT / "train.py", "--baselines", "--run_dir", folder]
    if (folder / "config.yaml").is_file():
        words.append("--resume")
    else:
        words += ["--config", options.config, "--seed", seed, "--data_root", options.data_root]
    if subprocess.run(list(map(str, words)), cwd=ROOT).returncode:
        raise UserError(
            f"{folder}: training ended early, see above; mend what it says, then give the same command again"
        )


if __name__ == "__main__":
    sys.exit(main())
