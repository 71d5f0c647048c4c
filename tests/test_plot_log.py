"""plot_log: the figures' data against the logs they were drawn from, files, several runs, the command."""

import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from plot_runs import REPOSITORY, STAGES, legend, line, overlay, panel, points, whole_results, write_run

import plot_log
from errors import UserError
from figures import COLOURS, DASHES, Overlay, curve_figure, forgetting_figure, matrix_figure
from history import History
from plot_log import plot_runs


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run", results=whole_results())


# one run


def test_stage_figure_shows_the_logged_losses_and_scores(run):
    figure = curve_figure(overlay(run), (1, "trees"))
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "lwf loss", "replay loss", "score"]
    assert legend(panel(figure, "loss")) == ["total", "trees.trunk", "trees.crown"]
    assert points(panel(figure, "loss"), "trees.crown") == [(e, (4 + e) / 10) for e in range(1, 7)]
    assert points(panel(figure, "lwf loss"), "river") == [(e, 10.0**-e) for e in range(1, 7)]
    assert points(panel(figure, "replay loss"), "river.flow")[-1] == (6, 1.0)
    assert points(panel(figure, "score"), "river (depth)") == [(0, 0.5), (6, 0.49)]  # 0: as the stage before left it
    assert points(panel(figure, "score"), "trees (height)") == [(6, 0.4)]


def test_a_null_is_a_gap(run):
    shared = line(panel(curve_figure(overlay(run), (1, "trees")), "lwf loss"), "shared").get_ydata()
    assert math.isnan(shared[0]) and all(map(math.isfinite, shared[1:]))


def test_losses_over_a_wide_range_are_drawn_on_a_log_axis(run):
    figure = curve_figure(overlay(run), (1, "trees"))
    assert panel(figure, "lwf loss").get_yscale() == "log"
    assert panel(figure, "replay loss").get_yscale() == panel(figure, "score").get_yscale() == "linear"


def test_curves_run_over_global_epochs_with_named_borders(run):
    figure = curve_figure(overlay(run))
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_label() == "border"] == [4, 10]
    assert {t.get_text(): t.get_position()[0] for t in figure.axes[0].texts} == {"river": 2, "trees": 7, "birds": 11}
    assert points(panel(figure, "score"), "river (depth)") == [(4, 0.5), (10, 0.49), (12, 0.45)]
    assert points(panel(figure, "loss"), "total") == [(e, 5 * e / 10) for e in range(1, 13)]
    assert len(line(panel(figure, "loss"), "total").get_xdata()) == 14  # and a gap at each border


def test_matrix_annotates_stages_and_baselines(run):
    axes = matrix_figure(overlay(run)).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["after river", "after trees", "after birds", "single baseline", "stage baseline"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["river\ndepth", "trees\nheight", "birds\ncount"]
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {
        **{(0, 0): "0.500", (1, 0): "0.490", (1, 1): "0.400", (2, 0): "0.450", (2, 1): "0.410", (2, 2): "0.800"},
        **{(3, 0): "0.500", (3, 1): "0.500", (4, 0): "0.500", (4, 1): "0.400", (4, 2): "0.800"},
    }


def test_forgetting_against_both_baselines(run):
    figure = forgetting_figure(overlay(run))
    single, stage = panel(figure, "drop from single\nbaseline (%)"), panel(figure, "drop from stage\nbaseline (%)")
    assert legend(single) == ["river +10.0 %, depth 0.450", "trees +18.0 %, height 0.410", "limit 5 %"]
    drops = points(single, "river +10.0 %, depth 0.450")
    assert drops == [(0, 0), (1, pytest.approx(2)), (2, pytest.approx(10))]
    assert points(stage, "trees -2.5 %, height 0.410") == [(1, 0), (2, pytest.approx(-2.5))]
    assert points(stage, "birds +0.0 %, count 0.800") == [(2, 0)]
    assert list(line(single, "limit 5 %").get_ydata()) == [5, 5]
    assert [label.get_text() for label in stage.get_xticklabels()] == ["river", "trees", "birds"]


def test_tasks_keep_their_colour_and_terms_differ_without_it(run):
    scores = panel(curve_figure(overlay(run)), "score")
    lines = [line for line in scores.get_lines() if line.get_label() != "border"]
    assert [line.get_color() for line in lines] == list(COLOURS[:3])
    looks = [overlay(run).look(0, term, number) for number, term in enumerate(History.read(run).scores(None))]
    assert len({look["marker"] for look in looks}) == len({look["linestyle"] for look in looks}) == 3
    losses = panel(curve_figure(overlay(run), (2, "birds")), "replay loss")
    assert [line.get_color() for line in losses.get_lines()] == [COLOURS[0], COLOURS[1], COLOURS[1]]
    assert len({line.get_marker() for line in losses.get_lines()}) == 3


# files


def test_files_exist_parse_and_do_not_change(run, tmp_path):
    written = plot_runs([run], tmp_path / "a")
    names = ["stage1_river", "stage2_trees", "stage3_birds", "curves", "matrix", "forgetting"]
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert content.startswith(b"\x89PNG")
    again = plot_runs([run], tmp_path / "b")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_stage_names_are_made_safe_for_file_names(tmp_path):
    write_run(tmp_path / "run", stages=[(0, "river", 2)])
    log = tmp_path / "run" / "log.jsonl"
    log.write_text(log.read_text().replace('"stage": "river"', '"stage": "a/b $x$ c"'))
    assert plot_runs([tmp_path / "run"], tmp_path / "out")[0].name == "stage1_a_b__x__c.png"


def test_import_leaves_pyplot_and_backend_alone():
    check = (
        "import matplotlib; before = dict(matplotlib.rcParams.copy()); import sys, plot_log; "
        "assert 'matplotlib.pyplot' not in sys.modules and dict(matplotlib.rcParams.copy()) == before"
    )
    subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, check=True)


