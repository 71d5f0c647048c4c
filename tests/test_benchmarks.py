"""The benchmarks measure what they say: the slow side computes the same, and a table is what its runs say."""

import pytest
import torch
from tiny_runs import tiny_recipe

from benchmarks import picture, readme, speed
from benchmarks.loops import decode_by_loop
from models import build
from recipe_parser import make_recipe
from tasks import Task


def test_the_loop_decodes_what_the_vectorised_form_does():
    torch.manual_seed(0)
    task = build(Task, {"name": "detection_grid", "score_floor": 0.05, "max_boxes": 1000}, ["cat", "dog", "bird"])
    raw, stride = torch.randn(3, 8, 5, 5), 16
    raw[:, :2] = 0  # centres inside their cells, sizes small: nothing reaches beyond the image, where we clip
    raw[:, 2:4] = -3 + 0.1 * raw[:, 2:4]
    ours = task.decode(raw, stride, [(80, 80)] * 3)
    for found, looped in zip(ours, decode_by_loop(raw, stride, task.score_floor, task.nms_iou), strict=True):
        assert len(found["scores"]) > 3
        assert torch.allclose(found["scores"], looped["scores"], atol=1e-6)
        assert torch.allclose(found["boxes"], looped["boxes"], atol=1e-4)
        assert found["labels"].tolist() == looped["labels"].tolist()


def entry(name: str, seed: int, final: float) -> dict:
    scores = [
        {"seg": {"miou": 0.5, "miou_fg": 0.6}},
        {"seg": {"miou": final, "miou_fg": 0.6}, "cls": {"top1": 0.9}},
    ]
    drops = {"stage": {"seg": 100 * (0.5 - final) / 0.5, "cls": 0.0}, "single": {"seg": None, "cls": -1.0}}
    results = {"tasks": ["seg", "cls"], "scores": scores, "drop_percent": drops, "seconds": {"seg": 60, "cls": 120}}
    return {
        "name": name,
        "seed": seed,
        "results": results,
        "env": {"processor": "P", "cores": 2, "date": "2026-01-02T", "threads": 1 + seed % 2, "git": f"run{seed}"},
        "baselines": {"cls": "alone"},
    }


def test_a_row_of_several_seeds_gives_mean_and_deviation():
    table = readme.table([entry("ours-seed0", 0, 0.4), entry("ours-seed1", 1, 0.6), entry("theirs", 7, 0.45)])
    (ours,) = [line for line in table.splitlines() if line.startswith("| ours")]
    (theirs,) = [line for line in table.splitlines() if line.startswith("| theirs")]
    assert "(seeds 0, 1)" in ours and "0.5000 ± 0.0000 → 0.5000 ± 0.1414" in ours
    assert "(seed 7)" in theirs and "| 0.5000 → 0.4500 |" in theirs and "| +10.0 / +0.0 | – / -1.0 | 3 |" in theirs
    assert "2026-01-02" in table
    assert "ours 1/2, run0, run1 (alone); theirs 2, run7 (alone)." in table


def test_the_picture_shows_mean_and_range_after_every_stage(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(picture.pyplot, "close", drawn.append)
    runs = []
    for shift in (0.0, 0.2):
        rows = [{"seg": {"miou": 0.5 + shift, "miou_fg": 0.6}}]
        rows.append({**rows[0], "det": {"ap50": 0.1 + shift}})
        rows.append({**rows[1], "cls": {"top1": 0.7 + shift}})
        single = {"seg": 0.4, "det": None, "cls": 0.9}
        metrics = {"seg": "miou", "det": "ap50", "cls": "top1"}
        runs.append({"tasks": [*single], "scores": rows, "baseline": {"single": single}, "metrics": metrics})
    picture.draw({"ours": runs, "of other stages": [{"tasks": ["cls"]}]}, tmp_path / "record.png")
    assert (tmp_path / "record.png").stat().st_size > 5000
    panels = dict(zip(("miou", "miou_fg", "ap50", "top1"), drawn[0].axes, strict=True))
    (line, _, (bars,)) = panels["ap50"].containers[0]
    assert line.get_xydata().tolist() == [[1, pytest.approx(0.2)], [2, pytest.approx(0.2)]]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([0.1, 0.3])
    level = {name: [line.get_ydata()[0] for line in panel.lines if line.is_dashed()] for name, panel in panels.items()}
    assert level == {"miou": [0.4], "miou_fg": [], "ap50": [], "top1": [0.9]}  # baselines, where known


@pytest.mark.parametrize("missing", ["results.json", "env.json", "config.yaml"])
def test_a_folder_that_is_no_finished_run_is_refused(tmp_path, missing, capsys):
    for name in {"results.json", "env.json", "config.yaml"} - {missing}:
        (tmp_path / name).write_text("{}")
    assert readme.main([str(tmp_path)]) == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize("measure", speed.MEASURES, ids=lambda measure: measure.__name__)
def test_every_measure_of_speed_measures_something(tmp_path, tiny_data, measure):
    """On a tiny set: a positive figure with its goal. How large it is belongs to the machine."""
    found = measure(make_recipe(tiny_recipe(tiny_data))[0], tmp_path)
    assert found.value > 0 and found.goal[:2] in (">=", "<=") and found.detail
