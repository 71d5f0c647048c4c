"""Fetching files that may break off half way: resumed, checked, and under their own name only when they are whole."""

import hashlib
import http.client
import shutil
import ssl
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from time import sleep
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from errors import UserError

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 16  # bytes; what a broken connection loses at most
SPARE = 64 << 20  # bytes that must stay free on the disk
BAR_FROM = 8 << 20  # bytes; smaller files get no bar of their own
PASSING = frozenset({408, 416, 425, 429, 500, 502, 503, 504})  # HTTP answers worth another try; 416 from the start
BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)


@dataclass(frozen=True)
class Source:
    """One file to fetch: `name` is its path below the cache folder, and below the prefix of a mirror.

    checksum: "md5:<hex>" or any other algorithm of hashlib, or the start of one; None where none is known. note: shown
    beside the URL where the user has to fetch it by hand. otherwise: what to do where trying again does not help.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None
    note: str = ""
    otherwise: str = "name another place with --mirror"


class _Failed(Exception):
    """One file cannot be had; the message says why."""


def fetch(
    sources: Sequence[Source],
    folder: Path,
    mirrors: Sequence[str] = (),
    workers: int = 1,
    tries: int = 4,
    pause: float = 1,
) -> list[Path]:
    """The paths of the files under `folder`; those not there yet are downloaded, `workers` at a time.

    With `mirrors`, files come from `<mirror>/<name>` instead of their own URLs. Several addresses are tried in turn. A
    try that brings nothing new is repeated after a pause that doubles each time, up to `tries` in a row. UserError on
    a wrong checksum (the file is removed), on a full disk, and where a file cannot be had: it lists everything missing.
    """
    job = partial(_obtain, folder=folder, mirrors=mirrors, tries=tries, pause=pause)
    with ThreadPoolExecutor(workers) as pool:
        # One worker is this thread: Ctrl-C ends a long transfer at once instead of waiting for it.
        paths = pool.map(job, sources) if workers > 1 else map(job, sources)
        try:
            return list(tqdm(paths, "files", len(sources), unit="file", leave=False, disable=_bar(len(sources) > 1)))
        except _Failed as error:
            missing = [source for source in sources if not (folder / source.name).exists()]
            raise UserError(_by_hand(str(error), missing, folder, mirrors)) from error


def _obtain(source: Source, folder: Path, mirrors: Sequence[str], tries: int, pause: float) -> Path:
    path = folder / source.name
    if path.exists():  # also one put there by hand
        _verify(source, path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    _fill(part, _addresses(source, mirrors), tries, pause)
    _verify(source, part)
    part.replace(path)
    return path


def _addresses(source: Source, mirrors: Sequence[str]) -> list[str]:
    return [f"{mirror.rstrip('/')}/{source.name}" for mirror in mirrors] or list(source.urls)


def _fill(part: Path, urls: Sequence[str], tries: int, pause: float) -> None:
    """Complete `part` from the first address that delivers. _Failed with the last reason when none does."""
    addresses = deque(urls)
    longest, failures = _size(part), 0
    while True:
        url = addresses[0]
        try:
            return _transfer(url, part)
        except HTTPError as error:
            reason = f"{url}: HTTP {error.code} {error.reason}"
            if error.code not in PASSING:
                addresses.popleft()  # will not have it later either
            elif error.code == 416:
                part.unlink(missing_ok=True)  # what is there is no beginning of this file
        except URLError as error:
            reason = f"{url}: this machine is offline or cannot reach that server ({error.reason})"
        except BROKEN as error:
            reason = f"{url}: the transfer broke off ({error or type(error).__name__})"
        failures = 1 if _size(part) > longest else failures + 1
        longest = max(longest, _size(part))
        if not addresses or failures >= max(tries, len(urls)):
            raise _Failed(reason)
        addresses.rotate(-1)
        sleep(pause * 2 ** (failures - 1))


def _transfer(url: str, part: Path) -> None:
    """One request for what `part` lacks, appended to it; a server that sends the whole file again starts it anew.

    URLError or one of BROKEN if the file is not complete afterwards.
    """
    offset = _size(part)
    request = Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and error.headers["Content-Range"] == f"bytes */{offset}":
            return  # it was complete, only not renamed yet
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise http.client.HTTPException("a web page came instead of the file; does the network ask for a login?")
        offset = offset if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = offset + int(length) if length else None
        _require_space(part, (total or 0) - offset)
        bar = tqdm(
            desc=part.stem, total=total, initial=offset, unit="B", unit_scale=True, leave=False,
            disable=_bar((total or 0) >= BAR_FROM),
        )  # fmt: skip
        with bar, part.open("ab" if offset else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError(f"connection broke off after {_size(part)} of {total} bytes")


def _verify(source: Source, path: Path) -> None:
    if source.checksum is None:
        return
    algorithm, expected = source.checksum.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(expected):
        path.unlink()
        raise UserError(
            f"{path}: {algorithm} is {found}, expected {expected}; the file is damaged or another version and has been "
            f"removed: run the same command again or, if this repeats, {source.otherwise}"
        )


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + SPARE:
        raise UserError(
            f"{part.parent}: {free >> 20} MB free, expected {(needed + SPARE) >> 20} MB for {part.stem}; free some "
            "space or name another disk with --cache"
        )


def _by_hand(reason: str, missing: Sequence[Source], folder: Path, mirrors: Sequence[str]) -> str:
    lines = [
        reason,
        "What has arrived is kept: run the same command again later and it goes on from there, or "
        f"{missing[0].otherwise}.",
        "Or fetch these files by hand, put them into these folders and run the same command again:",
    ]
    for place, sources in groupby(missing, key=lambda source: (folder / source.name).parent):
        lines.append(f"  into {place}/")
        for source in sources:
            known = ", ".join(filter(None, [(source.checksum or "").replace(":", " "), source.note]))
            lines.append(f"    {' or '.join(_addresses(source, mirrors))}" + (f"  ({known})" if known else ""))
    return "\n".join(lines)


def _bar(wanted: bool) -> bool | None:
    """tqdm's `disable`: None shows a bar on a terminal only."""
    return None if wanted else True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
