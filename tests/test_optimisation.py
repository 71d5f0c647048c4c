"""What trains and what may not move, and by which schedule."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import (
    ALL,
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

import progress
import train
from data.loader import steps_per_epoch
from optimisation import make_optimizer, make_scheduler
from recipe import Stage

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
