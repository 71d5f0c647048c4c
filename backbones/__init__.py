"""Backbones: one file per family. Each publishes its channels by stride and its own input normalisation."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """Feature extractor.

    channels: stride → channels of the map at that stride.
    mean, std: what its weights were trained with, on images in [0, 1]; OneHead applies them.
    """

    channels: dict[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) → {stride: (B, channels[stride], ⌈H/stride⌉, ⌈W/stride⌉)}."""
        raise NotImplementedError
