"""Detection without anchors: every cell near an object's centre predicts it (after FCOS, Tian et al. 2019 and 2020)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

import distill
from boxes import assign_centre_sampling, cell_centres, ltrb_to_xyxy, pad_boxes
from tasks._detection import Detection

LEAST_QUALITY = 0.1  # of a positive cell: a box smaller than a cell may not hold the centre it is given to


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
        self.radius = radius
        self.box_weight = box_weight
        self.class_weight = class_weight

    def initialise(self, bias) -> None:
        bias[:4] = math.log(3.0)  # boxes of six strides
        bias[5:] = -math.log((1 - 0.01) / 0.01)  # focal loss: a prior of 0.01 (Lin et al. 2017b)

    def losses(self, raw, targets, stride) -> dict[str, Tensor]:
        boxes, labels, ignore = pad_boxes(targets, raw.device)
        centres = cell_centres(raw.shape[-2], raw.shape[-1], stride, raw.device)
        log_ltrb, centerness, class_logits = _split(raw)
        index, ignored = assign_centre_sampling(centres, boxes, ignore, stride, self.radius)
        positive = index >= 0  # (B, A)
        image, cell = positive.nonzero(as_tuple=True)
        matched = boxes[image, index[image, cell]]
        wanted = torch.zeros_like(class_logits)
        wanted[image, cell, labels[image, index[image, cell]]] = 1.0
        focal = sigmoid_focal_loss(class_logits, wanted, alpha=0.25, gamma=2.0)
        focal = (focal * ~ignored[..., None]).sum() / max(len(image), 1)

        quality = _centerness(centres[cell], matched).clamp(min=LEAST_QUALITY)
        predicted = ltrb_to_xyxy(centres[cell], log_ltrb[image, cell].clamp(max=6.0).exp() * stride)
        giou = generalized_box_iou_loss(predicted, matched)
        giou = (giou * quality).sum() / quality.sum().clamp(min=1.0)
        centre = binary_cross_entropy_with_logits(centerness[image, cell], quality, reduction="sum") / max(
            len(image), 1
        )
        return {"class": self.class_weight * focal, "box": self.box_weight * giou, "centerness": centre}

    def distill_loss(self, student, teacher, temperature) -> Tensor:
        """Where the teacher sees objects: class probabilities everywhere, boxes and centerness weighted by its confidence.

        Squared differences of probabilities, weighted by the teacher's confidence plus a floor so that new false alarms
        cost too: most cells are background and would drown the few informative ones (ERD, Feng et al. 2022).
        """
        box_s, centre_s, class_s = _split(student)
        box_t, centre_t, class_t = _split(teacher)
        confidence = class_t.sigmoid().amax(-1)  # (B, A)
        everywhere = (class_s.sigmoid() - class_t.sigmoid()).square().sum() / confidence.sum().clamp(min=1.0)
        box = distill.response_weighted_mse(box_s, box_t, confidence)
        centre = distill.response_weighted_mse(centre_s.sigmoid()[..., None], centre_t.sigmoid()[..., None], confidence)
        return everywhere + box + centre

    def decode(self, raw, stride, sizes):
        log_ltrb, centerness, class_logits = _split(raw)
        centres = cell_centres(raw.shape[-2], raw.shape[-1], stride, raw.device)
        boxes = ltrb_to_xyxy(centres, log_ltrb.clamp(max=6.0).exp() * stride)
        scores = (class_logits.sigmoid() * centerness.sigmoid()[..., None]).sqrt()
        return self.detections(boxes, scores, raw, stride, sizes)


def _split(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 4 + 1 + K, h, w) → log ltrb (B, A, 4), centerness (B, A), class logits (B, A, K), A = h·w row-major, float32."""
    flat = raw.float().flatten(2).transpose(1, 2)
    return flat[..., :4], flat[..., 4], flat[..., 5:]


def _centerness(centres: Tensor, boxes: Tensor) -> Tensor:
    """√(min(l,r)/max(l,r) · min(t,b)/max(t,b)) (FCOS, equation 3); 0 outside the box."""
    near = (centres - boxes[:, :2]).clamp(min=0)
    far = (boxes[:, 2:] - centres).clamp(min=0)
    ratio = torch.minimum(near, far) / torch.maximum(near, far).clamp(min=1e-6)
    return ratio.prod(-1).sqrt()
