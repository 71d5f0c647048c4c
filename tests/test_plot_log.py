"""plot_log: the figures' data against the logs they were drawn from, what is missing, several runs, bad input."""

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import plot_log
from errors import UserError
from figures import COLOURS, DASHES, Overlay, curve_figure, forgetting_figure, matrix_figure
from history import History
from plot_log import plot_runs
from runlog import append_log, read_log

REPOSITORY = Path(__file__).parents[1]
METRICS = {"river": "depth", "trees": "height", "birds": "count"}  # no name the code could know
TERMS = {"river": ["flow"], "trees": ["trunk", "crown"], "birds": ["song"]}
SCORES = [[0.5, None, None], [0.49, 0.4, None], [0.45, 0.41, 0.8]]
SINGLE = {"river": 0.5, "trees": 0.5, "birds": None}
STAGES = [(0, "river", 4), (1, "trees", 6), (2, "birds", 2)]


def write_run(run: Path, scores=SCORES, stages=STAGES, results: dict | None = None) -> Path:
    """A run as train.py logs it: losses are global epoch / 10 per term, scores at the end of each stage."""
    run.mkdir(parents=True)
    append_log(run / "log.jsonl", {"kind": "start", "version": 1})
    before, tasks = 0, [name for _, name, _ in stages]
    for index, name, epochs in stages:
        for epoch in range(1, epochs + 1):
            place = {"stage": name, "stage_index": index, "global_epoch": before + epoch}
            value = (before + epoch) / 10
            losses = {"total": 5 * value} | {f"{name}.{term}": value for term in TERMS[name]}
            for old in tasks[:index]:
                losses |= {f"lwf.{old}": 10.0**-epoch} | {f"replay.{old}.{term}": value for term in TERMS[old]}
            if index:
                losses["lwf.shared"] = None if epoch == 1 else value
            record = {"epoch": epoch, "epochs": epochs, "losses": losses, "lr": {"head": 1e-4}, "seconds": 1.5}
            append_log(run / "log.jsonl", {"kind": "epoch", **place, **record})
        before += epochs
        for task, value in zip(tasks[: index + 1], scores[index], strict=False):
            place = {"stage": name, "stage_index": index, "epoch": epochs, "global_epoch": before}
            what = {"task": task, "metric": METRICS[task], "scores": {METRICS[task]: value, "other": None}}
            append_log(run / "log.jsonl", {"kind": "evaluation", **place, **what})
    if results is not None:
        (run / "results.json").write_text(json.dumps(results))
    return run


def whole_results() -> dict:
    stage = {task: SCORES[i][i] for i, task in enumerate(METRICS)}
    return {
        "tasks": list(METRICS),
        "metrics": METRICS,
        "matrix": SCORES,
        "baseline": {"single": SINGLE, "stage": stage},
    }


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run", results=whole_results())


def overlay(*runs: Path) -> Overlay:
    return Overlay({run.name: History.read(run) for run in runs})


def panel(figure, label: str):
    (axes,) = (axes for axes in figure.axes if axes.get_ylabel() == label)
    return axes


def line(axes, label: str):
    (found,) = (line for line in axes.get_lines() if line.get_label() == label)
    return found


def points(axes, label: str) -> list[tuple[float, float]]:
    """Finite points of a line."""
    return [tuple(p) for p in line(axes, label).get_xydata().tolist() if not math.isnan(p[1])]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


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


# runs that did not finish


def test_interrupted_after_stage_1(tmp_path):
    run = write_run(tmp_path / "run", stages=STAGES[:1])
    half = {"kind": "epoch", "stage": "trees", "stage_index": 1, "epoch": 1, "epochs": 6, "global_epoch": 5}
    append_log(run / "log.jsonl", {**half, "losses": {"total": 1.0, "trees.trunk": 0.5, "lwf.river": 0.1}})
    names = [path.name for path in plot_runs([run], tmp_path / "out") if path.suffix == ".svg"]
    assert names == ["stage1_river.svg", "stage2_trees.svg", "curves.svg", "matrix.svg", "forgetting.svg"]
    losses = panel(curve_figure(overlay(run), (1, "trees")), "loss")
    assert legend(losses) == ["total", "trees.trunk"]  # known as the stage's own before it was ever evaluated
    cells = [text.get_text() for text in matrix_figure(overlay(run)).axes[0].texts]
    assert cells == ["0.500", "0.500"]  # after the stage, and its own baseline


