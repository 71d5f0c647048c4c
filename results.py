"""The score matrix and what follows from it: drops, transfer, forgetting (PROTOCOL: Score matrix and forgetting measures)."""

import math

Row = dict[str, float | None]
FLOOR = 0.05  # a baseline below this says nothing about forgetting: no verdict
LIMIT = 5.0  # the challenge: at most this drop in percent, each task


def drop_percent(baseline: float | None, final: float | None) -> float | None:
    """(baseline − final) / baseline in %; negative: improved. None where a value is missing or the baseline is 0."""
    if baseline is None or final is None or baseline <= 0:
        return None
    return round(100 * (baseline - final) / baseline, 9)  # else 38 of 60 after 40 of 60 would be more than 5 %


def drop_points(baseline: float | None, final: float | None) -> float | None:
    """baseline − final in points of 0..100."""
    return None if baseline is None or final is None else 100 * (baseline - final)


def verdict(baseline: float | None, final: float | None) -> str:
    """ "pass", "FAIL", or why there is none."""
    drop = drop_percent(baseline, final)
    if drop is None:
        return "no baseline"
    if baseline < FLOOR:
        return f"no verdict: baseline below {FLOOR}"
    return "pass" if drop <= LIMIT else "FAIL"


def summarise(tasks: list[str], metrics: dict[str, str], scores: list[dict[str, Row]], single: Row) -> dict:
    """What results.json holds about scores. `scores[i][task]`: all figures of a task after stage i, for tasks learned so far.

    Stages and tasks are in training order, stage i being the one that learns task i.
    """
    matrix = [[row.get(task, {}).get(metrics[task]) for task in tasks] for row in scores]
    done = len(scores) == len(tasks)
    last = matrix[-1] if matrix else [None] * len(tasks)
    final = dict(zip(tasks, last, strict=True))
    stage = {task: matrix[i][i] if i < len(matrix) else None for i, task in enumerate(tasks)}
    baseline = {"single": {task: single.get(task) for task in tasks}, "stage": stage}
    old = range(len(tasks) - 1) if done else []
    pairs = [(matrix[i][i], matrix[-1][i]) for i in old]
    return {
        "tasks": tasks,
        "metrics": metrics,
        "matrix": matrix,
        "scores": scores,
        "final": final,
        "baseline": baseline,
        "drop_percent": {kind: {t: drop_percent(b[t], final[t]) for t in tasks} for kind, b in baseline.items()},
        "drop_points": {kind: {t: drop_points(b[t], final[t]) for t in tasks} for kind, b in baseline.items()},
        "bwt": _mean([None if None in pair else pair[1] - pair[0] for pair in pairs]),
        "acc": _mean(last) if done else None,
        "forgetting": {task: _forgetting(matrix, i) for i, task in enumerate(tasks)},
        "intransigence": {t: drop_points(baseline["single"][t], stage[t]) for t in tasks},
    }


def _mean(values: list[float | None]) -> float | None:
    """None where there is no value, or one is undefined: the mean of the others would be another measure."""
    return math.fsum(values) / len(values) if values and None not in values else None


def _forgetting(matrix: list[list[float | None]], task: int) -> float | None:
    """Best score from when the task was learned to the stage before last, minus the last; None for the last task learned."""
    before = [row[task] for row in matrix[task:-1] if row[task] is not None]
    return max(before) - matrix[-1][task] if before and matrix[-1][task] is not None else None
