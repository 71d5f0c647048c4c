"""DL_data.prepare from download to readable sets, against small fakes of the originals on the loopback."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import loopback
import pytest
from PIL import Image
from tiny_originals import COCO_ZIP, IMAGENETTE_TGZ, VOC_TAR, encoded, tiny_coco, tiny_imagenette, tiny_voc

import download
from data.coco import Coco
from data.imagefolder import ImageFolder
from data.voc import Voc
from DL_data import prepare
from DL_data.originals import COCO_CLASSES, SETS
from errors import UserError

COUNTS = {"train": 22, "val": 20}


@pytest.fixture
def server():
    with loopback.running() as server:
        yield server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(download, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    return {VOC_TAR: tiny_voc(), IMAGENETTE_TGZ: tiny_imagenette(), **tiny_coco()}


@pytest.fixture
def build(server, originals, tmp_path):
    """prepare() as the command calls it, with the fakes' checksums and fewer images."""
    server.files.update(originals)

    def run(root: Path = tmp_path / "sets", **options) -> Path:
        sets = {}
        for task, mini in SETS.items():
            checksum = f"sha256:{hashlib.sha256(originals[mini.archive.name]).hexdigest()}"
            sets[task] = replace(mini, archive=replace(mini.archive, checksum=checksum))
        prepare.prepare(root, **{"mirrors": [server.url], "counts": COUNTS, "sets": sets, **options})
        return root

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_builds_the_three_sets(build, server, originals):
    server.faults.update({VOC_TAR: ["cut"], IMAGENETTE_TGZ: [503], COCO_ZIP: ["cut", 500]})
    root = build()
    assert sorted(path.name for path in root.iterdir()) == ["cache", "imagenette-160", "mini_coco_det", "mini_voc_seg"]
    seen = set()
    for reader, classes in ((Voc, range(1, 21)), (Coco, range(10)), (ImageFolder, range(10))):
        for split, count in COUNTS.items():
            dataset = reader(root, split)
            assert len(dataset) == count
            assert set().union(*(dataset.labels(index) for index in range(count))) == set(classes)
            seen.update(dataset.files(index)[0].read_bytes() for index in range(count))
    assert len(seen) == 3 * sum(COUNTS.values())  # no image twice
    assert not list(root.parent.rglob("evil*"))
    name = "SegmentationClass/" + Voc(root, "train").ids[0] + ".png"
    with tarfile.open(fileobj=io.BytesIO(originals[VOC_TAR])) as tar:  # masks keep palette and void: bytes are copied
        assert (root / "mini_voc_seg" / name).read_bytes() == tar.extractfile(f"VOCdevkit/VOC2012/{name}").read()
    assert json.loads((root / "mini_voc_seg" / "prepared.json").read_text())["seed"] == 0


def test_coco_annotations(build):
    root = build(tasks=["det"], counts={"train": 40, "val": 30})
    index = json.loads((root / "mini_coco_det" / "annotations" / "instances_train.json").read_text())
    assert index["categories"] == [{"id": number, "name": name} for number, name in enumerate(COCO_CLASSES, 1)]
    assert [image["id"] for image in index["images"]] == list(range(3000, 3040))  # crowd only, empty box, other: not
    assert index["images"][0] == {"id": 3000, "width": 16, "height": 12, "file_name": "000000003000.jpg"}
    assert [item["id"] for item in index["annotations"]] == list(range(1, 42))
    person, crowd = (item for item in index["annotations"] if item["image_id"] == 3000)
    assert (person["category_id"], person["iscrowd"], person["bbox"]) == (1, 0, [1.5, 2, 9, 7.25])
    assert (crowd["category_id"], crowd["iscrowd"], crowd["bbox"]) == (10, 1, [0, 0, 16, 12])


def test_only_the_chosen_coco_images_are_fetched(build, server):
    build(tasks=["det"])
    assert len([name for name, _ in server.requests if name.endswith(".jpg")]) == sum(COUNTS.values())


def test_same_seed_same_bytes_other_seed_other_images(build, tmp_path):
    first = build(tmp_path / "a", cache=tmp_path / "cache")
    second = build(tmp_path / "b", cache=tmp_path / "cache")
    third = build(tmp_path / "c", cache=tmp_path / "cache", seed=1)
    assert contents(first) == contents(second)
    for folder in ("mini_voc_seg", "mini_coco_det", "imagenette-160"):
        assert contents(first / folder).keys() != contents(third / folder).keys()


def test_complete_set_is_left_alone(build, server):
    root = build()
    before, asked = contents(root), len(server.requests)
    (root / "imagenette-160").rename(root / "imagenette_160")  # another layout the readers know
    build(seed=1)
    assert len(server.requests) == asked
    assert not (root / "imagenette-160").exists()
    assert contents(root).keys() == {name.replace("imagenette-160", "imagenette_160") for name in before}


