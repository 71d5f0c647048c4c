"""The model: its parts, outputs by task, what freezing and the norm policies promise, size of the original architecture."""

import random

import numpy as np
import pytest
import torch
from samples import CLASSES
from small_model import TASKS, changed, small_model, stage_run, state_of, used_norms

from distill.teacher import Teacher
from evaluation import evaluating, predict
from models import build, norm_maker
from optimisation import make_optimizer
from recipe import Head
from tasks import Task
from train import prepare_model

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
TRUNK = ("backbone", "neck", "shared1", "shared2")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def train_steps(run, images: torch.Tensor, count: int = 3) -> None:
    """AdamW steps with the training loop's own preparation; the loss reaches the whole trunk and every predictor."""
    prepare_model(run)
    optimizer = make_optimizer(run)
    run.model.train()
    for _ in range(count):
        shared = run.model.shared_map(run.model.trunk_maps(images))
        optimizer.zero_grad(set_to_none=True)
        sum(predictor(shared).square().mean() for predictor in run.model.predictors.values()).backward()
        optimizer.step()


def moved_statistics(model, before) -> set[str]:
    """Parts of the model whose norm statistics are not what they were."""
    return {
        name
        for name, part in model.parts().items()
        if any(key.endswith(STATISTICS) for key in changed(part, before[name]))
    }


def test_parts_are_the_trunk_in_order_then_the_predictors_and_hold_every_parameter_once():
    model = small_model(head=Head(3, 16))
    assert list(model.parts()) == ["backbone", "neck", "shared1", "shared2", "shared3", "seg", "det", "cls"]
    held = [id(p) for part in model.parts().values() for p in part.parameters()]
    assert sorted(held) == sorted({id(p) for p in model.parameters()})


def test_outputs_are_one_dict_by_task_and_a_task_alone_gives_the_same(images):
    model = small_model().eval()
    raw = model(images)
    assert list(raw) == ["seg", "det", "cls"]
    assert raw["seg"].shape == (4, len(CLASSES), 8, 12)
    assert raw["det"].shape == (4, 4 + 1 + len(CLASSES), 8, 12)
    assert raw["cls"].shape == (4, len(CLASSES))
    for task in TASKS:
        assert torch.equal(model(images, [task])[task], raw[task])


def test_the_trunk_goes_on_from_any_part_as_if_it_had_run_through(images):
    model = small_model().eval()
    maps = model.trunk_maps(images)
    assert tuple(maps) == TRUNK
    assert model.shared_map(maps) is maps["shared2"]
    for start in ("backbone", "neck", "shared1"):
        rest = model.trunk_maps(images, start, maps[start])
        assert tuple(rest) == TRUNK[TRUNK.index(start) + 1 :]
        assert torch.equal(rest["shared2"], maps["shared2"])


def test_images_are_brought_into_the_backbones_range_whether_bytes_or_floats():
    model = small_model()
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    expected = torch.tensor([-127 / 128, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)  # Lite: (value - 127) / 128
    torch.testing.assert_close(model.normalise(ends), expected)
    torch.testing.assert_close(model.normalise(ends / 255.0), expected)


def test_the_original_architecture_has_7_7_million_parameters():
    classes = {"seg": ("segmentation", 21), "det": ("detection_grid", 10), "cls": ("classification", 10)}
    tasks = {name: build(Task, {"name": task}, list(map(str, range(n)))) for name, (task, n) in classes.items()}
    backbone = {"name": "efficientnet_b0", "pretrained": False}
    model = small_model(tasks, backbone=backbone, neck={"name": "concat"}, head=Head(3, 256))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()}
    assert count["backbone"] == 4_007_548  # EfficientNet-B0 without its classifier
    assert count["neck"] == (112 + 1280) * 512 + 512 * 256 * 9 + 2 * (512 + 256)
    assert count["shared1"] == count["shared2"] == count["shared3"] == 256 * 256 * 9 + 2 * 256
    assert count["seg"] == 256 * 21 + 21
    assert count["det"] == 256 * 128 + 2 * 128 + 128 * 15 + 15
    assert count["cls"] == 256 * 10 + 10
    assert sum(count.values()) == 7_715_370


@pytest.mark.parametrize("frozen", [(), ("backbone",), ("backbone", "neck", "shared1"), ("shared2", "seg")])
def test_a_frozen_part_stays_bit_equal_and_every_other_part_moves(images, frozen):
    model = small_model()
    before = {name: state_of(part) for name, part in model.parts().items()}
    train_steps(stage_run(model, dict.fromkeys(frozen, 0.0)), images)
    assert {name for name, part in model.parts().items() if not changed(part, before[name])} == set(frozen)
    assert moved_statistics(model, before) == {*TRUNK, "det"} - set(frozen)  # det has a norm layer of its own
    assert all(p.grad is None for name in frozen for p in model.parts()[name].parameters())


def test_layers_that_the_backbone_never_trains_stay_bit_equal_though_its_rate_is_not_0(images):
    model = small_model(backbone={"name": "efficientnet_lite0", "pretrained": False, "frozen_stride": 4})
    net = model.trunk["backbone"].net
    kept = torch.nn.ModuleList([net._conv_stem, net._bn0, *net._blocks[:3]])
    first = net._blocks[3]  # of stride 8
    before, later = state_of(kept), state_of(first)
    train_steps(stage_run(model, {}), images)
    assert not changed(kept, before)
    assert {name.rpartition(".")[2] for name in changed(first, later)} >= {"weight", "running_mean"}


def test_a_rate_may_name_the_predictor_of_a_later_stage(images):
    model = small_model({"seg": "segmentation"})
    train_steps(stage_run(model, {"det": 0.0}), images, 1)


