"""Report pages taken apart, and runs to be broken."""

import json
from html.parser import HTMLParser
from pathlib import Path

import torch
import yaml

import checkpoint
import report
from evaluation import feed
from splits import open_splits

STAGES = ["seg", "det", "cls"]


class Page(HTMLParser):
    """A page taken apart: elements (tag, attributes), and the text of the whole and of every table's cells."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.in_cell = False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.cdata_elem:
            return
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def table(self, head: str) -> list[list[str]]:
        """Rows of the one table with this text in its first row, cells stripped."""
        (found,) = (t for t in self.tables if any(head in " ".join(cell.split()) for cell in t[0]))
        return [[" ".join(cell.split()) for cell in row] for row in found]

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.elements if name == tag]


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def without_data(run: Path) -> Path:
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(recipe | {"data_root": "nowhere/at all"}, sort_keys=False))
    return run


def written(run: Path, *flags) -> Page:
    assert report.main([str(run), *map(str, flags)]) == 0
    return Page(run / "report.html")


def per_image(path: Path, task: str):
    model, tasks, recipe, _ = checkpoint.restore(path)
    split = open_splits(recipe, [recipe.stages[task]], "val", {task: tasks[task].classes})[task]
    found = tasks[task].make_metric().per_image()
    feed(found, model, task, tasks[task], split, recipe.image_size, torch.device("cpu"))
    return found
