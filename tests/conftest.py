"""What several test files share, made once: a small generated data set, a training server, one finished run.

Imports lie inside: tests of other things need not wait for them.
"""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    from tiny_runs import TRAIN, VAL

    from DL_data.generate import generate

    return generate(tmp_path_factory.mktemp("tiny_data") / "generated", train=TRAIN, val=VAL)


@pytest.fixture(scope="session")
def server():
    from train_server import TrainServer

    with TrainServer() as running:
        yield running


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_data, server) -> Path:
    """The folder of an uninterrupted run with lwf, replay and ema, as `python train.py` leaves it; beside it recipe.yaml."""
    from tiny_runs import tiny_recipe, write_recipe

    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder / "recipe.yaml", tiny_recipe(tiny_data))
    ended = server.run(folder, "--config", recipe, "--run_dir", folder / "run", figures=True)
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.fixture(scope="session")
def measured(tmp_path_factory, tiny_data, server) -> Path:
    """A run with its single-task baselines, as `python train.py --baselines` leaves it."""
    from tiny_runs import tiny_recipe, write_recipe

    folder = tmp_path_factory.mktemp("measured")
    recipe = write_recipe(folder / "recipe.yaml", tiny_recipe(tiny_data, {"replay": {"batch_size": 4}}))
    ended = server.run(folder, "--config", recipe, "--run_dir", folder / "runs" / "run", "--baselines", figures=True)
    assert ended.code == 0, ended.err
    return folder / "runs" / "run"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The finished run, to be broken; without the report."""
    run = shutil.copytree(finished, tmp_path / "runs" / "copied", ignore=shutil.ignore_patterns("figures", "last.pt"))
    (run / "report.html").unlink()
    return run
