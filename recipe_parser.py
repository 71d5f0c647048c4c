"""Recipes as users write them: YAML plus flags → one typed, frozen Recipe."""

import copy
import difflib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

import recipe_limits
import registry
from backbones import Backbone
from data import Dataset
from data.transforms import Augment
from errors import UserError, nearest
from necks import Neck
from recipe import Head, Norm, Recipe, Stage
from strategies import Strategy
from tasks import Task

_SCALARS = ("seed", "image_size", "data_root", "order", "eval_every", "fold", "memory_per_task", "precision")
_INJECTED = {"self", "classes", "backbone_channels", "make_norm", "root", "split"}


def read_recipe(path: Path, extended_by: tuple[Path, ...] = ()) -> dict:
    """A recipe's plain form. `extends: other.yaml` (beside it) starts from that one: mappings merge, but `strategies`
    and anything else replaces what was there."""
    if path in extended_by:
        raise UserError(f"{path}: extends itself, through {', '.join(map(str, extended_by))}; remove one 'extends'")
    content = read_yaml(path)
    base = content.pop("extends", None)
    return content if base is None else _merged(read_recipe(path.parent / str(base), (*extended_by, path)), content)


def _merged(base: dict, over: dict) -> dict:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "strategies"
        merged[key] = _merged(base[key], value) if both else value
    return merged


def read_yaml(path: Path) -> dict:
    if not path.is_file():
        raise UserError(f"{path}: no such recipe{nearest(path.name, (p.name for p in path.parent.glob('*.yaml')))}")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of recipe keys, found {type(content).__name__}")
    return content


def make_recipe(content: dict, flags: Sequence[str] = (), source: str = "recipe", parser: ArgumentParser | None = None):
    """Recipe from its plain form and flags such as ["--stages.seg.epochs", "3"].

    Returns (recipe, parsed flags). `parser` may bring further arguments of the command. UserError for unknown keys, wrong
    types, unknown names and missing values.
    """
    content = _with_named_parts(content, flags)
    for key in ("backbone", "neck", "stages", "strategies"):
        if not isinstance(content[key], dict) or (not content[key] and key != "strategies"):
            raise UserError(f"{source}: '{key}' is missing or empty; it must be a mapping, see configs/onehead.yaml")
    parser = _parser_for(content, parser or ArgumentParser(exit_on_error=False, allow_abbrev=False), source)
    _check_keys(content, parser, source)
    try:
        parsed = parser.parse_args(list(flags), namespace=parser.parse_object(content))
    except ArgumentError as error:
        raise UserError(f"{source}: {_with_guess(error, parser)}") from error
    return _typed(parsed, content), parsed


def single_task(recipe: Recipe, name: str) -> Recipe:
    """The same recipe for one task alone: its single-task baseline.

    The trunk learns at the first stage's rates, the predictor at its own: for the first stage this is that stage itself.
    """
    rates = {part: rate for part, rate in recipe.running()[0].rates.items() if part in recipe.trunk_parts()}
    rates |= {part: rate for part, rate in recipe.stages[name].rates.items() if part == name}
    stages = recipe.resolved["stages"]
    return make_recipe(
        {**recipe.resolved, "order": [name], "stages": stages | {name: stages[name] | {"rates": rates}}}
    )[0]


def _with_named_parts(content: dict, flags: Sequence[str]) -> dict:
    """The plain form with the names that flags choose, since a name decides which options there are."""
    content = copy.deepcopy(content)
    text = " ".join(flags)
    for path, value in re.findall(r"--((?:backbone|neck|stages\.\w+\.(?:task|dataset)))\.name[= ](\S+)", text):
        place = content
        for key in path.split("."):
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        if place.get("name") != value:  # options of another class do not carry over
            place.clear()
            place["name"] = value
    content = {"backbone": {}, "neck": {}, "stages": {}, **content, "strategies": content.get("strategies") or {}}
    if isinstance(content["strategies"], dict):
        content["strategies"] = {str(k): {} if v is None else v for k, v in content["strategies"].items()}
    return content


