"""The training loop: what a run leaves behind, what moves and what may not, schedules, baselines, errors."""

import json
import math
from types import SimpleNamespace

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
from data.loader import steps_per_epoch
from optimisation import make_optimizer, make_scheduler
from recipe import Stage
from recipe_parser import make_recipe, single_task
from results import drop_percent, drop_points, summarise, verdict
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


# What trains, and what may not move


RATES = [{}, {"backbone": 0.1, "shared2": 3}, {"backbone": 0, "neck": 0}, {"seg": 0, "shared1": 0}]


@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("frozen_stride", [0, 8])
def test_every_trainable_parameter_is_in_exactly_one_group(tmp_path, tiny_data, rates, frozen_stride):
    backbone = {"name": "efficientnet_lite0", "pretrained": False, "frozen_stride": frozen_stride}
    plain = tiny_recipe(tiny_data, {}, {"det": {"rates": rates, "lr": 0.02}}, backbone=backbone)
    run = at_stage(begin(plain, tmp_path)[0], "det")
    optimizer = make_optimizer(run)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    trainable = [id(p) for p in run.model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.02 * rates.get(group["name"], 1))
        assert {id(p) for p in group["params"]} <= {id(p) for p in run.model.parts()[group["name"]].parameters()}
    frozen = {name for name, rate in rates.items() if rate == 0}
    assert {group["name"] for group in optimizer.param_groups} == set(run.model.parts()) - frozen
    still = {id(p) for layer in run.model.trunk["backbone"].kept_frozen() for p in layer.parameters()}
    assert bool(still) == (frozen_stride > 0) and not still & set(grouped)


@pytest.mark.parametrize("statistics", ["running", "per_stage"])
def test_a_part_with_rate_0_stays_bit_equal_with_its_buffers(tmp_path, tiny_data, statistics):
    """Against everything that moves weights: decay, replay, distillation, averaging, norm statistics."""
    rates = {"backbone": 0, "shared1": 0, "seg": 0}
    stages = {"seg": {"epochs": 1}, "det": {"rates": rates, "weight_decay": 0.5, "clip_norm": 1.0}}
    strategies = {name: ALL[name] for name in ALL if statistics == "running" or name != "lwf"}
    plain = tiny_recipe(tiny_data, strategies, stages, order=["seg", "det"], norm={"statistics": statistics})
    trained(plain, tmp_path)
    before, after = weights(tmp_path / "stage1_seg.pt"), last_weights(tmp_path)
    parts = {"backbone": "trunk.backbone.", "shared1": "trunk.shared1.", "seg": "predictors.seg."}
    moved = different(before, after) & before.keys()
    assert moved  # the neck's
    for name in moved:
        assert not name.startswith(tuple(parts.values()))


def test_gradients_are_clipped_to_their_joint_norm(tmp_path, tiny_data, monkeypatch):
    run = at_stage(begin(tiny_recipe(tiny_data, {}, {"seg": {"clip_norm": 0.25}}), tmp_path)[0], "seg", before=())
    optimizer = make_optimizer(run)
    norms = []

    def measure(*_, **__):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in gradients if g is not None]).norm()))

    monkeypatch.setattr(optimizer, "step", measure)
    train.train_step(run, first_batch(run), optimizer)
    assert norms == [pytest.approx(0.25, rel=1e-3)]


def test_gradients_of_the_stage_before_do_not_count_in_clipping(tmp_path, tiny_data):
    run = at_stage(
        begin(tiny_recipe(tiny_data, {}, {"det": {"rates": {"backbone": 0}}}), tmp_path)[0], "seg", before=()
    )
    train.train_step(run, first_batch(run), make_optimizer(run))
    run.learned.append("seg")
    train.enter_stage(run, run.recipe.stages["det"])
    train.prepare_model(run)
    assert all(p.grad is None for p in run.model.parameters())


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


# Schedules, against closed form


