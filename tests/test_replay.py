"""Replay: what is kept, how it is chosen, and that nothing else is ever replayed."""

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import tiny_recipe, trained

from data.loader import Split
from errors import UserError
from replay import SELECTIONS, Memory, herd, select
from strategies.replay import Replay, _deal


def test_more_than_the_limit_is_never_kept():
    memory = Memory(limit=2)
    memory.keep("seg", ["a", "b"])
    with pytest.raises(ValueError, match="3 images of 'det' for a memory of 2"):
        memory.keep("det", ["a", "b", "c"])
    assert memory.ids == {"seg": ["a", "b"]}
    Memory(limit=None).keep("seg", [str(n) for n in range(99)])


def test_only_listed_images_are_replayed_and_each_in_its_turn(tmp_path, tiny_data, monkeypatch):
    replayed: dict[str, Counter] = {}
    sizes = []
    batches = Replay.batches

    def watch(self, run):
        extra = batches(self, run)
        sizes.append(sum(len(batch.images) for batch in extra))
        for batch in extra:
            assert batch.origin == "replay" and batch.task != run.stage.name
            replayed.setdefault(f"{batch.task} in {run.stage.name}", Counter()).update(batch.ids)
        return extra

    monkeypatch.setattr(Replay, "batches", watch)
    plain = tiny_recipe(tiny_data, {"replay": {"batch_size": 4}}, {"cls": {"epochs": 3}}, memory_per_task=3)
    run = trained(plain, tmp_path)
    assert sizes == [0] * 4 + [4] * 4 + [4] * 6
    assert replayed.keys() == {"seg in det", "seg in cls", "det in cls"}
    for where, counts in replayed.items():
        kept = run.memory.ids[where.split()[0]]
        assert len(kept) == 3 == len(set(kept))
        assert set(counts) == set(kept)
        assert max(counts.values()) - min(counts.values()) <= 1  # gone through evenly

    memory = torch.load(tmp_path / "final.pt", weights_only=True)["memory"]
    assert memory == run.memory.ids
    assert memory.keys() == {"seg", "det", "cls"}
    assert set(memory["seg"]) <= set(run.splits["seg"].dataset.ids)
    assert torch.load(tmp_path / "stage1_seg.pt", weights_only=True)["memory"] == {"seg": memory["seg"]}


def test_a_list_is_dealt_evenly_and_anew_each_time():
    ids = [f"id{n}" for n in range(5)]
    dealt = [_deal(ids, 2, step, "key") for step in range(10)]
    flat_list = list(itertools.chain.from_iterable(dealt))
    rounds = [flat_list[n : n + 5] for n in range(0, 20, 5)]
    assert all(sorted(turn) == ids for turn in rounds)
    assert len(set(map(tuple, rounds))) > 1
    assert _deal(ids, 2, 3, "key") == dealt[3]  # by its place alone: nothing to save
    assert [_deal(ids, 2, step, "other") for step in range(10)] != dealt


def replay_batches(old: list[str], batch_size: int, step: int = 0):
    """Batches that a step would add, of tasks with ten images each."""
    asked = []

    def batch(task, indices, size, augment, key, origin):
        asked.append((task, list(indices), key, augment))
        return SimpleNamespace(task=task, images=indices)

    split = SimpleNamespace(indices=lambda ids: list(map(int, ids)), training_batch=batch)
    stage = SimpleNamespace(name="new", augment=None)
    recipe = SimpleNamespace(image_size=64, stages={task: SimpleNamespace(augment=f"{task}'s") for task in old})
    memory = Memory(None, {task: list(map(str, range(10))) for task in old})
    run = SimpleNamespace(memory=memory, splits=dict.fromkeys(old, split), recipe=recipe, stage=stage, stage_step=step)
    run.key = lambda *parts: "/".join(map(str, parts))
    Replay(batch_size=batch_size).batches(run)
    return asked


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_a_step_costs_the_same_however_many_tasks_are_old(count):
    old = [f"task{n}" for n in range(count)]
    asked = replay_batches(old, batch_size=7)
    assert [task for task, *_ in asked] == old  # each has its share
    shares = [len(indices) for _, indices, *_ in asked]
    assert sum(shares) == 7
    assert max(shares) - min(shares) <= 1
    assert [augment for *_, augment in asked] == [f"{task}'s" for task in old]