def test_incomplete_set_is_neither_used_nor_touched(build, server):
    root = build(tasks=["cls"])
    next((root / "imagenette-160" / "val").rglob("*.JPEG")).unlink()
    before = contents(root)
    with pytest.raises(UserError, match=r"imagenette-160: exists, but is not a complete set; .*\n.*'val': 19"):
        build(tasks=["cls"])
    assert contents(root) == before


def test_image_in_two_sets_is_refused_and_nothing_is_left(build, server):
    root = build(tasks=["cls"])
    twin = next((root / "imagenette-160" / "train").rglob("*.JPEG"))
    server.files.update({f"train2017/{number:012d}.jpg": twin.read_bytes() for number in range(3000, 3040)})
    with pytest.raises(UserError, match="the same image as"):
        build(tasks=["cls", "det"])
    assert sorted(path.name for path in root.iterdir()) == ["cache", "imagenette-160"]


def test_damaged_coco_image_is_named_and_nothing_is_left(build, server, tmp_path):
    server.files.update({f"val2017/{number:012d}.jpg": b"no image" for number in range(4000, 4030)})
    with pytest.raises(UserError, match=r"cache/val2017/0000000040\d\d.jpg: unreadable image"):
        build(tasks=["det"])
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["cache"]


def test_coco_image_of_another_size_is_refused(build, server, tmp_path):
    other = encoded(Image.new("RGB", (20, 12)), "JPEG")
    server.files.update({f"val2017/{number:012d}.jpg": other for number in range(4000, 4030)})
    with pytest.raises(UserError, match="image is 20x12"):
        build(tasks=["det"])
    assert not (tmp_path / "sets" / "mini_coco_det").exists()


def test_leftovers_of_a_killed_run_are_removed(build, tmp_path):
    left = tmp_path / "sets" / ".mini_voc_seg.part" / "JPEGImages" / "half.jpg"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    root = build(tasks=["seg"])
    assert sorted(path.name for path in root.iterdir()) == ["cache", "mini_voc_seg"]
    assert "JPEGImages/half.jpg" not in contents(root / "mini_voc_seg")


def test_killed_while_downloading_then_run_again(build, server, tmp_path, originals):
    server.faults[IMAGENETTE_TGZ] = ["stall"]
    arguments = ["--tasks", "cls", "--root", str(tmp_path / "sets"), "--mirror", server.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "DL_data.prepare", *arguments], cwd=Path(prepare.__file__).parents[1]
    )
    part = tmp_path / "sets" / "cache" / f"{IMAGENETTE_TGZ}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    half = part.stat().st_size
    assert 0 < half < len(originals[IMAGENETTE_TGZ])
    root = build(tasks=["cls"])
    assert server.asked(IMAGENETTE_TGZ) == [None, f"bytes={half}-"]
    assert len(ImageFolder(root, "train")) == COUNTS["train"]


def test_offline_lists_what_to_fetch_and_where_to_put_it(tmp_path, capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        url = f"http://127.0.0.1:{closed.server_address[1]}"
    assert prepare.main(["--root", str(tmp_path), "--mirror", url]) == 2
    error = capsys.readouterr().err
    assert "this machine is offline" in error and "Traceback" not in error
    assert f"into {tmp_path / 'cache'}/" in error
    for mini in SETS.values():
        assert f"{url}/{mini.archive.name}  ({mini.archive.checksum.replace(':', ' ')}" in error
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_offline_with_all_files_put_there_by_hand(build, tmp_path, originals):
    for name, content in originals.items():
        path = tmp_path / "sets" / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    root = build(mirrors=["http://127.0.0.1:1"])
    assert len(Coco(root, "val")) == COUNTS["val"]


def test_offline_lists_the_coco_images_once_the_annotations_are_there(build, tmp_path, originals):
    cache = tmp_path / "sets" / "cache"
    cache.mkdir(parents=True)
    (cache / COCO_ZIP).write_bytes(originals[COCO_ZIP])
    with pytest.raises(UserError) as error:
        build(tasks=["det"], mirrors=["http://127.0.0.1:1"])
    assert str(error.value).count("http://127.0.0.1:1/train2017/") >= COUNTS["train"]
    assert f"into {cache / 'val2017'}/" in str(error.value)
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


def test_mirror_that_is_no_address(tmp_path, capsys):
    assert prepare.main(["--root", str(tmp_path), "--mirror", "somewhere"]) == 2
    assert "--mirror somewhere: no address" in capsys.readouterr().err


def test_root_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert prepare.main(["--root", str(tmp_path / "file" / "sets")]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_interrupted_command_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "prepare", interrupted)
    assert prepare.main(["--root", str(tmp_path)]) == 130
    assert "run the same command again" in capsys.readouterr().err
