"""A run's tables: scores by class and by size after each stage, time and memory, environment."""

from reporting.reading import RunRecord


def score_tables(record: RunRecord) -> dict[str, dict]:
    """Task → {"stages": labels since it was learned, "groups": measure → rows of (name, scores per stage, change)}.

    A figure "iou/cat" is the measure iou of cat; figures without a slash are those of the whole val split.
    """
    rows = record.stage_scores()
    tables = {}
    for task in record.history.tasks:
        stages = [number for number, row in enumerate(rows) if task in row]
        if not stages:
            continue
        groups: dict[str, list] = {}
        for key in rows[stages[0]][task]:
            measure, _, name = key.partition("/")
            values = [rows[number][task].get(key) for number in stages]
            ends = values[0], values[-1]
            change = ends[1] - ends[0] if len(values) > 1 and None not in ends else None
            groups.setdefault(measure if name else "", []).append((name or key, values, change))
        labels = [f"after {record.history.stages.get(number, number + 1)}" for number in stages]
        tables[task] = {"stages": labels, "groups": groups}
    return tables


def cost_rows(record: RunRecord) -> list[dict]:
    """Per stage: epochs, seconds, images per second, peak memory in bytes; None where not logged."""
    rows = []
    for index, name in record.history.stages.items():
        epochs = [epoch for epoch in record.history.epochs if epoch["stage_index"] == index]
        speeds = [epoch["images_per_second"] for epoch in epochs if epoch.get("images_per_second")]
        logged = sum(epoch.get("seconds", 0) for epoch in epochs) or None
        rows.append(
            {
                "stage": name,
                "epochs": len(epochs),
                "seconds": record.results.get("seconds", {}).get(name, logged),
                "images_per_second": sum(speeds) / len(speeds) if speeds else None,
                "memory": record.results.get("memory", {}).get(name),
            }
        )
    return rows


def environment_rows(environment: dict) -> list[tuple[str, str]]:
    """What env.json says, flat: (what, value)."""
    rows = []
    for key, value in environment.items():
        if isinstance(value, dict):
            rows += [(name, str(version)) for name, version in value.items()]
        elif key != "command":
            rows.append((key, "none" if value is None else str(value)))
    return rows
