"""DL_data.prepare against a server on the loopback that serves small fakes of the three originals, well or badly."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import defaultdict
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from data.coco import Coco
from data.imagefolder import IMAGENETTE, ImageFolder
from data.voc import Voc
from DL_data import download, prepare
from DL_data.cut import balanced_cut
from DL_data.download import Source, fetch
from DL_data.originals import COCO_CLASSES, SETS
from errors import UserError

COUNTS = {"train": 22, "val": 20}
VOC_TAR, COCO_ZIP, IMAGENETTE_TGZ = (SETS[task].archive.name for task in ("seg", "det", "cls"))
BODY = random.Random(0).randbytes(400_000)


class Server(ThreadingHTTPServer):
    """Serves `files`. `faults[name]` is what goes wrong with the next requests for it, one entry each: an HTTP status,
    "cut" (half of the body, then the connection closes), "stall" (half of it, then silence) or "page" (text/html).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = defaultdict(list)
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, name: str) -> list[str | None]:
        """The Range headers of the requests for one file."""
        return [byte_range for asked, byte_range in self.requests if asked == name]


class Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # 40 ms a request otherwise

    def do_GET(self):
        name, byte_range = self.path.lstrip("/"), self.headers["Range"]
        self.server.requests.append((name, byte_range))
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else None
        if isinstance(fault, int) or name not in self.server.files:
            return self.send_error(fault or 404)
        content = self.server.files[name]
        start = int(byte_range[len("bytes=") : -1]) if byte_range and self.server.ranges else 0
        if start and start >= len(content):
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": 0})
        kind = "text/html" if fault == "page" else "application/octet-stream"
        headers = {"Content-Type": kind, "Content-Length": len(content) - start}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, headers)
        end = (start + len(content)) // 2 if fault in ("cut", "stall") else len(content)
        self.wfile.write(content[start:end])
        if fault == "stall":
            time.sleep(60)

    def answer(self, status: int, headers: dict) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Waiting between tries is recorded, not done."""
    waited = []
    monkeypatch.setattr(download, "sleep", waited.append)
    return waited


def picture(number: int, **options) -> bytes:
    return encoded(Image.frombytes("RGB", (16, 12), random.Random(number).randbytes(16 * 12 * 3)), "JPEG", **options)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def fake_voc() -> bytes:
    """30 + 25 images with one class each, classes 11 to 20 in one train image; one without mask; two hostile names."""
    files = {"../evil.jpg": b"evil", "VOCdevkit/VOC2012/JPEGImages/../../../evil.jpg": b"evil"}
    for split, first, total in (("train", 0, 30), ("val", 100, 25)):
        names = [f"2007_{number:06d}" for number in range(first, first + total)]
        files[f"VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt"] = "\n".join(names).encode()
        for number, name in enumerate(names):
            mask = Image.new("P", (16, 12), 0)
            mask.putpalette([value for index in range(256) for value in (index, 255 - index, 0)])
            mask.paste(255, (3, 3, 12, 9))
            mask.paste(number % 20 + 1, (4, 4, 11, 8))
            files[f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg"] = picture(first + number)
            files[f"VOCdevkit/VOC2012/SegmentationClass/{name}.png"] = encoded(mask, "PNG")
    files["VOCdevkit/VOC2012/JPEGImages/2012_000001.jpg"] = picture(999)
    return tar_of(files, "w")


def fake_imagenette() -> bytes:
    """4 train and 3 val images per class, and a large file that nobody wants."""
    files = {"imagenette2-160/noisy_imagenette.csv": BODY}
    for split, first, each in (("train", 1000, 4), ("val", 2000, 3)):
        for place, label in enumerate(sorted(IMAGENETTE)):
            for number in range(each):
                name = f"imagenette2-160/{split}/{label}/{label}_{first + number}.JPEG"
                files[name] = picture(first + 10 * place + number)
    return tar_of(files, "w:gz")


def fake_coco() -> dict[str, bytes]:
    """Category ids with gaps, as COCO's; a crowd beside a person; images of a crowd only, an empty box, no category."""
    numbers = dict(zip(COCO_CLASSES, (1, 3, 16, 17, 18, 44, 47, 62, 67, 84), strict=True))
    categories = [{"id": 90, "name": "toothbrush"}, *({"id": number, "name": name} for name, number in numbers.items())]
    files, indices = {}, {}
    for split, first, total in (("train", 3000, 40), ("val", 4000, 30)):
        images = [{"id": first + n, "width": 16, "height": 12, "license": 1} for n in range(total + 3)]
        rows = [(first + n, list(numbers.values())[n % 10], [1.5, 2, 9, 7.25], 0) for n in range(total)]
        rows += [(first, 84, [0, 0, 16, 12], 1), (first, 90, [0, 0, 3, 3], 0), (first + total, 1, [0, 0, 9, 9], 1)]
        rows += [(first + total + 1, 84, [1, 1, 5, 0.0], 0), (first + total + 2, 90, [1, 1, 5, 5], 0)]
        keys = ("image_id", "category_id", "bbox", "iscrowd")
        annotations = [
            {"id": 7 * n, "area": 12.5, "segmentation": [[1, 2, 3]], **dict(zip(keys, row, strict=True))}
            for n, row in enumerate(rows)
        ]
        indices[split] = {"images": images, "annotations": annotations, "categories": categories}
        files |= {f"{split}2017/{image['id']:012d}.jpg": picture(image["id"]) for image in images}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        for split, index in indices.items():
            content.writestr(f"annotations/instances_{split}2017.json", json.dumps(index))
    return {COCO_ZIP: archive.getvalue(), **files}


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    return {VOC_TAR: fake_voc(), IMAGENETTE_TGZ: fake_imagenette(), **fake_coco()}


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


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


# --- download


def get(server: Server, folder: Path, checksum: str | None = md5(BODY), **options) -> bytes:
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


# --- cut


def test_cut_covers_rare_classes_evenly_and_depends_on_seed_and_ids_only():
    draw = random.Random(1)
    labels = {str(number): {1} | ({draw.randint(2, 10)} if number % 5 == 0 else set()) for number in range(2000)}
    labels["rare"] = {11}
    chosen = balanced_cut(labels, range(1, 12), 60, seed=0)
    held = {label: sum(label in labels[name] for name in chosen) for label in range(1, 12)}
    assert len(set(chosen)) == 60 and chosen == sorted(chosen)
    assert held[11] == 1 and min(held[label] for label in range(2, 11)) >= 6
    shuffled = dict(draw.sample(sorted(labels.items()), len(labels)))
    assert balanced_cut(shuffled, range(1, 12), 60, seed=0) == chosen
    assert balanced_cut(labels, range(1, 12), 60, seed=1) != chosen


def test_cut_is_the_same_on_every_machine():
    labels = {f"image{number}": {number % 3} for number in range(12)}
    assert balanced_cut(labels, range(3), 4, seed=0) == ["image0", "image4", "image8", "image9"]


@pytest.mark.parametrize(("classes", "count"), [((0, 1, 2), 3), ((0, 1), 11)])
def test_cut_that_cannot_be_made(classes, count):
    with pytest.raises(UserError, match=f"cannot cut {count} images out of 10"):
        balanced_cut({str(number): {number % 2} for number in range(10)}, classes, count, seed=0)


# --- the whole command


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
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
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
