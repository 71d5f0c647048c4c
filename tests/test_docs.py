"""What docs/ shows is run, what it quotes is in the sources, and what it points to is there."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from test_readme import exit_code
from tiny_runs import tiny_recipe, write_recipe

from docs import figures, forgotten
from recipe_parser import make_recipe, read_recipe

REPOSITORY = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md"))}
README = (REPOSITORY / "README.md").read_text()
NOTEBOOK = (REPOSITORY / "notebooks" / "onehead.ipynb").read_text()
EXTENSION = re.compile(r"`(\w+/\w+\.py)`, used as `([^`]*)`[^`]*?```python\n(.*?)```", re.DOTALL)
HOOKS = ["check", "before_stage", "batches", "losses", "on_gradients", "after_step", "end_training", "after_stage"]


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_data, finished) -> Path:
    """A folder with data, recipes and two finished runs of the names that the pages use."""
    shutil.copytree(tiny_data, tmp_path / "DL_data")
    for name in ("NAME", "OTHER"):
        shutil.copytree(finished, tmp_path / "runs" / name)
    (tmp_path / "configs").mkdir()
    write_recipe(tmp_path / "configs" / "onehead.yaml", tiny_recipe("elsewhere", {}, order=["seg"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(workplace, page, capsys):
    for line in "".join(blocks("bash", page)).splitlines():
        python, script, *words = shlex.split(line)
        assert python == "python"
        if "--help" in words:  # of the real recipe: it decides which flags there are
            words = [str(REPOSITORY / word) if word.startswith("configs/") else word for word in words]
        code = exit_code(script.removesuffix(".py"), words)
        assert code in (0, None), (line, capsys.readouterr().err)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "extending.md"])
def test_code_runs(workplace, page):
    for number, code in enumerate(blocks("python", page)):
        exec(compile(code, f"{page}, block {number}", "exec"), {})


def test_extensions_are_used_and_keep_their_contracts(tmp_path, tiny_data):
    """All of them at once, in a copy of the repository: the contract tests find them, and two stages train with them."""
    ignored = shutil.ignore_patterns(".*", "runs", "__pycache__", "generated", "benchmarks", "mini_*", "imagenette*")
    copy = shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=ignored)
    used = {}
    for file, entry, code in EXTENSION.findall(PAGES["extending.md"]):
        assert not (copy / file).exists()
        (copy / file).write_text(code)
        used |= {Path(file).parent.name: yaml.safe_load(entry)}
    assert set(used) == {"strategies", "necks", "tasks"}
    assert len(used) == len(blocks("python", "extending.md"))
    plain = tiny_recipe(tiny_data, used["strategies"]["strategies"], order=["seg", "cls"], **used["necks"])
    plain["stages"]["cls"] |= used["tasks"]
    recipe = write_recipe(tmp_path / "recipe.yaml", plain)
    printed = run_in(copy, "train.py", "--config", recipe, "--run_dir", tmp_path / "run")
    called = re.findall(r"^hook (\w+)$", printed, re.MULTILINE)
    assert called == HOOKS + HOOKS[1:] and all(f"`{hook}" in PAGES["extending.md"] for hook in HOOKS)
    assert "cls Balanced" in printed
    contracts = [f"tests/test_{name}.py" for name in ("structure", "strategies", "tasks", "backbones")]
    names = " or ".join(Path(file).stem for file, _, _ in EXTENSION.findall(PAGES["extending.md"]))
    outcome = run_in(copy, "-m", "pytest", *contracts, "-k", names)
    assert int(re.search(r"(\d+) passed", outcome).group(1)) > 15, outcome


def run_in(folder: Path, *words) -> str:
    command = [sys.executable, *map(str, words)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_recipes_are_whole(tmp_path):
    shutil.copytree(REPOSITORY / "configs", tmp_path, dirs_exist_ok=True)
    for number, text in enumerate(blocks("yaml", "recipes.md")):
        path = tmp_path / f"shown-{number}.yaml"
        path.write_text(text)
        recipe = make_recipe(read_recipe(path), source=text)[0]
        assert recipe.resolved != make_recipe(read_recipe(tmp_path / "onehead.yaml"))[0].resolved, "changes nothing"


@pytest.mark.parametrize("page", [*PAGES, "README.md", "onehead.ipynb"])
def test_links_lead_somewhere(page):
    text = {**PAGES, "README.md": README, "onehead.ipynb": NOTEBOOK}[page]
    folder = {"README.md": REPOSITORY, "onehead.ipynb": REPOSITORY / "notebooks"}.get(page, REPOSITORY / "docs")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = folder / file if file else folder / page
        assert path.is_file(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


@pytest.mark.parametrize("page", PAGES)
def test_files_named_exist(page):
    shown = {file for file, _, _ in EXTENSION.findall(PAGES[page])}
    for name in re.findall(r"\b(?:tests|configs|docs|strategies|tasks|necks|data)/\w+\.(?:py|yaml)", PAGES[page]):
        assert name in shown or (REPOSITORY / name).is_file(), name


def quoted() -> list[str]:
    """The first column of the tables of messages."""
    tables = PAGES["troubleshooting.md"].split("## No message")[0]
    return re.findall(r"^\| `(.*?)` \|", tables, re.MULTILINE)


def written() -> set[str]:
    """Every text in the sources, what is filled in replaced by «…»."""
    found = set()
    for path in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("*/*.py")]:
        if path.parent not in (REPOSITORY / "tests", REPOSITORY / "docs"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.add("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def test_messages_quoted_are_in_the_sources():
    assert len(quoted()) > 40
    sources = written()
    assert [message for message in quoted() if message not in sources] == []
    assert "…: no such thing" not in sources


RAISED = [
    ("image_size is …, expected a multiple of 32", ["--image_size", "100"]),
    ("….rates freezes every part: nothing would train", ["--stages.seg.rates", "ZERO"]),
    ("….rates names the part '…'…", ["--stages.seg.rates", "{sharde1: 0}"]),
    ("order names the stage '…'…", ["--order", "[sge]"]),
    ("…: cannot be used: …", ["--data_root", "nowhere"]),
    ("…: …; looked for …; correct --data_root or the dataset's option 'folder'", ["--data_root", "nowhere"]),
    ("…: no such recipe…", ["--config", "nowhere.yaml"]),
    ("unknown name '…' for a ……", ["--neck.name", "fnp"]),
    ("--resume needs --run_dir: the folder of the interrupted run", ["--resume"]),
    ("…: no run to resume (no …)…", ["--resume", "--run_dir", "nowhere"]),
    ("…: exists and is not empty; go on with --resume, or choose another --run_dir", ["--run_dir", "runs/NAME"]),
]


@pytest.mark.parametrize(("message", "flags"), RAISED, ids=[" ".join(flags) for _, flags in RAISED])
def test_messages_quoted_are_raised(workplace, capsys, message, flags):
    assert message in quoted()
    parts = ["backbone", "neck", "shared1", "shared2", "seg"]
    flags = [str(dict.fromkeys(parts, 0)).replace("'", "") if flag == "ZERO" else flag for flag in flags]
    config = [] if "--config" in flags or "--resume" in flags else ["--config", "configs/onehead.yaml"]
    assert exit_code("train", [*config, *flags]) == 2
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    assert re.search(pattern, capsys.readouterr().err)


def test_the_figures_are_drawn_and_small(tmp_path):
    figures.draw_drops(tmp_path / "drops.png")
    figures.draw_norms(dict.fromkeys(figures.LINES, [0.5, 0.4, 0.3]), tmp_path / "norms.png")
    for name in ("drops.png", "norms.png"):
        assert (tmp_path / name).stat().st_size > 5000
        assert (REPOSITORY / "docs" / name).stat().st_size < 60_000


def test_the_first_picture_is_drawn_from_two_runs(tmp_path, finished, capsys):
    picture = tmp_path / "forgotten.png"
    assert forgotten.main([str(finished), str(finished), "--out", str(picture)]) == 0
    with Image.open(picture) as drawn:
        assert drawn.width > 4 * 260 and drawn.height > 4 * 200
    assert forgotten.main([str(finished), str(tmp_path / "none"), "--out", str(picture)]) == 2
    assert "expected the folder of a finished run" in capsys.readouterr().err


def test_statistics_move_without_weights(tiny_data, monkeypatch):
    """What the figure of norm statistics claims; its own assertions say that no weight has changed."""
    monkeypatch.setattr(figures, "read_recipe", lambda path: tiny_recipe("elsewhere"))
    before = torch.get_rng_state()
    curves = figures.measure_norms(tiny_data, epochs=1, size=64, batches=2)
    torch.set_rng_state(before)
    assert set(curves) == set(figures.LINES)
    assert len({tuple(curve[:1]) for curve in curves.values()}) == 1
    assert len(set(curves["none (frozen)"])) == 1
