"""EfficientNet B0..B7 (Tan & Le 2019) through efficientnet_pytorch."""

import torch
from efficientnet_pytorch import EfficientNet as Package
from efficientnet_pytorch.utils import url_map
from torch import Tensor

from backbones._efficientnet import EfficientNetTaps, load_into, read_state_dict
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
        if weights:
            load_into(net, read_state_dict(weights), weights)
        elif pretrained:
            load_into(net, _download(f"efficientnet-{variant}"), url_map[f"efficientnet-{variant}"])
        super().__init__(net, frozen_stride, drop_connect)


def _download(package_name: str) -> dict[str, Tensor]:
    """ImageNet weights, kept in torch's hub cache; the file's name carries the start of its sha256, which is checked."""
    url = url_map[package_name]
    try:
        state = torch.hub.load_state_dict_from_url(url, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{url}: could not fetch the ImageNet weights of {package_name} ({error}). Fetch the file where there is a network "
            f"and give it with --backbone_weights FILE, or use --backbone.name efficientnet_lite0 (weights in a package)"
        ) from error
    return {key: value for key, value in state.items() if not key.startswith("_fc.")}
