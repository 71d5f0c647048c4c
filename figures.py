"""Figures of run histories: functions from histories to matplotlib figures; no files, no pyplot, no global state.

A task keeps its colour in all figures. With one run, line style and marker tell a panel's terms apart; with several
the line style is the run's and the marker the term's.
"""

import itertools
import math

from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from errors import UserError
from history import SCORE, History, Term
from results import LIMIT

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
WIDTH = 7.0  # inches, a page's text width; exceeded only by long names
AXES_WIDTH = 4.0  # inches that a panel keeps beside its legend
CHARACTER = 0.075  # inches, mean width of a character at 9 points
LOG_RATIO = 30.0  # losses that span more are drawn on a logarithmic axis
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind a text that interrupts a line

Panel = list[tuple[int, Term]]  # number of the run, and one of its terms


class Overlay:
    """Runs drawn over one another: run name → history, and the look of their lines."""

    def __init__(self, histories: dict[str, History]):
        if len(histories) > len(DASHES):
            raise UserError(f"{len(histories)} runs in one figure; expected at most {len(DASHES)}, to be told apart")
        self.names = list(histories)
        self.histories = list(histories.values())
        self.tasks = list(dict.fromkeys(task for history in self.histories for task in history.tasks))
        stages = [stage for history in self.histories for stage in history.stages.values()]
        self.coloured = list(dict.fromkeys([*self.tasks, *stages]))

    @property
    def several(self) -> bool:
        return len(self.names) > 1

    def look(self, run: int, term: Term, number: int) -> dict:
        """Keyword arguments of `plot` for a panel's term of that number."""
        known = term.task in self.coloured
        every = max(1, len(term.points) // 8)  # about eight markers a line, shifted so that terms do not hide others
        return {
            "color": COLOURS[self.coloured.index(term.task) % len(COLOURS)] if known else "black",
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": DASHES[(run if self.several else number) % len(DASHES)],
            "markevery": (-(-number * every // 4) % every, every),
            "label": f"{self.names[run]}: {term.label}" if self.several else term.label,
        }

    def draw(self, axes: Axes, panel: Panel, *more: Line2D) -> None:
        """Draw a panel's lines; beside it the legend of its terms (runs: see name_runs) and of `more`."""
        labels = list(dict.fromkeys(term.label for _, term in panel))
        handles = {}
        for run, term in panel:
            look = self.look(run, term, labels.index(term.label))
            axes.plot(*zip(*term.points, strict=True), **look)
            look |= {"label": term.label, "markevery": None} | ({"linestyle": "-"} if self.several else {})
            handles.setdefault(term.label, Line2D([], [], **look))
        axes.legend(handles=[*handles.values(), *more], loc="upper left", bbox_to_anchor=(1.02, 1.04), borderaxespad=0)

    def name_runs(self, figure: Figure, panels: dict[str, Panel]) -> None:
        """Above the figure the legend of the line styles of the runs drawn in it, if several are compared."""
        if self.several:
            runs = sorted({run for panel in panels.values() for run, _ in panel})
            handles = [Line2D([], [], color="black", linestyle=DASHES[i], label=self.names[i]) for i in runs]
            columns = int(WIDTH / (CHARACTER * max(map(len, self.names)) + 0.8))
            figure.legend(handles=handles, loc="outside upper left", ncols=max(1, min(columns, len(handles))))


def curve_figure(overlay: Overlay, stage: tuple[int, str] | None = None) -> Figure | None:
    """Losses and scores against the epochs of one stage (index, name), or of all stages with their borders marked.

    None where the logs hold neither losses nor scores.
    """
    panels: dict[str, Panel] = {}
    for terms in (History.losses, History.scores):
        for run, history in enumerate(overlay.histories):
            for term in terms(history, stage):
                panels.setdefault(term.panel, []).append((run, term))
    if not panels:
        return None
    figure, column = _stack(panels, 1.35)
    for axes, (label, panel) in zip(column, panels.items(), strict=True):
        overlay.draw(axes, panel)
        axes.set_ylabel(label)
        if label == SCORE:
            best = axes.dataLim.y1
            axes.set_ylim(0, 1.06 * best if 0 < best < math.inf else None)  # room for the marker on top
        else:
            _scale_losses(axes)
    epochs = [x for panel in panels.values() for _, term in panel for x, _ in term.points if math.isfinite(x)]
    last = max(1, *epochs)
    column[-1].set_xlim(-0.015 * last, 1.015 * last)
    column[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    column[-1].set_xlabel(f"epoch of stage {stage[0] + 1} ({stage[1]})" if stage else "epoch, over all stages")
    if stage is None:
        _mark_stages(column, overlay)
    figure.align_ylabels(column)
    overlay.name_runs(figure, panels)
    return figure


def _stack(panels: dict[str, Panel], height: float) -> tuple[Figure, list[Axes]]:
    """Axes below one another, at least `height` inches high each, with room for all legend entries beside them."""
    heights = [max(height, 0.3 + 0.165 * len({term.label for _, term in panel})) for panel in panels.values()]
    longest = max(len(term.label) for panel in panels.values() for _, term in panel)
    width = max(WIDTH, AXES_WIDTH + 1.2 + CHARACTER * longest)
    figure = Figure(figsize=(width, sum(heights) + 0.7), layout="constrained")
    return figure, list(figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])


def _scale_losses(axes: Axes) -> None:
    values = [y for line in axes.get_lines() for y in line.get_ydata() if math.isfinite(y)]
    if values and min(values) > 0 and max(values) / min(values) >= LOG_RATIO:
        narrow = max(values) / min(values) < 1000
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if narrow else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark_stages(column: list[Axes], overlay: Overlay) -> None:
    """Stage borders as vertical lines, the stages' names on top; a row of names for each schedule among the runs."""
    schedules: dict[tuple, int] = {}
    for run, history in enumerate(overlay.histories):
        schedules.setdefault(history.borders(), run)
    for row, (schedule, run) in enumerate(reversed(schedules.items())):
        style = {"color": "0.5", "linewidth": 0.8, "linestyle": DASHES[run], "zorder": 0}
        above = ScaledTranslation(0, 0.12 + 0.17 * row, column[0].figure.dpi_scale_trans)
        top = {"transform": column[0].get_xaxis_transform() + above}
        for (_, start), (name, end) in itertools.pairwise([("", 0.0), *schedule]):
            if len(schedules) > 1:
                column[0].add_artist(Line2D([start, end], [1, 1], clip_on=False, marker="|", **top, **style))
            room = int((end - start) / column[0].get_xlim()[1] * AXES_WIDTH / CHARACTER)
            short = name if len(name) <= room else name[: max(1, room - 1)] + "…"
            column[0].text((start + end) / 2, 1, short, ha="center", va="center", bbox=WHITE, **top)
            if start:
                for axes in column:
                    axes.axvline(start, label="border", **style)


def matrix_figure(overlay: Overlay) -> Figure | None:
    """Score matrix of every run side by side: rows stages, then baselines; columns tasks. None without any score."""
    shown = [(name, history) for name, history in zip(overlay.names, overlay.histories, strict=True) if history.matrix]
    if not shown:
        return None
    lines = max(len(history.matrix) + len(history.baseline) for _, history in shown)
    longest = max(len(name) for _, h in shown for name in (*h.tasks, *h.metrics.values(), *h.stages.values()))
    width = max(0.75, CHARACTER * longest + 0.15) * len(overlay.tasks) + max(1.4, CHARACTER * longest + 0.7)
    columns = 2 if len(shown) > 1 and 2 * width <= 1.3 * WIDTH else 1
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(columns * width + 0.8, rows * (0.36 * lines + 0.7)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, (name, history) in zip(grid.flat, shown, strict=False):
        mesh = _draw_matrix(axes, history, overlay.tasks, lines)
        if overlay.several:
            axes.set_title(name)
    figure.colorbar(mesh, ax=grid, label=SCORE, aspect=18 * rows, shrink=0.8).outline.set_visible(False)
    return figure


def _draw_matrix(axes: Axes, history: History, tasks: list[str], lines: int) -> QuadMesh:
    """All runs get the same tasks and number of lines, so that their cells have one size and stand side by side."""
    rows = {f"after {history.stages.get(i, f'stage {i + 1}')}": row for i, row in enumerate(history.matrix)}
    rows = {label: dict(zip(history.tasks, row, strict=True)) for label, row in rows.items()}
    rows |= {f"{kind} baseline": given for kind, given in history.baseline.items()}
    values = [[row.get(task, math.nan) for task in tasks] for row in rows.values()]
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "edgecolors": "white", "linewidth": 1.5}
    mesh = axes.pcolormesh(values, **look)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if math.isfinite(value):
                ink = "white" if value > 0.65 else "black"  # where both contrast alike on this colour map
                axes.text(j + 0.5, i + 0.5, f"{value:.3f}", ha="center", va="center", color=ink)
    axes.axhline(len(history.matrix), color="black", linewidth=0.8)
    axes.set_ylim(lines, 0)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], list(rows))
    heads = [f"{task}\n{history.metrics.get(task, SCORE)}" if task in history.tasks else "" for task in tasks]
    axes.set_xticks([j + 0.5 for j in range(len(tasks))], heads)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return mesh


def forgetting_figure(overlay: Overlay) -> Figure | None:
    """Drop of each task in % over the stages, a panel per kind of baseline, with the limit. None without any drop."""
    panels: dict[str, Panel] = {}
    for run, history in enumerate(overlay.histories):
        for term in history.drops(describe=not overlay.several):
            panels.setdefault(term.panel, []).append((run, term))
    if not panels:
        return None
    figure, column = _stack(panels, 1.9)
    for axes, (kind, panel) in zip(column, panels.items(), strict=True):
        limit = {"color": "0.4", "linewidth": 1, "linestyle": (0, (8, 3)), "zorder": 0, "label": f"limit {LIMIT:g} %"}
        overlay.draw(axes, panel, axes.axhline(LIMIT, **limit))
        axes.axhline(0, color="0.7", linewidth=0.8, zorder=0, label="zero")
        axes.set_ylabel(f"drop from {kind}\nbaseline (%)")
    finished = range(max(len(history.matrix) for history in overlay.histories))
    names = [dict.fromkeys(h.stages[i] for h in overlay.histories if i in h.stages) for i in finished]
    labels = [" / ".join(found) or f"stage {i + 1}" for i, found in enumerate(names)]
    slant = {"rotation": 20, "ha": "right"} if max(map(len, labels)) * len(labels) * CHARACTER > AXES_WIDTH else {}
    column[-1].set_xticks(finished, labels, **slant)
    column[-1].set_xlabel("after stage")
    overlay.name_runs(figure, panels)
    return figure
