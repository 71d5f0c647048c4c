"""Builds the three mini sets, 240 train and 60 val images each, from the originals.

    python -m DL_data.prepare [--root DL_data] [--tasks seg det cls] [--seed 0] [--cache DIR] [--mirror URL_PREFIX ...]

About 2.4 GB are downloaded into the cache (VOC 2.0 GB, COCO's annotations 0.25 GB and 300 of its images 0.05 GB,
Imagenette 0.1 GB); COCO's annotations take about 2 GB of memory. The images chosen depend on the seed alone
(DL_data/cut.py). They are not those of the original system, so scores on the two are comparable, not equal.

A set that is there in full, in whatever layout the readers know, is left alone. A new one appears under its name only
when it is complete and has been read back. A mirror holds the files of the cache under the same names: a cache that
somebody serves is one. Once the sets are there, the cache is no longer needed.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from data import Dataset
from data.validate import DataError, findings
from DL_data.originals import SETS, MiniSet, Order
from download import fetch
from errors import UserError, command

COUNTS = {"train": 240, "val": 60}


def prepare(
    root: Path,
    tasks: Iterable[str] = tuple(SETS),
    seed: int = 0,
    cache: Path | None = None,
    mirrors: Sequence[str] = (),
    counts: Mapping[str, int] = COUNTS,
    sets: Mapping[str, MiniSet] = SETS,
) -> list[Path]:
    """Build the sets of `tasks` that are not there yet; the folders of all of them, in the order of `tasks`.

    UserError if a set is there but not usable or of another size, if a download fails, or if two images are the same.
    """
    cache = cache or root / "cache"
    for folder in (root, cache):
        _require_writable(folder)
    present = {task: _present(sets[task], root, counts) for task in tasks}
    missing = [task for task, splits in present.items() if splits is None]
    archives = fetch([sets[task].archive for task in missing], cache, mirrors)
    order = Order(seed, counts, partial(fetch, folder=cache, mirrors=mirrors, workers=8))
    for task, archive in zip(missing, archives, strict=True):
        mini = sets[task]
        print(f"{task}: cutting {mini.reader.folders[0]} from {archive}", flush=True)
        with _appearing(root / mini.reader.folders[0]) as folder:
            mini.build(archive, folder, order)
            record = {"seed": seed, "archive": mini.archive.urls[0], "checksum": mini.archive.checksum}
            (folder / "prepared.json").write_text(json.dumps(record, indent=1))
            present[task] = _splits(mini, root, counts, folder.name)
            _require_readable(present[task])
            _require_disjoint(splits for splits in present.values() if splits)
        present[task] = _splits(mini, root, counts)
    return [splits["train"].folder for splits in present.values()]


def _present(mini: MiniSet, root: Path, counts: Mapping[str, int]) -> dict[str, Dataset] | None:
    """The splits of a set that is there in full, None where there is none; UserError for anything between."""
    folders = [root / name for name in mini.reader.folders if (root / name).exists()]
    if not folders:
        return None
    remedy = "it is left as it is: move it away or remove it, and run this again"
    try:
        return _splits(mini, root, counts)
    except UserError as error:
        raise UserError(f"{folders[0]}: exists, but is not a complete set; {remedy}\n{error}") from error


def _splits(mini: MiniSet, root: Path, counts: Mapping[str, int], folder: str | None = None) -> dict[str, Dataset]:
    splits = {split: mini.reader(root, split, folder=folder) for split in counts}
    found = {split: len(dataset) for split, dataset in splits.items()}
    if found != dict(counts):
        raise UserError(f"{splits['train'].folder}: holds {found} images, expected {dict(counts)}")
    return splits


def _require_readable(splits: Mapping[str, Dataset]) -> None:
    found = [finding for split, dataset in splits.items() for finding in findings(dataset, description=split)]
    if found:
        raise DataError(found)


def _require_disjoint(sets: Iterable[Mapping[str, Dataset]]) -> None:
    """UserError if two items of any split of any set hold the same image file, or two splits of a set the same id."""
    first: dict[tuple, str] = {}
    for splits in sets:
        for split, dataset in splits.items():
            for index, name in enumerate(dataset.ids):
                path = dataset.files(index)[0]
                place = f"{path} ({split})"
                for key in ((dataset.folder, name), (hashlib.sha256(path.read_bytes()).digest(),)):
                    if first.setdefault(key, place) != place:
                        raise UserError(
                            f"{place}: the same image as {first[key]}, expected it once; try another --seed"
                        )


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); name another with --root or --cache") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no permission to write; name another with --root or --cache")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name at the end; removed on an error or, after a kill, by the next run."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m DL_data.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("DL_data"), help="folder of the sets (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=SETS, default=list(SETS), help="which sets (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the cut (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="folder of the downloads (default: ROOT/cache)")
    parser.add_argument(
        "--mirror", nargs="+", default=[], metavar="URL_PREFIX", help="fetch from here instead, in turn"
    )
    options = parser.parse_args(arguments)
    for mirror in options.mirror:
        if not mirror.startswith(("http://", "https://", "file://")):
            raise UserError(f"--mirror {mirror}: no address, expected http://…, https://… or file://…")
    try:
        folders = prepare(options.root, dict.fromkeys(options.tasks), options.seed, options.cache, options.mirror)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again and it goes on from there", file=sys.stderr)
        return 130
    for folder in folders:
        print(f"{folder}: " + ", ".join(f"{count} {split}" for split, count in COUNTS.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
