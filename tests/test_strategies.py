"""Strategies: their contract, their limits (a weight of 0 is fine-tuning, bit for bit) and their oracles."""

import copy
import inspect
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import (
    ALL,
    at_stage,
    begin,
    different,
    first_step,
    last_weights,
    saved_state,
    tiny_recipe,
    trained,
    weights,
)
from torch import nn

import registry
import train
from distill.teacher import Teacher
from errors import UserError
from strategies import Strategy
from strategies.ema import Ema
from strategies.lwf import Lwf

HOOKS = [name for name in vars(Strategy) if not name.startswith("_")]
TWO = {"order": ["seg", "det"], "stages": {"seg": {"epochs": 1}, "det": {"epochs": 1}}}


@pytest.mark.parametrize("name", registry.names(Strategy))
def test_hooks_are_the_contracts_own(name):
    found = registry.load(Strategy, name)[0]
    assert found.__doc__
    own = [key for key in vars(found) if not key.startswith("_") and inspect.isfunction(vars(found)[key])]
    assert set(own) <= set(HOOKS), "a hook that nothing calls"
    for hook in own:
        expected = list(inspect.signature(getattr(Strategy, hook)).parameters)
        assert list(inspect.signature(getattr(found, hook)).parameters) == expected
    options = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    assert all(
        p.kind is inspect.Parameter.KEYWORD_ONLY and p.annotation is not inspect.Parameter.empty for p in options
    )


@pytest.mark.parametrize("name", registry.names(Strategy))
def test_hooks_return_and_touch_nothing_else(tmp_path, tiny_data, name):
    """Up to the optimiser's step a strategy changes neither weights, buffers, gradients nor the random state."""
    run = at_stage(begin(tiny_recipe(tiny_data, {"replay": {"batch_size": 2}, name: {}}), tmp_path)[0], "det")
    strategy = run.strategies[name]
    before, random_state = copy.deepcopy(run.model.state_dict()), torch.get_rng_state()
    strategy.before_stage(run, run.stage)
    batches = strategy.batches(run)
    assert all(batch.origin == name for batch in batches)
    assert different(run.model.state_dict(), before) == set()
    step = first_step(run)
    before = copy.deepcopy(run.model.state_dict())
    terms = strategy.losses(run, step)
    assert all(value.dim() == 0 and value.requires_grad and value.isfinite() for value in terms.values())
    assert different(run.model.state_dict(), before) == set()
    assert all(p.grad is None for p in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", registry.names(Strategy))
def test_state_survives_a_file(tmp_path, tiny_data, name):
    plain = tiny_recipe(tiny_data, {name: {}}, {"seg": {"epochs": 1}}, order=["seg", "det"])
    run = at_stage(begin(plain, tmp_path / "one")[0], "det")
    optimizer = train.make_optimizer(run)
    train.train_epoch(run, 0, optimizer, train.make_scheduler(optimizer, run.stage, 2), SilentBar())
    torch.save(run.strategies[name].state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = at_stage(begin(plain, tmp_path / "other")[0], "det")
    other.strategies[name].load_state_dict(saved, other)
    assert same(other.strategies[name].state_dict(), saved)
    assert same(run.strategies[name].state_dict(), saved)


class SilentBar:
    def update(self, steps):
        pass

    def set_description(self, text):
        pass


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory, tiny_data):
    """Final weights of two stages without any strategy."""
    folder = tmp_path_factory.mktemp("finetuned")
    trained(tiny_recipe(tiny_data, {}, TWO["stages"], order=TWO["order"]), folder)
    return last_weights(folder)


NO_OPS = {
    "finetune": {"strategies": {"finetune": {}}},
    "lwf, weight 0": {"strategies": {"lwf": {"weights": {"seg": 0.0}, "features": {"neck": 0.0}}}},
    "lwf, weight 0 in this stage": {"strategies": {"lwf": {"weights": {"seg": {"det": 0.0}}}}},
    "lwf on replayed images, none replayed": {"strategies": {"lwf": {"images": "replayed"}}},
    "ema that keeps nothing": {"strategies": {"ema": {"decay": 0.0}}},
    "replay of an empty memory": {"strategies": {"replay": {}}, "memory_per_task": 0},
}


@pytest.mark.parametrize("changes", NO_OPS.values(), ids=list(NO_OPS))
def test_no_op_settings_are_finetuning_bit_for_bit(tmp_path, tiny_data, finetuned, changes):
    trained(tiny_recipe(tiny_data, stages=TWO["stages"], order=TWO["order"], **changes), tmp_path)
    assert different(last_weights(tmp_path), finetuned) == set()


def test_replay_weight_0_is_replay_without_labels(tmp_path, tiny_data, finetuned):
    """Images still feed distillation, but nothing of the old predictor moves, not even through weight decay."""
    for name, options in (("zero", {"weights": {"seg": 0.0}}), ("unlabelled", {"labels": False})):
        strategies = {"replay": {"batch_size": 2, **options}}
        trained(tiny_recipe(tiny_data, strategies, TWO["stages"], order=TWO["order"]), tmp_path / name)
    zero = last_weights(tmp_path / "zero")
    assert different(zero, last_weights(tmp_path / "unlabelled")) == set()
    before = weights(tmp_path / "zero" / "stage1_seg.pt")
    assert not {name for name in different(zero, before) & before.keys() if name.startswith("predictors.seg")}


def test_strategies_do_change_something(tmp_path, tiny_data, finetuned):
    """Else the tests above would pass with hooks that nobody calls."""
    for name in ("lwf", "replay", "ema"):
        trained(tiny_recipe(tiny_data, {name: {}}, TWO["stages"], order=TWO["order"]), tmp_path / name)
        assert different(last_weights(tmp_path / name), finetuned)


def test_order_in_the_recipe_does_not_matter_where_terms_are_not_added(tmp_path, tiny_data):
    ends = []
    for order in (["lwf", "replay", "ema"], ["ema", "finetune", "lwf", "replay"]):
        strategies = {name: ALL.get(name, {}) for name in order}
        trained(tiny_recipe(tiny_data, strategies, TWO["stages"], order=TWO["order"]), tmp_path / order[0])
        ends.append(last_weights(tmp_path / order[0]))
    assert different(*ends) == set()


def test_order_of_added_terms_matters_by_rounding_only(tmp_path, tiny_data):
    found = []
    for order in (["lwf", "replay"], ["replay", "lwf"]):
        strategies = {name: ALL[name] for name in order}
        run = at_stage(begin(tiny_recipe(tiny_data, strategies), tmp_path / order[0])[0], "cls", before=("seg", "det"))
        step = first_step(run)
        terms = {f"{n}.{k}": v for n, s in run.strategies.items() for k, v in s.losses(run, step).items()}
        sum(terms.values()).backward()
        found.append((terms, {n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}))
    (terms, gradients), (other_terms, other_gradients) = found
    assert same({k: v.detach() for k, v in terms.items()}, {k: v.detach() for k, v in other_terms.items()})
    assert gradients.keys() == other_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], rtol=1e-3, atol=1e-5)


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


