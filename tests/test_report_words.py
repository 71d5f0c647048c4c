"""report: several runs side by side, the verdict in words, figures in print."""

import json
from types import SimpleNamespace

import pytest
from report_pages import STAGES, Page, per_image, without_data

import report
from history import History
from reporting.bootstrap import Interval, paired_drop
from reporting.charts import compared_charts
from reporting.page import figure
from reporting.single import Forest
from reporting.verdict import LAST, Drop, headline
from results import drop_percent, drop_points, verdict

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
