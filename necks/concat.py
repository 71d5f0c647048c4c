"""The original system's neck: stride 32 upsampled onto stride 16, concatenated, two convolutions."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from errors import in_range
from necks import Neck, conv_norm_relu


class Concat(Neck):
    """Output at stride 16.

    Args:
        mid_channels: Channels after the 1x1 convolution.
        channels: Channels after the 3x3 convolution, the map's.
    """

    stride = 16

    def __init__(self, backbone_channels: dict[int, int], make_norm, *, mid_channels: int = 512, channels: int = 256):
        super().__init__()
        in_range("neck.", 1, mid_channels=mid_channels, channels=channels)
        self.reduce = conv_norm_relu(backbone_channels[16] + backbone_channels[32], mid_channels, 1, make_norm)
        self.mix = conv_norm_relu(mid_channels, channels, 3, make_norm)
        self.out_channels = channels

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        coarse = interpolate(maps[32], size=maps[16].shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(self.reduce(torch.cat([maps[16], coarse], dim=1)))  # (B, channels, H/16, W/16)
