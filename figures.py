"""Figures of run histories: functions from histories to matplotlib figures; no files, no pyplot, no global state.

A task keeps its colour in all figures. With one run, line style and marker tell a panel's terms apart; with several
the line style is the run's and the marker the term's.
"""

import math
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from errors import UserError
from results import LIMIT
from runlog import History, score

# Okabe and Ito, "Color Universal Design", 2008; yellow last, as it is faint on white; black is for terms of no task.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (10, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "text.parse_math": False,  # names from the files are no formulas
    "svg.hashsalt": "onehead",
}
WIDTH = 7.0  # inches, a page's text width
LOG_RATIO = 30.0  # losses that span more are drawn on a logarithmic axis
SCORES = "score"  # label of the scores' panel


class Overlay:
    """Runs drawn over one another: run name → history, and the look of their lines."""

    def __init__(self, histories: dict[str, History]):
        if len(histories) > len(DASHES):
            raise UserError(f"{len(histories)} runs in one figure; expected at most {len(DASHES)}, to be told apart")
        self.histories = histories
        self.runs = list(histories)
        tasks = [task for history in histories.values() for task in history.tasks]
        stages = [stage for history in histories.values() for stage in history.stages.values()]
        self.tasks = list(dict.fromkeys([*tasks, *stages]))

    @property
    def several(self) -> bool:
        return len(self.runs) > 1

    def look(self, series: Series, term: int) -> dict:
        """Keyword arguments of `plot` for the panel's term number `term`."""
        known = series.task in self.tasks
        every = max(1, len(series.points) // 10)  # about ten markers a line, shifted so that terms do not hide others
        return {
            "color": COLOURS[self.tasks.index(series.task) % len(COLOURS)] if known else "black",
            "marker": MARKERS[term % len(MARKERS)],
            "linestyle": DASHES[(series.run if self.several else term) % len(DASHES)],
            "markevery": (term * every // 4 % every, every),
            "label": f"{self.runs[series.run]}: {series.label}" if self.several else series.label,
        }

    def draw(self, axes: Axes, panel: list[Series], *more: Line2D) -> None:
        """Draw a panel's lines; beside it their legend, by term (the runs' styles stand above the figure), and `more`."""
        terms = list(dict.fromkeys(series.label for series in panel))
        handles = {}
        for series in panel:
            look = self.look(series, terms.index(series.label))
            axes.plot(*zip(*series.points, strict=True), **look)
            proxy = look | ({"linestyle": "-"} if self.several else {}) | {"label": series.label, "markevery": None}
            handles.setdefault(series.label, Line2D([], [], **proxy))
        axes.legend(handles=[*handles.values(), *more], loc="upper left", bbox_to_anchor=(1.01, 1.04), borderaxespad=0)

    def name_runs(self, figure: Figure) -> None:
        """The legend of the runs' line styles above the figure, if there are several."""
        if self.several:
            handles = [Line2D([], [], color="black", linestyle=DASHES[i], label=run) for i, run in enumerate(self.runs)]
            columns = int(WIDTH / (0.08 * max(map(len, self.runs)) + 0.7))
            figure.legend(handles=handles, loc="outside upper left", ncols=max(1, min(columns, len(handles))))


def curve_figure(overlay: Overlay, stage: tuple[int, str] | None = None) -> Figure:
    """Losses and scores against the epochs of one stage (index, name), or of all stages with their borders marked."""
    panels: dict[str, list[Series]] = {}
    for run, history in enumerate(overlay.histories.values()):
        for group, series in loss_series(history, run, stage):
            panels.setdefault(group, []).append(series)
    scores = [
        series for run, history in enumerate(overlay.histories.values()) for series in score_series(history, run, stage)
    ]
    panels |= {SCORES: scores} if scores else {}
    heights = [max(1.35, 0.3 + 0.165 * len({series.label for series in panel})) for panel in panels.values()]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.7), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (label, panel) in zip(column, panels.items(), strict=True):
        overlay.draw(axes, panel)
        axes.set_ylabel(label)
        if label == SCORES:
            axes.set_ylim(bottom=0)
        else:
            _scale_losses(axes)
    last = max(x for panel in panels.values() for series in panel for x, _ in series.points if math.isfinite(x))
    column[-1].set_xlim(-0.015 * last, 1.015 * last)
    column[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    column[-1].set_xlabel(f"epoch of stage {stage[0] + 1} ({stage[1]})" if stage else "epoch")
    if stage is None:
        _mark_stages(list(column), overlay)
    figure.align_ylabels(column)
    overlay.name_runs(figure)
    return figure


def _scale_losses(axes: Axes) -> None:
    values = [y for line in axes.get_lines() for y in line.get_ydata() if math.isfinite(y)]
    if values and min(values) > 0 and max(values) / min(values) >= LOG_RATIO:
        narrow = max(values) / min(values) < 1000
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if narrow else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark_stages(column: list[Axes], overlay: Overlay) -> None:
    """Vertical lines at the stage borders, the stages' names on top: one row of them per distinct set of borders."""
    layouts: dict[tuple, int] = {}
    for run, history in enumerate(overlay.histories.values()):
        ends = dict.fromkeys(history.stages, 0.0)
        for record in (*history.epochs, *history.evaluations):
            ends[record["stage_index"]] = max(ends[record["stage_index"]], record["global_epoch"])
        layouts.setdefault(tuple((history.stages[i], end) for i, end in ends.items()), run)
    for row, (layout, run) in enumerate(reversed(layouts.items())):
        start = 0.0
        for name, end in layout:
            where = {"xy": ((start + end) / 2, 1), "xycoords": column[0].get_xaxis_transform()}
            column[0].annotate(name, **where, xytext=(0, 5 + 12 * row), textcoords="offset points", ha="center")
            if start:
                for axes in column:
                    axes.axvline(start, color="0.5", linewidth=0.8, linestyle=DASHES[run], zorder=0, label="border")
            start = end


def matrix_figure(overlay: Overlay) -> Figure | None:
    """Score matrix of every run side by side: rows stages, then baselines; columns tasks. None without any score."""
    shown = {run: history for run, history in overlay.histories.items() if history.matrix}
    if not shown:
        return None
    columns = 2 if len(shown) > 1 and max(len(history.tasks) for history in shown.values()) <= 4 else 1
    rows = math.ceil(len(shown) / columns)
    height = 0.75 + 0.36 * max(len(history.matrix) + len(history.baseline) for history in shown.values())
    width = max(0.75 * len(history.tasks) for history in shown.values()) + 1.4
    figure = Figure(figsize=(columns * width + 0.8, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, (run, history) in zip(grid.flat, shown.items(), strict=False):
        mesh = _draw_matrix(axes, history)
        if overlay.several:
            axes.set_xlabel(run)
    figure.colorbar(mesh, ax=grid, label=SCORES, aspect=18, shrink=0.9).outline.set_visible(False)
    return figure


def _draw_matrix(axes: Axes, history: History):
    rows = {f"after {history.stages.get(i, i + 1)}": row for i, row in enumerate(history.matrix)}
    rows |= {
        f"{kind} baseline": [given.get(task, math.nan) for task in history.tasks]
        for kind, given in history.baseline.items()
    }
    mesh = axes.pcolormesh(
        list(rows.values()), cmap=colormaps["Blues"], vmin=0, vmax=1, edgecolors="white", linewidth=1.5
    )
    for i, row in enumerate(rows.values()):
        for j, value in enumerate(row):
            if math.isfinite(value):
                ink = "white" if value > 0.65 else "black"
                axes.text(j + 0.5, i + 0.5, f"{value:.3f}", ha="center", va="center", color=ink)
    axes.axhline(len(history.matrix), color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_yticks([i + 0.5 for i in range(len(rows))], list(rows))
    heads = [f"{task}\n{history.metrics.get(task, '')}" for task in history.tasks]
    axes.set_xticks([j + 0.5 for j in range(len(heads))], heads)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return mesh


def forgetting_figure(overlay: Overlay) -> Figure | None:
    """Drop of each task in % over the stages, a panel per kind of baseline, with the limit. None without any drop."""
    panels: dict[str, list[Series]] = {}
    for run, history in enumerate(overlay.histories.values()):
        for kind in history.baseline:
            for task in history.tasks:
                drops = history.drop_percent(kind, task)
                if any(map(math.isfinite, drops)):
                    final = history.matrix[-1][history.tasks.index(task)]
                    label = f"{task} {drops[-1]:+.1f} %, {history.metrics.get(task, SCORES)} {final:.3f}"
                    series = Series(run, task if overlay.several else label, task, list(enumerate(drops)))
                    panels.setdefault(kind, []).append(series)
    if not panels:
        return None
    figure = Figure(figsize=(WIDTH, 1.9 * len(panels) + 0.5), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (kind, panel) in zip(column, panels.items(), strict=True):
        limit = axes.axhline(
            LIMIT, color="0.4", linewidth=1, linestyle=(0, (8, 3)), zorder=0, label=f"limit {LIMIT:g} %"
        )
        axes.axhline(0, color="0.7", linewidth=0.8, zorder=0, label="zero")
        overlay.draw(axes, panel, limit)
        axes.set_ylabel(f"drop from {kind}\nbaseline (%)")
    column[-1].set_xticks(*zip(*enumerate(_stage_names(overlay)), strict=True))
    overlay.name_runs(figure)
    return figure


def _stage_names(overlay: Overlay) -> list[str]:
    """Label per finished stage; where the runs' orders differ, all names: "after det / cls"."""
    finished = range(max(len(history.matrix) for history in overlay.histories.values()))
    names = [dict.fromkeys(h.stages[i] for h in overlay.histories.values() if i in h.stages) for i in finished]
    return [f"after {' / '.join(found) or i + 1}" for i, found in enumerate(names)]
