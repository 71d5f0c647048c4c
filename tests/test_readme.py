"""What the README shows is run: its extensions in a copy of the repository, its commands on a tiny data set."""

import csv
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tiny_runs import ALL, tiny_recipe, write_recipe

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
SHOWN = re.compile(r"`(\w+/\w+\.py)`, used as `(.*?)`[^`]*?```python\n(.*?)```", re.DOTALL)
OFFLINE = {"DL_data.prepare"}  # needs a network: only its --help is run here


def test_extensions_shown_train_two_stages(tmp_path, tiny_data):
    """Strategy, backbone, task and data set as files of their own, named in a recipe as the text says."""
    ignored = shutil.ignore_patterns(
        ".*", "runs", "tests", "__pycache__", "generated", "benchmarks", "mini_*", "imagenette*"
    )
    copy = shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=ignored)
    used = {}
    for file, entry, code in SHOWN.findall(README):
        assert not (copy / file).exists()
        (copy / file).write_text(code)
        used |= {Path(file).parent.name: yaml.safe_load(entry)}
    assert set(used) == {"strategies", "backbones", "tasks", "data"}
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for split in ("train", "val"):
        images = sorted(data.glob(f"imagenette*/{split}/*/*"))
        with (data / f"{split}.csv").open("w") as table:
            csv.writer(table).writerows((image.relative_to(data), image.parent.name) for image in images)
    plain = tiny_recipe(data, {**ALL, **used["strategies"]["strategies"]}, order=["seg", "cls"], **used["backbones"])
    plain["stages"]["cls"] |= {**used["tasks"], **used["data"]}
    recipe = write_recipe(tmp_path / "recipe.yaml", plain)
    command = [sys.executable, "train.py", "--config", recipe, "--run_dir", tmp_path / "run"]
    ended = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "+ l2 " in ended.stdout  # its term is among the losses of the second stage


def test_commands_shown_run(tmp_path, tiny_data, monkeypatch, capsys):
    block = README.split("## Commands")[1].split("```")[1]
    commands = [shlex.split(re.sub(r"\[.*?\]", "", line), comments=True) for line in block.strip().splitlines()]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_data, "DL_data")
    Path("configs").mkdir()
    write_recipe(Path("configs/onehead.yaml"), tiny_recipe("elsewhere"))
    for python, *words in commands:
        assert python == "python"
        if words[0] == "-m":
            words.pop(0)
        module = words[0].removesuffix(".py")
        code = exit_code(module, ["--help"] if module in OFFLINE else words[1:])
        assert code == 0, (words, capsys.readouterr())
        for trained in Path("runs").glob("onehead-*"):
            trained.rename("runs/NAME")
    assert Path("runs/NAME/figures").is_dir() and Path("scores.json").is_file()
    assert list(Path("runs").glob("predict-*/visualized/*.jpg")) and Path("all.json").is_file()
    shown = README.split("## Predict")[1].split("```python\n")[1].split("```")[0]
    capsys.readouterr()
    exec(compile(shown, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert Path("photo.jpg").is_file() and all(
        image.name in printed for image in Path("DL_data").glob("mini_coco_det/images/val/*")
    )


def exit_code(module: str, argv: list[str]) -> int:
    try:
        return importlib.import_module(module).main(argv)
    except SystemExit as end:
        return end.code
