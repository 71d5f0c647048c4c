"""predict.py's API: the same answers as evaluation's, whatever form an image comes in, and typed results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

import checkpoint
import eval as evaluating
from errors import UserError
from evaluation import predict
from predict import Predictor, load_model
from prediction import Result
from splits import open_splits


@pytest.fixture(scope="module")
def model(finished) -> Predictor:
    """With so low a threshold that a network trained for seconds finds something."""
    return load_model(finished / "final.pt", device="cpu", score_threshold=0.02, nms_threshold=0.6)


@pytest.fixture(scope="module")
def photos(tiny_data) -> list[Path]:
    """Images of all three sets, of different sizes."""
    patterns = ("mini_voc_seg/JPEGImages/val*.jpg", "mini_coco_det/images/val/*.jpg", "imagenette-160/val/*/*.JPEG")
    found = [path for pattern in patterns for path in sorted(tiny_data.glob(pattern))[:3]]
    assert len({Image.open(path).size for path in found}) > 3
    return found


def same(one: Result, other: Result) -> bool:
    """Bit-equal images and predictions."""
    pairs = [(a, other.predictions[name][key]) for name, rows in one.predictions.items() for key, a in rows.items()]
    return torch.equal(one.pixels, other.pixels) and all(torch.equal(a, b) for a, b in pairs) and bool(pairs)


def test_answers_are_those_that_eval_scores(finished, tiny_data, tmp_path, capsys):
    """From the images' paths, with the checkpoint's own thresholds: the same predictions, so the same scores."""
    weights = finished / "final.pt"
    network, tasks, recipe, _ = checkpoint.restore(weights)
    model = load_model(weights, "cpu", score_threshold=tasks["det"].score_floor, nms_threshold=tasks["det"].nms_iou)
    assert evaluating.main(["--weights", str(weights), "--json", str(tmp_path / "scores.json")]) == 0
    scored = json.loads((tmp_path / "scores.json").read_text())["scores"]
    stages = [recipe.stages[name] for name in tasks]
    for name, split in open_splits(recipe, stages, "val", {n: t.classes for n, t in tasks.items()}).items():
        metric = tasks[name].make_metric()
        samples = [split.sample(index) for index in range(len(split))]
        results = model.predict([split.dataset.files(index)[0] for index in range(len(split))])
        metric.update([result.predictions[name] for result in results], [sample.target for sample in samples])
        assert metric.compute() == scored[name]
        images, _ = next(split.evaluation_batches(recipe.image_size, len(split)))
        expected = predict(network, name, tasks[name], images, [tuple(s.image.shape[-2:]) for s in samples])
        for result, prediction in zip(results, expected, strict=True):
            assert all(torch.equal(result.predictions[name][key], value) for key, value in prediction.items())


def test_path_picture_array_and_tensor_give_equal_results(model, photos):
    for path in photos[:3]:
        result = model.predict(path)
        array = np.array(Image.open(path))
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        forms = [str(path), Image.open(path), array, tensor, tensor / 255, array / 255, array[:, :, ::-1][:, :, ::-1]]
        assert all(same(result, other) for other in model.predict(forms, batch_size=1))
        assert result.source == model.predict(Image.open(path)).source == str(path)
        assert model.predict([array, array])[1].source == "image 1"


def test_a_list_gives_a_list_and_a_batch_of_mixed_sizes_the_answers_of_single_images(model, photos):
    together = model.predict(photos)
    assert [result.source for result in together] == [str(path) for path in photos]
    assert [r.source for r in model.stream(iter(photos), batch_size=2)] == [str(path) for path in photos]
    assert model.predict([]) == []
    for result, path in zip(together, photos, strict=True):
        alone = model.predict(path)
        width, height = Image.open(path).size
        assert result.segmentation.mask.shape == alone.segmentation.mask.shape == (height, width)
        assert (result.segmentation.mask == alone.segmentation.mask).mean() > 0.999
        assert np.allclose(result.classification.probabilities, alone.classification.probabilities, atol=1e-5)
        assert np.allclose(result.detection.scores, alone.detection.scores, atol=1e-5)


def test_all_tasks_come_from_one_forward_pass(model, photos):
    passes = []
    hook = model.model.trunk["backbone"].register_forward_hook(lambda *_: passes.append(1))
    results = model.predict(photos[:4])
    hook.remove()
    assert len(passes) == 1 and all(list(result.predictions) == ["seg", "det", "cls"] for result in results)


def test_results_are_typed(model, finished, photos):
    classes = checkpoint.read(finished / "final.pt")["classes"]
    result = model.predict(photos[3])
    height, width = result.image.shape[:2]
    found = result.detection
    assert len(found.scores) > 1 and (np.diff(found.scores) <= 0).all() and (found.scores > 0.02).all()
    assert found.boxes_xyxy.shape == (len(found.labels), 4) == (len(found.names), 4)
    assert (found.boxes_xyxy >= 0).all() and (found.boxes_xyxy <= [width, height, width, height]).all()
    assert found.names == [classes["det"][label] for label in found.labels]
    label = result.classification
    assert label.probabilities.sum() == pytest.approx(1) and label.index == label.probabilities.argmax()
    assert label.name == classes["cls"][label.index] and label.classes == tuple(classes["cls"])
    assert result["seg"].mask.dtype == np.uint8 and result["seg"].mask.max() < len(classes["seg"])
    with pytest.raises(UserError, match="no answer of a task 'segm'; did you mean 'seg'"):
        result["segm"]
    assert str(photos[3]) in str(result) and label.name in str(result)


def test_the_plain_form_survives_json_without_loss(model, photos):
    result = model.predict(photos[0])
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (plain["source"], plain["height"], plain["width"]) == (str(photos[0]), *result.segmentation.mask.shape)
    labels, lengths = np.array(plain["tasks"]["seg"]["runs"]).T
    assert (np.repeat(labels, lengths).reshape(result.segmentation.mask.shape) == result.segmentation.mask).all()
    assert sum(plain["tasks"]["seg"]["shares"].values()) == pytest.approx(1)
    assert plain["tasks"]["det"]["boxes_xyxy"] == result.detection.boxes_xyxy.tolist()
    assert plain["tasks"]["det"]["names"] == result.detection.names
    assert list(plain["tasks"]["cls"]["probabilities"].values()) == result.classification.probabilities.tolist()


def test_a_rotated_photograph_is_answered_upright(model, photos, tmp_path):
    upright = Image.open(photos[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter: the viewer turns it clockwise
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "rotated.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert stored.size != upright.size
    result = model.predict(tmp_path / "upright.png")
    assert same(result, model.predict(tmp_path / "rotated.png"))
    assert same(result, model.predict(Image.open(tmp_path / "rotated.png")))
    assert result.plot().size == upright.size


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
def test_images_of_every_mode_are_accepted(model, photos, tmp_path, mode):
    with Image.open(photos[0]) as photo:
        if mode == "I;16":
            picture = Image.fromarray(np.array(photo.convert("L")).astype(np.uint16) * 257)
        else:
            picture = photo.convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    picture.save(path)
    assert Image.open(path).mode == mode
    expected = photo_of(picture, mode)
    assert same(model.predict(path), model.predict(expected)) and same(model.predict(path), model.predict(picture))


def photo_of(picture: Image.Image, mode: str) -> np.ndarray:
    if mode == "I;16":
        return np.repeat((np.array(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (400, 3)])
def test_the_smallest_and_thinnest_images_are_predicted_and_drawn(model, size):
    result = model.predict(np.full((size[1], size[0], 3), 99, dtype=np.uint8))
    assert result.segmentation.mask.shape == size[::-1] and result.plot().size == size


GREY = np.zeros((8, 9), dtype=np.uint8)
REFUSED = {
    "grey": (GREY, r"shape \(8, 9\).*expected \(H, W, 3\).*np.stack"),
    "channels first": (np.zeros((3, 8, 9), dtype=np.uint8), r"\(3, 8, 9\)"),
    "batch": (np.zeros((2, 8, 9, 3), dtype=np.uint8), "as a list"),
    "integers": (np.zeros((8, 9, 3), dtype=np.int64), "int64"),
    "empty": (np.zeros((0, 9, 3), dtype=np.uint8), r"\(0, 9, 3\)"),
    "0 to 255": (np.full((8, 9, 3), 200.0), "200 to 200, expected 0 to 1"),
    "not a number": (np.full((8, 9, 3), np.nan), "nan"),
    "channels last": (torch.zeros(8, 9, 3), r"\(8, 9, 3\).*expected \(3, H, W\)"),
    "normalised": (torch.full((3, 8, 9), -0.5), "undo a normalisation"),
    "flags": (torch.zeros(3, 8, 9, dtype=torch.bool), "torch.bool"),
    "bytes": (b"abc", "a bytes, expected a path"),
    "missing": ("nowhere.jpg", "nowhere.jpg: unreadable image .no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_image_is_refused_with_one_error(model, case):
    picture, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        model.predict(picture)
    with pytest.raises(UserError, match=message):
        model.predict([np.zeros((8, 9, 3), dtype=np.uint8), picture])


def test_thresholds_reach_the_detector_and_the_drawing(finished, photos):
    loose = load_model(finished / "final.pt", "cpu", score_threshold=0.0, nms_threshold=1.0).predict(photos[3])
    scores = loose.detection.scores
    limit = float(np.sort(scores)[len(scores) // 2])
    strict = load_model(finished / "final.pt", "cpu", score_threshold=limit, nms_threshold=1.0).predict(photos[3])
    assert strict.detection.scores.tolist() == [score for score in scores.tolist() if score > limit]
    assert np.asarray(loose.plot()).tolist() != np.asarray(strict.plot()).tolist()
    thinned = load_model(finished / "final.pt", "cpu", score_threshold=0.0, nms_threshold=0.2).predict(photos[3])

    def overlap(result: Result) -> float:
        boxes, labels = (torch.from_numpy(a) for a in (result.detection.boxes_xyxy, result.detection.labels))
        pairs = box_iou(boxes, boxes) * (labels[:, None] == labels)
        return float(pairs.fill_diagonal_(0).max())

    assert overlap(thinned) <= 0.2 + 1e-3 < overlap(loose)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["score_threshold", "nms_threshold"])
def test_thresholds_out_of_range_are_refused(finished, name, value):
    with pytest.raises(UserError, match=f"{name} is {value}, expected 0 to 1"):
        load_model(finished / "final.pt", **{name: value})
