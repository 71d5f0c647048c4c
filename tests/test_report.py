"""report: what the page says against the run's own files, what is missing, hostile names, bad input, several runs."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import tiny_recipe, write_recipe

import checkpoint
import report
from evaluation import feed
from history import History
from reporting import single
from reporting.bootstrap import Interval, paired_drop
from reporting.charts import compared_charts, run_charts
from reporting.gallery import _choose
from reporting.page import figure
from reporting.reading import read_run, snapshots
from reporting.single import Forest
from reporting.verdict import LAST, Drop, headline
from results import drop_percent, drop_points, verdict
from splits import open_splits

STAGES = ["seg", "det", "cls"]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


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


@pytest.fixture(scope="session")
def measured(tmp_path_factory, tiny_data, server) -> Path:
    """A run with its single-task baselines, as `python train.py --baselines` leaves it."""
    folder = tmp_path_factory.mktemp("measured")
    recipe = write_recipe(folder / "recipe.yaml", tiny_recipe(tiny_data, {"replay": {"batch_size": 4}}))
    ended = server.run(folder, "--config", recipe, "--run_dir", folder / "runs" / "run", "--baselines", figures=True)
    assert ended.code == 0, ended.err
    return folder / "runs" / "run"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The finished run, to be broken; without the report."""
    run = shutil.copytree(finished, tmp_path / "runs" / "copied", ignore=shutil.ignore_patterns("figures", "last.pt"))
    (run / "report.html").unlink()
    return run


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


def refused(capsys, out: Path, *argv) -> str:
    """The message; nothing may have been written."""
    assert report.main([*map(str, argv), "--out", str(out)]) == 2
    assert not list(out.parent.glob(out.name + "*"))
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Traceback" not in err
    return err


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


def per_image(path: Path, task: str):
    model, tasks, recipe, _ = checkpoint.restore(path)
    split = open_splits(recipe, [recipe.stages[task]], "val", {task: tasks[task].classes})[task]
    found = tasks[task].make_metric().per_image()
    feed(found, model, task, tasks[task], split, recipe.image_size, torch.device("cpu"))
    return found


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


# what is missing is said


def test_without_the_data_the_page_says_what_is_left_out(copied):
    page = written(without_data(copied))
    assert "not at hand (nowhere/at all): no pictures, no intervals, no replayed images" in page.text
    assert page.all("img") == [] and "[" not in page.table("final score")[1][4]
    assert "no interval: images or checkpoint not at hand" in page.text
    assert page.table("rule") and "Curves" in page.text


def test_data_root_names_the_data(copied, tiny_data):
    page = written(without_data(copied), "--data_root", tiny_data)
    assert page.all("img") and "Left out" not in page.text


def test_missing_baselines_are_said_in_the_verdict(finished):
    page = Page(finished / "report.html")
    assert "Single-task baselines were not measured (train.py --baselines)" in page.text
    assert "not measured: train.py --baselines" in " ".join(page.table("final score")[1])


def test_a_baseline_without_its_checkpoint_has_no_interval_and_the_page_says_so(measured, tmp_path):
    run = shutil.copytree(measured, tmp_path / "alone")
    page = written(run)
    assert "The checkpoint of det trained alone is not there" in page.text
    rows = page.table("final score")
    assert "[" in rows[1][4] and "[" not in rows[3][4] and rows[3][2] != "–"


def test_a_baseline_of_another_score_is_not_taken_for_the_runs(measured):
    record = read_run(measured, "run")
    single_of = {s.task: s.path for s in snapshots(record)[0] if s.stage is None}
    assert single_of["seg"] == measured / "stage1_seg.pt"
    assert single_of["cls"].parent.name.startswith("cls-")
    record.history.baseline["single"]["cls"] += 0.01
    assert "cls" not in {s.task for s in snapshots(record)[0] if s.stage is None}


def test_missing_files_are_noted(copied):
    for name in ("stage1_seg.pt", "env.json"):
        (copied / name).unlink()
    page = written(copied)
    assert "No stage1_seg.pt: no pictures and no intervals of what stands after stage seg." in page.text
    assert "No env.json" in page.text
    (copied / "config.yaml").unlink()
    (copied / "results.json").unlink()
    page = written(copied)
    assert "No config.yaml" in page.text and "No results.json" in page.text
    assert len(page.table("final score")) > 1  # from the log