# several runs


def test_runs_differ_by_line_style(run, tmp_path):
    other = write_run(tmp_path / "other", scores=[[0.6, None, None], [0.3, 0.4, None], [0.1, 0.2, 0.7]])
    figure = curve_figure(overlay(run, other))
    mine, theirs = (line(panel(figure, "score"), f"{name}: river (depth)") for name in ("run", "other"))
    assert mine.get_color() == theirs.get_color() and mine.get_marker() == theirs.get_marker()
    assert mine.get_linestyle() != theirs.get_linestyle()
    assert list(theirs.get_ydata()) == [0.6, 0.3, 0.1]
    assert legend(panel(figure, "score")) == ["river (depth)", "trees (height)", "birds (count)"]
    (runs,) = figure.legends
    assert [text.get_text() for text in runs.get_texts()] == ["run", "other"]
    assert [axes.get_title() for axes in matrix_figure(overlay(run, other)).axes[:2]] == ["run", "other"]


def test_runs_of_different_schedules_show_all_their_borders(run, tmp_path):
    other = write_run(tmp_path / "other", stages=[(0, "river", 3), (1, "trees", 3)])
    figure = curve_figure(overlay(run, other))
    borders = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if line.get_label() == "border"]
    assert sorted(borders) == [3, 4, 10]
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["birds", "river", "river", "trees", "trees"]
    drops = panel(forgetting_figure(overlay(run, other)), "drop from stage\nbaseline (%)")
    assert points(drops, "other: river") == [(0, 0), (1, pytest.approx(2))]
    (runs,) = curve_figure(overlay(run, other), (2, "birds")).legends
    assert [text.get_text() for text in runs.get_texts()] == ["run"]  # the other has no such stage


def test_runs_of_the_same_name_and_twice_the_same(run, tmp_path):
    same = write_run(tmp_path / "elsewhere" / "run")
    assert list(plot_log.run_names([run, same, run])) == [f"{tmp_path.name}/run", "elsewhere/run"]


def test_more_runs_than_line_styles_are_refused(run):
    histories = {str(i): History.read(run) for i in range(len(DASHES) + 1)}
    with pytest.raises(UserError, match="8 runs in one figure"):
        Overlay(histories)


# the command


def test_command_writes_into_the_run(run):
    done = subprocess.run(
        [sys.executable, "plot_log.py", run], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert sorted(done.stdout.split()) == sorted(str(path) for path in (run / "figures").iterdir())
    assert done.stderr == ""


def test_command_compares_several_runs(run, tmp_path, monkeypatch):
    other = write_run(tmp_path / "other", stages=STAGES[:1])
    monkeypatch.chdir(tmp_path)
    assert plot_log.main([str(run), str(other)]) == 0
    assert (tmp_path / "runs" / "compare-run-other" / "matrix.png").is_file()


def test_no_run_given():
    with pytest.raises(SystemExit) as error:
        plot_log.main([])
    assert error.value.code == 2
