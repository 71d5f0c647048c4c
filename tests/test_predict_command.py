"""python predict.py: what it finds, what it writes, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import COCO
from PIL import Image

import checkpoint
import predict
from palette import voc_palette
from predict import load_model
from prediction.inputs import find_inputs

LOW = ("--score_threshold", "0.02", "--nms_threshold", "0.6")


@pytest.fixture
def photos(tiny_data, tmp_path, monkeypatch) -> Path:
    """The folder photos/ in an empty working folder: a.jpg, b.png, b.jpg, below/a.jpg and what is no image."""
    monkeypatch.chdir(tmp_path)
    images = sorted(tiny_data.glob("mini_coco_det/images/val/*.jpg"))
    (tmp_path / "photos" / "below").mkdir(parents=True)
    (tmp_path / "photos" / ".hidden").mkdir()
    for number, name in enumerate(("a.jpg", "b.JPG", "below/a.jpg", ".hidden/a.jpg")):
        shutil.copy(images[number], tmp_path / "photos" / name)
    Image.open(images[4]).save(tmp_path / "photos" / "b.png")
    (tmp_path / "photos" / "notes.txt").write_text("none")
    return Path("photos")


@pytest.fixture
def command(finished, capsys):
    """Run the command on arguments after --weights: (exit code, what it printed, what it complained about)."""

    def run(*arguments, weights=finished / "final.pt") -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = predict.main(["--weights", str(weights), *map(str, arguments)])
        except SystemExit as end:  # argparse
            code = end.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


SOURCES = {"a": "photos/a.jpg", "b": "photos/b.JPG", "b-2": "photos/b.png", "below/a": "photos/below/a.jpg"}
TABLES = {"detections_det.json", "labels_cls.csv"}


def test_everything_is_written_as_the_api_answers(command, finished, photos):
    code, out, err = command(photos, "--out", "out", "--visualize", "--json", "all/of it.json", *LOW)
    assert code == 0 and "4 images in" in out and "images/s" in out and "results in out" in out and err == ""
    drawn, masks = (
        {f"{folder}/{name}.{end}" for name in SOURCES} for folder, end in (("visualized", "jpg"), ("masks_seg", "png"))
    )
    assert files(Path("out")) == TABLES | drawn | masks
    written = json.loads(Path("all/of it.json").read_text())
    assert {row["name"]: row["source"] for row in written["results"]} == SOURCES and written["unreadable"] == []
    results = load_model(finished / "final.pt", "cpu", score_threshold=0.02, nms_threshold=0.6).predict(
        [row["source"] for row in written["results"]]
    )
    index = COCO("out/detections_det.json")
    names = checkpoint.read(finished / "final.pt")["classes"]["det"]
    assert [(c["id"], c["name"]) for c in index.loadCats(index.getCatIds())] == list(enumerate(names))
    table = list(csv.DictReader(Path("out/labels_cls.csv").read_text().splitlines()))
    assert len(table) == len(index.imgs) == len(results) == 4 and len(index.anns) > 4
    for number, (row, result) in enumerate(zip(written["results"], results, strict=True)):
        name, found = row["name"], result.detection
        assert row == {"name": name, **json.loads(json.dumps(result.to_dict()))}
        mask = Image.open(f"out/masks_seg/{name}.png")
        assert mask.mode == "P" and mask.getpalette() == voc_palette()
        assert (np.array(mask) == result.segmentation.mask).all()
        assert Image.open(f"out/visualized/{name}.jpg").size == mask.size == Image.open(row["source"]).size
        near = np.asarray(Image.open(f"out/visualized/{name}.jpg"), dtype=float) - np.asarray(result.plot())
        assert np.abs(near).mean() < 8  # JPEG
        image = index.imgs[number + 1]
        assert (image["file_name"], image["width"], image["height"]) == (row["source"], *mask.size)
        rows = index.loadAnns(index.getAnnIds(imgIds=number + 1))
        boxes = np.array([a["bbox"] for a in rows]).reshape(-1, 4)
        assert np.allclose(boxes[:, :2], found.boxes_xyxy[:, :2])
        assert np.allclose(boxes[:, :2] + boxes[:, 2:], found.boxes_xyxy[:, 2:])
        assert [a["score"] for a in rows] == found.scores.tolist()
        assert [a["category_id"] for a in rows] == found.labels.tolist()
        label = result.classification
        assert (table[number]["source"], table[number]["label"]) == (row["source"], label.name)
        assert [float(table[number][c]) for c in label.classes] == label.probabilities.tolist()
        assert float(table[number]["probability"]) == label.probabilities.max()


def test_thresholds_and_tasks_are_the_commands_own(command, photos):
    assert command(photos / "a.jpg", "--out", "out", "--tasks", "det", "--score_threshold", "1")[0] == 0
    assert files(Path("out")) == {"detections_det.json"}
    written = json.loads(Path("out/detections_det.json").read_text())
    assert written["annotations"] == [] and len(written["images"]) == 1
    assert command("--tasks", "cls", "seg", "--out", "two", photos / "a.jpg", photos / "b.png")[0] == 0
    assert files(Path("two")) == {"labels_cls.csv", "masks_seg/a.png", "masks_seg/b.png"}


def test_without_out_results_lie_in_a_dated_folder(command, photos):
    code, out, _ = command(photos / "a.jpg")
    (folder,) = Path("runs").iterdir()
    assert code == 0 and folder.name.startswith("predict-") and str(folder) in out
    assert files(folder) == {"masks_seg/a.png", *TABLES}


def test_inputs_are_found_once_and_never_share_a_name(photos):
    shutil.copy(photos / "a.jpg", "A.jpg")
    shutil.copy(photos / "a.jpg", "x[1].jpg")
    found = find_inputs(["A.jpg", "photos", "photos/a.jpg", "./photos/*", "photos/**/*.jpg", "x[1].jpg"])
    assert [(str(item.path), item.name) for item in found] == [
        ("A.jpg", "A"),
        ("photos/a.jpg", "a-2"),  # where case is ignored, a.png would overwrite A.png
        ("photos/b.JPG", "b"),
        ("photos/b.png", "b-2"),
        ("photos/below/a.jpg", "below/a"),
        ("x[1].jpg", "x[1]"),
    ]


def test_results_are_no_inputs_and_inputs_are_not_overwritten(command, photos):
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    for _ in range(2):
        assert command(photos, "--out", photos, "--visualize")[0] == 0
        assert files(photos / "masks_seg") == {f"{name}.png" for name in SOURCES}
    assert all(path.read_bytes() == content for path, content in before.items())
    mask = photos / "masks_seg" / "a.png"
    code, _, err = command(mask, "--out", photos)
    assert code == 2 and f"{mask}: lies where results will be written" in err


def test_unreadable_files_are_listed_and_the_rest_is_done(command, photos):
    cut = photos / "b.JPG"
    cut.write_bytes(cut.read_bytes()[:900])
    text = photos / "c.jpg"
    text.write_text("no image")
    code, out, err = command(photos, photos / "notes.txt", "--out", "out", "--json", "all.json")
    assert code == 1 and "3 images in" in out
    assert "3 files could not be read" in err and all(f"{path}: unreadable image" in err for path in (cut, text))
    assert files(Path("out")) == {*TABLES, "masks_seg/a.png", "masks_seg/b-2.png", "masks_seg/below/a.png"}
    assert len(json.loads(Path("all.json").read_text())["unreadable"]) == 3
    assert len(json.loads(Path("out/detections_det.json").read_text())["images"]) == 3
    assert command(text, "--out", "none")[0] == 1
    assert json.loads(Path("none/detections_det.json").read_text())["images"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/c*.jpg"], "photos/c*.jpg: no image found by this pattern; looked for .avi, .bmp"),
        (["photos/n*"], "no image found by this pattern (1 other files or folders match)"),
        (["photos/a.jpg", "photos/z.jpg"], "photos/z.jpg: no such file or folder"),
        (["empty"], "empty: no image in this folder or below it; looked for .bmp"),
        (["photos", "--tasks", "dett"], "has not learned the task 'dett'; did you mean 'det'"),
        (["photos", "--score_threshold", "30"], "score_threshold is 30.0, expected 0 to 1"),
        (["photos", "--nms_threshold", "nan"], "nms_threshold is nan, expected 0 to 1"),
        (["photos", "--score_threshold", "high"], "invalid float value: 'high'"),
        (["photos", "--out", "photos/a.jpg"], "photos/a.jpg: is a file, expected a folder; choose another --out"),
        (["photos", "--out", "photos/a.jpg/new"], "photos/a.jpg: is a file, expected a folder"),
        (["photos", "--json", "empty"], "empty: is a folder, expected a file; choose another --json"),
        (["photos", "--json", "photos/a.jpg"], "photos/a.jpg: would overwrite photos/a.jpg"),
        (["photos", "--json", "out/labels_cls.csv", "--out", "out"], "would overwrite out/labels_cls.csv"),
        (["photos", "--device", "gpu"], "unknown device 'gpu'"),
        ([], "required: IMAGES"),
    ],
)
def test_bad_input_is_refused_with_one_message_and_nothing_is_left(command, photos, arguments, message):
    Path("empty").mkdir()
    before = set(Path().rglob("*"))
    code, out, err = command(*arguments)
    assert (code, out) == (2, "") and message in err and err.count("error: ") == 1
    assert set(Path().rglob("*")) == before


def test_weights_that_are_none_are_refused(command, photos, finished):
    for weights in ("nowhere/final.pt", finished, photos / "notes.txt"):
        code, out, err = command(photos, weights=weights)
        assert (code, out) == (2, "") and err.startswith(f"error: {weights}: ")
    assert not Path("runs").exists()


def test_a_full_disk_leaves_no_half_of_a_file(command, photos, monkeypatch):
    def full(image, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = command(photos, "--out", "out")
    assert code == 2 and err.startswith("error: out: cannot be written") and "No space left" in err
    assert files(Path("out")) == set()


def test_an_interrupt_is_no_traceback(command, photos, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict.Outputs, "add", stop)
    code, _, err = command(photos, "--out", "out")
    assert code == 130 and "stopped after 0 images" in err and files(Path("out")) == set()
