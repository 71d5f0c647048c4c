"""LwF: its terms and its teacher."""

import copy

import pytest
import torch
from tiny_runs import (
    at_stage,
    begin,
    different,
    first_step,
    last_weights,
    same,
    saved_state,
    tiny_recipe,
    trained,
    weights,
)

from distill.teacher import Teacher
from errors import UserError
from strategies.lwf import Lwf


def lwf_run(tmp_path, tiny_data, rates=None, before=("seg", "det"), statistics="frozen", **options):
    """At the start of the third stage, with a replayed batch of each old task."""
    plain = tiny_recipe(
        tiny_data,
        {"lwf": options, "replay": {"batch_size": 4}},
        {"cls": {"rates": rates or {}}},
        norm={"statistics": statistics},
    )
    return at_stage(begin(plain, tmp_path)[0], "cls", before)


def nudge(run, amount=0.05) -> None:
    """Move the weights that train, as some steps would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in run.model.parameters():
            if parameter.requires_grad:
                parameter.add_(amount * parameter.std(correction=0) * torch.randn_like(parameter))


FEATURES = {"neck": 1.0, "shared1": 0.5, "shared2": 2.0}


def test_lwf_of_an_equal_student_is_0_with_gradient_0(tmp_path, tiny_data):
    run = lwf_run(tmp_path, tiny_data, features=FEATURES)
    terms = run.strategies["lwf"].losses(run, first_step(run))
    assert terms.keys() == {"seg", "det", "neck", "shared1", "shared2"}
    for value in terms.values():
        assert abs(value.item()) < 1e-7
    sum(terms.values()).backward()
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    assert gradients and max(float(g.abs().max()) for g in gradients) < 1e-8

    run.model.zero_grad()
    nudge(run, 0.3)
    terms = run.strategies["lwf"].losses(run, first_step(run))
    assert all(value.item() > 1e-5 for value in terms.values())
    sum(terms.values()).backward()
    assert all(float(p.grad.abs().max()) > 1e-7 for p in run.model.predictors["seg"].parameters())


@pytest.mark.parametrize("seg", [3.0, {"det": 8.0, "cls": 3.0}], ids=str)
def test_lwf_weights_and_temperature_are_those_of_the_recipe(tmp_path, tiny_data, seg):
    """The run is learning cls."""
    run = lwf_run(tmp_path, tiny_data, weights={"seg": seg}, temperature={"seg": 4.0}, features={"neck": 0.5})
    nudge(run)
    step = first_step(run)
    terms = run.strategies["lwf"].losses(run, step)
    maps, raw = run.strategies["lwf"].teacher(step.images, step.maps)
    for task, weight, temperature in (("seg", 3.0, 4.0), ("det", 1.0, 2.0)):
        expected = weight * run.tasks[task].distill_loss(step.raw[task], raw[task], temperature)
        torch.testing.assert_close(terms[task], expected)
    squared = (step.maps["neck"] - maps["neck"]).square().mean() / maps["neck"].square().mean()
    torch.testing.assert_close(terms["neck"], 0.5 * squared)


@pytest.mark.parametrize(
    ("images", "seg_rows", "feature_rows"),
    [("new", {0}, {0}), ("replayed", {1}, {1, 2}), ("both", {0, 1, 2}, {0, 1, 2})],
)
def test_lwf_distils_on_the_images_asked_for(tmp_path, tiny_data, images, seg_rows, feature_rows):
    """By the gradient: batches are 0, the new images, 1, replayed of seg, 2, replayed of det."""
    run = lwf_run(tmp_path, tiny_data, images=images, features={"neck": 1.0})
    nudge(run)
    step = first_step(run)
    assert [batch.task for batch in step.batches] == ["cls", "seg", "det"]
    terms = run.strategies["lwf"].losses(run, step)
    for term, values, expected in (("seg", step.raw["seg"], seg_rows), ("neck", step.maps["neck"], feature_rows)):
        (gradient,) = torch.autograd.grad(terms[term], values, retain_graph=True)
        assert {n for n, rows in enumerate(step.rows) if gradient[rows].abs().sum() > 0} == expected


def test_the_teacher_is_frozen_in_eval_mode_and_never_changes(tmp_path, tiny_data, monkeypatch):
    seen = {}
    drop = Lwf.after_stage

    def watch(self, run, stage):
        if self.teacher is not None:
            seen[stage.name] = copy.deepcopy(self.teacher.model)
        drop(self, run, stage)

    monkeypatch.setattr(Lwf, "after_stage", watch)
    trained(tiny_recipe(tiny_data, norm={"statistics": "running"}), tmp_path)
    assert seen.keys() == {"det", "cls"}
    for name, file in (("det", "stage1_seg.pt"), ("cls", "stage2_det.pt")):
        teacher, before = seen[name], weights(tmp_path / file)
        assert not any(module.training for module in teacher.modules())
        assert not any(p.requires_grad for p in teacher.parameters())
        assert {key for key in different(teacher.state_dict(), before) if key in before} == set()
    assert saved_state(tmp_path)["strategies"]["lwf"] == {"old": [], "teacher": None}


@pytest.mark.parametrize(
    ("frozen", "start"),
    [
        ((), None),
        (("neck", "shared1"), None),
        (("backbone",), "backbone"),
        (("backbone", "shared1"), "backbone"),
        (("backbone", "neck", "shared1", "shared2"), "shared2"),
    ],
)
@pytest.mark.parametrize("statistics", ["frozen", "running"])
def test_the_teachers_shortcut_answers_as_a_full_run(tmp_path, tiny_data, frozen, start, statistics):
    run = lwf_run(tmp_path, tiny_data, rates=dict.fromkeys(frozen, 0.0), statistics=statistics)
    teacher = run.strategies["lwf"].teacher
    assert teacher.start == start
    nudge(run)
    step = first_step(run)
    ran = []
    for name, part in teacher.model.trunk.items():
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
    maps, raw = teacher(step.images, step.maps)
    shared = list(run.model.trunk)[: list(run.model.trunk).index(start) + 1] if start else []
    assert ran == [name for name in run.model.trunk if name not in shared]
    assert all(maps[name] is step.maps[name] for name in shared)
    expected = teacher.model.trunk_maps(step.images)
    for name in run.model.trunk:
        assert same(flat(maps[name]), flat(expected[name]))
    assert all(torch.equal(raw[t], teacher.model.predictors[t](expected["shared2"])) for t in ("seg", "det"))
    assert not any(value.requires_grad for value in raw.values())


def flat(value) -> dict:
    return {str(k): v.detach() for k, v in value.items()} if isinstance(value, dict) else {"": value.detach()}


def test_a_teacher_asked_for_answers_stays_as_it_is(tmp_path, tiny_data):
    run = lwf_run(tmp_path, tiny_data, statistics="running")
    teacher: Teacher = run.strategies["lwf"].teacher
    before = copy.deepcopy(teacher.model.state_dict())
    step = first_step(run)
    teacher(step.images, step.maps)
    assert different(teacher.model.state_dict(), before) == set()


def test_mixed_precision_with_a_shared_frozen_trunk(tmp_path, tiny_data):
    """The student's bfloat16 maps enter the teacher's float32 layers: both must run under autocast."""
    rates = {"backbone": 0.0}
    strategies = {"lwf": {"features": {"shared2": 1.0}}, "replay": {"batch_size": 2}}
    stages = {"seg": {"epochs": 1}, "det": {"epochs": 1, "rates": rates}}
    run = trained(tiny_recipe(tiny_data, strategies, stages, order=["seg", "det"], precision="bfloat16"), tmp_path)
    assert run.learned == ["seg", "det"]
    assert {value.dtype for value in last_weights(tmp_path).values()} <= {torch.float32, torch.int64}


def test_lwf_refuses_statistics_per_stage(tmp_path, tiny_data):
    """Its teacher answers for every old task in one pass, with one set of statistics."""
    with pytest.raises(UserError, match="set norm.statistics to frozen or running"):
        begin(tiny_recipe(tiny_data, {"lwf": {}}, norm={"statistics": "per_stage"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