def test_partial_results_are_completed_from_the_log(tmp_path):
    partial = {"tasks": list(METRICS), "matrix": [[0.5, None, None]], "baseline": {"single": None, "stage": {}}}
    history = History.read(write_run(tmp_path / "run", stages=STAGES[:2], results=partial))
    assert history.matrix[0][0] == 0.5 and history.matrix[1][:2] == [0.49, 0.4]
    assert list(map(math.isnan, history.matrix[0] + history.matrix[1])) == [False, True, True, False, False, True]
    assert history.baseline == {"stage": {"river": 0.5, "trees": 0.4}}


def test_scores_within_an_unfinished_stage_are_not_in_the_matrix(tmp_path):
    run = write_run(tmp_path / "run", stages=STAGES[:2])
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines).replace('"epochs": 6', '"epochs": 60'))
    history = History.read(run)
    assert len(history.matrix) == 1
    assert [term.points for term in history.scores(None)] == [[(4, 0.5), (10, 0.49)], [(10, 0.4)]]


def test_torn_results_count_as_missing(run, capsys):
    whole = (run / "results.json").read_text()
    (run / "results.json").write_text(whole[: len(whole) // 2])
    assert History.read(run).matrix[2] == SCORES[2]
    assert "results.json: not a JSON object" in capsys.readouterr().err


def test_no_epoch_finished_with_a_score(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    place = {"stage": "river", "stage_index": 0, "epoch": 1, "epochs": 4, "global_epoch": 1}
    append_log(run / "log.jsonl", {"kind": "epoch", **place, "losses": {"total": 1.0, "river.flow": None}})
    assert [path.name for path in plot_runs([run], run / "f")][::2] == ["stage1_river.png", "curves.png"]


def test_records_repeated_by_a_resume_count_once(run):
    record = next(r for r in read_log(run) if r["kind"] == "epoch" and r["stage"] == "trees")
    append_log(run / "log.jsonl", record | {"losses": {"total": 99.0}})
    history = History.read(run)
    assert len(history.epochs) == 12
    assert history.epochs[4]["losses"] == {"total": 99.0}


def test_a_score_of_null_when_learned_gives_no_stage_baseline(tmp_path):
    run = write_run(tmp_path / "run", scores=[[None, None, None], [0.4, 0.4, None], [0.3, None, 0.5]])
    assert History.read(run).baseline == {"stage": {"trees": 0.4, "birds": 0.5}}
    labels = legend(forgetting_figure(overlay(run)).axes[0])
    assert labels == ["trees", "birds +0.0 %, count 0.500", "limit 5 %"]


# bad input


def break_line(run: Path, number: int, text: str) -> None:
    lines = (run / "log.jsonl").read_text().splitlines()
    lines[number - 1] = text
    (run / "log.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("text", ["", '{"kind": "epo', "[1]", "\ufffd"])
def test_malformed_line_in_the_middle(run, capsys, text):
    break_line(run, 3, text)
    assert plot_log.main([str(run)]) == 2
    assert f"{run / 'log.jsonl'}:3: not a JSON object" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ('"stage_index": 0', '"stage_index": null', "'stage_index' is None; expected: int"),
        ('"losses": {', '"lossen": {', "'losses' is missing; expected: dict"),
        ('"river.flow": 0.1', '"river.flow": "low"', "'river.flow' is 'low'; expected a number or null"),
    ],
)
def test_record_without_its_fields(run, capsys, old, new, finding):
    line = (run / "log.jsonl").read_text().splitlines()[1]
    break_line(run, 2, line.replace(old, new))
    assert plot_log.main([str(run)]) == 2
    assert f"{run / 'log.jsonl'}:2: {finding}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("results", "finding"),
    [
        ({"matrix": 5}, "'matrix' is 5; expected a list"),
        ({"matrix": [[0.5, "high"]]}, "[0.5, 'high'] among the scores"),
        ({"matrix": [3]}, "3 among the scores"),
        ({"baseline": {"single": [0.5]}}, "[0.5] among the scores"),
    ],
)
def test_wrong_results(run, capsys, results, finding):
    (run / "results.json").write_text(json.dumps(results))
    assert plot_log.main([str(run)]) == 2
    assert f"results.json: {finding}" in capsys.readouterr().err


def test_missing_run_names_the_nearest(run, capsys):
    assert plot_log.main([str(run.parent / "rum")]) == 2
    error = capsys.readouterr().err
    assert "rum/log.jsonl: no such log" in error and "did you mean 'run'?" in error


def test_log_without_an_epoch(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text("")
    assert plot_log.main([str(tmp_path)]) == 2
    assert "no epoch and no evaluation" in capsys.readouterr().err


def test_folder_that_cannot_be_written(run, capsys):
    (run / "file").write_text("")
    assert plot_log.main([str(run), "--out", str(run / "file")]) == 2
    assert "cannot write figures" in capsys.readouterr().err


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
