"""The report of one run: evidence gathered, figures worked out, page filled."""

import torch

import checkpoint
from reporting import verdict
from reporting.bootstrap import RESAMPLES
from reporting.charts import run_charts
from reporting.evidence import Evidence, Images, collect
from reporting.gallery import TaskGallery, make_galleries, replayed_thumbnails
from reporting.page import render
from reporting.reading import RunRecord, Snapshot
from reporting.tables import cost_rows, environment_rows, score_tables
from results import FLOOR, LIMIT
from rules import check_rules

MOST_BYTES = 9_000_000  # of the page: pictures make way beyond
SEED = 0  # of the resampling: the same intervals whenever the page is written


def run_report(
    record: RunRecord, found: list[Snapshot], missing: list[str], images: Images, device: torch.device
) -> str:
    """HTML of one run, below 10 MB. `missing`: sentences on snapshots not found. UserError: a damaged checkpoint."""
    evidence = collect(record, found, images.val, device) if images.val else Evidence(found)
    galleries = make_galleries(evidence, images.val, device)
    content = _figures(record, evidence) | {"replayed": {}, "kept": {}, "rules": []}
    missing = [*record.missing, *missing, *images.missing, *evidence.missing]
    own = [snapshot for snapshot in found if snapshot.stage is not None]
    if own:
        model, tasks, _, last = checkpoint.restore(own[-1].path, device)
        content["kept"] = last["memory"]
        content["replayed"], lost = replayed_thumbnails(last["memory"], tasks, images.train)
        missing += lost
        if record.finished:
            drops = {row.task: (row.percent, row.word) for row in content["drops"] if row.kind == "single"}
            content["rules"] = check_rules(model, drops, record.results.get("seconds"), last["memory"], device)
    if not content["rules"]:
        missing.append("The challenge's rules are checked on the last stage's checkpoint, which is not there.")
    content |= {"missing": missing, "galleries": galleries}
    page = render("run.html", **content)
    while len(page) > MOST_BYTES and _drop_pictures(galleries):
        page = render("run.html", **content)
    return page


def _drop_pictures(galleries: list[TaskGallery]) -> bool:
    """One example fewer in every group; False where none is left."""
    dropped = False
    for gallery in galleries:
        for examples in gallery.groups.values():
            dropped |= bool(examples)
            del examples[-1:]
    return dropped


def _figures(record: RunRecord, evidence: Evidence) -> dict:
    """All of the page that comes from logged figures and from scored images."""
    rows = verdict.drops(record, evidence, SEED)
    replay = record.results.get("replay", {})
    return {
        "title": f"{record.name} – OneHead report",
        "record": record,
        "facts": _facts(record),
        "headline": verdict.headline(record, rows),
        "matrix": _matrix(record),
        "transfer": verdict.transfer(record),
        "drops": rows,
        "doubts": verdict.doubts,
        "kinds": verdict.KINDS,
        "forest": Forest(rows),
        "limit": f"{LIMIT:g}",
        "floor": FLOOR,
        "resamples": RESAMPLES,
        "seed": SEED,
        "charts": run_charts(record.history),
        "score_tables": score_tables(record),
        "replay_size": f"{replay['bytes'] / 1e6:.2f} MB on disk." if replay.get("bytes") else "",
        "cost": cost_rows(record),
        "memory_is": _memory_is(record.environment),
        "environment": environment_rows(record.environment),
    }


def _facts(record: RunRecord) -> list[str]:
    facts = [f"{len(record.planned)} stages: {' → '.join(record.planned)}"]
    if record.recipe:
        strategies = ", ".join(record.recipe.strategies) or "no strategy"
        facts += [str(record.recipe.backbone.get("name", "")), strategies, f"seed {record.recipe.seed}"]
    if record.results.get("parameters"):
        facts.append(f"{record.results['parameters'] / 1e6:.2f} million parameters")
    if record.environment.get("date"):
        facts.append(str(record.environment["date"])[:10])
    return facts


def _memory_is(environment: dict) -> str:
    if environment.get("gpu"):
        return "the most that tensors took on the GPU during the stage"
    return "the most that the process held until the stage's end, images and libraries included"


def _matrix(record: RunRecord) -> dict:
    """heads: (task, metric); rows: (label, scores, column of the task learned then; None for a baseline)."""
    history = record.history
    rows = []
    for number, scores in enumerate(history.matrix):
        name = history.stages.get(number, f"stage {number + 1}")
        own = history.tasks.index(name) if name in history.tasks else -1
        rows.append((f"after {name}", scores, own))
    if single := history.baseline.get("single"):
        rows.append((verdict.KINDS["single"], [single.get(task) for task in history.tasks], None))
    return {"heads": [(task, history.metrics.get(task, "")) for task in history.tasks], "rows": rows}


class Forest:
    """Places, in % of the width, on the common axis of all drops; limit and zero are always in view."""

    LOWEST = -50.0  # better than that is cut off, and marked so; a drop is never beyond 100 %

    def __init__(self, rows: list[verdict.Drop]):
        ends = [0.0, LIMIT]
        for row in rows:
            ends += [] if row.percent is None else [row.percent]
            ends += row.interval.percent if row.interval and row.interval.percent else []
        self.low, self.high = max(min(ends), self.LOWEST), max(ends)
        room = 0.06 * (self.high - self.low)
        self.low, self.high = self.low - room, self.high + room
        self.zero, self.limit = self.at(0.0), self.at(LIMIT)

    def beyond(self, percent: float) -> bool:
        return percent < self.low

    def at(self, percent: float) -> float:
        return round(min(max(100 * (percent - self.low) / (self.high - self.low), 0), 100), 2)
