"""The log of a run: one JSON object per line, written while it trains, and read back."""

import json
import sys
from pathlib import Path
from typing import BinaryIO

from errors import UserError, nearest

LOG = "log.jsonl"
RESULTS = "results.json"
CONFIG = "config.yaml"  # the resolved recipe


def append_log(path: Path, record: dict) -> None:
    """Append one record to a JSON-lines log in one write, flushed, so that a kill can only tear the last line.

    A line torn by an earlier kill is removed first: appending to it would spoil the new record too.
    Raises ValueError for NaN and infinity, which JSON has not: write None.
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    with open(path, "a+b") as file:
        _mend_end(file)
        file.write(line)
        file.flush()


def _mend_end(file: BinaryIO) -> None:
    """Leave the file empty or ending in a newline: a torn last line is cut off, a whole one is closed."""
    file.seek(0)
    *_, last = file.read().rpartition(b"\n")
    if last and parse_object(last) is None:
        file.truncate(file.tell() - len(last))
    elif last:
        file.write(b"\n")


def read_log(run: Path) -> list[dict]:
    """All records of RUN/log.jsonl in order; record k stands in line k + 1.

    A malformed last line, left by a run killed while writing, is dropped with a warning on stderr. UserError: no such
    run or log, or a malformed line before the last.
    """
    path = Path(run) / LOG
    if not path.is_file():
        siblings = [log.parent.name for log in path.parent.parent.glob(f"*/{LOG}")]
        raise UserError(f"{path}: no such log; expected the folder of a run{nearest(path.parent.name, siblings)}")
    lines = path.read_bytes().splitlines()
    records = [parse_object(line) for line in lines]
    for number, record in enumerate(records, start=1):
        if record is None and number < len(lines):
            raise UserError(f"{path}:{number}: not a JSON object; expected one per line; remove or mend this line")
    if records and records[-1] is None:
        print(f"warning: {path}:{len(lines)}: last line is torn (run killed while writing?); left out", file=sys.stderr)
        records.pop()
    return records


def read_results(run: Path, *fields: str) -> dict | None:
    """RUN/results.json, None where there is none; UserError if it is not an object with these fields."""
    path = Path(run) / RESULTS
    if not path.is_file():
        return None
    content = parse_object(path.read_bytes())
    if content is None or not content.keys() >= set(fields):
        raise UserError(f"{path}: expected a run's results, an object with {', '.join(fields)}; move the file away")
    return content


def parse_object(text: bytes) -> dict | None:
    """None if the text is not a JSON object."""
    try:
        record = json.loads(text)
    except ValueError:  # JSONDecodeError and UnicodeDecodeError
        return None
    return record if isinstance(record, dict) else None
