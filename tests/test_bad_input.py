"""Bad input to train.py: one clear message, exit code 2, no traceback, and nothing left behind."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import begin, tiny_recipe, write_recipe

import checkpoint
import train
from errors import UserError


@pytest.fixture
def data(tmp_path, tiny_data) -> Path:
    """A copy of the data that may be broken."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def refused(tmp_path, capsys):
    """Train by a recipe, be refused, and return the message."""

    def run(plain: dict, *flags) -> str:
        recipe = write_recipe(tmp_path / "recipe.yaml", plain)
        before = set(tmp_path.rglob("*"))
        assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / "runs" / "new"), *map(str, flags)]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: ") and "Traceback" not in err and out == ""
        assert set(tmp_path.rglob("*")) == before, "something was left behind"
        return err

    return run


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def image_files(data: Path, pattern: str) -> list[Path]:
    return sorted(data.glob(pattern))


@pytest.mark.parametrize("name", ["mini_voc_seg", "mini_coco_det", "imagenette-160"])
def test_a_missing_set_says_where_it_was_looked_for(data, refused, name):
    shutil.rmtree(data / name)
    err = refused(tiny_recipe(data))
    assert str(data / name) in err and "--data_root" in err
    assert err.count(str(data / name)) == 1  # once, not again for val
    assert "data_root does not exist" in refused(tiny_recipe(data / "nowhere"))


def test_every_bad_file_of_every_set_and_split_is_listed_at_once(data, refused):
    broken = [
        truncate(image_files(data, "mini_voc_seg/JPEGImages/train*.jpg")[2]),
        truncate(image_files(data, "mini_voc_seg/JPEGImages/val*.jpg")[0]),
        truncate(image_files(data, "mini_coco_det/images/train/*.jpg")[1]),
        truncate(image_files(data, "imagenette-160/val/*/*.JPEG")[3]),
    ]
    mask = image_files(data, "mini_voc_seg/SegmentationClass/train*.png")[0]
    with Image.open(mask) as image:
        image.resize((image.width + 1, image.height)).save(mask)
    values = image_files(data, "mini_voc_seg/SegmentationClass/train*.png")[1]
    with Image.open(values) as image:
        Image.fromarray(np.full((image.height, image.width), 99, dtype=np.uint8)).save(values)
    err = refused(tiny_recipe(data))
    assert "6 findings" in err
    for path in (*broken, mask, values):
        assert err.count(str(path)) == 1, path
    assert "unreadable image" in err and "both must be equal" in err and "99" in err


def test_an_unknown_category_in_val_is_named(data, refused):
    index = data / "mini_coco_det" / "annotations" / "instances_val.json"
    content = json.loads(index.read_text())
    content["categories"][0]["name"] = "netted_sqare"
    index.write_text(json.dumps(content))
    err = refused(tiny_recipe(data))
    assert "'netted_sqare'" in err and "netted_square" in err and str(index) in err


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"images": ['])
def test_malformed_annotations_are_named(data, refused, text):
    index = data / "mini_coco_det" / "annotations" / "instances_train.json"
    index.write_text(text)
    assert str(index) in refused(tiny_recipe(data))


def test_a_box_that_is_none_is_named(data, refused):
    index = data / "mini_coco_det" / "annotations" / "instances_train.json"
    content = json.loads(index.read_text())
    content["annotations"][0]["bbox"] = [5, 5, 0, 10]
    content["annotations"][1]["bbox"] = [5, 5, float("nan"), 10]
    index.write_text(json.dumps(content))
    err = refused(tiny_recipe(data))
    assert "2 findings" in err and err.count(str(index)) >= 2


def test_an_empty_class_folder_is_named(data, refused):
    for path in image_files(data, "imagenette-160/train/spoked_star/*"):
        path.unlink()
    assert str(data / "imagenette-160" / "train" / "spoked_star") in refused(tiny_recipe(data))


def test_a_data_set_of_another_kind_is_named(data, refused):
    err = refused(tiny_recipe(data, stages={"det": {"dataset": {"name": "voc"}}}))
    assert "stages.det" in err and "needs detection data" in err


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({}, ["--stages.seg.epoch=3"], "did you mean --stages.seg.epochs?"),
        ({"seeed": 1}, [], "did you mean 'seed'?"),
        ({"strategies": {"lwf": {"weights": {"sgg": 1.0}}}}, [], "did you mean 'seg'?"),
        ({"stages": {"seg": {"rates": {"nck": 0.5}}}}, [], "did you mean 'neck'?"),
        ({"backbone": {"name": "efficientnet_b9"}}, [], "unknown EfficientNet variant 'b9'"),
        ({}, ["--stages.seg.task.region_boxes=-1"], "region_boxes is -1.0, expected 0 or more"),
        ({}, ["--stages.cls.task.pooling=average"], "unknown classification.pooling 'average'"),
        ({}, ["--stages.cls.task.dropout=1.5"], "classification.dropout is 1.5, expected 0 to 1"),
        ({}, ["--stages.cls.task.label_smoothing=1.5"], "classification.label_smoothing is 1.5, expected 0 to 1"),
        ({}, ["--stages.seg.task.label_smoothing=2"], "segmentation.label_smoothing is 2.0, expected 0 to 1"),
        ({}, ["--stages.det.task.max_boxes=0"], "detection.max_boxes is 0, expected 1 or more"),
        ({}, ["--stages.det.task.nms_iou=2"], "detection.nms_iou is 2.0, expected 0 to 1"),
        ({}, ["--stages.det.task.radius=-1"], "detection.radius is -1.0, expected 0 or more"),
        ({}, ["--backbone.drop_connect=-1"], "backbone.drop_connect is -1.0, expected 0 to 1"),
        ({}, ["--neck.channels=0"], "neck.channels is 0, expected 1 or more"),
        ({"strategies": {"replay": {}}, "memory_per_task": 0}, [], "strategies.replay has no memory"),
        ({}, ["--device", "gpu"], "unknown device 'gpu'"),
        ({}, ["--backbone_weights", "none.pt"], "none.pt: no such weights file"),
    ],
)
def test_recipes_and_flags(tiny_data, refused, changes, flags, words):
    assert words in refused(tiny_recipe(tiny_data, **changes), *flags)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny_data, refused):
    assert "--device cuda: no GPU" in refused(tiny_recipe(tiny_data), "--device", "cuda")


