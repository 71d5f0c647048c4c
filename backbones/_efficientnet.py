"""What the EfficientNet families share: taps at stride 8, 16 and 32, and loading of weight files."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones import Backbone
from errors import UserError


class EfficientNetTaps(Backbone):
    """Runs a package's EfficientNet block by block; stride 32 is the map after its head convolution."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        last_block = {}
        stride = 2  # the stem's
        for index, block in enumerate(net._blocks):
            step = block._depthwise_conv.stride
            stride *= step[0] if isinstance(step, (tuple, list)) else step
            last_block[stride] = index
        self._stride_after = {last_block[stride]: stride for stride in (8, 16)}
        self.channels = {stride: net._blocks[last_block[stride]]._bn2.num_features for stride in (8, 16)}
        self.channels[32] = net._bn1.num_features

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        net = self.net
        maps = {}
        x = net._swish(net._bn0(net._conv_stem(images)))  # (B, 32, H/2, W/2)
        rate = net._global_params.drop_connect_rate or 0.0
        for index, block in enumerate(net._blocks):
            x = block(x, drop_connect_rate=rate * index / len(net._blocks))
            if index in self._stride_after:
                maps[self._stride_after[index]] = x
        maps[32] = net._swish(net._bn1(net._conv_head(x)))  # (B, 1280 in B0 and Lite, H/32, W/32)
        return maps


def read_state_dict(path: str) -> dict[str, Tensor]:
    """A state_dict file's tensors, the classifier's left out; UserError if the file is not one."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; give a state_dict saved with torch.save")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: not a readable state_dict ({error}); fetch or save the file again") from error
    return {key: value for key, value in state.items() if not key.startswith("_fc.")}


def load_into(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Strict load; UserError if the weights are of another network."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{source}: weights of another network: {str(error)[:300]}") from error
