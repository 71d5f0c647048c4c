"""AP50 of any multiset of images: boxes are matched once per image, the way COCO does it, then only counted."""

import numpy as np
import torch
from torchvision.ops import box_iou

from metrics import PerImage

IOU = 0.5
MOST = 100  # boxes per image and class that count, COCO's maxDets
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's
CELLS = 4_000_000  # values of one intermediate array: resamples are worked off in chunks of this size


class Ap50PerImage(PerImage):
    """For every class its boxes, by image: score, and whether it hit an object or nothing (those on crowds are left out)."""

    measure = "AP50, mean over the image's classes, of all boxes, also of those too unsure to be drawn"

    def __init__(self, classes: int):
        self.own: list[float] = []  # of every image by itself
        self.objects: list[list[tuple[int, int]]] = [[] for _ in range(classes)]  # (image, number of objects)
        self.found: list[list[tuple[int, float, bool]]] = [[] for _ in range(classes)]  # (image, score, hit)

    def update(self, predictions, targets) -> None:
        for prediction, target in zip(predictions, targets, strict=True):
            prediction = {key: prediction[key].detach().cpu() for key in ("boxes", "scores", "labels")}
            scores = [self._add(label, prediction, target) for label in range(len(self.found))]
            defined = [score for score in scores if score == score]
            self.own.append(sum(defined) / len(defined) if defined else np.nan)

    def _add(self, label: int, prediction: dict, target: dict) -> float:
        """One class of the next image; returns its AP in this image alone, NaN without any object of it."""
        image = len(self.own)
        found: list[tuple[int, float, bool]] = []
        truth = target["labels"] == label
        answer = torch.nonzero(prediction["labels"] == label).flatten()
        objects = int((truth & ~target["iscrowd"]).sum())
        if len(answer):
            scores = prediction["scores"][answer].double().numpy()
            order = np.argsort(-scores, kind="stable")[:MOST]
            boxes = prediction["boxes"][answer].double()[order]
            hits = match(boxes, target["boxes"][truth].double(), target["iscrowd"][truth].numpy())
            found = [(image, score, hit > 0) for score, hit in zip(scores[order], hits, strict=True) if hit >= 0]
            self.found[label] += found
        if not objects:
            return np.nan
        self.objects[label].append((image, objects))
        alone = [(0, score, hit) for _, score, hit in found]
        return float(_average_precision(np.ones((1, 1), dtype=np.int64), [(0, objects)], alone)[0])

    def __len__(self) -> int:
        return len(self.own)

    def each(self):
        return np.array(self.own)

    def resampled(self, counts):
        columns = []
        for objects, found in zip(self.objects, self.found, strict=True):
            if objects:
                columns.append(_average_precision(counts, objects, found))
        if not columns:
            return np.full(len(counts), np.nan)
        values = np.stack(columns, axis=1)  # (R, classes that occur)
        defined = np.isfinite(values)
        total, classes = np.where(defined, values, 0).sum(1), defined.sum(1)
        return np.divide(total, classes, out=np.full(len(counts), np.nan), where=classes > 0)


def match(boxes: torch.Tensor, truth: torch.Tensor, iscrowd: np.ndarray) -> list[int]:
    """Boxes (D, 4) xyxy, best score first, against an image's objects of their class: 1 hit, 0 false, -1 on a crowd.

    As COCO: a box takes the object it overlaps most among those still free; only if none reaches the threshold, a crowd,
    of which the overlap is the share of the box inside it, and which any number of boxes may take.
    """
    if not len(truth):
        return [0] * len(boxes)
    overlap = box_iou(boxes, truth).numpy()  # (D, objects)
    if iscrowd.any():
        corner = torch.minimum(boxes[:, None, 2:], truth[None, :, 2:]) - torch.maximum(
            boxes[:, None, :2], truth[None, :, :2]
        )
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        inside = (corner.clamp(min=0).prod(2) / area[:, None].clamp(min=1e-12)).numpy()
        overlap = np.where(iscrowd[None], inside, overlap)
    free = ~iscrowd
    hits = []
    for row in overlap:
        candidates = np.where(free, row, -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= IOU:
            free[best] = False
            hits.append(1)
        else:
            hits.append(-1 if (row[iscrowd] >= IOU).any() else 0)
    return hits


def _average_precision(counts: np.ndarray, objects: list, found: list) -> np.ndarray:
    """AP of one class in every multiset (R,); NaN where the multiset has none of its objects."""
    images, numbers = np.array(objects).T
    positives = counts[:, images] @ numbers  # (R,)
    result = np.where(positives > 0, 0.0, np.nan)
    if not found:
        return result
    image, score, hit = map(np.array, zip(*found, strict=True))
    order = np.argsort(-score, kind="stable")
    image, hit = image[order], hit[order]
    step = max(1, CELLS // len(found))
    for start in range(0, len(counts), step):
        rows = slice(start, start + step)
        drawn = counts[rows][:, image]  # (r, D): an image drawn twice has every box twice
        hits, all_found = np.cumsum(drawn * hit, axis=1), np.cumsum(drawn, axis=1)
        precision = hits / np.maximum(all_found, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best from here on
        recall = hits / np.maximum(positives[rows], 1)[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")  # COCO's recall levels passed so far
        levels = np.diff(reached, axis=1, prepend=0)
        ap = (precision * levels).sum(1) / len(RECALLS)
        result[rows] = np.where(positives[rows] > 0, ap, np.nan)
    return result