def test_images_that_are_not_the_runs_are_noticed(copied):
    def worse(results):
        results["matrix"][2][0] += 0.1

    edit(copied / "results.json", worse)
    assert "do not give the run's own score (seg after cls:" in written(copied).text


def test_a_run_that_goes_on_is_reported_as_far_as_it_got(copied):
    lines = (copied / "log.jsonl").read_text().splitlines(keepends=True)
    begun = next(n for n, line in enumerate(lines) if json.loads(line)["stage"] == "det")
    (copied / "log.jsonl").write_text("".join(lines[: begun + 1]))
    for name in ("stage2_det.pt", "final.pt", "results.json"):
        (copied / name).unlink()
    page = written(copied)
    assert "Not finished, still in training or interrupted: stage 2 of 3 (det), epoch 1 of 2" in page.text
    assert "rules are checked on the last stage's checkpoint" in page.text
    assert len(page.table("segmiou")) == 2 and page.all("img")
    (copied / "log.jsonl").write_text(lines[0])
    (copied / "stage1_seg.pt").unlink()
    assert "No stage is finished: there is no score to judge yet." in written(copied).text


# hostile names


def test_names_from_outside_stay_text(copied, tmp_path):
    run = copied.rename(tmp_path / "runs" / HOSTILE.replace("/", ":"))
    log = (run / "log.jsonl").read_text()
    dumped = json.dumps(HOSTILE)[1:-1]
    log = log.replace('"iou/background"', f'"iou/{dumped}"').replace('"seg.cross_entropy"', f'"seg.{dumped}"')
    (run / "log.jsonl").write_text(log)
    edit(run / "env.json", lambda env: env.update(command=HOSTILE, processor=HOSTILE))
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"# {HOSTILE}\n")
    plain = written(run)
    assert len(plain.all("script")) == 3  # data, library, ours
    assert not [img for img in plain.all("img") if "onerror" in img or img["src"] == "x"]
    assert plain.text.count(HOSTILE) >= 4  # class, command, processor, recipe
    data = re.search(r'id="charts">(.*?)</script>', plain.source, re.DOTALL)[1]
    assert HOSTILE in {series["label"].removeprefix("seg.") for chart in json.loads(data) for series in chart["series"]}


# bad input


def test_a_folder_that_is_no_run(capsys, tmp_path, copied):
    assert "log.jsonl: no such log" in refused(capsys, tmp_path / "out.html", tmp_path)
    assert "did you mean 'copied'" in refused(capsys, tmp_path / "out.html", copied.parent / "copid")
    (tmp_path / "file").touch()
    refused(capsys, tmp_path / "out.html", tmp_path / "file")


def test_a_run_without_a_finished_epoch(capsys, copied, tmp_path):
    (copied / "log.jsonl").write_bytes(b"")
    assert "expected a run that finished an epoch" in refused(capsys, tmp_path / "out.html", copied)


