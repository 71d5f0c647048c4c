"""The original system's detector: a YOLOv1-style grid (Redmon et al. 2016), its mistakes mended."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from boxes import cell_centres, cells_inside, pad_boxes
from errors import in_range
from tasks._detection import Detection


class Grid(Detection):
    """One box per cell: sigmoid centre offset, square roots of width and height, objectness, class scores.

    raw (B, 4 + 1 + classes, h, w): logits of the centre's offset in the cell (x, y); √w, √h as a share of the image, through a
    sigmoid; objectness; class logits. Mended against the original: where several centres fall into a cell the largest
    object gets it (not the first in the file); the loss is normalised once; classes by cross-entropy, the softmax they
    are decoded with (not MSE on logits); NMS within classes; cells inside a crowd box or a cut-off object are neither
    objects nor empty; no Python loop over cells.

    Args:
        hidden: Channels of the predictor's inner map.
        box_weight: Weight of the squared error of the box (the paper's λ_coord).
        empty_weight: Weight of objectness in cells without a centre (the paper's λ_noobj).
        score_floor: Boxes scored lower are dropped when decoding.
        nms_iou: Overlap above which the lower-scored box of the same class is dropped.
        max_boxes: Boxes kept per image.
    """

    def __init__(
        self,
        classes,
        *,
        hidden: int = 128,
        box_weight: float = 5.0,
        empty_weight: float = 0.5,
        score_floor: float = 0.01,
        nms_iou: float = 0.5,
        max_boxes: int = 100,
    ):
        super().__init__(classes, hidden=hidden, score_floor=score_floor, nms_iou=nms_iou, max_boxes=max_boxes)
        in_range("detection.", 0, box_weight=box_weight, empty_weight=empty_weight)
        self.box_weight = box_weight
        self.empty_weight = empty_weight

    def losses(self, raw, targets, stride) -> dict[str, Tensor]:
        boxes, labels, ignore = pad_boxes(targets, raw.device)
        height, width = raw.shape[-2:]
        prediction = raw.float().flatten(2).transpose(1, 2)  # (B, A, 5 + K)
        image, box = (~ignore).nonzero(as_tuple=True)
        matched, label = boxes[image, box], labels[image, box]
        order = (matched[:, 2:] - matched[:, :2]).prod(-1).argsort()  # the largest is written last
        image, matched, label = image[order], matched[order], label[order]
        centre = (matched[:, :2] + matched[:, 2:]) / 2 / stride
        cell_xy = centre.long().clamp(min=0).minimum(torch.tensor([width - 1, height - 1], device=raw.device))
        cell = cell_xy[:, 1] * width + cell_xy[:, 0]
        owner = torch.full((prediction.shape[0] * prediction.shape[1],), -1, dtype=torch.long, device=raw.device)
        rank = torch.arange(len(image), device=raw.device)
        owner = owner.scatter_reduce(0, image * prediction.shape[1] + cell, rank, "amax").view(prediction.shape[:2])
        row, place = (owner >= 0).nonzero(as_tuple=True)
        winner = owner[row, place]

        size = torch.tensor([width * stride, height * stride], device=raw.device)
        wanted = torch.cat([centre - cell_xy, ((matched[:, 2:] - matched[:, :2]) / size).clamp(0, 1).sqrt()], dim=1)[
            winner
        ]
        cells = prediction[row, place]
        objects = max(len(winner), 1)
        ignored = (cells_inside(cell_centres(height, width, stride, raw.device), boxes) & ignore[:, None]).any(-1)
        weight = torch.where(owner >= 0, 1.0, torch.where(ignored, 0.0, self.empty_weight))
        objectness = binary_cross_entropy_with_logits(prediction[..., 4], (owner >= 0).float(), weight, reduction="sum")
        return {
            "box": self.box_weight * mse_loss(cells[:, :4].sigmoid(), wanted, reduction="sum") / objects,
            "objectness": objectness / objects,
            "class": cross_entropy(cells[:, 5:], label[winner], reduction="sum") / objects,
        }

    def distill_loss(self, student, teacher, temperature) -> Tensor:
        """Mean squared error of the raw outputs, the original's."""
        return mse_loss(student.float(), teacher.float())

    def decode(self, raw, stride, sizes):
        height, width = raw.shape[-2:]
        raw = raw.float()
        prediction = raw.flatten(2).transpose(1, 2)
        corner = cell_centres(height, width, stride, raw.device) - stride / 2
        centre = corner + prediction[..., :2].sigmoid() * stride
        size = torch.tensor([width * stride, height * stride], device=raw.device)
        half = prediction[..., 2:4].sigmoid().square() * size / 2
        boxes = torch.cat([centre - half, centre + half], dim=-1)
        scores = (raw[:, 4:5].sigmoid() * raw[:, 5:].softmax(1)).flatten(2).transpose(1, 2)
        return self.detections(boxes, scores, raw, stride, sizes)
