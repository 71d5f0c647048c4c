"""What a recipe's types do not say: ranges, and names that must be those of its stages or parts."""

import math

from errors import UserError, in_range, nearest

FOLDS = 5  # that a training set can be cut into for tuning

# key → smallest and largest value, both allowed; dotted: below the stage
_OF_RECIPE = {"eval_every": (0, math.inf), "fold": (0, FOLDS - 1), "memory_per_task": (0, math.inf)}
_OF_HEAD = {"layers": (1, 8), "channels": (1, math.inf)}
_OF_STAGE = {
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "weight_decay": (0, 1e6),
    "warmup": (0, 1),
    "patience": (0, math.inf),
    "clip_norm": (0, 1e6),
}
_OF_AUGMENT = {"flip": (0, 1), "stretch": (1, 100), "jitter": (0, 1)}


def check(recipe) -> None:
    """UserError for the first value out of range or name without a meaning."""
    _within(recipe, "", _OF_RECIPE)
    _within(recipe.head, "head.", _OF_HEAD)
    if recipe.image_size < 32 or recipe.image_size % 32:
        raise UserError(f"image_size is {recipe.image_size}, expected a multiple of 32")
    for name in recipe.order or ():
        if name not in recipe.stages:
            raise UserError(f"order names the stage '{name}'{nearest(name, recipe.stages)}")
    if recipe.order is not None and (not recipe.order or len(set(recipe.order)) != len(recipe.order)):
        raise UserError(f"order is {recipe.order}, expected each stage at most once and at least one")
    for name, stage in recipe.stages.items():
        if name in recipe.trunk_parts():
            raise UserError(f"the stage name '{name}' is a part of the trunk; choose another")
        _check_stage(recipe, stage)


def _check_stage(recipe, stage) -> None:
    here = f"stages.{stage.name}"
    _within(stage, f"{here}.", _OF_STAGE)
    _within(stage.augment, f"{here}.augment.", _OF_AUGMENT)
    if not 0 < stage.lr < 1e6:
        raise UserError(f"{here}.lr is {stage.lr}, expected more than 0")
    if not 0 < stage.factor < 1:
        raise UserError(f"{here}.factor is {stage.factor}, expected more than 0 and less than 1")
    if not 0 < stage.augment.zoom_min <= stage.augment.zoom_max < 100:
        raise UserError(f"{here}.augment: expected 0 < zoom_min <= zoom_max < 100")
    parts = [*recipe.trunk_parts(), *recipe.stages]
    for part, rate in stage.rates.items():
        if part not in parts:
            raise UserError(f"{here}.rates names the part '{part}'{nearest(part, parts)}")
        if not 0 <= rate < 1e6:
            raise UserError(f"{here}.rates.{part} is {rate}, expected 0 or more")
    if recipe.frozen(stage) >= {*recipe.trunk_parts(), stage.name}:
        raise UserError(f"{here}.rates freezes every part: nothing would train")


def _within(place, prefix: str, limits: dict[str, tuple[float, float]]) -> None:
    for key, (least, most) in limits.items():
        value = getattr(place, key)
        if value is not None:
            in_range(prefix, least, most, **{key: value})
