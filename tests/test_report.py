"""report: what the page says against the run's own files."""

import json

import numpy as np
import pytest
from report_pages import STAGES, Page, per_image, written

from history import History
from reporting import single
from reporting.bootstrap import paired_drop
from reporting.charts import run_charts
from reporting.gallery import _choose
from reporting.page import figure

# a finished run


def test_training_ends_with_a_page_that_needs_nothing_else(finished):
    page = Page(finished / "report.html")
    assert len(page.source) < 10_000_000
    links = [attrs.get("src") or attrs.get("href") for _, attrs in page.elements if "src" in attrs or "href" in attrs]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    for heading in ("Verdict", "What was forgotten", "Curves", "by class and by size", "Replayed", "Time", "Recipe"):
        assert heading in page.text
    assert page.text.index("Score matrix") < page.text.index("What was forgotten")
    assert "Left out" not in page.text


def test_matrix_and_drops_are_the_runs(measured):
    page, results = Page(measured / "report.html"), json.loads((measured / "results.json").read_text())
    matrix = page.table("segmiou")
    assert [row[1:] for row in matrix[1:4]] == [[figure(value, ".4f") for value in row] for row in results["matrix"]]
    assert matrix[4][1:] == [figure(results["baseline"]["single"][task], ".4f") for task in STAGES]
    rows = page.table("final score")[1:]
    assert len(rows) == 6
    for number, row in enumerate(rows):
        task, kind = STAGES[number // 2], ("single", "stage")[number % 2]
        points, percent = results["drop_points"][kind][task], results["drop_percent"][kind][task]
        assert row[2:4] == [figure(results["baseline"][kind][task], ".4f"), figure(results["final"][task], ".4f")]
        assert row[4].split("[")[0] == figure(points, "+.2f")
        assert row[5].split("[")[0] == figure(percent, "+.2f")


def test_intervals_are_those_of_the_checkpoints_on_the_val_images(measured):
    """Every interval of the page against checkpoints found and scored here; the first stage is its own single-task run."""
    alone = {path.parent.name[:3]: path for path in measured.parent.glob("baselines/*/final.pt")}
    stage_of = {"seg": measured / "stage1_seg.pt", "det": measured / "stage2_det.pt"}
    rows = Page(measured / "report.html").table("final score")[1:]
    for number, row in enumerate(rows):
        task, kind = STAGES[number // 2], ("single", "stage")[number % 2]
        before = alone.get(task, stage_of["seg"]) if kind == "single" else stage_of.get(task)
        if before is None:
            assert "[" not in row[4] and "0 by construction" in row[7]
            continue
        interval = paired_drop(per_image(before, task), per_image(measured / "final.pt", task))
        low, high = (figure(value, "+.1f") for value in interval.points)
        assert row[4].endswith(f"[{low}, {high}]"), (task, kind)


def test_the_page_written_again_says_the_same(finished, copied):
    """From the folder, with the images opened anew, as from the run in memory."""
    again, first = written(copied), Page(finished / "report.html")
    for head in ("segmiou", "final score", "peak memory"):
        assert again.table(head) == first.table(head)
    assert [img["src"] for img in again.all("img")] == [img["src"] for img in first.all("img")]


def test_scores_by_class_and_size_after_each_stage(finished):
    page, results = Page(finished / "report.html"), json.loads((finished / "results.json").read_text())
    cells = [[" ".join(cell.split()) for cell in row] for table in page.tables for row in table]
    for key in ("iou/background", "miou"):
        values = [results["scores"][stage]["seg"][key] for stage in range(3)]
        shown = [figure(value, ".4f") for value in values] + [figure(values[2] - values[0], "+.4f")]
        assert [key.rpartition("/")[2], *shown] in cells
    assert any(row[0] == "medium" for row in cells)


def test_cost_and_replay(finished):
    page, results = Page(finished / "report.html"), json.loads((finished / "results.json").read_text())
    cost = page.table("peak memory")[1:]
    assert [row[0] for row in cost] == STAGES
    assert [row[4] for row in cost] == [f"{results['memory'][task] / 1e6:.0f}" for task in STAGES]
    thumbnails = [img["title"] for img in page.all("img") if "title" in img]
    assert thumbnails == [id_ for task in STAGES for id_ in results["replay"]["ids"][task]]


def test_pictures_show_one_image_after_each_stage_beside_the_truth(measured):
    page = Page(measured / "report.html")
    shown: dict[str, list[tuple]] = {}
    for img in page.all("img"):
        if "title" not in img:
            id_, label = img["alt"].rsplit(": ", 1)
            shown.setdefault(id_, []).append((label, img["width"], img["height"]))
    stages = [f"after {task}" for task in STAGES]
    expected = {("truth", *stages), ("truth", *stages[1:], "trained alone"), ("truth", stages[2], "trained alone")}
    assert {tuple(label for label, *_ in pictures) for pictures in shown.values()} == expected
    for pictures in shown.values():
        assert len({size for _, *size in map(tuple, pictures) for size in [tuple(size)]}) == 1


def test_the_most_forgotten_and_the_best_kept_are_chosen():
    learned = np.array([0.9, 0.9, 0.5, np.nan, 0.6, 0.7, 0.8])
    final = np.array([0.1, 0.9, 0.6, 0.3, 0.3, np.nan, 0.75])
    assert _choose(np.stack([learned, learned * 0, final]), 2) == {"Forgotten most": [0, 4], "Kept best": [2, 1]}
    assert _choose(final[None], 1) == {"Answered worst": [0], "Answered best": [1]}
    few = _choose(np.stack([learned, final])[:, :3], 4)
    assert few == {"Forgotten most": [0], "Kept best": [2]}  # no image in both


def test_pictures_make_way_when_the_page_grows_too_large(copied, monkeypatch):
    whole = len(written(copied).source)
    monkeypatch.setattr(single, "MOST_BYTES", whole - 1)
    assert len([img for img in written(copied).all("img") if "title" not in img]) > 0
    assert len((copied / "report.html").read_text()) < whole
    monkeypatch.setattr(single, "MOST_BYTES", 0)
    page = written(copied)
    assert [img for img in page.all("img") if "title" not in img] == [] and "Score matrix" in page.text


def test_curves_are_the_logs(finished):
    history = History.read(finished)
    charts = {chart["title"]: chart for chart in run_charts(history)}
    scores = charts["Scores on val"]
    assert scores["borders"] == [["seg", 2], ["det", 4], ["cls", 5]] and scores["x"] == [2, 4, 5]
    seg = next(series for series in scores["series"] if series["label"] == "seg (miou)")
    assert seg["values"] == pytest.approx([row[0] for row in history.matrix], rel=1e-4)
    total = next(series for series in charts["Loss"]["series"] if series["label"] == "total")
    assert total["values"] == pytest.approx([record["losses"]["total"] for record in history.epochs], rel=1e-4)
    old = next(series for series in charts["Lwf loss"]["series"] if series["label"] == "seg")
    assert charts["Lwf loss"]["x"] == [3, 4, 5] and None not in old["values"]
    assert old["colour"] == seg["colour"]