FEATURES = {"backbone": 0.0, "neck": 1.0, "shared1": 0.5, "shared2": 2.0}


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


@pytest.mark.parametrize(
    ("strategies", "words"),
    [
        ({"lwf": {"weights": {"sge": 1}}}, "'sge'; did you mean 'seg'"),
        ({"lwf": {"weights": {"seg": {"dett": 1.0}}}}, "lwf.weights.seg has 'dett'; did you mean 'det'"),
        ({"lwf": {"weights": {"seg": {"det": -1.0}}}}, "lwf.weights.seg.det is -1.0, expected 0 or more"),
        ({"lwf": {"weights": {"seg": -1.0}}}, "-1.0, expected 0 or more"),
        ({"lwf": {"temperature": 0.0}}, "expected more than 0"),
        ({"lwf": {"temperature": {"seg": 2.0, "dett": 1.0}}}, "did you mean 'det'"),
        ({"lwf": {"features": {"shared7": 1.0}}}, "did you mean 'shared"),
        ({"lwf": {"images": "knew"}}, "did you mean 'new'"),
        ({"replay": {"weights": {"clss": 1}}}, "did you mean 'cls'"),
        ({"replay": {"batch_size": 0}}, "expected at least 1"),
        ({"replay": {"selection": "hearding"}}, "did you mean 'herding'"),
        ({"ema": {"decay": 1.0}}, "expected 0 <= decay < 1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, tiny_data, strategies, words):
    with pytest.raises(UserError, match=words):
        begin(tiny_recipe(tiny_data, strategies), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lwf_refuses_statistics_per_stage(tmp_path, tiny_data):
    """Its teacher answers for every old task in one pass, with one set of statistics."""
    with pytest.raises(UserError, match="set norm.statistics to frozen or running"):
        begin(tiny_recipe(tiny_data, {"lwf": {}}, norm={"statistics": "per_stage"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ema_against_closed_form():
    """average = Σ_i w_i θ_i with w_i = (1 - d_i) Π_{j > i} d_j, θ_0 the stage's start, and d warming up."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    run = SimpleNamespace(model=model)
    ema = Ema(decay=0.3)
    steps = 6
    torch.manual_seed(0)
    path = [copy.deepcopy(model.state_dict())]
    ema.before_stage(run, None)
    for _ in range(steps):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(torch.randn_like(value) if value.is_floating_point() else value + 1)
        path.append(copy.deepcopy(model.state_dict()))
        ema.after_step(run, None)
    assert different(model.state_dict(), path[-1]) == set()  # only the end of training moves the model
    ema.end_training(run, None)

    decays = [min(0.3, (1 + n) / (10 + n)) for n in range(1, steps + 1)]
    assert decays[0] == 2 / 11 and decays[-1] == 0.3  # the warm-up, and its end, are in the test
    shares = [1.0]
    for decay in decays:
        shares = [share * decay for share in shares] + [1 - decay]
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            expected = sum(share * state[name].double() for share, state in zip(shares, path, strict=True))
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, path[-1][name])


def test_ema_starts_anew_in_each_stage():
    run = SimpleNamespace(model=nn.Linear(1, 1, bias=False))
    ema = Ema(decay=0.9)
    for start in (1.0, 5.0):
        nn.init.constant_(run.model.weight, start)
        ema.before_stage(run, None)
        nn.init.constant_(run.model.weight, start + 1)
        ema.after_step(run, None)
        ema.end_training(run, None)
        torch.testing.assert_close(run.model.weight.item(), start + 9 / 11)