def test_views_differ_from_step_to_step():
    keys = [replay_batches(["seg"], 2, step)[0][2] for step in range(3)]
    assert len(set(keys)) == 3


def labelled_split(labels: list[set[int]]) -> Split:
    return Split(Labelled(labels))


class Labelled:
    def __init__(self, labels: list[set[int]]):
        self.labels = labels.__getitem__
        self.ids = [f"id{n}" for n in range(len(labels))]

    def __len__(self) -> int:
        return len(self.ids)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("count", [0, 1, 4, 10, 99])
def test_selections_draw_without_replacement_and_no_more_than_asked(selection, count):
    split = labelled_split([{n % 3} for n in range(10)])
    chosen = select(selection, split, count, "key", torch.randn(10, 4, generator=torch.manual_seed(0)))
    assert len(chosen) == min(count, 10) == len(set(chosen))
    assert set(chosen) <= set(split.dataset.ids)
    with pytest.raises(UserError, match="did you mean 'uniform'"):
        select("unifrom", split, 1, "key")


def test_uniform_selection_is_uniform():
    """χ² of inclusion counts: with k of n drawn without replacement, (n-1)/n · Σ(O-E)²/(N·p·(1-p)) has n - 1 degrees."""
    n, k, draws = 10, 4, 3000
    split = labelled_split([{0}] * n)
    counts = Counter(itertools.chain.from_iterable(select("uniform", split, k, f"seed {d}") for d in range(draws)))
    p = k / n
    statistic = (n - 1) / n * sum((counts[id_] - draws * p) ** 2 for id_ in split.dataset.ids) / (draws * p * (1 - p))
    assert 0.99 < statistic < 29.7  # both tails of 0.0005 at 9 degrees
    assert select("uniform", split, k, "seed 1") == select("uniform", split, k, "seed 1")


def test_class_balanced_selection_covers_classes_and_stays_balanced():
    labels = [{0}] * 20 + [{1}] * 3 + [{2}] * 2 + [{3}] + [set()] * 4  # most images hold class 0, few others
    split = labelled_split(labels)
    for seed in range(20):
        chosen = [int(id_[2:]) for id_ in select("class_balanced", split, 4, f"seed {seed}")]
        assert set().union(*(labels[n] for n in chosen)) == {0, 1, 2, 3}
        chosen = [int(id_[2:]) for id_ in select("class_balanced", split, 9, f"seed {seed}")]
        assert Counter(label for n in chosen for label in labels[n]) == {0: 3, 1: 3, 2: 2, 3: 1}
    assert len(select("class_balanced", split, 30, "all")) == 30  # images without a label come last
    several = labelled_split([{0, 1, 2}, {0}, {0}, {1}, {2}])
    assert select("class_balanced", several, 5, "key")  # images with several classes count for each


def brute_force_herding(features: torch.Tensor, count: int) -> list[int]:
    """Algorithm 4 of the iCaRL paper, written down."""
    features = features / features.norm(dim=1, keepdim=True)
    mean = features.mean(0)
    chosen: list[int] = []
    for _ in range(count):
        left = [n for n in range(len(features)) if n not in chosen]
        chosen.append(min(left, key=lambda n: float((features[[*chosen, n]].mean(0) - mean).norm())))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herding_equals_brute_force_on_8_points(seed):
    features = torch.randn(8, 3, generator=torch.manual_seed(seed), dtype=torch.float64) * torch.arange(1, 9)[:, None]
    for count in (1, 3, 8):
        assert herd(features, count) == brute_force_herding(features, count)


def test_herding_looks_at_the_models_shared_map_of_plain_images(tmp_path, tiny_data, monkeypatch):
    seen = {}
    plain = tiny_recipe(tiny_data, {"replay": {"selection": "herding"}}, {"seg": {"epochs": 1}}, order=["seg"])
    monkeypatch.setattr("strategies.replay.select", lambda *args: seen.setdefault("args", args)[0] and [])
    run = trained(plain, tmp_path)
    features = seen["args"][-1]
    images = torch.cat([images for images, _ in run.splits["seg"].evaluation_batches(64, 4)])
    run.model.eval()
    with torch.no_grad():
        expected = run.model.shared_map(run.model.trunk_maps(images)).mean((2, 3))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
