"""Imports point down, and what the house style forbids is not there: by the syntax tree, without importing anything."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")} - {"tests"}
FILES = [path for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]) if path.parent.name != "tests"]
IDS = [str(path.relative_to(ROOT)) for path in FILES]

# From the ground up: a room may import what stands on an earlier line, or beside it on its own.
FLOORS = [
    {"errors", "seeding", "files", "runlog", "registry", "download", "palette"},
    {"data", "boxes", "metrics", "backbones", "necks", "loggers"},
    {"models"},
    {"distill", "replay"},
    {"tasks", "strategies"},
    {"recipe", "recipe_limits", "recipe_parser"},
    {"splits", "evaluation", "results", "environment", "checkpoint", "rules"},
    {"run", "optimisation", "history", "figures", "plot_log", "pictures", "progress"},
    {"reporting", "command_line"},
    {"prediction"},
    {"report", "train", "eval", "predict"},
]
SCRIPTS = {"DL_data", "benchmarks", "docs"}  # commands beside the project: nothing imports them


def room_of(path: Path) -> str:
    return path.stem if path.parent == ROOT else path.parent.name


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(path: Path) -> set[str]:
    """Dotted names imported at run time, anywhere in the file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if hasattr(node, "body") and isinstance(node.body, list):
            node.body = [child for child in node.body if not is_type_checking(child)]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)} & OWN


def test_every_module_has_its_floor():
    floors = [room for floor in FLOORS for room in floor]
    assert len(floors) == len(set(floors))
    assert {room_of(path) for path in FILES} <= {*floors, *SCRIPTS}, "a new module: say in FLOORS where it belongs"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_point_down(path):
    if room_of(path) in SCRIPTS:
        return
    floor = next(number for number, rooms in enumerate(FLOORS) if room_of(path) in rooms)
    allowed = set().union(*FLOORS[: floor + 1])
    assert rooms_imported(path) <= allowed, f"{path.name} imports upwards"


def test_mechanisms_know_neither_each_other_nor_strategies_nor_train():
    for mechanism, other in (("replay", "distill"), ("distill", "replay")):
        for path in (ROOT / mechanism).glob("*.py"):
            assert not rooms_imported(path) & {other, "strategies", "train", "run", "recipe"}, path


def test_strategies_know_neither_each_other_nor_the_loop():
    names = {path.stem for path in (ROOT / "strategies").glob("*.py")} - {"__init__"}
    assert names
    for path in (ROOT / "strategies").glob("*.py"):
        imported = imports_of(path)
        assert not {name for name in imported if name.split(".")[0] == "strategies" and name.split(".")[-1] in names}, (
            path
        )
        assert not rooms_imported(path) & {"train", "run", "progress", "command_line", "recipe"}, path


@pytest.mark.parametrize("folder", ["tasks", "backbones", "necks", "data", "loggers"])
def test_extensions_of_a_folder_do_not_know_each_other(folder):
    """But for what starts with an underscore, which several may share, and the mechanisms of data/."""
    mechanisms = {"decode", "loader", "transforms", "validate"} if folder == "data" else set()
    public = {p.stem for p in (ROOT / folder).glob("*.py") if not p.stem.startswith("_")} - mechanisms
    for path in (ROOT / folder).glob("*.py"):
        assert not {n for n in imports_of(path) if n.split(".")[0] == folder and n.split(".")[-1] in public}, path


@pytest.mark.parametrize(
    "name",
    ["train.py", "run.py", "eval.py", "plot_log.py", "evaluation.py", "models.py", "predict.py", "report.py"],
)
def test_no_strategy_task_or_backbone_is_named_outside_its_file(name):
    """Neither imported nor compared with: `if task == "seg"` belongs nowhere."""
    known = {p.stem for f in ("strategies", "tasks", "backbones", "necks") for p in (ROOT / f).glob("[a-z]*.py")}
    known |= {"seg", "det", "cls"}
    tree = ast.parse((ROOT / name).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.Subscript | ast.MatchValue):
            constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
            assert not {c for c in constants if isinstance(c, str)} & known, f"{name}:{node.lineno}"
    assert not {n.split(".")[-1] for n in imports_of(ROOT / name) if n.split(".")[0] in OWN} & (known - {"replay"})


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_nothing_that_the_house_style_forbids(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module says what it is"
    for node in ast.walk(tree):
        place = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Global | ast.Nonlocal), place
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"everything"}
            assert not caught & {"Exception", "BaseException", "everything"}, place
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            assert "*" not in names, place
