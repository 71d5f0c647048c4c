"""Necks: one file per way to merge a backbone's maps into the one map that the shared head reads."""

from torch import Tensor, nn

GROUPS = 16  # of GroupNorm, where the recipe asks for it


class Neck(nn.Module):
    """Constructor: (channels: backbone's stride → channels, make_norm: channels → norm layer, *, own options).

    out_channels, stride: of the merged map. is_fpn_layer: one feature-pyramid layer, as the challenge counts it.
    """

    out_channels: int
    stride: int
    is_fpn_layer = False

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        """{stride: (B, C, H/stride, W/stride)} → (B, out_channels, H/self.stride, W/self.stride)."""
        raise NotImplementedError


class Residual(nn.Sequential):
    """Input + layers(input)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def conv_norm_relu(inputs: int, outputs: int, kernel: int, make_norm) -> nn.Sequential:
    """The unit that necks, shared head and predictors are made of."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, make_norm(outputs), nn.ReLU(inplace=True))
