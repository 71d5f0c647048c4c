"""report: what is missing is said, names from outside stay text, bad input is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
from report_pages import Page, edit, without_data, written

import report
from reporting.reading import read_run, snapshots

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


def refused(capsys, out: Path, *argv) -> str:
    """The message; nothing may have been written."""
    assert report.main([*map(str, argv), "--out", str(out)]) == 2
    assert not list(out.parent.glob(out.name + "*"))
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Traceback" not in err
    return err


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
