"""OneHead: backbone → neck → one shared head → a predictor per task, all reading the same map."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import registry
from backbones import Backbone
from errors import UserError, nearest
from necks import GROUPS, Neck, Residual, conv_norm_relu


class OneHead(nn.Module):
    """Trunk parts in order (backbone, neck, shared1 … sharedN), then one predictor per task.

    Statistics policy of its BatchNorm layers: "running" (as usual, in every stage), "frozen" (a part's statistics stay as the
    first stage that trained it left them) or "per_stage" (every stage keeps its own; the task asked for selects them).
    """

    def __init__(self, backbone: Backbone, neck: Neck, shared: list[nn.Module], statistics: str = "frozen"):
        super().__init__()
        self.trunk = nn.ModuleDict({"backbone": backbone, "neck": neck})
        self.trunk.update({f"shared{i}": layer for i, layer in enumerate(shared, start=1)})
        self.predictors = nn.ModuleDict()
        self.statistics = statistics
        self.channels = shared[-1][0].out_channels
        self.stride = neck.stride
        self.frozen: set[str] = set()  # parts that do not train at all; may name predictors still to come
        self.fixed: set[str] = set()  # parts whose norm statistics may not move; likewise
        self.stored_statistics: dict[str, dict[str, Tensor]] = {}  # per_stage: task → trunk buffers
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def parts(self) -> dict[str, nn.Module]:
        """Every part that a rate table may name: the trunk's, in order, then the predictors by task."""
        return {**self.trunk, **self.predictors}

    def trunk_maps(self, images: Tensor, start: str | None = None, value: object = None) -> dict[str, object]:
        """Outputs of the trunk's parts by name.

        images: (B, 3, H, W), uint8 or float in [0, 1]; normalised here. With `start` only the parts after it run, on `value`.
        """
        names = list(self.trunk)
        outputs = {}
        if start is None:
            value = self.normalise(images)
        else:
            names = names[names.index(start) + 1 :]
        for name in names:
            value = self.trunk[name](value)
            outputs[name] = value
        return outputs

    def normalise(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1] → the backbone's own input range, channels last."""
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        images = (images.float() / scale - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)

    def shared_map(self, maps: dict[str, object]) -> Tensor:
        """The last trunk output, (B, C, H/stride, W/stride): what every predictor reads."""
        return maps[self.last_part]

    @property
    def last_part(self) -> str:
        return list(self.trunk)[-1]

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) → raw predictions by task, one pass through the trunk.

        With statistics "per_stage" the trunk runs once per task, with that task's statistics.
        """
        tasks = list(self.predictors if tasks is None else tasks)
        if not self.stored_statistics:
            shared = self.shared_map(self.trunk_maps(images))
            return {task: self.predictors[task](shared) for task in tasks}
        raw = {}
        for task in tasks:
            with self.using_statistics_of(task):
                raw[task] = self.predictors[task](self.shared_map(self.trunk_maps(images)))
        return raw

    def train(self, mode: bool = True) -> "OneHead":
        """As usual, but norm layers of fixed parts stay in eval mode: their statistics do not move.

        What is frozen stays so as a whole, without dropout or stochastic depth: a teacher shares its maps.
        """
        super().train(mode)
        parts = self.parts()
        for layer in [*(parts[name] for name in self.frozen & set(parts)), *self.trunk["backbone"].kept_frozen()]:
            layer.eval()
        for name in self.fixed & set(parts):
            for module in parts[name].modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def freeze(self, frozen: Iterable[str]) -> None:
        """Exactly these parts, and the layers that the backbone never trains, get no gradient."""
        self.frozen = set(frozen)
        for name, part in self.parts().items():
            part.requires_grad_(name not in self.frozen)
        for layer in self.trunk["backbone"].kept_frozen():
            layer.requires_grad_(False)

    def store_statistics(self, task: str) -> None:
        """per_stage: remember the trunk's present statistics as this task's."""
        buffers = dict(self.trunk.named_buffers())
        self.stored_statistics[task] = {name: buffer.detach().clone() for name, buffer in buffers.items()}

    @contextmanager
    def using_statistics_of(self, task: str) -> Iterator[None]:
        """Run with the trunk statistics stored for a task, and put the present ones back."""
        stored = self.stored_statistics.get(task)
        if stored is None:  # the task now being trained: the live statistics are its own
            yield
            return
        live = {name: buffer.detach().clone() for name, buffer in self.trunk.named_buffers()}
        self._set_buffers(stored)
        try:
            yield
        finally:
            self._set_buffers(live)

    def _set_buffers(self, values: dict[str, Tensor]) -> None:
        for name, buffer in self.trunk.named_buffers():
            buffer.copy_(values[name])


def build_model(recipe) -> OneHead:
    """The trunk that a recipe describes; predictors are added task by task.

    Parameters are drawn from torch's global generator: seed it first.
    """
    make_norm = norm_maker(recipe.norm.layer)
    backbone = build(Backbone, recipe.backbone)
    if recipe.norm.backbone == "folded":
        backbone.fold_norm()
    neck = build(Neck, recipe.neck, backbone.channels, make_norm)
    width = recipe.head.channels
    inputs = [neck.out_channels] + [width] * (recipe.head.layers - 1)
    shared = [conv_norm_relu(channels, width, 3, make_norm) for channels in inputs]
    if recipe.head.residual:
        shared = [
            Residual(*layer) if channels == width else layer for channels, layer in zip(inputs, shared, strict=True)
        ]
    model = OneHead(backbone, neck, shared, recipe.norm.statistics)
    return model.to(memory_format=torch.channels_last)


def build(contract: type, options: dict, *args):
    """An extension from its recipe entry: {"name": …, constructor options …}."""
    options = dict(options)
    found, preset = registry.load(contract, options.pop("name"))
    return found(*args, **{**options, **preset})


def norm_maker(layer: str) -> Callable[[int], nn.Module]:
    """channels → the norm layer: "batch", or "group" for GroupNorm with 16 groups, or fewer where they do not divide."""
    if layer == "batch":
        return nn.BatchNorm2d
    if layer == "group":
        return lambda channels: nn.GroupNorm(math.gcd(channels, GROUPS), channels)
    raise UserError(f"unknown norm layer '{layer}'{nearest(layer, ['batch', 'group'])}")
