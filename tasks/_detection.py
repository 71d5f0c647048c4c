"""What both forms of detection share: predictor, box frame, metric, drawing."""

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from boxes import select_boxes
from errors import in_range
from metrics.detection import CocoMetric
from tasks import Task
from tasks._anchor_free import box_predictor
from tasks._drawing import colour_of, write_label


class Detection(Task):
    """Two convolutions on the shared map: 1x1 to `hidden`, norm, ReLU, 1x1 to `outputs` values per cell."""

    kind = "detection"
    metric = "ap50"
    label = "mAP@0.5"
    flag = "map"
    headlines = {"ap50": "mAP@0.5", "ap": "mAP@[.5:.95]"}
    outputs: int

    def __init__(self, classes, *, hidden: int, score_floor: float, nms_iou: float, max_boxes: int):
        super().__init__(classes)
        in_range("detection.", 1, hidden=hidden, max_boxes=max_boxes)
        in_range("detection.", 0, 1, score_floor=score_floor, nms_iou=nms_iou)
        self.hidden = hidden
        self.score_floor = score_floor
        self.nms_iou = nms_iou
        self.max_boxes = max_boxes
        self.drawn_score = 0.3  # boxes below are not drawn
        self.outputs = 4 + 1 + len(self.classes)

    def build_predictor(self, channels, stride, make_norm) -> nn.Module:
        predictor = box_predictor(channels, self.hidden, self.outputs, make_norm)
        self.initialise(predictor[-1].bias.data)
        return predictor

    def initialise(self, bias: Tensor) -> None:
        """Set the last layer's bias (4 + 1 + classes) to a sensible start, in place."""

    def keep_above(self, score, overlap) -> None:
        self.score_floor = self.drawn_score = score
        self.nms_iou = overlap

    def make_metric(self) -> CocoMetric:
        return CocoMetric(self.classes)

    def detections(self, boxes: Tensor, scores: Tensor, raw: Tensor, stride: int, sizes) -> list[dict]:
        """Dense boxes (B, A, 4) in the network's input frame and scores (B, A, K) → what is kept, in the original frames.

        Clipped before NMS: what lies outside the image overlaps with nothing.
        """
        frame = torch.tensor([raw.shape[-1] * stride, raw.shape[-2] * stride] * 2)
        original = torch.tensor([[width, height] * 2 for height, width in sizes])
        boxes = boxes * (original / frame).to(raw.device)[:, None]
        boxes = boxes.clamp(min=0).minimum(original.to(raw.device)[:, None])
        return select_boxes(boxes, scores, self.score_floor, self.nms_iou, self.max_boxes)

    def draw(self, image, prediction) -> Image.Image:
        drawn = image.copy()
        pen = ImageDraw.Draw(drawn)
        scores = prediction.get("scores")
        order = range(len(prediction["labels"])) if scores is None else scores.argsort().tolist()
        for index in order:
            if scores is not None and scores[index] < self.drawn_score:
                continue
            box, label = prediction["boxes"][index].tolist(), int(prediction["labels"][index])
            crowd = "iscrowd" in prediction and bool(prediction["iscrowd"][index])  # an ignore region, no object
            pen.rectangle(box, outline=colour_of(label), width=1 if crowd else max(2, min(image.size) // 150))
            text = self.classes[label] + (
                " (crowd)" if crowd else "" if scores is None else f" {float(scores[index]):.2f}"
            )
            write_label(drawn, (box[0], box[1]), text, colour_of(label))
        return drawn
