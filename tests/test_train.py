"""The training loop: what a run leaves behind, baselines, errors."""

import json
import math

import pytest
import torch
import yaml
from tiny_runs import (
    ALL,
    EPOCHS,
    at_stage,
    begin,
    different,
    first_batch,
    last_weights,
    log_of,
    tiny_recipe,
    trained,
    weights,
    write_recipe,
)

import command_line
import progress
import report
import train
from optimisation import make_optimizer
from recipe_parser import make_recipe, single_task
from results import drop_percent
from tasks.segmentation import Segmentation

STAGES = ["seg", "det", "cls"]
METRIC = {"seg": "miou", "det": "ap50", "cls": "top1"}


# What a run leaves behind (the contract that plot_log.py, eval.py and people read)


def test_files_of_a_run(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("config.yaml", "env.json", "log.jsonl", "results.json", "figures", "report.html"),
        *("stage1_seg.pt", "stage2_det.pt", "final.pt", "last.pt"),
    }
    environment = json.loads((finished / "env.json").read_text())
    assert {"packages", "git", "command", "threads", "processor"} <= environment.keys()
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert {p.name for p in (finished / "figures").glob("*.png")} >= {"curves.png", "matrix.png", "predictions_seg.png"}


def test_the_resolved_recipe_is_written_and_means_the_same(finished):
    resolved = yaml.safe_load((finished / "config.yaml").read_text())
    given = make_recipe(yaml.safe_load((finished.parent / "recipe.yaml").read_text()))[0]
    assert resolved == given.resolved
    assert make_recipe(resolved)[0] == given
    assert resolved["stages"]["det"]["task"]["radius"] == 1.5  # a default, spelt out


def test_epoch_records(finished):
    epochs = [record for record in log_of(finished) if record["kind"] == "epoch"]
    places = [(name, n + 1) for name in STAGES for n in range(EPOCHS[name])]
    assert [(record["stage"], record["epoch"]) for record in epochs] == places
    assert [record["global_epoch"] for record in epochs] == list(range(1, len(places) + 1))
    for record in epochs:
        stage = record["stage"]
        assert record["stage_index"] == STAGES.index(stage) and record["epochs"] == EPOCHS[stage]
        assert record["seconds"] > 0 and record["images_per_second"] > 0
        losses = record["losses"]
        assert math.isclose(losses["total"], sum(v for k, v in losses.items() if k != "total"), rel_tol=1e-5)
        old = STAGES[: STAGES.index(stage)]
        assert {name.split(".")[0] for name in losses} - {"total"} == {stage, *(("lwf", "replay") if old else ())}
        assert {name for name in losses if name.startswith("lwf.")} == {f"lwf.{task}" for task in old}
        assert {name.split(".")[1] for name in losses if name.startswith("replay.")} == set(old)
        assert record["lr"].keys() == {"backbone", "neck", "shared1", "shared2", *old, stage}


def test_evaluation_records_are_the_score_matrix(finished):
    results = json.loads((finished / "results.json").read_text())
    evaluations = [record for record in log_of(finished) if record["kind"] == "evaluation"]
    assert [(r["stage"], r["task"]) for r in evaluations] == [
        (s, t) for n, s in enumerate(STAGES) for t in STAGES[: n + 1]
    ]
    for record in evaluations:
        assert record["metric"] == METRIC[record["task"]]
        assert record["epoch"] == EPOCHS[record["stage"]]
        assert all(value is None or 0 <= value <= 1 for value in record["scores"].values())
        row, column = STAGES.index(record["stage"]), STAGES.index(record["task"])
        assert results["matrix"][row][column] == record["scores"][record["metric"]]
        assert results["scores"][row][record["task"]] == record["scores"]
    assert [[value is None for value in row] for row in results["matrix"]] == [
        [n > s for n in range(3)] for s in range(3)
    ]


