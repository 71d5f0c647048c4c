"""A single feature-pyramid layer (Lin et al. 2017, section 3), read out at one stride."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from errors import UserError, in_range
from necks import Neck, Residual


class Fpn(Neck):
    """Lateral 1x1 convolutions, top-down sums, one 3x3 output convolution at the finest level only.

    Deviation from the paper: a norm layer after each convolution, since the shared head starts with a convolution.

    Args:
        channels: Channels of the map.
        stride: Stride of the map, 8 or 16.
        residual: The output convolution adds to the sums instead of replacing them, so that what the backbone knows of a task
            not yet learned passes through a neck trained for others.
    """

    is_fpn_layer = True

    def __init__(
        self,
        backbone_channels: dict[int, int],
        make_norm,
        *,
        channels: int = 160,
        stride: int = 8,
        residual: bool = False,
    ):
        super().__init__()
        if stride not in (8, 16):
            raise UserError(f"neck.stride is {stride}, expected 8 or 16")
        in_range("neck.", 1, channels=channels)
        self.stride = stride
        self.out_channels = channels
        self.lateral = nn.ModuleDict(
            {
                str(level): nn.Sequential(
                    nn.Conv2d(backbone_channels[level], channels, 1, bias=False), make_norm(channels)
                )
                for level in sorted(backbone_channels)
                if stride <= level <= 32
            }
        )
        output = Residual if residual else nn.Sequential
        self.output = output(nn.Conv2d(channels, channels, 3, padding=1, bias=False), make_norm(channels), nn.ReLU())

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        merged = None
        for level in sorted(map(int, self.lateral), reverse=True):
            lateral = self.lateral[str(level)](maps[level])
            if merged is not None:
                lateral = lateral + interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            merged = lateral
        return self.output(merged)  # (B, channels, H/stride, W/stride)
