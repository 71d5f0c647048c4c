"""COCO average precision through torchmetrics with faster-coco-eval."""

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

from metrics import Metric, Scores, number
from metrics._matching import Ap50PerImage


class CocoMetric(Metric):
    """ap50 and ap (IoU .50:.05:.95), at most 100 boxes an image, crowds as ignore regions, overall, by size and per class.

    The mean is over classes that occur in the split.
    """

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes
        self.coco = MeanAveragePrecision(  # COCO's thresholds; torchmetrics' own are float32: 7 of 20 would miss 0.35
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
            extended_summary=True,
            backend="faster_coco_eval",
        )

    def update(self, predictions, targets) -> None:
        found = [{key: p[key].detach().float().cpu() for key in ("boxes", "scores")} for p in predictions]
        for entry, prediction in zip(found, predictions, strict=True):
            entry["labels"] = prediction["labels"].cpu()
        truth = [{**t, "iscrowd": t["iscrowd"].long()} for t in targets]
        self.coco.update(found, truth)

    def compute(self) -> Scores:
        result = self.coco.compute()
        scores = {"ap50": number(result["map_50"]), "ap": number(result["map"]), "ap75": number(result["map_75"])}
        scores |= {f"ap/{size}": number(result[f"map_{size}"]) for size in ("small", "medium", "large")}
        scores |= {f"ap50/{name}": None for name in self.classes}
        precision = result["precision"]  # (IoU, recall, class, size, max detections); -1 where undefined
        present = torch.as_tensor(result["classes"]).flatten().tolist()
        for column, label in enumerate(present):
            curve = precision[0, :, column, 0, -1]
            if (curve > -1).any():
                scores[f"ap50/{self.classes[label]}"] = float(curve[curve > -1].mean())
        return scores

    def per_image(self) -> Ap50PerImage:
        return Ap50PerImage(len(self.classes))
