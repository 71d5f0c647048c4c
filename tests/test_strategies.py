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
    same,
    tiny_recipe,
    trained,
    weights,
)
from torch import nn

import registry
import train
from errors import UserError
from strategies import Strategy
from strategies.ema import Ema

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
    "ema that keeps nothing": {"strategies": {"ema": {"decay": 0.0}}},
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
        ({"lwf": {"features": {"backbone": 1.0}}}, "lwf.features has 'backbone'"),
        ({"lwf": {"images": "knew"}}, "did you mean 'new'"),
        ({"lwf": {"images": "replayed"}}, "images is replayed, but no image is"),
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