def test_not_enough_disk(tiny_data, refused, monkeypatch):
    free = shutil.disk_usage(tiny_data)._replace(free=50 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    err = refused(tiny_recipe(tiny_data))
    assert "50 MB free" in err and "make room" in err


def test_a_run_dir_that_cannot_be(tmp_path, tiny_data, capsys):
    (tmp_path / "file").write_text("")
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(tiny_data))
    for place, words in (("file", "is a file"), ("file/below", "cannot be written")):
        assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / place)]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == ""


def test_weights_of_another_network(tmp_path, tiny_data, refused):
    for name, content, words in (
        ("text.pt", b"not weights", "not a readable state_dict"),
        ("empty.pt", b"", "not a readable state_dict"),
    ):
        (tmp_path / name).write_bytes(content)
        assert words in refused(tiny_recipe(tiny_data), "--backbone_weights", tmp_path / name)
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "other.pt")
    assert "weights of another network" in refused(tiny_recipe(tiny_data), "--backbone_weights", tmp_path / "other.pt")


# Checkpoints: what eval.py loads, and what a run goes on from


def damage_checkpoint(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("these are no weights")
    elif how == "an image":
        Image.new("RGB", (30, 30)).save(path, format="PNG")
    elif how == "other tensors":
        torch.save({"weight": torch.ones(3)}, path)
    elif how == "half a checkpoint":
        torch.save({"format": checkpoint.FORMAT, "model": {}}, path)
    elif how == "another format":
        torch.save({**torch.load(path, weights_only=True), "format": 99}, path)
    else:
        torch.save({**torch.load(path, weights_only=True), "model": {"trunk.x": torch.ones(3)}}, path)


DAMAGES = {
    "cut short": "not a readable checkpoint",
    "empty": "not a readable checkpoint",
    "text": "not a readable checkpoint",
    "an image": "not a readable checkpoint",
    "other tensors": "not a checkpoint of this project",
    "half a checkpoint": "not a whole checkpoint",
    "another format": "format 99",
    "another architecture": "weights of another architecture",
}


@pytest.fixture
def broken_off(tmp_path, finished) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "log.jsonl", "last.pt"):
        shutil.copy(finished / name, run)
    return run


@pytest.mark.parametrize(("how", "words"), DAMAGES.items())
def test_checkpoints_that_cannot_be_used(capsys, broken_off, how, words):
    path = broken_off / "last.pt"
    damage_checkpoint(path, how)
    with pytest.raises(UserError, match=words) as caught:
        checkpoint.restore(path)
    assert str(path) in str(caught.value)
    before = {p.name: p.read_bytes() for p in broken_off.iterdir()}
    assert train.main(["--run_dir", str(broken_off), "--resume"]) == 2
    err = capsys.readouterr().err
    assert words in err and str(path) in err and "Traceback" not in err
    assert {p.name: p.read_bytes() for p in broken_off.iterdir()} == before


def test_a_stages_checkpoint_in_place_of_the_runs_state(capsys, broken_off, finished):
    shutil.copy(finished / "final.pt", broken_off / "last.pt")
    assert train.main(["--run_dir", str(broken_off), "--resume"]) == 2
    assert "a checkpoint for evaluation" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.read(broken_off / "final.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_damage_of_single_bytes_escapes_as_another_error(tmp_path):
    """Read or refused; PyTorch's files carry no checksum, so that a changed weight is not noticed."""
    path, damaged = tmp_path / "small.pt", tmp_path / "damaged.pt"
    content = {
        "format": checkpoint.FORMAT,
        "recipe": {"a": [1, None, "x"]},
        "classes": {},
        "model": {"w": torch.ones(9)},
    }
    checkpoint.save(path, {**content, "stored_statistics": {}, "memory": {"seg": ["a"]}})
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refusals = 0
    for _ in range(400):
        changed = bytearray(whole)
        for place in rng.integers(len(whole) // 2, size=rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        damaged.write_bytes(changed)
        try:
            checkpoint.read(damaged)
        except UserError:
            refusals += 1
    assert refusals > 100


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(tmp_path):
    """Files may not grow beyond a limit here, which a write reports as it reports a full disk."""
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weights": torch.ones(10)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written .* go on with --resume"):
            checkpoint.save(path, {"weights": torch.ones(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(path, weights_only=True)["weights"].numel() == 10
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_set_without_objects_in_val_still_trains(tmp_path, data):
    """Nothing to score is no error: the score is undefined, null in results."""
    index = data / "mini_coco_det" / "annotations" / "instances_val.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "annotations": []}))
    plain = tiny_recipe(data, {}, {"det": {"epochs": 1}}, order=["det"])
    run, _ = begin(plain, tmp_path / "run")
    train.train(run)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["matrix"] == [[None]] and results["acc"] is None


def test_a_process_ends_with_2_and_no_traceback(tmp_path, tiny_data, server):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(tiny_data / "nowhere"))
    ended = server.run(tmp_path, "--config", recipe, "--run_dir", tmp_path / "run")
    assert ended.code == 2
    assert ended.err.startswith("error: ") and "Traceback" not in ended.err and ended.out == ""
    assert not (tmp_path / "run").exists()
