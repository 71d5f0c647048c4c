"""predict.py on checkpoints of other tasks than the usual three: several of a kind, kinds it has no type for, coded names."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_runs import tiny_recipe

import checkpoint
from models import build, build_model
from predict import load_model
from prediction.outputs import Outputs
from recipe_parser import make_recipe
from tasks import Task
from tasks.segmentation import Segmentation

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def untrained(path: Path, stages: dict[str, tuple[dict, tuple[str, ...]]]) -> Path:
    """A checkpoint of a network without training: stage name → (changes of the stage, classes)."""
    plain = tiny_recipe("nowhere")
    plain["stages"] = {name: {**plain["stages"]["seg"], **changes} for name, (changes, _) in stages.items()}
    recipe = make_recipe(plain)[0]
    torch.manual_seed(0)
    network = build_model(recipe)
    tasks = {name: build(Task, recipe.stages[name].task, classes) for name, (_, classes) in stages.items()}
    for name, task in tasks.items():
        checkpoint.add_predictor(network, recipe, name, task)
    checkpoint.save(path, checkpoint.describe(network, recipe, tasks, {}))
    return path


def test_other_tasks_and_several_of_a_kind(tmp_path):
    detector = {"task": {"name": "detection_grid"}, "dataset": {"name": "coco"}}
    stages = {
        "birds": (detector, ("owl", "crow")),
        "land": ({}, ("background", "road", "field")),
        "cars": ({**detector, "task": {"name": "detection_anchor_free"}}, ("van",)),
    }
    model = load_model(untrained(tmp_path / "w.pt", stages), "cpu", score_threshold=0.0)
    result = model.predict(PHOTO)
    assert result.detection.classes == result["birds"].classes == ("owl", "crow") and result.classification is None
    assert result["cars"].classes == ("van",) and set(result["cars"].names) == {"van"}
    assert result.segmentation.mask.shape == result["land"].mask.shape
    assert list(result.to_dict()["tasks"]) == list(stages) and result.plot().size == PHOTO.size
    only = load_model(tmp_path / "w.pt", "cpu", tasks=["cars"], score_threshold=0.0).predict(PHOTO)
    assert list(only.predictions) == ["cars"] and only.detection.classes == ("van",) and only.segmentation is None
    assert np.array_equal(only["cars"].boxes_xyxy, result["cars"].boxes_xyxy)


def test_classes_known_by_a_code_are_shown_by_their_name(tmp_path):
    stage = {"task": {"name": "classification"}, "dataset": {"name": "imagefolder"}}
    weights = untrained(tmp_path / "w.pt", {"cls": (stage, ("n01440764", "n02102040", "mine"))})
    label = load_model(weights, "cpu").predict(PHOTO).classification
    assert label.classes == ("tench", "English springer", "mine") and label.name in label.classes


class Depth(Segmentation):
    """A kind of task that predict.py has no type for."""

    kind = "depth"


def test_a_task_of_an_unknown_kind_answers_with_its_arrays(tmp_path):
    model = load_model(untrained(tmp_path / "w.pt", {"far": ({}, ("background", "near"))}), "cpu")
    model.tasks = {"far": Depth(model.tasks["far"].classes)}
    result = model.predict(PHOTO)
    assert result.segmentation is None and result["far"].kind == "depth"
    assert result.to_dict()["tasks"]["far"]["mask"] == result["far"].values["mask"].tolist()
    assert result.plot().size == PHOTO.size and str(result).endswith("far: mask")
    with Outputs(tmp_path / "out", model.tasks, visualize=True) as outputs:
        outputs.add(result, "name")
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["name.jpg"]
