"""Draw the figures of one run, or of several over one another: python plot_log.py RUN [RUN ...] [--out DIR]"""

import argparse
import re
import sys
from pathlib import Path

import matplotlib.style

import figures
from errors import UserError, command
from history import History


def plot_runs(runs: list[Path], out: Path) -> list[Path]:
    """Write the figures of the runs' logs as PNG (150 dpi) and SVG into `out`, the same bytes for the same logs.

    stage1_NAME, stage2_NAME, ...: losses and scores of one stage;  curves: of all stages;  matrix: the score matrix;
    forgetting: drops over the stages. The last two appear once a stage is finished. Returns the files written.
    UserError: a run without a usable log (see History.read), more runs than can be told apart, `out` not writable.
    """
    histories = {name: History.read(run) for name, run in run_names(runs).items()}
    written = []
    with matplotlib.style.context(["default", figures.STYLE]):
        overlay = figures.Overlay(histories)
        stages = sorted({stage for history in histories.values() for stage in history.stages.items()})
        drawn = {f"stage{i + 1}_{_file_name(stage)}": figures.curve_figure(overlay, (i, stage)) for i, stage in stages}
        drawn["curves"] = figures.curve_figure(overlay)
        drawn["matrix"] = figures.matrix_figure(overlay)
        drawn["forgetting"] = figures.forgetting_figure(overlay)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, figure in drawn.items():
                if figure is not None:
                    for path in (out / f"{name}.png", out / f"{name}.svg"):
                        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
                        written.append(path)
        except OSError as error:
            raise UserError(f"{out}: cannot write figures ({error}); choose another folder with --out") from error
    return written


def _file_name(stage: str) -> str:
    return re.sub(r"[^\w.-]", "_", stage)


def run_names(runs: list[Path]) -> dict[str, Path]:
    """Shortest path endings that tell the runs apart → run; a run given twice counts once."""
    paths = list(dict.fromkeys(Path(run).resolve() for run in runs))
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(paths):
            break
    return dict(zip(names, paths, strict=True))


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the figures of runs from their log.jsonl and results.json.")
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="folder of a run; several are drawn over one another"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="default: RUN/figures; of several runs, runs/compare-NAMES"
    )
    options = parser.parse_args(arguments)
    names = [name.replace("/", "-") for name in run_names(options.runs)]
    compare = Path("runs") / ("compare-" + "-".join(names))
    out = options.out or (compare if len(names) > 1 else options.runs[0] / "figures")
    for path in plot_runs(options.runs, out):
        print(path)


if __name__ == "__main__":
    sys.exit(main())