def rates_over(stage: Stage, steps: int) -> dict[str, list[float]]:
    """The rate of two groups at each step."""
    model = SimpleNamespace(parts=lambda: {name: torch.nn.Linear(1, 1) for name in ("a", "b")})
    optimizer = make_optimizer(SimpleNamespace(stage=stage, model=model))
    scheduler = make_scheduler(optimizer, stage, steps)
    rates = {"a": [], "b": []}
    for _ in range(steps):
        for group in optimizer.param_groups:
            rates[group["name"]].append(group["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def cosine(step: float, steps: float) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2


CLOSED_FORMS = {
    "constant": ({"schedule": "constant", "warmup": 0.0}, lambda n: 1.0),
    "cosine": ({"schedule": "cosine", "warmup": 0.0}, lambda n: cosine(n, 20)),
    "one_cycle": ({"schedule": "one_cycle", "warmup": 0.2}, lambda n: (n + 1) / 5 if n < 4 else cosine(n - 4, 16)),
}


@pytest.mark.parametrize(("options", "expected"), CLOSED_FORMS.values(), ids=list(CLOSED_FORMS))
def test_schedules_against_closed_form(options, expected):
    rates = rates_over(Stage(name="s", epochs=1, lr=0.5, rates={"b": 0.1}, **options), steps=20)
    assert rates["a"] == pytest.approx([0.5 * expected(n) for n in range(20)])
    assert rates["b"] == pytest.approx([0.05 * expected(n) for n in range(20)])  # each group keeps its factor


def test_cosine_has_no_warm_up_and_one_cycle_has():
    stage = Stage(name="s", epochs=1, lr=1.0)
    assert stage.schedule == "one_cycle"
    first = rates_over(stage, 100)["a"]
    assert first[0] == pytest.approx(1 / 11) and max(first) == first[10] == 1.0 and first[-1] < 0.001


def test_plateau_waits_for_the_score_and_keeps_the_factors(tmp_path, tiny_data, monkeypatch):
    """Scripted scores: better, worse, worse (patience 1 is over: halved), better, worse, worse (halved again)."""
    script = iter([0.1, 0.05, 0.06, 0.2, 0.1, 0.1, 0.1])
    monkeypatch.setattr(train, "evaluate", lambda *_: {"miou": next(script)})
    options = {"schedule": "plateau", "patience": 1, "factor": 0.5, "epochs": 6, "lr": 0.01, "rates": {"neck": 0.1}}
    trained(tiny_recipe(tiny_data, {}, {"seg": options}, order=["seg"]), tmp_path)
    epochs = [record["lr"] for record in log_of(tmp_path) if record["kind"] == "epoch"]
    assert [rate["backbone"] for rate in epochs] == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.005])
    assert [rate["neck"] for rate in epochs] == pytest.approx([0.001, 0.001, 0.001, 0.0005, 0.0005, 0.0005])
    assert progress.read(tmp_path)["learned"] == ["seg"]


def test_a_plateau_without_a_score_is_an_error(tmp_path, tiny_data, monkeypatch, capsys):
    monkeypatch.setattr(train, "evaluate", lambda *_: {"miou": None})
    recipe = write_recipe(
        tmp_path / "r.yaml", tiny_recipe(tiny_data, {}, {"seg": {"schedule": "plateau"}}, order=["seg"])
    )
    assert train.main(["--config", str(recipe), "--run_dir", str(tmp_path / "run")]) == 2
    assert "watches miou, undefined on" in capsys.readouterr().err


def test_steps_of_a_schedule_are_the_steps_that_are_taken(tmp_path, tiny_data):
    for batch_size in (1, 3, 4, 7, 8, 20):
        run = begin(tiny_recipe(tiny_data, {}, {"seg": {"batch_size": batch_size}}), tmp_path / str(batch_size))[0]
        stage, split = run.recipe.stages["seg"], run.splits["seg"]
        taken = sum(1 for _ in split.epoch("seg", batch_size, 64, stage.augment, "key"))
        assert taken == steps_per_epoch(len(split), batch_size)


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