def _parser_for(content: dict, parser: ArgumentParser, source: str) -> ArgumentParser:
    parser.add_class_arguments(Recipe, skip={*Recipe.__dataclass_fields__} - set(_SCALARS))
    _add_named(parser, Backbone, "backbone", content["backbone"], source)
    _add_named(parser, Neck, "neck", content["neck"], source)
    parser.add_class_arguments(Head, "head")
    parser.add_class_arguments(Norm, "norm")
    for name, stage in content["stages"].items():
        prefix = f"stages.{name}"
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)):  # it names files, flags and modules
            raise UserError(f"{source}: the stage name '{name}' must be letters, digits and _, a letter first")
        if not isinstance(stage, dict):
            raise UserError(f"{source}: {prefix} is {stage!r}, expected a mapping with task, dataset and epochs")
        parser.add_class_arguments(Stage, prefix, skip={"name", "augment", "task", "dataset"})
        parser.add_class_arguments(Augment, f"{prefix}.augment")
        _add_named(parser, Task, f"{prefix}.task", stage.get("task"), source)
        _add_named(parser, Dataset, f"{prefix}.dataset", stage.get("dataset"), source)
    for name in content["strategies"]:
        parser.add_class_arguments(registry.load(Strategy, name)[0], f"strategies.{name}")
    return parser


def _add_named(parser: ArgumentParser, contract: type, path: str, options: dict | None, source: str) -> None:
    if not isinstance(options, dict) or not isinstance(options.get("name"), str):
        known = ", ".join(registry.names(contract))
        raise UserError(
            f"{source}: '{path}' is {options!r}, expected a mapping with a 'name' ({known}) and its options"
        )
    found, preset = registry.load(contract, options["name"])
    parser.add_argument(
        f"--{path}.name", type=str, help=f"One of {', '.join(registry.names(contract))}, a variant behind it."
    )
    parser.add_class_arguments(found, path, skip=(_INJECTED | set(preset)) & set(inspect.signature(found).parameters))


def _check_keys(content: dict, parser: ArgumentParser, source: str) -> None:
    """What jsonargparse lets pass or does not name well: unknown keys, null, another value where a mapping belongs."""
    actions = {action.dest: action for action in parser._actions}
    groups = {dest.rsplit(".", depth)[0] for dest in actions for depth in range(1, dest.count(".") + 1)}
    groups |= {"strategies", *(f"strategies.{name}" for name in content["strategies"])}  # also those without options

    def visit(place: dict, prefix: str) -> None:
        for key, value in place.items():
            path = f"{prefix}{key}"
            if path in groups and not isinstance(value, dict):
                raise UserError(f"{source}: '{path}' is {value!r}, expected a mapping of its options")
            if path in groups:
                visit(value, f"{path}.")
            elif path not in actions:
                siblings = [k.removeprefix(prefix).split(".")[0] for k in actions if k.startswith(prefix)]
                raise UserError(f"{source}: unknown key '{path}'{nearest(str(key), set(siblings) - {'help'})}")
            elif value is None and type(None) not in get_args(getattr(actions[path], "_typehint", None)):
                raise UserError(f"{source}: '{path}' is null, expected a value; leave it out for the default")

    visit(content, "")


def _with_guess(error: ArgumentError, parser: ArgumentParser) -> str:
    """jsonargparse's message; for an unknown flag with the nearest known one."""
    unknown = re.search(r"unrecognized arguments: --([\w.]+)", str(error))
    text = " ".join(str(error).split())
    if not unknown:
        return text
    close = difflib.get_close_matches(unknown[1], [a.dest for a in parser._actions], n=1)
    return f"unknown flag --{unknown[1]}{f'; did you mean --{close[0]}?' if close else ''} (--help lists them all)"


def _typed(parsed: Namespace, content: dict) -> Recipe:
    plain = {key: value for key, value in parsed.as_dict().items() if key in Recipe.__dataclass_fields__}
    plain["strategies"] = {name: plain.get("strategies", {}).get(name, {}) for name in content["strategies"]}
    plain["stages"] = {name: plain["stages"][name] for name in content["stages"]}
    stages = {
        name: Stage(**{**values, "name": name, "augment": Augment(**values["augment"])})
        for name, values in plain["stages"].items()
    }
    typed = {**plain, "head": Head(**plain["head"]), "norm": Norm(**plain["norm"]), "stages": stages}
    recipe = Recipe(**typed, resolved=_plain(plain))
    recipe_limits.check(recipe)
    return recipe


def _plain(value):
    """Tuples become lists, so that YAML and weights-only checkpoints hold the same."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
