"""The measures of forgetting, by hand."""

import pytest

from results import drop_percent, drop_points, summarise, verdict


def test_score_matrix_measures_by_hand():
    """Three tasks; after the last stage the first has lost 0.1 of 0.5, the second gained."""
    metrics = {"a": "m", "b": "m", "c": "m"}
    scores = [
        {"a": {"m": 0.5}},
        {"a": {"m": 0.6}, "b": {"m": 0.4}},
        {"a": {"m": 0.4}, "b": {"m": 0.5}, "c": {"m": 0.9}},
    ]
    measured = summarise(["a", "b", "c"], metrics, scores, {"a": 0.8, "b": 0.5})
    assert measured["matrix"] == [[0.5, None, None], [0.6, 0.4, None], [0.4, 0.5, 0.9]]
    assert measured["final"] == {"a": 0.4, "b": 0.5, "c": 0.9}
    assert measured["baseline"] == {"single": {"a": 0.8, "b": 0.5, "c": None}, "stage": {"a": 0.5, "b": 0.4, "c": 0.9}}
    assert measured["drop_percent"]["single"] == {"a": pytest.approx(50), "b": 0, "c": None}
    assert measured["drop_percent"]["stage"] == {"a": pytest.approx(20), "b": pytest.approx(-25), "c": 0}
    assert measured["drop_points"]["stage"] == {"a": pytest.approx(10), "b": pytest.approx(-10), "c": 0}
    assert measured["bwt"] == pytest.approx((-0.1 + 0.1) / 2)
    assert measured["acc"] == pytest.approx(0.6)
    assert measured["forgetting"] == {"a": pytest.approx(0.2), "b": pytest.approx(-0.1), "c": None}
    assert measured["intransigence"] == {"a": pytest.approx(30), "b": pytest.approx(10), "c": None}


def test_measures_while_a_run_is_under_way_and_where_scores_are_undefined():
    metrics = {"a": "m", "b": "m", "c": "m"}
    measured = summarise(["a", "b", "c"], metrics, [{"a": {"m": 0.5}}, {"a": {"m": 0.25}, "b": {"m": None}}], {})
    assert measured["matrix"] == [[0.5, None, None], [0.25, None, None]]
    assert measured["bwt"] is None and measured["acc"] is None
    assert measured["forgetting"] == {"a": 0.25, "b": None, "c": None}
    assert measured["drop_percent"]["stage"] == {"a": 50, "b": None, "c": None}
    done = summarise(["a", "b"], metrics, [{"a": {"m": 0.5}}, {"a": {"m": None}, "b": {"m": 0.5}}], {})
    assert done["bwt"] is None and done["acc"] is None
    empty = summarise(["a", "b"], metrics, [], {})
    assert empty["matrix"] == [] and empty["final"] == {"a": None, "b": None} and empty["acc"] is None
    alone = summarise(["a"], metrics, [{"a": {"m": 0.5}}], {"a": 0.5})
    assert alone["bwt"] is None and alone["acc"] == 0.5 and alone["forgetting"] == {"a": None}


@pytest.mark.parametrize(
    ("baseline", "final", "percent", "points", "judged"),
    [
        (0.5, 0.475, 5.0, 2.5, "pass"),
        (0.5, 0.47, 6.0, 3.0, "FAIL"),
        (0.5, 0.6, -20.0, -10.0, "pass"),
        (0.02, 0.0, 100.0, 2.0, "no verdict: baseline below 0.05"),
        (0.0, 0.1, None, -10.0, "no baseline"),
        (None, 0.1, None, None, "no baseline"),
        (0.5, None, None, None, "no baseline"),
    ],
)
def test_drops_and_verdicts_by_hand(baseline, final, percent, points, judged):
    assert drop_percent(baseline, final) == (None if percent is None else pytest.approx(percent))
    assert drop_points(baseline, final) == (None if points is None else pytest.approx(points))
    assert verdict(baseline, final) == judged
