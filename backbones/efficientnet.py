"""EfficientNet B0..B7 (Tan & Le 2019) through efficientnet_pytorch."""

from pathlib import Path

import torch
from efficientnet_pytorch import EfficientNet as Package
from efficientnet_pytorch.utils import url_map

from backbones._efficientnet import EfficientNetTaps, load_into, read_state_dict
from download import Source, fetch
from errors import UserError, nearest

_VARIANTS = tuple(f"b{size}" for size in range(8))


class EfficientNet(EfficientNetTaps):
    """The ImageNet weights are fetched once from the package's published address, or read from a file.

    Args:
        variant: Size, "b0" to "b7".
        pretrained: Start from the ImageNet weights (False: random weights).
        weights: A state_dict file to start from instead of the download.
        frozen_stride: Layers up to this stride never train (2 to 16; 0: all train); 4 saves a third of a step.
        drop_connect: Stochastic depth in the last block, rising linearly up to there (the paper: 0.2).
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        variant: str = "b0",
        pretrained: bool = True,
        weights: str | None = None,
        frozen_stride: int = 0,
        drop_connect: float = 0.0,
    ):
        if variant not in _VARIANTS:
            raise UserError(f"unknown EfficientNet variant '{variant}'{nearest(variant, _VARIANTS)}")
        net = Package.from_name(f"efficientnet-{variant}", include_top=False)
        if weights or pretrained:
            source = weights or _download(f"efficientnet-{variant}")
            load_into(net, read_state_dict(source), source)
        super().__init__(net, frozen_stride, drop_connect)


def _download(package_name: str) -> str:
    """The ImageNet weights' file in torch's hub cache; fetched there once. Its name carries the start of its sha256."""
    url = url_map[package_name]
    name = url.rpartition("/")[2]
    checksum = f"sha256:{name.removesuffix('.pth').rpartition('-')[2]}"
    instead = (
        "give a file with --backbone_weights, or take --backbone.name efficientnet_lite0, whose weights are a package"
    )
    source = Source(name, (url,), checksum, otherwise=instead)
    return str(fetch([source], Path(torch.hub.get_dir()) / "checkpoints")[0])
