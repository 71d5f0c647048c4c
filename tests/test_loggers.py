"""Experiment loggers: what TensorBoard and W&B hold is what log.jsonl holds, and the run does not notice them."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tiny_runs import EPOCHS, different, last_weights, log_of, tiny_recipe, write_recipe
from train_server import ENVIRONMENT, REPOSITORY, Ended

import command_line
import registry
import train
from loggers import Logger, find, scalars_of

STAGES = list(EPOCHS)
TOOLS = {"tensorboard": "tensorboard", "wandb": "wandb"}  # logger → what it needs to be installed
LAST = sum(EPOCHS.values())


@pytest.fixture(scope="module")
def logged(tmp_path_factory, server, finished) -> dict[str, Path]:
    """The run `finished` again, told to each logger: name → its folder."""
    folders = {}
    for name, package in TOOLS.items():
        pytest.importorskip(package)
        folder = tmp_path_factory.mktemp(name)
        run(server, folder, "--config", finished.parent / "recipe.yaml", "--logger", name)
        folders[name] = folder / "run"
    return folders


def run(server, folder: Path, *argv, code: int = 0, kill=None) -> Ended:
    ended = server.run(folder, *argv, "--run_dir", folder / "run", kill=kill)
    assert ended.code == code, ended.err
    return ended


def points_of_log(folder: Path) -> Counter:
    """(name, step, value in float32, as TensorBoard keeps it) of every point, with how often it is there."""
    return Counter(
        (name, record["global_epoch"], single(value))
        for record in log_of(folder)
        for name, value in scalars_of(record).items()
    )


def single(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def events_of(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def points_of_tensorboard(folder: Path) -> Counter:
    events = events_of(folder)
    return Counter((tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag))


def records_of_wandb(path: Path):
    """The records in a .wandb file: LevelDB's log format after a header of 7 bytes, a protocol buffer each."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:  # too little for a header: the block ends in zeros
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # FULL, LAST; else FIRST or MIDDLE
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def rows_of_wandb(folder: Path) -> list[dict]:
    import json

    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records_of_wandb(path):
            if record.WhichOneof("record_type") == "history":
                row = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                rows.append({"_step": record.history.step.num, **row})
    return rows


def test_names_of_curves():
    epoch = {"kind": "epoch", "stage": "det", "losses": {"total": 3.0, "lwf.seg": 1.0}, "lr": {"head": 0.1}}
    expected = {"det/loss/total": 3.0, "det/loss/lwf/seg": 1.0, "det/lr/head": 0.1, "det/images_per_second": 7.0}
    assert scalars_of({**epoch, "images_per_second": 7.0}) == expected
    evaluation = {"kind": "evaluation", "stage": "det", "task": "seg", "scores": {"miou": 0.5, "iou/cat": None}}
    assert scalars_of(evaluation) == {"seg/score/miou": 0.5}


@pytest.mark.parametrize("name", list(TOOLS))
def test_a_run_does_not_notice_its_logger(logged, finished, name):
    assert different(last_weights(logged[name]), last_weights(finished)) == set()
    assert (logged[name] / "config.yaml").read_bytes() == (finished / "config.yaml").read_bytes()
    times = dict.fromkeys(("seconds", "images_per_second"))
    assert [r | times for r in log_of(logged[name])] == [r | times for r in log_of(finished)]


def test_tensorboard_holds_what_the_log_holds(logged):
    points = points_of_tensorboard(logged["tensorboard"])
    assert points == points_of_log(logged["tensorboard"])
    names = {name for name, _, _ in points}
    assert {"seg/loss/total", "det/loss/lwf/seg", "det/lr/backbone", "cls/images_per_second", "det/score/ap50"} <= names
    steps = sorted(step for name, step, _ in points if name == "seg/score/miou")
    assert steps == [2, 4, 5]  # the first task's curve goes on through later stages


def test_tensorboard_shows_every_learned_task_after_every_stage(logged):
    events = events_of(logged["tensorboard"])
    shown = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    assert shown == {"seg/predictions": [2, 4, 5], "det/predictions": [4, 5], "cls/predictions": [5]}
    picture = events.Images("seg/predictions")[0]
    assert picture.encoded_image_string.startswith(b"\x89PNG") and picture.width > 2 * 260


def test_tensorboard_holds_the_recipe(logged):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = events_of(logged["tensorboard"])
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert (logged["tensorboard"] / "config.yaml").read_text() in text
    started = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(started).session_start_info.hparams
    assert hparams["seed"].number_value == 0 and hparams["stages.det.epochs"].number_value == EPOCHS["det"]


def test_wandb_offline_holds_what_the_log_holds(logged):
    rows = rows_of_wandb(logged["wandb"])
    assert [row["_step"] for row in rows] == list(range(1, LAST + 1))
    points = Counter(
        (name, row["_step"], single(value))
        for row in rows
        for name, value in row.items()
        if isinstance(value, float | int) and not name.startswith("_") and "/predictions/" not in name
    )
    assert points == points_of_log(logged["wandb"])
    shown = {row["_step"]: {name[:-5] for name in row if name.endswith("predictions/path")} for row in rows}
    assert shown[2] == {"seg/predictions"} and shown[5] == {f"{stage}/predictions" for stage in STAGES}
    media = rows[-1]["cls/predictions/path"]
    assert len(list(logged["wandb"].glob(f"wandb/offline-run-*/files/{media}"))) == 1


