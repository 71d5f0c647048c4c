"""A run killed at any moment and resumed ends as if it had never been interrupted, bit for bit."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tiny_runs import different, last_weights, log_of, tiny_recipe, write_recipe
from train_server import ENVIRONMENT, REPOSITORY, TrainServer

import command_line
import registry
import report
import train
from strategies import Strategy

# Two steps an epoch, epochs 2, 2, 1. Checkpoints written: last last stage1 last | last last stage2 last | last final last.
KILLS = {
    "first epoch logged, not saved": ("logged", 1),
    "within an epoch of the first stage": ("step", 4),
    "half of a checkpoint written": ("saving", 2),
    "stage checkpoint written, stage not closed": ("saved", 3),
    "between the first and second stage": ("saved", 4),
    "within the second stage": ("step", 7),
    "between the second and third stage": ("saved", 8),
    "final checkpoint half written": ("saving", 10),
}
NONE = {"strategies": {}, "norm": {"statistics": "running"}}
# All else that could keep a state: gradients of parts frozen later, dropout, schedules that watch val, statistics by task.
ELSE = {
    "strategies": {
        "replay": {"batch_size": 3, "selection": "herding"},
        "lwf": {"features": {"shared2": 1.0}, "images": "new"},
        "finetune": {},
    },
    "stages": {
        "seg": {"schedule": "plateau", "patience": 0, "clip_norm": 0.5},
        "det": {"schedule": "plateau", "patience": 0, "clip_norm": 0.5, "rates": {"backbone": 0, "seg": 0.5}},
        "cls": {"task": {"name": "classification", "dropout": 0.5}, "schedule": "cosine"},
    },
    "norm": {"statistics": "running"},
    "eval_every": 1,
}
PER_STAGE = {"strategies": {"replay": {"batch_size": 3}}, "norm": {"statistics": "per_stage"}}


def comparable_log(folder: Path) -> list[dict]:
    """The records, without the times that they took."""
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in log_of(folder)]


def assert_same_end(folder: Path, reference: Path) -> None:
    assert different(last_weights(folder), last_weights(reference)) == set()
    assert comparable_log(folder) == comparable_log(reference)
    differing = dict.fromkeys(("seconds", "memory"))
    ours, theirs = (json.loads((run / "results.json").read_text()) for run in (folder, reference))
    assert {**ours, **differing} == {**theirs, **differing}
    assert not list(folder.glob("*.part"))


def kill_and_resume(server: TrainServer, folder: Path, recipe: Path, kill: tuple[str, int]) -> Path:
    run = folder / "run"
    ended = server.run(folder, "--config", recipe, "--run_dir", run, kill=kill)
    assert ended.code == -signal.SIGKILL, ended.err
    ended = server.run(folder, "--run_dir", run, "--resume")
    assert ended.code == 0, ended.err
    return run


@pytest.mark.parametrize("kill", KILLS.values(), ids=list(KILLS))
def test_killed_and_resumed_equals_uninterrupted(tmp_path, server, finished, kill):
    run = kill_and_resume(server, tmp_path, finished.parent / "recipe.yaml", kill)
    assert_same_end(run, finished)


@pytest.fixture(scope="module")
def other_recipes(tmp_path_factory, tiny_data, server) -> dict[str, Path]:
    """Uninterrupted runs of other recipes."""
    runs = {}
    for name, changes in (("none", NONE), ("else", ELSE), ("per_stage", PER_STAGE)):
        folder = tmp_path_factory.mktemp(name)
        recipe = write_recipe(folder / "recipe.yaml", tiny_recipe(tiny_data, **changes))
        ended = server.run(folder, "--config", recipe, "--run_dir", folder / "run")
        assert ended.code == 0, ended.err
        runs[name] = folder / "run"
    return runs


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("none", ("step", 7)),
        ("else", ("step", 4)),
        ("else", ("step", 7)),
        ("else", ("saved", 8)),
        ("per_stage", ("step", 7)),
    ],
)
def test_other_recipes_resume_exactly(tmp_path, server, other_recipes, name, kill):
    reference = other_recipes[name]
    assert_same_end(kill_and_resume(server, tmp_path, reference.parent / "recipe.yaml", kill), reference)


@pytest.mark.parametrize("name", registry.names(Strategy))
def test_every_strategy_alone_resumes_exactly(tmp_path, server, tiny_data, name):
    recipe = write_recipe(
        tmp_path / "recipe.yaml", tiny_recipe(tiny_data, {name: {}}, {"seg": {"epochs": 1}}, order=["seg", "det"])
    )
    assert server.run(tmp_path, "--config", recipe, "--run_dir", tmp_path / "whole").code == 0
    assert_same_end(kill_and_resume(server, tmp_path, recipe, ("step", 6)), tmp_path / "whole")


def test_killed_again_and_again(tmp_path, server, finished):
    recipe, run = finished.parent / "recipe.yaml", tmp_path / "run"
    assert server.run(tmp_path, "--config", recipe, "--run_dir", run, kill=("step", 2)).code == -signal.SIGKILL
    for kill in (("saving", 1), ("saved", 1), ("logged", 3), ("saved", 3), ("step", 2)):
        assert server.run(tmp_path, "--run_dir", run, "--resume", kill=kill).code == -signal.SIGKILL
    assert server.run(tmp_path, "--run_dir", run, "--resume").code == 0
    assert_same_end(run, finished)


def test_a_finished_run_resumed_stays_as_it_is(tmp_path, server, finished):
    run = shutil.copytree(finished, tmp_path / "run")
    assert server.run(tmp_path, "--run_dir", run, "--resume").code == 0
    assert_same_end(run, finished)


def wait_for_epochs(process: subprocess.Popen, run: Path, count: int) -> None:
    log = run / "log.jsonl"
    while not log.is_file() or log.read_text().count('"kind": "epoch"') < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def start_command(*argv) -> subprocess.Popen:
    """A shell starts what runs in the background with Ctrl-C ignored, and its children would inherit that."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen([sys.executable, *map(str, argv)], cwd=REPOSITORY, env=ENVIRONMENT, **pipes, **heed)