def test_score_matrix_measures_by_hand():
    """Three tasks; after the last stage the first has lost 0.1 of 0.5, the second gained."""
    metrics = {"a": "m", "b": "m", "c": "m"}
    scores = [
        {"a": {"m": 0.5}},
        {"a": {"m": 0.6}, "b": {"m": 0.4}},
        {"a": {"m": 0.4}, "b": {"m": 0.5}, "c": {"m": 0.9}},
    ]
    measured = summarise(["a", "b", "c"], metrics, scores, {"a": 0.8, "b": 0.5})
    assert measured["matrix"] == [[0.5, None, None], [0.6, 0.4, None], [0.4, 0.5, 0.9]]
    assert measured["final"] == {"a": 0.4, "b": 0.5, "c": 0.9}
    assert measured["baseline"] == {"single": {"a": 0.8, "b": 0.5, "c": None}, "stage": {"a": 0.5, "b": 0.4, "c": 0.9}}
    assert measured["drop_percent"]["single"] == {"a": pytest.approx(50), "b": 0, "c": None}
    assert measured["drop_percent"]["stage"] == {"a": pytest.approx(20), "b": pytest.approx(-25), "c": 0}
    assert measured["drop_points"]["stage"] == {"a": pytest.approx(10), "b": pytest.approx(-10), "c": 0}
    assert measured["bwt"] == pytest.approx((-0.1 + 0.1) / 2)
    assert measured["acc"] == pytest.approx(0.6)
    assert measured["forgetting"] == {"a": pytest.approx(0.2), "b": pytest.approx(-0.1), "c": None}
    assert measured["intransigence"] == {"a": pytest.approx(30), "b": pytest.approx(10), "c": None}


def test_measures_while_a_run_is_under_way_and_where_scores_are_undefined():
    metrics = {"a": "m", "b": "m", "c": "m"}
    measured = summarise(["a", "b", "c"], metrics, [{"a": {"m": 0.5}}, {"a": {"m": 0.25}, "b": {"m": None}}], {})
    assert measured["matrix"] == [[0.5, None, None], [0.25, None, None]]
    assert measured["bwt"] is None and measured["acc"] is None
    assert measured["forgetting"] == {"a": 0.25, "b": None, "c": None}
    assert measured["drop_percent"]["stage"] == {"a": 50, "b": None, "c": None}
    done = summarise(["a", "b"], metrics, [{"a": {"m": 0.5}}, {"a": {"m": None}, "b": {"m": 0.5}}], {})
    assert done["bwt"] is None and done["acc"] == 0.5
    empty = summarise(["a", "b"], metrics, [], {})
    assert empty["matrix"] == [] and empty["final"] == {"a": None, "b": None} and empty["acc"] is None
    alone = summarise(["a"], metrics, [{"a": {"m": 0.5}}], {"a": 0.5})
    assert alone["bwt"] is None and alone["acc"] == 0.5 and alone["forgetting"] == {"a": None}


@pytest.mark.parametrize(
    ("baseline", "final", "percent", "points", "judged"),
    [
        (0.5, 0.475, 5.0, 2.5, "pass"),
        (0.5, 0.47, 6.0, 3.0, "FAIL"),
        (0.5, 0.6, -20.0, -10.0, "pass"),
        (0.02, 0.0, 100.0, 2.0, "no verdict: baseline below 0.05"),
        (0.0, 0.1, None, -10.0, "no baseline"),
        (None, 0.1, None, None, "no baseline"),
        (0.5, None, None, None, "no baseline"),
    ],
)
def test_drops_and_verdicts_by_hand(baseline, final, percent, points, judged):
    assert drop_percent(baseline, final) == (None if percent is None else pytest.approx(percent))
    assert drop_points(baseline, final) == (None if points is None else pytest.approx(points))
    assert verdict(baseline, final) == judged


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
