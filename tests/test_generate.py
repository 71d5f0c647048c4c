"""The generated stand-in: deterministic, well-formed, not to be told by colour, and whole or not there at all."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.coco import Coco
from data.imagefolder import ImageFolder
from data.voc import Voc
from DL_data import check
from DL_data import generate as generating
from DL_data.generate import MANIFEST, generate, main
from DL_data.scenes import draw, place
from DL_data.shapes import OUTLINES, TEXTURES, outline
from DL_data.stand_in import SETS, VOID, Classification, Detection, Segmentation
from errors import UserError
from palette import voc_palette

REPOSITORY = Path(__file__).parents[1]
TRAIN, VAL = 26, 12
TINY = {"train": 2, "val": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("data") / "generated", train=TRAIN, val=VAL)


@pytest.fixture
def tiny(tmp_path) -> Path:
    return generate(tmp_path / "tiny", **TINY)


def bytes_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def instances(root: Path, split: str) -> dict:
    return json.loads((root / "mini_coco_det" / "annotations" / f"instances_{split}.json").read_text())


def test_same_seed_same_bytes_and_an_image_does_not_depend_on_how_many_there_are(root, tiny, tmp_path):
    again, other = generate(tmp_path / "again", **TINY), generate(tmp_path / "other", seed=1, **TINY)
    assert bytes_of(tiny) == bytes_of(again)
    larger = bytes_of(root)
    images = {name: content for name, content in bytes_of(tiny).items() if Path(name).suffix not in (".json", ".txt")}
    assert len(images) == 4 * 3  # of segmentation two files each
    assert all(larger[name] == content for name, content in images.items())
    assert not set(images.values()) & set(bytes_of(other).values())


def test_every_image_differs_from_every_other_one(root):
    images = [content for name, content in bytes_of(root).items() if name.lower().endswith((".jpg", ".jpeg"))]
    assert len(images) == len(set(images)) == 3 * (TRAIN + VAL)


def test_the_readers_accept_it_and_see_every_class_in_both_splits(root, capsys):
    for split, count in (("train", TRAIN), ("val", VAL)):
        for reader, stand_in in ((Voc, Segmentation), (Coco, Detection), (ImageFolder, Classification)):
            dataset = reader(root, split)
            foreground = [name for name in dataset.classes if name != "background"]
            assert len(dataset) == count
            assert sorted(foreground) == sorted(stand_in.vocabulary)
            present = set().union(*(dataset.labels(index) for index in range(count)))
            assert {dataset.classes[label] for label in present} == set(foreground)
            height, width = dataset.read(0).image.shape[1:]
            assert 128 <= min(height, width) <= max(height, width) <= 160
    assert check.main([str(root)]) == 0, capsys.readouterr().out


def test_vocabularies_need_shape_and_texture_and_no_two_sets_share_a_texture():
    textures = [{name.split("_")[0] for name in stand_in.vocabulary} for stand_in in SETS]
    assert sum(map(len, textures)) == len(set().union(*textures)) == len(TEXTURES)
    for stand_in in SETS:
        pairs = [tuple(name.split("_")) for name in stand_in.vocabulary]
        for part in (0, 1):  # each texture comes with two shapes and each shape with two textures
            values = [pair[part] for pair in pairs]
            assert {values.count(value) for value in values} == {2}


def test_masks_are_palette_images_with_a_thin_void_border(root):
    masks = [Image.open(path) for path in sorted((root / "mini_voc_seg" / "SegmentationClass").iterdir())]
    assert len(masks) == TRAIN + VAL
    neighbours = 0
    for mask in masks:
        labels = np.asarray(mask)
        assert mask.mode == "P"
        assert mask.getpalette()[: 3 * 256] == voc_palette()
        assert set(np.unique(labels)) <= {*range(len(Segmentation.vocabulary) + 1), VOID}
        assert 0.01 < (labels == VOID).mean() < 0.15
        inside = labels[(labels > 0) & (labels != VOID)]
        assert 0.03 < inside.size / labels.size < 0.7
        touching = (labels[:, :-1] != labels[:, 1:]) & ((labels[:, :-1] != VOID) & (labels[:, 1:] != VOID))
        assert not touching.any()  # between two labels there is always void
        left, right = labels[:, :-4].astype(int), labels[:, 4:].astype(int)  # nearer than two separate borders
        neighbours += ((left != right) & (left % VOID > 0) & (right % VOID > 0)).any()
    assert neighbours > 0  # objects in front of one another


def test_palette_is_the_published_one():
    assert voc_palette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert voc_palette()[-3:] == [224, 224, 192]


def test_detection_files_have_gaps_in_ids_crowds_and_empty_images(root):
    files = {split: instances(root, split) for split in ("train", "val")}
    for split, file in files.items():
        ids = sorted(category["id"] for category in file["categories"])
        assert ids != list(range(ids[0], ids[0] + len(ids)))
        sizes = {image["id"]: (image["width"], image["height"]) for image in file["images"]}
        assert len({annotation["id"] for annotation in file["annotations"]}) == len(file["annotations"])
        for image in file["images"]:
            with Image.open(root / "mini_coco_det" / "images" / split / image["file_name"]) as opened:
                assert opened.size == sizes[image["id"]]
        for annotation in file["annotations"]:
            x, y, w, h = annotation["bbox"]
            width, height = sizes[annotation["image_id"]]
            assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
            assert 0 < annotation["area"] <= w * h
            assert annotation["category_id"] in ids
        assert 0 < sum(annotation["iscrowd"] for annotation in file["annotations"]) <= len(sizes) // 8
        assert 0 < len(set(sizes) - {annotation["image_id"] for annotation in file["annotations"]}) <= len(sizes) // 8
    assert files["train"]["categories"] == files["val"]["categories"]
    assert not {i["id"] for i in files["train"]["images"]} & {i["id"] for i in files["val"]["images"]}


@pytest.mark.parametrize("stand_in", SETS)
def test_neither_colour_nor_position_nor_size_tells_the_class(stand_in):
    classes = len(stand_in.vocabulary)
    features, labels = [], []
    for index in range(300):
        rng = np.random.default_rng([7, index])
        objects = place((96, 96), [stand_in.vocabulary[index % classes]], rng)
        scene = draw((96, 96), objects, rng)
        (visible,) = scene.visible()
        rows, columns = np.nonzero(visible)
        object_colour, image_colour = scene.image[visible].mean(axis=0), scene.image.mean(axis=(0, 1))
        features.append([*object_colour, *image_colour, rows.mean(), columns.mean(), np.sqrt(rows.size)])
        labels.append(index % classes)
    x, y = np.asarray(features) / 100, np.asarray(labels)
    x = np.concatenate([x, x**2, np.ones((len(x), 1))], axis=1)
    weights = np.linalg.lstsq(x[:200], np.eye(classes)[y[:200]], rcond=None)[0]
    accuracy = ((x[200:] @ weights).argmax(axis=1) == y[200:]).mean()
    chance = 1 / classes
    assert accuracy < chance + 3 * np.sqrt(chance * (1 - chance) / 100)


@pytest.mark.parametrize("shape", OUTLINES)
def test_every_outline_has_area_one(shape):
    x, y = outline(shape).T
    assert 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) == pytest.approx(1, rel=1e-5)


def test_complete_set_is_left_untouched_unless_forced(tiny):
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    assert generate(tiny, **TINY) == tiny
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before
    generate(tiny, **TINY, force=True)
    assert all(path.stat().st_mtime_ns > before[path] for path in tiny.rglob("*"))


@pytest.mark.parametrize("damage", ["missing", "shortened", "other version", "other seed", "no json"])
def test_damaged_or_outdated_set_is_written_anew(tiny, damage):
    whole = bytes_of(tiny)
    manifest, image = tiny / MANIFEST, next(tiny.rglob("*.jpg"))
    if damage == "missing":
        image.unlink()
    elif damage == "shortened":
        image.write_bytes(image.read_bytes()[:-1])
    elif damage == "no json":
        manifest.write_text('{"version"')
    else:
        key = damage.split()[-1]
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: 99}))
        (tiny / "old.jpg").touch()
    generate(tiny, **TINY)
    assert bytes_of(tiny) == whole


def test_interrupted_build_leaves_nothing_and_the_next_one_is_whole(tmp_path, monkeypatch, tiny):
    def interrupt(*_):
        raise KeyboardInterrupt

    target = tmp_path / "target"
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "write_split", interrupt)
        with pytest.raises(KeyboardInterrupt):
            generate(target, **TINY)
    assert not [path for path in tmp_path.iterdir() if "target" in path.name and path.is_dir()]
    killed = tmp_path / ".target.building" / "mini_voc_seg"
    killed.mkdir(parents=True)
    (killed / "half.jpg").touch()
    assert bytes_of(generate(target, **TINY)) == bytes_of(tiny)
    assert not killed.exists()


def test_two_callers_at_once_write_once(tmp_path, monkeypatch):
    builds, build = [], generating._build
    monkeypatch.setattr(generating, "_build", lambda *arguments: (builds.append(1), build(*arguments)))
    callers = [threading.Thread(target=generate, args=(tmp_path / "set",), kwargs=TINY) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(builds) == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_other_content_is_never_replaced(tmp_path, force):
    real = tmp_path / "DL_data" / "mini_voc_seg" / "JPEGImages" / "2007_000032.jpg"
    real.parent.mkdir(parents=True)
    real.touch()
    with pytest.raises(UserError, match="not generated here"):
        generate(tmp_path / "DL_data", **TINY, force=force)
    assert real.exists()


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert (generate(tmp_path / "empty", **TINY) / MANIFEST).is_file()


def test_full_disk_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*MB free"):
        generate(tmp_path / "set", **TINY)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_unusable_root_is_one_message(tmp_path, capsys):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file" / "below", tmp_path / "file", Path("/proc/onehead")):
        assert main(["--root", str(root)]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {root}: ") and message.count("\n") == 1


def test_command_returns_at_once_for_a_complete_set(tmp_path, tiny):
    whole = {**json.loads((tiny / MANIFEST).read_text()), "train": 120, "val": 40}  # as if it were the default one
    (tiny / MANIFEST).write_text(json.dumps(whole))
    command = [sys.executable, "-m", "DL_data.generate", "--root", str(tiny)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tiny) in done.stdout
