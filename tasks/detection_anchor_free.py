"""Detection without anchors: every cell near an object's centre predicts it (after FCOS, Tian et al. 2019 and 2020)."""

from torch import Tensor

import distill
from boxes import cell_centres, ltrb_to_xyxy
from errors import in_range
from tasks._anchor_free import box_losses, initialise_bias, split
from tasks._detection import Detection


class AnchorFree(Detection):
    """One level, centre sampling, GIoU on boxes, focal loss on classes, centerness as the box's quality.

    raw (B, 4 + 1 + classes, h, w): log of the distances left, top, right, bottom in strides; centerness; class logits.
    Deviations from FCOS: one level instead of five; a box too small to hold a cell centre gets the nearest cell, and the
    quality of a positive cell is at least LEAST_QUALITY; cells inside a crowd box or a cut-off object are neither positive
    nor negative.

    Args:
        hidden: Channels of the predictor's inner map.
        radius: Centre sampling radius in strides.
        box_weight: Weight of the GIoU loss.
        class_weight: Weight of the focal loss.
        score_floor: Boxes scored lower are dropped when decoding.
        nms_iou: Overlap above which the lower-scored box of the same class is dropped.
        max_boxes: Boxes kept per image.
    """

    def __init__(
        self,
        classes,
        *,
        hidden: int = 128,
        radius: float = 1.5,
        box_weight: float = 2.0,
        class_weight: float = 1.0,
        score_floor: float = 0.01,
        nms_iou: float = 0.6,
        max_boxes: int = 100,
    ):
        super().__init__(classes, hidden=hidden, score_floor=score_floor, nms_iou=nms_iou, max_boxes=max_boxes)
        in_range("detection.", 0, radius=radius, box_weight=box_weight, class_weight=class_weight)
        self.radius = radius
        self.box_weight = box_weight
        self.class_weight = class_weight

    def initialise(self, bias) -> None:
        initialise_bias(bias)

    def losses(self, raw, targets, stride) -> dict[str, Tensor]:
        return box_losses(raw, targets, stride, self.radius, self.box_weight, self.class_weight)

    def distill_loss(self, student, teacher, temperature) -> Tensor:
        """Where the teacher sees objects: class probabilities everywhere, boxes and centerness weighted by its confidence.

        Squared differences of probabilities, weighted by the teacher's confidence plus a floor so that new false alarms
        cost too: most cells are background and would drown the few informative ones (ERD, Feng et al. 2022).
        """
        box_s, centre_s, class_s = split(student)
        box_t, centre_t, class_t = split(teacher)
        confidence = class_t.sigmoid().amax(-1)  # (B, A)
        everywhere = (class_s.sigmoid() - class_t.sigmoid()).square().sum() / confidence.sum().clamp(min=1.0)
        box = distill.response_weighted_mse(box_s, box_t, confidence)
        centre = distill.response_weighted_mse(centre_s.sigmoid()[..., None], centre_t.sigmoid()[..., None], confidence)
        return everywhere + box + centre

    def decode(self, raw, stride, sizes):
        log_ltrb, centerness, class_logits = split(raw)
        centres = cell_centres(raw.shape[-2], raw.shape[-1], stride, raw.device)
        boxes = ltrb_to_xyxy(centres, log_ltrb.clamp(max=6.0).exp() * stride)
        scores = (class_logits.sigmoid() * centerness.sigmoid()[..., None]).sqrt()
        return self.detections(boxes, scores, raw, stride, sizes)
