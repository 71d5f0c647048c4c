"""The report that compares runs: a table, differences with intervals, curves over one another, stability and plasticity."""

import torch

from reporting import verdict
from reporting.bootstrap import RESAMPLES, paired_drop
from reporting.charts import compared_charts, trade_off_chart
from reporting.evidence import Evidence, collect, open_images
from reporting.page import figure, render
from reporting.reading import RunRecord, snapshots
from results import drop_percent

SEED = 0


def comparison_report(records: list[RunRecord], data_root: str | None, device: torch.device) -> str:
    """HTML that compares two runs or more. UserError: a damaged checkpoint, or a `data_root` that cannot be used."""
    tasks = {task: record.history.metrics[task] for record in records for task in record.history.tasks}
    rows = [_row(record, list(tasks)) for record in records]
    missing = [f"{record.name}: {sentence}" for record in records for sentence in record.missing]
    differences, lost = _differences(records, list(tasks), data_root, device)
    curves = compared_charts({record.name: record.history for record in records})
    transfers = {record.name: verdict.transfer(record) for record in records}
    points = {n: (t["plasticity"], t["bwt"]) for n, t in transfers.items() if None not in (t["plasticity"], t["bwt"])}
    trade_off = trade_off_chart(points) if points else None
    if len(points) < len(records):
        others = ", ".join(name for name in transfers if name not in points)
        missing.append(f"Not in the picture of stability and plasticity, as not finished or of one stage: {others}.")
    return render(
        "comparison.html",
        charts=[*([trade_off] if trade_off else []), *curves],
        title=f"{len(records)} runs compared – OneHead report",
        headline=_headline(rows, bool(differences)),
        tasks=list(tasks.items()),
        rows=rows,
        differences=differences,
        trade_off=trade_off,
        curves=curves,
        missing=missing + lost,
        resamples=RESAMPLES,
        seed=SEED,
    )


def _row(record: RunRecord, tasks: list[str]) -> dict:
    history = record.history
    last = dict(zip(history.tasks, history.matrix[-1], strict=True)) if history.matrix else {}
    final = [verdict.known(last.get(task)) for task in tasks]
    drops = {
        kind: [drop_percent(history.baseline.get(kind, {}).get(t), f) for t, f in zip(tasks, final, strict=True)]
        for kind in verdict.KINDS
    }
    seconds = record.results.get("seconds")
    return {
        "name": record.name,
        "finished": record.finished,
        "final": final,
        **drops,
        **verdict.transfer(record),
        "parameters": record.results["parameters"] / 1e6 if record.results.get("parameters") else None,
        "minutes": sum(seconds.values()) / 60 if seconds else None,
    }


def _headline(rows: list[dict], intervals: bool) -> list[str]:
    scored = [row for row in rows if row["acc"] is not None]
    if not scored:
        return ["No run has finished all its stages."]
    best = max(scored, key=lambda row: row["acc"])
    kept = max(scored, key=lambda row: -1 if row["bwt"] is None else row["bwt"])
    words = [f"Highest mean score after the last stage: {best['name']} (ACC {best['acc']:.4f})."]
    if kept["bwt"] is not None:
        words.append(f"Least forgotten: {kept['name']} (BWT {figure(kept['bwt'], '+.4f')}).")
    if intervals:
        return [*words, "Whether that is more than noise, the intervals of the differences tell."]
    return [*words, "Whether that is more than noise is not known here."]


def _differences(records: list[RunRecord], tasks: list[str], data_root: str | None, device) -> tuple[list, list[str]]:
    """For every run but the first: per task final score minus the first run's, in points, with its interval."""
    last, ids, missing = [], [], []
    for record in records:
        found = [s for s in snapshots(record)[0] if s.stage == len(record.history.matrix) - 1]
        images = open_images(record, found, data_root)
        evidence = collect(record, found, images.val, device) if images.val else Evidence([])
        missing += [f"{record.name}: {sentence}" for sentence in [*images.missing, *evidence.missing]]
        last.append({task: next(iter(by.values())) for task, by in evidence.per_image.items()})
        ids.append({task: split.dataset.ids for task, split in images.val.items()})
    rows = []
    for record, own, images in zip(records[1:], last[1:], ids[1:], strict=True):
        cells = []
        for task in tasks:
            comparable = task in own and task in last[0] and images[task] == ids[0][task]
            interval = paired_drop(own[task], last[0][task], seed=SEED) if comparable else None
            cells.append(interval and {"points": _gain(record, records[0], task), "interval": interval.points})
        rows.append((record.name, cells))
    if not any(cell for _, cells in rows for cell in cells):
        return [], [
            *missing,
            "No differences with intervals: the runs' checkpoints and val images are not all at hand.",
        ]
    return rows, missing


def _gain(record: RunRecord, first: RunRecord, task: str) -> float:
    """In points of 0..100."""
    scores = [r.history.matrix[-1][r.history.tasks.index(task)] for r in (record, first)]
    return 100 * (scores[0] - scores[1])
