"""plot_log: runs that did not finish, bad input."""

import json
import math
from pathlib import Path

import pytest
from plot_runs import METRICS, SCORES, STAGES, legend, overlay, panel, whole_results, write_run

import plot_log
from figures import curve_figure, forgetting_figure, matrix_figure
from history import History
from plot_log import plot_runs
from runlog import append_log, read_log


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run", results=whole_results())


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
