"""The dense box predictor and its losses: of anchor-free detection, and of what else learns boxes from a shared map."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from boxes import assign_centre_sampling, cell_centres, ltrb_to_xyxy, pad_boxes
from necks import conv_norm_relu

LEAST_QUALITY = 0.1  # of a positive cell: a box smaller than a cell may not hold the centre it is given to


def box_predictor(channels: int, hidden: int, outputs: int, make_norm) -> nn.Sequential:
    """1x1 convolution to `hidden`, norm, ReLU, 1x1 convolution to `outputs` values per cell, starting near 0."""
    last = nn.Conv2d(hidden, outputs, 1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(conv_norm_relu(channels, hidden, 1, make_norm), last)


def initialise_bias(bias: Tensor) -> None:
    """Set the bias of a last layer with 4 + 1 + classes outputs, in place."""
    bias[:4] = math.log(3.0)  # boxes of six strides
    bias[5:] = -math.log((1 - 0.01) / 0.01)  # focal loss: a prior of 0.01 (Lin et al. 2017b)


def box_losses(
    raw: Tensor,
    targets: list[dict[str, Tensor]],
    stride: int,
    radius: float = 1.5,
    box_weight: float = 2.0,
    class_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Focal loss of classes, GIoU loss of boxes, cross-entropy of centerness (FCOS, section 3).

    raw (B, 4 + 1 + classes, h, w) as in detection_anchor_free; targets with "boxes", "labels", "iscrowd".
    """
    boxes, labels, ignore = pad_boxes(targets, raw.device)
    centres = cell_centres(raw.shape[-2], raw.shape[-1], stride, raw.device)
    log_ltrb, centerness, class_logits = split(raw)
    index, ignored = assign_centre_sampling(centres, boxes, ignore, stride, radius)
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
    centre = binary_cross_entropy_with_logits(centerness[image, cell], quality, reduction="sum") / max(len(image), 1)
    return {"class": class_weight * focal, "box": box_weight * giou, "centerness": centre}


def split(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 4 + 1 + K, h, w) → log ltrb (B, A, 4), centerness (B, A), class logits (B, A, K), A = h·w row-major, float32."""
    flat = raw.float().flatten(2).transpose(1, 2)
    return flat[..., :4], flat[..., 4], flat[..., 5:]


def _centerness(centres: Tensor, boxes: Tensor) -> Tensor:
    """√(min(l,r)/max(l,r) · min(t,b)/max(t,b)) (FCOS, equation 3); 0 outside the box."""
    near = (centres - boxes[:, :2]).clamp(min=0)
    far = (boxes[:, 2:] - centres).clamp(min=0)
    ratio = torch.minimum(near, far) / torch.maximum(near, far).clamp(min=1e-6)
    return ratio.prod(-1).sqrt()