def test_results(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["tasks"] == STAGES and results["metrics"] == METRIC
    assert results["final"] == dict(zip(STAGES, results["matrix"][2], strict=True))
    assert results["baseline"]["stage"] == {name: results["matrix"][n][n] for n, name in enumerate(STAGES)}
    assert results["baseline"]["single"] == dict.fromkeys(STAGES)
    content = torch.load(finished / "final.pt", weights_only=True)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(v.numel() for name, v in content["model"].items() if not name.endswith(buffers))
    assert results["parameters"] == parameters
    assert results["replay"]["ids"] == content["memory"] and results["replay"]["per_task"] == 3
    assert all(len(ids) == 3 for ids in content["memory"].values())
    assert results["replay"]["bytes"] == 1_000_000 or 9 * 1000 < results["replay"]["bytes"] < 9 * 60_000
    assert results["seconds"].keys() == set(STAGES) and min(results["seconds"].values()) > 0
    peaks = [results["memory"][stage] for stage in STAGES]  # of a process: it never falls
    assert 100 << 20 < peaks[0] <= peaks[1] <= peaks[2] < 64 << 30


def test_checkpoints_hold_what_was_learned_until_then(finished):
    for file, tasks in (("stage1_seg.pt", 1), ("stage2_det.pt", 2), ("final.pt", 3)):
        content = torch.load(finished / file, weights_only=True)
        assert list(content["classes"]) == STAGES[:tasks]
        assert list(content["memory"]) == STAGES[:tasks]
    assert content["classes"]["seg"][0] == "background" and len(content["classes"]["seg"]) == 7


def test_the_seed_decides(tmp_path, tiny_data):
    ends = {}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        trained(tiny_recipe(tiny_data, ALL, {"seg": {"epochs": 1}}, order=["seg"], seed=seed), tmp_path / name)
        ends[name] = last_weights(tmp_path / name)
        torch.manual_seed(99)  # nothing may hang on the state that the program happens to be in
    assert different(ends["one"], ends["again"]) == set()
    assert different(ends["one"], ends["other"])


def test_one_forward_for_new_and_replayed_images(tmp_path, tiny_data):
    run = at_stage(
        begin(tiny_recipe(tiny_data, {"replay": {"batch_size": 4}}), tmp_path)[0], "cls", before=("seg", "det")
    )
    calls = []
    run.model.trunk["backbone"].register_forward_hook(lambda module, images, maps: calls.append(len(images[0])))
    terms = train.train_step(run, first_batch(run), make_optimizer(run))
    assert calls == [8]
    assert {"total", "cls.cross_entropy", "replay.seg.cross_entropy", "replay.det.box"} <= terms.keys()
    assert not any(value.requires_grad for value in terms.values())


# Baselines


def test_the_first_stage_is_its_own_single_task_run_bit_for_bit(tmp_path, server, finished):
    recipe = make_recipe(yaml.safe_load((finished / "config.yaml").read_text()))[0]
    alone = write_recipe(tmp_path / "alone.yaml", single_task(recipe, "seg").resolved)
    ended = server.run(tmp_path, "--config", alone, "--run_dir", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert different(last_weights(tmp_path / "run"), weights(finished / "stage1_seg.pt")) == set()


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(command_line, "draw", lambda run: None)
    monkeypatch.setattr(report, "report_run", lambda run: None)


def test_baselines_are_trained_once_and_reused(tmp_path, tiny_data, monkeypatch, capsys, no_figures):
    trainings = []
    epoch_of = train.train_epoch
    monkeypatch.setattr(
        train, "train_epoch", lambda run, *rest: trainings.append(run.folder.name) or epoch_of(run, *rest)
    )
    stages = {name: {"epochs": 1} for name in STAGES}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(tiny_data, {"ema": {}}, stages, order=["seg", "cls"]))

    def results_of(name: str, *flags) -> dict:
        trainings.clear()
        assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / "runs" / name), *flags]) == 0
        return json.loads((tmp_path / "runs" / name / "results.json").read_text())

    first = results_of("one", "--baselines")
    (folder,) = (tmp_path / "runs" / "baselines").iterdir()
    assert trainings == ["one", "one", folder.name] and folder.name.startswith("cls-")
    alone = json.loads((folder / "results.json").read_text())
    assert first["baseline"]["single"] == {"seg": first["matrix"][0][0], "cls": alone["matrix"][0][0]}
    assert first["drop_percent"]["single"]["seg"] == drop_percent(first["matrix"][0][0], first["matrix"][1][0])
    assert list(torch.load(folder / "final.pt", weights_only=True)["classes"]) == ["cls"]

    assert "baseline: cls alone" in capsys.readouterr().err
    second = results_of("two", "--baselines")
    assert trainings == ["two", "two"]
    assert second["baseline"] == first["baseline"]
    assert "baseline:" not in capsys.readouterr().err

    assert results_of("one", "--resume")["baseline"] == first["baseline"]  # not lost by a resume without the flag
    assert trainings == []
    results_of("three", "--baselines", "--stages.cls.lr=0.01")  # another recipe for cls: another baseline
    assert len(trainings) == 3
    results_of("four", "--baselines", "--stages.seg.weight_decay=0.5")  # of the first stage only the rates count
    assert trainings == ["four", "four"]


# Measures, by hand


# Errors while training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_epoch_before(
    tmp_path, tiny_data, monkeypatch, capsys, value
):
    steps = []
    losses = Segmentation.losses

    def break_in_second_epoch(self, *args):
        steps.append(1)
        terms = losses(self, *args)
        return {**terms, "broken": terms["cross_entropy"] * value} if len(steps) == 4 else terms

    monkeypatch.setattr(Segmentation, "losses", break_in_second_epoch)
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_recipe(tiny_data, order=["seg"]))
    assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: stage seg, step 3: the loss is not finite (") and "Traceback" not in err
    assert f"seg.broken {value:.4g}" in err and "stages.seg.lr" in err
    state = progress.read(tmp_path / "run")
    assert state["epoch"] == 1
    assert all(v.isfinite().all() for v in state["model"].values())
    assert not list((tmp_path / "run").glob("*.part"))
