"""Recipe files: every one of ours loads, what extends another, single tasks, what is no recipe."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import tiny_recipe, write_recipe

from errors import UserError
from recipe_parser import make_recipe, read_recipe, single_task

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_recipe_loads_and_round_trips(tmp_path, path):
    recipe = make_recipe(read_recipe(path), source=str(path))[0]
    assert [stage.name for stage in recipe.running()]
    copied = write_recipe(tmp_path / "config.yaml", recipe.resolved)
    assert make_recipe(read_recipe(copied))[0] == recipe
    assert path.read_text().startswith("#"), "a recipe opens with what it is and the command that runs it"
    assert f"--config configs/{path.name}" in path.read_text()


def test_one_recipe_extends_another(tmp_path):
    write_recipe(tmp_path / "base.yaml", tiny_recipe("data", {"lwf": {}}, {"seg": {"rates": {"neck": 2.0}}}))
    over = {"extends": "base.yaml", "seed": 3, "stages": {"seg": {"epochs": 9}}, "strategies": {"ema": {}}}
    recipe = make_recipe(read_recipe(write_recipe(tmp_path / "over.yaml", over)))[0]
    assert (recipe.seed, recipe.stages["seg"].epochs, recipe.stages["seg"].rates) == (3, 9, {"neck": 2.0})
    assert list(recipe.strategies) == ["ema"]  # replaced, not merged
    assert list(recipe.stages) == ["seg", "det", "cls"]
    circles = {"a": "b", "b": "a", "itself": "itself"}
    for name, base in circles.items():
        write_recipe(tmp_path / f"{name}.yaml", {"extends": f"{base}.yaml"})
    for name in circles:
        with pytest.raises(UserError, match="extends itself"):
            read_recipe(tmp_path / f"{name}.yaml")
    write_recipe(tmp_path / "lost.yaml", {"extends": "bade.yaml"})
    with pytest.raises(UserError, match=r"bade.yaml: no such recipe; did you mean 'base.yaml'\?"):
        read_recipe(tmp_path / "lost.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n", "\tx: 1\n", "just text"])
def test_files_that_are_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_recipe(path)


def test_single_task_recipe():
    """The task alone; the trunk at the rates of the stage that would train it, the predictor at its own."""
    stages = {
        "seg": {"rates": {"backbone": 0.3, "seg": 2.0}},
        "det": {"rates": {"backbone": 0.0, "seg": 0.2, "det": 0.5}, "lr": 0.01, "epochs": 4},
    }
    recipe = make_recipe(tiny_recipe("data", stages=stages))[0]
    alone = single_task(recipe, "det")
    (stage,) = alone.running()
    assert (stage.name, stage.lr, stage.epochs) == ("det", 0.01, 4)
    assert stage.rates == {"backbone": 0.3, "det": 0.5}
    assert (alone.backbone, alone.neck, alone.head, alone.norm) == (
        recipe.backbone,
        recipe.neck,
        recipe.head,
        recipe.norm,
    )
    (first,) = single_task(recipe, "seg").running()
    assert first == recipe.stages["seg"]
    turned = make_recipe(tiny_recipe("data", stages=stages, order=["det", "seg"]))[0]
    assert single_task(turned, "seg").running()[0].rates == {"backbone": 0.0, "seg": 2.0}


@pytest.mark.parametrize("name", ["seg", "det", "cls"])
def test_the_recipes_of_single_tasks_are_the_baselines_of_onehead(name):
    """The same effective rate of every part, the same epochs and all else."""
    ours, alone = (
        make_recipe(read_recipe(CONFIGS[0].with_name(f"{file}.yaml")))[0] for file in ("onehead", f"single_{name}")
    )
    wanted = single_task(ours, name)
    parts = [*wanted.trunk_parts(), name]
    (there,), (here,) = wanted.running(), alone.running()
    assert [here.rates.get(part, 1.0) for part in parts] == [there.rates.get(part, 1.0) for part in parts]
    assert replace(here, rates={}) == replace(there, rates={})
    assert (alone.backbone, alone.neck, alone.head, alone.norm) == (
        wanted.backbone,
        wanted.neck,
        wanted.head,
        wanted.norm,
    )
    assert alone.strategies == wanted.strategies