def test_a_part_freed_again_trains_again(images):
    model = small_model()
    train_steps(stage_run(model, {"neck": 0.0}), images, 1)
    before = state_of(model.trunk["neck"])
    train_steps(stage_run(model, {}), images, 1)
    assert {name.rpartition(".")[2] for name in changed(model.trunk["neck"], before)} >= {"weight", "running_mean"}


def test_every_trainable_parameter_is_in_one_group_at_its_parts_rate():
    model = small_model()
    run = stage_run(model, {"backbone": 0.1, "neck": 0.0, "seg": 0.2})
    prepare_model(run)
    groups = {group["name"]: group for group in make_optimizer(run).param_groups}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"backbone": 0.001, "shared1": 0.01, "shared2": 0.01, "seg": 0.002, "det": 0.01, "cls": 0.01}
    )
    for name, part in model.parts().items():
        assert [id(p) for p in groups[name]["params"]] == [id(p) for p in part.parameters()] if name in groups else True
    held = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in model.parameters() if p.requires_grad})


def test_a_frozen_part_computes_the_same_in_training_as_the_teacher_who_shares_it(images):
    model = small_model(backbone={"name": "efficientnet_lite0", "pretrained": False, "drop_connect": 0.5})
    run = stage_run(model, {"backbone": 0.0})
    prepare_model(run)
    teacher = Teacher(model, run.frozen)
    model.train()
    maps, _ = teacher(images, model.trunk_maps(images))
    alone = teacher.model.trunk_maps(images)  # in eval mode, nothing shared
    for stride, value in alone["backbone"].items():
        assert torch.equal(maps["backbone"][stride], value), stride
    assert torch.equal(maps["shared2"], alone["shared2"])


@pytest.mark.parametrize(
    ("norm", "learned", "expected"),
    [
        ({"statistics": "running"}, (), {*TRUNK, "det"}),
        ({"statistics": "running"}, ("seg",), {*TRUNK, "det"}),
        ({"statistics": "running"}, ("seg", "det"), {*TRUNK}),  # det is finished: its own norm layers rest
        ({"statistics": "frozen"}, (), {*TRUNK, "det"}),
        ({"statistics": "frozen"}, ("seg",), {"det"}),
        ({"statistics": "per_stage"}, ("seg",), {*TRUNK, "det"}),
        ({"backbone": "fixed"}, (), {*TRUNK, "det"} - {"backbone"}),
        ({"backbone": "folded"}, (), {*TRUNK, "det"} - {"backbone"}),
        ({"layer": "group"}, (), {"backbone"}),
    ],
)
def test_statistics_move_where_the_policy_lets_them_and_weights_move_everywhere(images, norm, learned, expected):
    model = small_model(norm=norm)
    before = {name: state_of(part) for name, part in model.parts().items()}
    train_steps(stage_run(model, {}, learned, norm), images, 1)
    assert moved_statistics(model, before) == expected
    for name, part in model.parts().items():
        assert any(key.endswith("weight") for key in changed(part, before[name])), name


def test_per_stage_every_task_answers_with_its_own_statistics(images):
    model = small_model(norm={"statistics": "per_stage"}).eval()
    used_norms(model)
    first = model(images)
    model.store_statistics("seg")
    for buffer in model.trunk.buffers():
        if buffer.is_floating_point():
            buffer.mul_(1.5)  # as a later stage moves them
    live = state_of(model.trunk)
    second = model(images)
    assert torch.equal(second["seg"], first["seg"])
    assert not torch.equal(second["det"], first["det"])
    assert not changed(model.trunk, live)
    model.store_statistics("det")
    for buffer in model.trunk.buffers():
        buffer.mul_(2)
    third = model(images, ["det", "seg"])
    assert list(third) == ["det", "seg"]
    assert torch.equal(third["det"], second["det"])
    assert torch.equal(third["seg"], first["seg"])


@pytest.mark.parametrize("statistics", ["frozen", "per_stage"])
def test_evaluation_changes_neither_buffers_nor_modes_nor_random_state(images, statistics):
    model = small_model(norm={"statistics": statistics})
    if statistics == "per_stage":
        model.store_statistics("seg")
        used_norms(model)
    model.fixed = {"neck"}
    model.train()
    before, modes = state_of(model), {name: module.training for name, module in model.named_modules()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for name, task in TASKS.items():
        predict(model, name, build(Task, {"name": task}, CLASSES), images, [(50, 70)] * len(images))
    assert not changed(model, before)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(p.grad is None for p in model.parameters())


def test_the_mode_before_evaluation_comes_back_though_it_failed():
    model = small_model().train()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("channels", [16, 24, 100, 160, 512])
def test_group_norm_exists_for_every_width(channels):
    norm = norm_maker("group")(channels)
    assert norm(torch.rand(2, channels, 2, 2)).shape == (2, channels, 2, 2)


def test_a_residual_head_adds_to_its_input_where_the_widths_agree(images):
    model = small_model(neck={"name": "fpn", "channels": 24}, head=Head(3, 16, residual=True)).eval()
    plain = small_model(neck={"name": "fpn", "channels": 24}, head=Head(3, 16)).eval()
    assert model.state_dict().keys() == plain.state_dict().keys()
    maps = model.trunk_maps(images)
    first = torch.nn.Sequential(*model.trunk["shared1"])(maps["neck"])
    assert torch.equal(maps["shared1"], first)  # 24 to 16 channels: nothing to add to
    second = torch.nn.Sequential(*model.trunk["shared2"])(maps["shared1"])
    assert torch.equal(maps["shared2"], maps["shared1"] + second)
