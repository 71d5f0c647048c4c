"""eval.py: the run's own figures again, against the baselines asked for, and the rules judged by what is printed."""

import json
import re
from argparse import Namespace

import pytest
import torch

import eval as evaluating
from errors import UserError
from rules import check_rules


@pytest.fixture
def scored(tmp_path, capsys):
    """Runs eval.py; gives the JSON it writes and what it prints."""

    def run(*words) -> tuple[dict, str]:
        file = tmp_path / "scored.json"
        assert evaluating.main([*map(str, words), "--json", str(file)]) == 0
        return json.loads(file.read_text()), capsys.readouterr().out

    return run


def refusal(capsys, *words) -> str:
    assert evaluating.main(list(map(str, words))) == 2
    return capsys.readouterr().err


def test_scores_drops_and_rules_are_those_of_the_run(measured, scored):
    results = json.loads((measured / "results.json").read_text())
    report, printed = scored("--weights", measured / "final.pt", "--rules")
    rules = {rule["name"]: rule for rule in report["rules"]}
    for task, metric in results["metrics"].items():
        assert report["scores"][task][metric] == results["final"][task]
        for kind in ("single", "stage"):
            assert report["drops"][task][kind]["drop_percent"] == results["drop_percent"][kind][task]
        single = report["drops"][task]["single"]
        assert rules[f"drop of {task}"]["passed"] == {"pass": True, "FAIL": False}.get(single["verdict"])
        assert re.search(rf"^{task}: \d+ images of val$", printed, re.MULTILINE)
    assert rules["training"]["passed"] is True


def test_rules_judge_the_scores_and_baselines_printed_beside_them(measured, scored):
    """Not the final scores that lie in results.json."""
    first = measured / "stage1_seg.pt"
    report, _ = scored("--weights", first, "--rules", "--base_miou", 1)
    (rule,) = [rule for rule in report["rules"] if rule["name"] == "drop of seg"]
    drop = 100 * (1 - report["scores"]["seg"]["miou"])
    assert drop > 5 and rule["passed"] is False and rule["figure"] == f"{drop:+.2f} %"
    report, _ = scored("--weights", first, "--rules")
    (rule,) = [rule for rule in report["rules"] if rule["name"] == "drop of seg"]
    assert rule["figure"] in ("+0.00 %", "no baseline") or "no verdict" in rule["figure"]  # it is its own baseline


def test_a_baseline_too_low_to_judge_by_passes_no_rule(measured):
    model, *_ = evaluating.checkpoint.restore(measured / "final.pt", torch.device("cpu"))
    drops = {"a": (3.0, "no verdict: baseline below 0.05"), "b": (None, "no baseline"), "c": (6.0, "FAIL")}
    rules = check_rules(model, drops, None, {}, torch.device("cpu"))
    found = {rule.name: (rule.figure, rule.passed) for rule in rules}
    assert found["drop of a"] == ("+3.00 %, no verdict: baseline below 0.05", None)
    assert found["drop of b"] == ("no baseline", None)
    assert found["drop of c"] == ("+6.00 %", False)
    assert found["training"] == ("no results.json", None)


def test_a_fold_held_out_is_named_and_val_can_be_scored_instead(measured, tmp_path, scored):
    content = torch.load(measured / "final.pt", weights_only=True)
    content["recipe"]["fold"] = 0
    torch.save(content, tmp_path / "fold.pt")
    fold, printed = scored("--weights", tmp_path / "fold.pt", "--tasks", "seg")
    assert "images of fold 0 of the training set" in printed and "--val" in printed
    val, printed = scored("--weights", tmp_path / "fold.pt", "--tasks", "seg", "--val")
    assert "images of val\n" in printed
    whole, _ = scored("--weights", measured / "final.pt", "--tasks", "seg")
    assert val["scores"] == whole["scores"] != fold["scores"]


def test_all_among_the_tasks_is_all(measured, scored):
    report, _ = scored("--weights", measured / "final.pt", "--tasks", "all", "seg")
    assert list(report["scores"]) == ["seg", "det", "cls"]


def test_a_runs_score_matrix_is_never_overwritten(copied, capsys):
    before = (copied / "results.json").read_bytes()
    err = refusal(capsys, "--weights", copied / "final.pt", "--json", copied / "results.json")
    assert "choose another file for --json" in err
    assert (copied / "results.json").read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[]", '{"scores": {}}'])
def test_results_that_are_none_are_named(copied, capsys, text):
    (copied / "results.json").write_text(text)
    err = refusal(capsys, "--weights", copied / "final.pt")
    assert str(copied / "results.json") in err and "expected a run's results" in err


def test_one_figure_is_no_baseline_of_two_tasks():
    flags = Namespace(base_top1=0.9, base_miou=None)
    with pytest.raises(UserError, match="--base_top1 is one baseline for cls and flowers"):
        evaluating._refuse_shared_baselines(flags, {"seg": "miou", "cls": "top1", "flowers": "top1"})
    evaluating._refuse_shared_baselines(flags, {"seg": "miou", "second": "miou", "cls": "top1"})