def test_wandb_says_where_its_files_lie_and_what_they_are(logged):
    said = (logged["wandb"].parent / "err.txt").read_text()
    assert said.count("\n") == 1 and f"wandb sync {logged['wandb'] / 'wandb'}/offline-run-*" in said
    (path,) = logged["wandb"].glob("wandb/offline-run-*/*.wandb")
    records = list(records_of_wandb(path))
    begun = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert begun.run_id == (logged["wandb"] / "wandb" / "run_id.txt").read_text()
    assert (begun.project, begun.display_name) == ("onehead", "run")
    assert "stages" in {update.key for update in begun.config.update}
    assert records[-1].WhichOneof("record_type") in ("exit", "final", "footer")


# As in test_resume: within an epoch, epoch saved and the stage's end redone, between two stages.
@pytest.mark.parametrize("kill", [("step", 4), ("saved", 3), ("saved", 4), ("step", 7)])
def test_tensorboard_resumed_has_no_point_twice_and_none_missing(tmp_path, server, finished, kill):
    pytest.importorskip("tensorboard")
    run(server, tmp_path, "--config", finished.parent / "recipe.yaml", "--logger=tensorboard", code=-9, kill=kill)
    run(server, tmp_path, "--resume", "--logger=tensorboard")
    assert points_of_tensorboard(tmp_path / "run") == points_of_log(tmp_path / "run")
    events = events_of(tmp_path / "run")
    assert [event.step for event in events.Images("seg/predictions")] == [2, 4, 5]
    assert different(last_weights(tmp_path / "run"), last_weights(finished)) == set()


@pytest.mark.parametrize("kill", [("step", 4), ("saved", 4)])
def test_wandb_resumed_goes_on_under_its_id(tmp_path, server, finished, kill):
    pytest.importorskip("wandb")
    run(server, tmp_path, "--config", finished.parent / "recipe.yaml", "--logger=wandb", code=-9, kill=kill)
    run(server, tmp_path, "--resume", "--logger=wandb")
    sessions = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(sessions) == 2 and len({folder.name.split("-")[-1] for folder in sessions}) == 1
    rows = rows_of_wandb(tmp_path / "run")
    found = {(name, row["_step"], single(v)) for row in rows for name, v in row.items() if isinstance(v, float | int)}
    assert set(points_of_log(tmp_path / "run")) <= found
    assert different(last_weights(tmp_path / "run"), last_weights(finished)) == set()


def test_a_logger_added_on_resume_is_told_all_that_went_before(tmp_path, server, finished):
    pytest.importorskip("tensorboard")
    run(server, tmp_path, "--config", finished.parent / "recipe.yaml", code=-signal.SIGKILL, kill=("step", 7))
    run(server, tmp_path, "--resume", "--logger=tensorboard")
    assert points_of_tensorboard(tmp_path / "run") == points_of_log(tmp_path / "run")


@pytest.mark.parametrize("name", list(TOOLS))
def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys, tiny_data, name):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(tiny_data))
    for loaded in [
        m for m in sys.modules if m.startswith(f"loggers.{name}") or m.startswith("torch.utils.tensorboard")
    ]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, TOOLS[name], None)  # as if it were not there
    assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / "run"), "--logger", name]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.endswith(f"python -m pip install {TOOLS[name]}\n")
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_is_refused(tmp_path, capsys, tiny_data):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(tiny_data))
    assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / "run"), "--logger", "tensorbord"]) == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_hint_after_ctrl_c_names_the_logger(tmp_path, finished):
    recipe = ["--config", str(finished.parent / "recipe.yaml"), "--run_dir", str(finished)]
    assert "--logger tensorboard" in command_line.how_to_go_on(command_line.parse([*recipe, "--logger=tensorboard"]))
    assert "--logger" not in command_line.how_to_go_on(command_line.parse(recipe))


def test_baselines_log_into_their_own_folders(tmp_path, server, finished):
    pytest.importorskip("tensorboard")
    run(server, tmp_path, "--config", finished.parent / "recipe.yaml", "--logger=tensorboard", "--baselines")
    folders = list((tmp_path / "baselines").iterdir())
    assert {folder.name.split("-")[0] for folder in folders} == {"det", "cls"}
    for folder in (tmp_path / "run", *folders):
        assert points_of_tensorboard(folder) == points_of_log(folder) != Counter()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "a" * 40}, "online"),
        ({"WANDB_API_KEY": "a" * 40, "WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "online"}, "no key is configured"),
        ({"WANDB_MODE": "off-line"}, "did you mean 'offline'"),
    ],
)
def test_wandb_mode_waits_neither_for_a_login_nor_for_a_network(tmp_path, given, said):
    pytest.importorskip("wandb")
    environment = {
        name: value for name, value in ENVIRONMENT.items() if not name.startswith("WANDB_") and name != "NETRC"
    }
    code = "import loggers.wandb as w; w.WeightsAndBiases.check(); print(w._mode())"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        environment |= {
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
        }
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=environment | given,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert said in ended.stdout + ended.stderr
        with pytest.raises(BlockingIOError):  # nobody has called: to begin a run must not wait for a network
            server.accept()
    assert not os.listdir(REPOSITORY / "loggers").count("run_id.txt")


def test_none_is_the_default_and_does_nothing(finished):
    assert "none" in registry.names(Logger)
    assert not find("none").takes_pictures
    assert not (finished / "tensorboard").exists() and not (finished / "wandb").exists()
