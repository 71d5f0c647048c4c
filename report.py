"""python report.py RUN [RUN ...]: one self-contained HTML page about a run, or one that compares several."""

import argparse
import sys
from pathlib import Path

from command_line import choose_device
from errors import UserError, command
from files import write_whole
from plot_log import run_names
from reporting.compare import comparison_report
from reporting.evidence import Images, open_images
from reporting.reading import read_run, snapshots
from reporting.single import run_report
from run import Run

NAME = "report.html"


def report_run(run: Run) -> Path:
    """The page of a run that has just ended, made of the images it holds in memory."""
    record = read_run(run.folder, run.folder.resolve().name)
    found, missing = snapshots(record)
    page = run_report(record, found, missing, Images(run.val, run.splits), run.device)
    return _write(run.folder / NAME, page)


def _write(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another file with --out") from error
    return path


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__.split(": ", 1)[1], allow_abbrev=False)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run; several are compared")
    parser.add_argument("--out", type=Path, help=f"default: RUN/{NAME}; of several runs, runs/compare-NAMES/{NAME}")
    parser.add_argument("--data_root", help="folder of the data sets (default: the recipe's)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(argv)
    device = choose_device(options.device)
    records = [read_run(folder, name) for name, folder in run_names(options.runs).items()]
    if len(records) == 1:
        found, missing = snapshots(records[0])
        page = run_report(records[0], found, missing, open_images(records[0], found, options.data_root), device)
        out = options.runs[0] / NAME
    else:
        page = comparison_report(records, options.data_root, device)
        out = Path("runs") / ("compare-" + "-".join(record.name.replace("/", "-") for record in records)) / NAME
    print(_write(options.out or out, page))


if __name__ == "__main__":
    sys.exit(main())
