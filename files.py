"""Files that appear whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` at the end, removed if that is not reached."""
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    with written_whole(path) as beside:
        beside.write_text(text)


def write_json(path: Path, content: dict) -> None:
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
