"""What the EfficientNet families share: taps at stride 8, 16 and 32, folding of norm layers, loading of weight files."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from backbones import Backbone
from errors import UserError, in_range


class EfficientNetTaps(Backbone):
    """Runs a package's EfficientNet block by block; stride 32 is the map after its head convolution."""

    def __init__(self, net: nn.Module, frozen_stride: int, drop_connect: float):
        super().__init__()
        if frozen_stride not in (0, 2, 4, 8, 16):
            raise UserError(f"backbone.frozen_stride is {frozen_stride}, expected 0, 2, 4, 8 or 16")
        in_range("backbone.", 0, 1, drop_connect=drop_connect)
        self.net = net
        self.drop_connect = drop_connect
        _pad_inside_convolutions(net)
        last_block = {}
        stride = 2  # the stem's
        for index, block in enumerate(net._blocks):
            step = block._depthwise_conv.stride
            stride *= step[0] if isinstance(step, (tuple, list)) else step
            last_block[stride] = index
        self._frozen_blocks = last_block.get(frozen_stride, -1) + 1
        self._frozen_stem = frozen_stride > 0
        self._stride_after = {last_block[stride]: stride for stride in (8, 16)}
        self.channels = {stride: net._blocks[last_block[stride]]._project_conv.out_channels for stride in (8, 16)}
        self.channels[32] = net._conv_head.out_channels

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        net = self.net
        maps = {}
        x = net._swish(net._bn0(net._conv_stem(images)))  # (B, 32, H/2, W/2)
        for index, block in enumerate(net._blocks):
            x = block(x, drop_connect_rate=self.drop_connect * index / len(net._blocks))
            if index in self._stride_after:
                maps[self._stride_after[index]] = x
        maps[32] = net._swish(net._bn1(net._conv_head(x)))  # (B, 1280 in B0 and Lite, H/32, W/32)
        return maps

    def kept_frozen(self) -> list[nn.Module]:
        stem = [self.net._conv_stem, self.net._bn0] if self._frozen_stem else []
        return [*stem, *self.net._blocks[: self._frozen_blocks]]

    def fold_norm(self) -> None:
        net = self.net
        pairs = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
        for block in net._blocks:
            pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
            pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        for owner, conv, norm in pairs:
            folded = fuse_conv_bn_eval(getattr(owner, conv).eval(), getattr(owner, norm).eval())
            setattr(owner, conv, folded.requires_grad_())  # torch leaves a bias that was not there without gradient
            setattr(owner, norm, nn.Identity())


def _pad_inside_convolutions(net: nn.Module) -> None:
    """The packages pad with a layer of its own, a copy of the map; where the padding is symmetric the convolution can do it.

    Bit-equal; measured on two cores: about 5 % of a training step.
    """
    for module in net.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d):
            left, right, top, bottom = padding.padding
            if left == right and top == bottom:
                module.padding = (top, left)
                module.static_padding = nn.Identity()


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
