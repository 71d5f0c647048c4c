"""The verdict of a run in figures: score matrix, drops with intervals, the challenge's rules, one sentence on top."""

import math
from dataclasses import dataclass

from reporting.bootstrap import Interval, paired_drop
from reporting.evidence import Evidence
from reporting.reading import RunRecord
from results import FLOOR, LIMIT, drop_percent, drop_points, verdict

LAST = "learned last: 0 by construction"
KINDS = {"single": "trained alone", "stage": "right after learning"}


@dataclass(frozen=True)
class Drop:
    """A task's final score against one baseline; note: why a figure is not there, or how far it can be trusted."""

    task: str
    metric: str
    kind: str
    baseline: float | None
    final: float | None
    percent: float | None
    points: float | None
    interval: Interval | None
    word: str  # pass, FAIL, or why there is no verdict
    note: str

    @property
    def decided(self) -> bool:
        """The whole interval lies on one side of the limit."""
        return bool(self.interval and self.interval.percent) and not (
            self.interval.percent[0] <= LIMIT < self.interval.percent[1]
        )


def drops(record: RunRecord, evidence: Evidence, seed: int) -> list[Drop]:
    """Both baselines of every task learned so far; the last stage's score counts as final."""
    history = record.history
    rows = []
    for column, task in enumerate(history.tasks):
        final = known(history.matrix[-1][column]) if history.matrix else None
        if final is None:
            continue
        for kind in KINDS:
            baseline = history.baseline.get(kind, {}).get(task)
            interval, note = _interval(record, evidence, task, kind, baseline, seed)
            figures = (drop_percent(baseline, final), drop_points(baseline, final))
            word = verdict(baseline, final)
            rows.append(Drop(task, history.metrics[task], kind, baseline, final, *figures, interval, word, note))
    return rows


def _interval(record, evidence: Evidence, task: str, kind: str, baseline, seed: int) -> tuple[Interval | None, str]:
    history = record.history
    learned = next((i for i, row in enumerate(history.matrix) if known(row[history.tasks.index(task)]) is not None), 0)
    if baseline is None:
        return None, "not measured: train.py --baselines"
    if kind == "stage" and learned == len(history.matrix) - 1:
        return None, LAST
    labels = {s.stage: s.label for s in evidence.snapshots if s.stage is not None}
    single = next((s.label for s in evidence.snapshots if s.stage is None and s.task == task), None)
    records = evidence.per_image.get(task, {})
    before = records.get(single if kind == "single" else labels.get(learned))
    after = records.get(labels.get(len(history.matrix) - 1))
    if before is None or after is None:
        return None, "no interval: images or checkpoint not at hand"
    found = paired_drop(before, after, seed=seed)
    return found, "" if found else "no interval: nothing to score"


def doubts(drop: Drop) -> str:
    """What the interval says about a drop, in a few words."""
    if drop.interval is None:
        return drop.note
    low, high = drop.interval.points
    noise = "within noise" if low <= 0 <= high else ""
    undecided = "" if drop.decided or drop.word not in ("pass", "FAIL") else f"interval crosses {LIMIT:g} %"
    return "; ".join(filter(None, (noise, undecided)))


def headline(record: RunRecord, rows: list[Drop]) -> list[str]:
    """The verdict in sentences, against single-task baselines where there are any."""
    sentences = [] if record.finished else [record.progress()]
    if not rows:
        return [*sentences, "No stage is finished: there is no score to judge yet."]
    kind = "single" if any(row.kind == "single" and row.baseline is not None for row in rows) else "stage"
    judged = [row for row in rows if row.kind == kind and row.word in ("pass", "FAIL") and row.note != LAST]
    over = [row for row in judged if row.word == "FAIL"]
    against = "score when trained alone" if kind == "single" else "score right after learning"
    if len(record.planned) == 1:
        return [*sentences, "A single task: there was nothing to forget."]
    whole = "tasks" if kind == "single" else "tasks learned before the last"
    if not judged:
        sentences.append("No task has a baseline that it can be judged against.")
    elif over:
        their = "its" if len(over) == 1 else "their"
        named = ", ".join(f"{row.task} {row.percent:.1f} %" for row in over)
        sentences.append(
            f"{len(over)} of {len(judged)} {whole} lost more than {LIMIT:g} % of {their} {against}: {named}."
        )
    else:
        named = ", ".join(f"{row.task} {row.percent:+.1f} %" for row in judged).replace("-", "−")
        lost = f"None of the {len(judged)} {whole}" if len(judged) > 1 else f"{judged[0].task} has not"
        sentences.append(f"{lost} lost more than {LIMIT:g} % of its {against} (drops: {named}).")
    if low := [row.task for row in rows if row.kind == kind and row.word.startswith("no verdict")]:
        sentences.append(f"No verdict on {_listed(low)}: the baseline is below {FLOOR}.")
    if open_ := [row.task for row in judged if row.interval and not row.decided]:
        sentences.append(f"The val images are too few to decide it for {_listed(open_)}: see the intervals.")
    if kind == "stage":
        sentences.append(
            "Single-task baselines were not measured (train.py --baselines), so the rules' drop is not known."
        )
    return sentences


def _listed(names: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def transfer(record: RunRecord) -> dict[str, float | None]:
    """ACC, BWT and plasticity (mean score right after learning); None unless all stages are finished."""
    if not record.finished:
        return {"acc": None, "bwt": None, "plasticity": None}
    matrix = record.history.matrix
    last, own = matrix[-1], [row[column] for column, row in enumerate(matrix)]
    moved = [last[i] - own[i] for i in range(len(own) - 1)]
    means = {"acc": last, "bwt": moved, "plasticity": own}
    return {name: known(math.fsum(values) / len(values)) if values else None for name, values in means.items()}


def known(value: float | None) -> float | None:
    """None for NaN."""
    return None if value is None or math.isnan(value) else value
