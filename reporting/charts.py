"""Curves as plain data for the page's plots: x values, series, stage borders."""

import math

from figures import LOG_RATIO
from history import SCORE, History, Term

COLOURS = 8  # of the page's palette, report.css: --c0 ...; a task keeps its colour in all plots


def run_charts(history: History) -> list[dict]:
    """Scores first, then the losses panel by panel, over all epochs of a run."""
    colours = {name: number for number, name in enumerate(dict.fromkeys([*history.tasks, *history.stages.values()]))}
    borders = [list(border) for border in history.borders()]
    panels: dict[str, list[Term]] = {}
    for term in [*history.scores(None), *history.losses(None)]:
        panels.setdefault(term.panel, []).append(term)
    charts = []
    for label, terms in panels.items():
        series = [(term.label, colours.get(term.task), number, term.points) for number, term in enumerate(terms)]
        charts.append(_chart(_title(label), label, series, borders, is_score=label == SCORE))
    return charts


def compared_charts(histories: dict[str, History]) -> list[dict]:
    """A plot per task's score and one of the total loss, each with a line per run: run name → history."""
    charts, panels = [], {}
    for number, (name, history) in enumerate(histories.items()):
        for term in history.scores(None):
            panels.setdefault((term.label, True), []).append((name, number, 0, term.points))
        for term in history.losses(None):
            if (term.panel, term.label) == ("loss", "total"):
                panels.setdefault(("total loss", False), []).append((name, number, 0, term.points))
    schedules = {history.borders() for history in histories.values()}
    borders = [list(border) for border in schedules.pop()] if len(schedules) == 1 else []
    for (label, is_score), series in panels.items():
        charts.append(_chart(label, SCORE if is_score else "loss", series, borders, is_score))
    return charts


def trade_off_chart(points: dict[str, tuple[float, float]]) -> dict:
    """Stability over plasticity, a dot per run: run name → (mean score right after learning, BWT)."""
    xs = sorted({x for x, _ in points.values()})
    series = [
        {"label": name, "colour": number % COLOURS, "dash": 0, "values": [y if at == x else None for at in xs]}
        for number, (name, (x, y)) in enumerate(points.items())
    ]
    axes = {
        "x_label": "plasticity: mean score right after learning",
        "y_label": "stability: BWT (0: nothing forgotten)",
    }
    title = "Stability and plasticity"
    return {"title": title, "kind": "dots", "x": xs, "series": series, "borders": [], "log": False, **axes}


def _title(panel: str) -> str:
    return "Scores on val" if panel == SCORE else panel.capitalize()


def _chart(title: str, y_label: str, series: list[tuple], borders: list, is_score: bool) -> dict:
    """series: (label, colour or None, dash, [(x, y)]). Scores are joined across epochs that have none, losses are not."""
    xs = sorted({x for *_, points in series for x, _ in points if math.isfinite(x)})
    drawn = []
    for label, colour, dash, points in series:
        known = {x: y for x, y in points if math.isfinite(x)}
        values = [known.get(x) for x in xs]
        values = [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in values]
        drawn.append(
            {"label": label, "colour": None if colour is None else colour % COLOURS, "dash": dash, "values": values}
        )
    found = [v for one in drawn for v in one["values"] if v is not None]
    wide = bool(found) and min(found) > 0 and max(found) / min(found) >= LOG_RATIO
    kind = "scores" if is_score else "losses"
    axes = {"x_label": "epoch, over all stages", "y_label": y_label, "log": wide and not is_score}
    last = max([*xs, *(end for _, end in borders)], default=1)
    return {"title": title, "kind": kind, "x": xs, "last": last, "series": drawn, "borders": borders, **axes}
