"""A recipe's types. A default lives once, in the signature of what it configures; recipe_parser.py reads recipes."""

from dataclasses import dataclass, field
from typing import Literal

from data.transforms import Augment


@dataclass(frozen=True)
class Norm:
    """Norm policy.

    Args:
        layer: "batch", or "group" for GroupNorm in neck, head and predictors.
        statistics: Of BatchNorm: "running" in every stage; "frozen" where a part was first trained; "per_stage", each task
            its own (costs one pass per task).
        backbone: "trained"; "fixed": the backbone keeps the statistics of its pretrained weights from the start; "folded":
            the same, and its norm layers are folded into its convolutions, which is faster.
    """

    layer: Literal["batch", "group"] = "batch"
    statistics: Literal["running", "frozen", "per_stage"] = "frozen"
    backbone: Literal["trained", "fixed", "folded"] = "trained"


@dataclass(frozen=True)
class Head:
    """The shared head: 3x3 convolutions with norm and ReLU, read by every task.

    Args:
        layers: How many.
        channels: Width of each.
        residual: Each layer adds to its input where both have the same width, so that what the neck found reaches the
            predictors directly (He et al. 2016).
    """

    layers: int = 3
    channels: int = 160
    residual: bool = False


@dataclass(frozen=True)
class Stage:
    """One task learned from one data set.

    Args:
        name: The stage's and its task's name.
        epochs: Passes over the training images.
        batch_size: New images per step.
        lr: Base learning rate of AdamW.
        weight_decay: Of AdamW, decoupled.
        schedule: "constant", "cosine" to 0, "one_cycle" (linear up over `warmup`, cosine to 0) or "plateau" (multiplied by
            `factor` after `patience` epochs without a better score on val, the original's: it watches val).
        warmup: Share of the stage's steps over which the rate rises linearly.
        patience: Of "plateau", in epochs.
        factor: Of "plateau".
        clip_norm: Largest norm of the gradient; 0 for no clipping.
        rates: Part or task → factor on `lr`, 1 where not named; 0 freezes: no gradient, no decay, norm in eval mode.
        augment: Random views of training images, also when they are replayed later.
        task: Name and options of the task, from tasks/.
        dataset: Name and options of the reader, from data/.
    """

    name: str
    epochs: int
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["constant", "cosine", "one_cycle", "plateau"] = "one_cycle"
    warmup: float = 0.1
    patience: int = 7
    factor: float = 0.5
    clip_norm: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    augment: Augment = Augment()
    task: dict = field(default_factory=dict)
    dataset: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """All that determines a run but the code and the images.

    Args:
        seed: Of everything random.
        image_size: Side of the square network input, a multiple of 32.
        data_root: Folder that holds the data sets.
        order: Stages to run and their order (default: all, as written).
        eval_every: Score all learned tasks on val every so many epochs, for the curves; 0: at stage ends only.
        fold: For tuning without looking at val: train on four fifths of every training set and score on this fifth (0 to 4).
        memory_per_task: Images kept of every finished task; null: all of them (then it is no longer a small memory).
        precision: "float32", or "bfloat16" for mixed precision on a GPU; "auto" chooses bfloat16 where there is a GPU.
        backbone: Name and options, from backbones/.
        neck: Name and options, from necks/.
        head: The shared head.
        norm: Norm policy.
        stages: Name → stage.
        strategies: Name → options, from strategies/.
    """

    seed: int = 0
    image_size: int = 224
    data_root: str = "DL_data"
    order: list[str] | None = None
    eval_every: int = 0
    fold: int | None = None
    memory_per_task: int | None = 10
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    backbone: dict = field(default_factory=dict)
    neck: dict = field(default_factory=dict)
    head: Head = Head()
    norm: Norm = Norm()
    stages: dict[str, Stage] = field(default_factory=dict)
    strategies: dict[str, dict] = field(default_factory=dict)
    resolved: dict = field(default_factory=dict, repr=False)  # plain form of all the above, written to the run

    def trunk_parts(self) -> list[str]:
        return ["backbone", "neck", *(f"shared{i + 1}" for i in range(self.head.layers))]

    def running(self) -> list[Stage]:
        """The stages in the order they run."""
        return [self.stages[name] for name in (self.order or self.stages)]

    def frozen(self, stage: Stage) -> set[str]:
        """Parts whose rate is 0 in a stage."""
        return {part for part, rate in stage.rates.items() if rate == 0}
