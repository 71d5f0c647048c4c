"""Downloads from a server on the loopback that behaves well or badly."""

import hashlib
import random
from pathlib import Path

import loopback
import pytest

import download
from download import Source, fetch
from errors import UserError

BODY = random.Random(0).randbytes(400_000)


@pytest.fixture
def server():
    with loopback.running() as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Waiting between tries is recorded, not done."""
    waited = []
    monkeypatch.setattr(download, "sleep", waited.append)
    return waited


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def get(server: loopback.Server, folder: Path, checksum: str | None = md5(BODY), **options) -> bytes:
    server.files.setdefault("a/b.bin", BODY)
    (path,) = fetch([Source("a/b.bin", (f"{server.url}/a/b.bin",), checksum)], folder, **options)
    assert path == folder / "a" / "b.bin"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.bin"]  # no .part left
    return path.read_bytes()


def test_broken_transfer_goes_on_where_it_broke(server, tmp_path):
    server.faults["a/b.bin"] = ["cut", "cut"]
    assert get(server, tmp_path) == BODY
    assert server.asked("a/b.bin") == [None, "bytes=200000-", "bytes=300000-"]


def test_progress_resets_the_tries(server, tmp_path):
    server.faults["a/b.bin"] = ["cut"] * 6
    assert get(server, tmp_path, tries=2) == BODY


def test_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    server.faults["a/b.bin"] = ["cut"]
    assert get(server, tmp_path) == BODY


def test_complete_part_is_only_renamed(server, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bin.part").write_bytes(BODY)
    assert get(server, tmp_path) == BODY
    assert server.asked("a/b.bin") == [f"bytes={len(BODY)}-"]


def test_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bin.part").write_bytes(BODY + b"more")
    assert get(server, tmp_path) == BODY


def test_errors_of_the_server_are_tried_again_with_growing_pauses(server, tmp_path, pauses):
    server.faults["a/b.bin"] = [500, 503, 429]
    assert get(server, tmp_path) == BODY
    assert pauses == [1, 2, 4]


def test_web_page_is_not_the_file(server, tmp_path):
    server.faults["a/b.bin"] = ["page"] * 4
    with pytest.raises(UserError, match="a web page came instead"):
        get(server, tmp_path)


def test_wrong_checksum_removes_the_file(server, tmp_path):
    for _ in range(2):  # downloaded, then put there by hand
        with pytest.raises(UserError) as error:
            get(server, tmp_path, checksum=md5(b"other"))
        assert md5(b"other")[4:] in str(error.value)
        assert md5(BODY)[4:] in str(error.value)
        assert list((tmp_path / "a").iterdir()) == []
        (tmp_path / "a" / "b.bin").write_bytes(BODY)


def test_file_put_there_by_hand_is_not_fetched(server, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bin").write_bytes(BODY)
    assert get(server, tmp_path) == BODY
    assert server.requests == []


def test_missing_file_is_asked_for_once_and_every_missing_one_is_listed(server, tmp_path):
    server.files["have.bin"] = BODY
    names = ("have.bin", "gone.bin", "also/gone.bin")
    with pytest.raises(UserError) as error:
        fetch([Source(name, (f"{server.url}/{name}",)) for name in names], tmp_path)
    assert server.asked("gone.bin") == [None]
    message = str(error.value)
    assert "HTTP 404" in message and "offline" not in message
    assert f"into {tmp_path}/\n    {server.url}/gone.bin" in message
    assert f"into {tmp_path / 'also'}/\n    {server.url}/also/gone.bin" in message
    assert "have.bin" not in message


def test_mirrors_are_tried_in_turn(server, tmp_path):
    server.files["second/a/b.bin"] = BODY
    server.files["a/b.bin"] = b"not asked for"
    assert get(server, tmp_path, mirrors=[f"{server.url}/first/", f"{server.url}/second"]) == BODY
    assert [name for name, _ in server.requests] == ["first/a/b.bin", "second/a/b.bin"]


def test_full_disk_is_noticed_before_writing(server, tmp_path, monkeypatch):
    usage = type(download.shutil.disk_usage(tmp_path))(10**9, 10**9 - 5, 5)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="0 MB free, expected 64 MB"):
        get(server, tmp_path)
    assert list((tmp_path / "a").iterdir()) == []


def test_parallel_downloads(server, tmp_path):
    names = [f"{number}.bin" for number in range(20)]
    server.files.update({name: name.encode() for name in names})
    server.faults["7.bin"] = [500]
    paths = fetch([Source(name, (f"{server.url}/{name}",)) for name in names], tmp_path, workers=8)
    assert [path.read_bytes().decode() for path in paths] == names
