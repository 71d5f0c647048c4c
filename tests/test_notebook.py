"""The notebook runs from top to bottom, outside Jupyter, in a copy of the repository, on a tiny data set.

Its cells are plain Python, so they are run as one script: a Jupyter kernel for one test would be a score of dependencies.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tiny_runs import tiny_recipe, write_recipe

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "notebooks" / "onehead.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = {cell["id"]: "".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"}
HOSTED = {"torch", "torchvision", "numpy", "pillow", "matplotlib"}  # on every hosted notebook


def test_it_runs_from_top_to_bottom(tmp_path, tiny_data):
    ignored = shutil.ignore_patterns(".*", "runs", "tests", "__pycache__", "generated", "mini_*", "imagenette*")
    copy = shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=ignored)
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe("elsewhere", {"lwf": {}, "replay": {"batch_size": 2}}))
    run = tmp_path / "runs" / "one"
    values = {"CONFIG": str(recipe), "DATA_ROOT": str(tiny_data), "RUN": str(run), "BASELINES": False}
    values["EPOCHS"] = dict.fromkeys(("seg", "det", "cls"), 1)
    cells = []
    for cell in CELLS:
        if cell["cell_type"] == "code":
            cells.append("".join(cell["source"]))
            if "parameters" in cell["metadata"].get("tags", ()):
                cells += [f"{name} = {value!r}" for name, value in values.items()]
    script = copy / "notebooks" / "onehead.py"
    script.write_text("\n\n".join(cells))
    ended = subprocess.run([sys.executable, script.name], cwd=script.parent, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "seg 1/1" in ended.stdout and "grade 1/1" in ended.stdout and "/2: " not in ended.stdout  # EPOCHS hold
    assert "after det: " in ended.stdout and (run / "report.html").is_file()
    assert json.loads((run / "scores.json").read_text())["rules"]
    added = json.loads((run.parent / "one-grade" / "results.json").read_text())
    assert added["tasks"] == ["seg", "grade"] and added["final"]["grade"] is not None
    assert set(values) == set(names_assigned(CODE["parameters"])), "a parameter that the test does not set"


def names_assigned(code: str) -> list[str]:
    return [target.id for node in ast.parse(code).body for target in node.targets]


def test_nothing_is_stored_in_it():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
    assert NOTEBOOK.stat().st_size < 20_000


def test_the_task_it_adds_is_the_readmes():
    shown = (REPOSITORY / "README.md").read_text().split("A task, `tasks/ordinal.py`")[1]
    assert shown.split("```python\n")[1].split("```")[0] in CODE["task"]


def test_a_hosted_notebook_installs_what_the_project_needs():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w.-]+", line).group() for line in project["dependencies"]}
    installed = {
        re.match(r"[\w.-]+", word.strip('"')).group()
        for line in CODE["setup"].splitlines()
        if line.startswith("# %pip install")
        for word in line.split(" -q ")[1].split()
    }
    assert installed == needed - HOSTED
