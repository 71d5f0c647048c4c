"""DL_data.check: counts, one listing of all findings, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

from tiny_sets import SPLITS, assert_found, coco_index, photo, truncate, write_all, write_voc

from DL_data import check

REPOSITORY = Path(__file__).parents[1]


def test_check_passes_good_sets_and_counts_them(tmp_path, capsys):
    assert check.main([str(write_all(tmp_path))]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[-1] == ["no", "findings"]
    assert ["(any)", "3", "2"] in lines
    assert ["(any)", "6", "4"] in lines
    assert ["cat", "2", "1"] in lines  # detection: the last image of each split has no objects
    assert ["n01440764", "(tench)", "3", "2"] in lines
    assert ["aeroplane", *(str(sum(ord(n) % 3 == 0 for n in names)) for names in SPLITS.values())] in lines
    assert err == ""  # the progress bar is for terminals


def test_check_lists_the_findings_of_all_sets_at_once(tmp_path, capsys):
    write_all(tmp_path)
    truncate(tmp_path / "mini_voc_seg/JPEGImages/a.jpg")
    truncate(tmp_path / "imagenette-160/val/n01440764/d.JPEG")
    (tmp_path / "imagenette-160/train/hollow").mkdir()
    copy = tmp_path / "imagenette-160/train/n01440764/copy.jpg"
    copy.write_bytes((tmp_path / "mini_coco_det/images/val/d.jpg").read_bytes())  # one picture, two tasks
    photo(tmp_path / "mini_voc_seg/JPEGImages/e.jpg", "voc b")  # one picture, two splits
    index = coco_index("val")
    for category in index["categories"]:
        category["id"] += category["name"] == "dog"
    for annotation in index["annotations"]:
        annotation["category_id"] += annotation["category_id"] == 90
    index["annotations"][0]["bbox"] = [50, 50, 4, 4]
    (tmp_path / "mini_coco_det/annotations/instances_val.json").write_text(json.dumps(index))
    assert check.main([str(tmp_path)]) == 2
    out = capsys.readouterr().out.splitlines()
    assert_found(
        [line for line in out if line.startswith("  - ")],
        [
            ("JPEGImages/a.jpg: unreadable",),
            ("val/n01440764/d.JPEG: unreadable",),
            ("train/hollow: empty class folder",),
            ("class 'hollow' is missing",),
            ("same picture in mini_coco_det val and imagenette-160 train", "d.jpg", str(copy)),
            ("same picture in mini_voc_seg train and mini_voc_seg val", "b.jpg", "e.jpg"),
            ("class 'dog' has number 91, in train 90",),
            ("[50, 50, 4, 4] lies outside its image",),
        ],
    )
    assert "8 findings:" in out


def test_check_of_a_missing_set_and_of_one_set_alone(tmp_path, capsys):
    folder = write_voc(tmp_path, "side by side")
    assert check.main([str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert out.count("set not found") == 2
    assert str(tmp_path / "mini_coco_det") in out
    assert check.main([str(folder)]) == 0
    assert check.main([str(tmp_path), "--sets", "voc"]) == 0
    assert check.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_check_is_a_command(tmp_path):
    (tmp_path / "mini_voc_seg").mkdir()
    command = [sys.executable, "-m", "DL_data.check", str(tmp_path), "--sets", "voc"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert "no known layout" in done.stdout