@pytest.mark.parametrize("name", ["results.json", "config.yaml", "env.json", "final.pt", "stage1_seg.pt"])
def test_a_damaged_file_is_named(capsys, copied, tmp_path, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(b"{ [" + content[: len(content) // 2])
    assert str(copied / name) in refused(capsys, tmp_path / "out.html", copied)


def test_a_data_root_without_the_sets(capsys, copied, tmp_path):
    assert "elsewhere" in refused(capsys, tmp_path / "out.html", copied, "--data_root", tmp_path / "elsewhere")


def test_a_place_that_cannot_be_written(capsys, copied):
    assert report.main([str(copied), "--out", str(copied / "config.yaml" / "page.html")]) == 2
    assert "choose another file with --out" in capsys.readouterr().err


def test_an_unknown_device(capsys, copied, tmp_path):
    assert "did you mean 'cpu'" in refused(capsys, tmp_path / "out.html", copied, "--device", "cpv")


# several runs


def test_comparison(finished, measured, tmp_path):
    out = tmp_path / "compared.html"
    assert report.main([str(finished), str(measured), "--out", str(out)]) == 0
    page = Page(out)
    assert len(page.source) < 10_000_000
    results = [json.loads((run / "results.json").read_text()) for run in (finished, measured)]
    rows = page.table("million parameters")[1:]
    for row, result in zip(rows, results, strict=True):
        assert row[1:4] == [figure(result["final"][task], ".4f") for task in STAGES]
        assert row[4:7] == [figure(result["drop_percent"]["single"][task], "+.1f") for task in STAGES]
        assert row[10:12] == [figure(result["acc"], ".4f"), figure(result["bwt"], "+.4f")]
    (difference,) = page.table("points")[1:]
    for number, task in enumerate(STAGES):
        gain = 100 * (results[1]["final"][task] - results[0]["final"][task])
        interval = paired_drop(per_image(measured / "final.pt", task), per_image(finished / "final.pt", task))
        ends = ", ".join(figure(value, "+.1f") for value in interval.points)
        assert difference[1 + number].startswith(f"{figure(gain, '+.1f')}[{ends}]")
    assert "Stability and plasticity" in page.text and "the challenge's rules" not in page.text.lower()


def test_compared_curves_have_a_line_per_run(finished, measured):
    histories = {"one": History.read(finished), "two": History.read(measured)}
    charts = {chart["title"]: chart for chart in compared_charts(histories)}
    assert list(charts) == ["seg (miou)", "det (ap50)", "cls (top1)", "total loss"]
    for chart in charts.values():
        assert [series["label"] for series in chart["series"]] == ["one", "two"]
    values = charts["seg (miou)"]["series"][1]["values"]
    assert values == pytest.approx([row[0] for row in histories["two"].matrix], rel=1e-4)


def test_comparison_without_data_or_ends_says_so(copied, measured, tmp_path):
    for name in ("stage2_det.pt", "final.pt", "results.json"):
        (copied / name).unlink()
    lines = [line for line in (copied / "log.jsonl").read_text().splitlines() if json.loads(line)["stage"] != "cls"]
    (copied / "log.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "compared.html"
    assert report.main([str(without_data(copied)), str(measured), "--out", str(out)]) == 0
    text = Page(out).text
    assert "not finished" in text and "No differences with intervals" in text
    assert "Not in the picture of stability and plasticity, as not finished or of one stage: copied" in text


# the verdict in words


def drop(task: str, baseline: float | None, final: float, percent_interval=None, kind="single", note="") -> Drop:
    interval = percent_interval and Interval((-1.0, 1.0), percent_interval, 1000)
    figures = (drop_percent(baseline, final), drop_points(baseline, final), interval, verdict(baseline, final), note)
    return Drop(task, "metric", kind, baseline, final, *figures)


def said(*rows: Drop, planned=("a", "b")) -> str:
    return " ".join(headline(SimpleNamespace(finished=True, planned=planned), list(rows)))


def test_headline_names_what_was_lost_and_what_the_images_cannot_decide():
    lost, kept = drop("a", 0.5, 0.4, (8.0, 30.0)), drop("b", 0.5, 0.51, (-9.0, 4.0))
    assert said(lost, kept) == "1 of 2 tasks lost more than 5 % of its score when trained alone: a 20.0 %."
    words = "None of the 2 tasks lost more than 5 % of its score when trained alone (drops: a +4.0 %, b −2.0 %)."
    unsure = drop("a", 0.5, 0.48, (-2.0, 9.0))
    assert said(unsure, kept) == words + " The val images are too few to decide it for a: see the intervals."


def test_headline_gives_no_verdict_on_a_low_baseline_nor_on_what_is_zero_by_construction():
    low = drop("b", 0.02, 0.001)
    assert "No verdict on b: the baseline is below 0.05." in said(drop("a", 0.5, 0.5), low)
    stage = [drop("a", 0.5, 0.4, kind="stage"), drop("b", 0.9, 0.9, kind="stage", note=LAST)]
    words = said(drop("a", None, 0.4), drop("b", None, 0.9), *stage)
    assert words.startswith("1 of 1 tasks learned before the last lost more than 5 % of its score right after learning")
    assert "Single-task baselines were not measured" in words
    assert said(*stage, planned=("a",)) == "A single task: there was nothing to forget."


# figures in print


def test_numbers_in_print():
    assert [figure(None, ".2f"), figure(float("nan"), ".2f"), figure(-0.5, "+.1f")] == ["–", "–", "−0.5"]


def test_the_axis_of_drops_keeps_limit_and_zero_in_view():
    forest = Forest([])
    assert 0 < forest.zero < forest.limit < 100
    forest = Forest([drop("a", 0.5, 0.95)])
    assert forest.zero < forest.limit and forest.beyond(-90.0) and forest.at(-90.0) == 0
