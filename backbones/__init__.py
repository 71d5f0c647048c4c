"""Backbones: one file per family. Each publishes its channels by stride and its own input normalisation."""

from torch import Tensor, nn

from errors import UserError


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

    def kept_frozen(self) -> list[nn.Module]:
        """Layers that never train, whatever the rate table says: an option of the backbone."""
        return []

    def fold_norm(self) -> None:
        """Fold every BatchNorm, with its present statistics, into the convolution before it, which stays trainable."""
        raise UserError(f"norm.backbone 'folded' is not there for the backbone {type(self).__name__}; use 'fixed'")