def test_the_command_killed_interrupted_and_resumed_by_its_own_hint(tmp_path, server, finished):
    run = tmp_path / "a run"
    process = start_command("train.py", "--config", finished.parent / "recipe.yaml", "--run_dir", run)
    wait_for_epochs(process, run, 2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process = start_command("train.py", "--run_dir", run, "--resume")
    wait_for_epochs(process, run, 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    hint = re.search(r"Go on with: python (.*)", err)
    assert hint, err
    script, *argv = shlex.split(hint[1])
    assert script == "train.py"
    ended = server.run(tmp_path, *argv)
    assert ended.code == 0, ended.err
    assert "after cls" in ended.out
    assert_same_end(run, finished)


def test_interrupted_before_anything_is_written(tmp_path, monkeypatch, capsys, finished):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "open_train_and_val", interrupt)
    assert train.main(["--config", str(finished.parent / "recipe.yaml"), "--run_dir", str(tmp_path / "run")]) == 130
    err = capsys.readouterr().err
    assert "nothing was written" in err and "--resume" not in err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def broken_off(tmp_path, finished, monkeypatch) -> Path:
    """A run that could be resumed: the finished one's folder, without what only the end writes. No figures, no report."""
    monkeypatch.setattr(command_line, "draw", lambda run: None)
    monkeypatch.setattr(report, "report_run", lambda run: None)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "env.json", "log.jsonl", "last.pt"):
        shutil.copy(finished / name, run)
    return run


def refused(capsys, *argv) -> str:
    assert train.main(list(map(str, argv))) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Traceback" not in err
    return err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("flag", ["--stages.det.lr=0.5", "--seed=1", "--strategies.ema.decay=0.5"])
def test_another_recipe_is_refused(capsys, broken_off, flag):
    before = contents(broken_off)
    assert "differs from the run's own" in refused(capsys, "--run_dir", broken_off, "--resume", flag)
    assert contents(broken_off) == before


def test_an_edited_config_is_refused(capsys, broken_off):
    config = broken_off / "config.yaml"
    config.write_text(config.read_text().replace("decay: 0.9", "decay: 0.5"))
    assert "last.pt" in refused(capsys, "--run_dir", broken_off, "--resume")


def test_the_recipe_given_again_is_accepted(capsys, broken_off, finished):
    assert train.main(["--config", str(finished.parent / "recipe.yaml"), "--run_dir", str(broken_off), "--resume"]) == 0
    assert "checkpoints" in capsys.readouterr().out


def moved_data(tmp_path: Path, finished: Path) -> Path:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    return Path(shutil.copytree(config["data_root"], tmp_path / "moved"))


def test_moved_data_is_accepted(tmp_path, capsys, broken_off, finished):
    root = moved_data(tmp_path, finished)
    assert train.main(["--run_dir", str(broken_off), "--resume", "--data_root", str(root)]) == 0


@pytest.mark.parametrize(
    "where", ["mini_voc_seg/JPEGImages/train_0003.jpg", "mini_coco_det/images/val/000000500002.jpg"]
)
def test_changed_images_are_refused(tmp_path, capsys, broken_off, finished, where):
    root = moved_data(tmp_path, finished)
    with Image.open(root / where) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(root / where, quality=95)
    err = refused(capsys, "--run_dir", broken_off, "--resume", "--data_root", root)
    assert ("'seg'" if "voc" in where else "'det'") in err and "not those that" in err


def test_renamed_classes_are_refused(tmp_path, capsys, broken_off, finished):
    root = moved_data(tmp_path, finished)
    names = root / "mini_voc_seg" / "classes.txt"
    names.write_text(names.read_text().replace("dotted_star", "pale_star"))
    assert "'seg'" in refused(capsys, "--run_dir", broken_off, "--resume", "--data_root", root)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys, finished):
    err = refused(capsys, "--run_dir", finished.parent / "rum", "--resume")
    assert "no run to resume" in err and "did you mean 'run'" in err
    assert "needs --run_dir" in refused(capsys, "--resume")


def test_a_folder_with_something_in_it_is_refused_without_resume(tmp_path, capsys, broken_off, finished):
    before = contents(broken_off)
    recipe = finished.parent / "recipe.yaml"
    assert "go on with --resume" in refused(capsys, "--config", recipe, "--run_dir", broken_off)
    assert contents(broken_off) == before
    assert "is a file" in refused(capsys, "--config", recipe, "--run_dir", recipe)


def test_a_lost_log_does_not_keep_a_run_from_going_on(capsys, broken_off):
    (broken_off / "log.jsonl").unlink()
    assert train.main(["--run_dir", str(broken_off), "--resume"]) == 0
    assert (broken_off / "log.jsonl").read_bytes() == b""


def test_the_state_is_plain(finished):
    """Only tensors and plain values: weights_only is not loosened anywhere."""
    state = torch.load(finished / "last.pt", weights_only=True)
    assert state["learned"] == ["seg", "det", "cls"]
    assert state["epoch"] == 0
