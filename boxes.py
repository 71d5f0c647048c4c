"""Boxes on a dense grid of cells: geometry, target assignment and decoding, all vectorised over images."""

import torch
from torch import Tensor
from torchvision.ops import nms


def cell_centres(height: int, width: int, stride: int, device=None) -> Tensor:
    """Centres of the cells in pixels, row-major, (H·W, 2) as x, y."""
    ys, xs = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return (torch.stack([xs, ys], dim=-1).reshape(-1, 2).float() + 0.5) * stride


def ltrb_to_xyxy(centres: Tensor, ltrb: Tensor) -> Tensor:
    """Distances left, top, right, bottom from a centre (..., 4) → corners (..., 4)."""
    return torch.cat([centres - ltrb[..., :2], centres + ltrb[..., 2:]], dim=-1)


def cells_inside(centres: Tensor, boxes: Tensor) -> Tensor:
    """Which cells' centres (A, 2) lie inside which boxes (B, N, 4), borders excluded: bool (B, A, N)."""
    x, y = centres[:, 0, None], centres[:, 1, None]  # (A, 1)
    b = boxes[:, None]  # (B, 1, N, 4)
    return torch.stack([x - b[..., 0], y - b[..., 1], b[..., 2] - x, b[..., 3] - y]).amin(0) > 0


def assign_centre_sampling(
    centres: Tensor, boxes: Tensor, ignore: Tensor, stride: int, radius: float
) -> tuple[Tensor, Tensor]:
    """Which box each cell answers for: FCOS centre sampling (Tian et al. 2019; v2 2020) on one level.

    A cell is positive for a box if its centre lies inside the box and within `radius` strides of the box's centre; a box
    that catches no cell so (smaller than a cell) gets the one nearest to its centre. Of several boxes the smallest wins.

    centres (A, 2), boxes (B, N, 4) xyxy, padded with ignore rows; ignore (B, N), true for padding and crowds.
    Returns index of the box (B, A) with -1 for none, and a mask (B, A) of the cells inside an ignored box (not trained).
    """
    if boxes.shape[1] == 0:
        empty = torch.full((boxes.shape[0], len(centres)), -1, dtype=torch.long, device=boxes.device)
        return empty, torch.zeros_like(empty, dtype=torch.bool)
    inside = cells_inside(centres, boxes)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    distance = (centres[None, :, None] - middle[:, None]).abs().amax(-1)  # Chebyshev, (B, A, N)
    positive = inside & (distance < radius * stride)
    nearest_cell = torch.zeros_like(positive).scatter_(1, distance.argmin(1, keepdim=True), True)
    positive = positive | (nearest_cell & ~positive.any(1, keepdim=True))
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    cost = area[:, None].expand_as(positive).masked_fill(~positive | ignore[:, None], torch.inf)
    smallest, index = cost.min(-1)
    index = index.masked_fill(smallest.isinf(), -1)
    ignored = (inside & ignore[:, None]).any(-1) & (index < 0)
    return index, ignored


def pad_boxes(targets: list[dict[str, Tensor]], device) -> tuple[Tensor, Tensor, Tensor]:
    """Ragged targets → boxes (B, N, 4), labels (B, N), ignore (B, N; crowds and padding), N = the most boxes of an image."""
    most = max((len(t["labels"]) for t in targets), default=0)
    boxes = torch.zeros(len(targets), most, 4)
    labels = torch.zeros(len(targets), most, dtype=torch.long)
    ignore = torch.ones(len(targets), most, dtype=torch.bool)
    for row, target in enumerate(targets):
        count = len(target["labels"])
        boxes[row, :count] = target["boxes"]
        labels[row, :count] = target["labels"]
        ignore[row, :count] = target["iscrowd"]
    return boxes.to(device), labels.to(device), ignore.to(device)


def select_boxes(
    boxes: Tensor, scores: Tensor, floor: float, iou: float, keep: int, candidates: int = 1000
) -> list[dict]:
    """Dense predictions → detections: score floor, class-wise NMS, at most `keep` an image.

    boxes (B, A, 4) xyxy, scores (B, A, K) in [0, 1]. Returns per image {"boxes" (n, 4), "scores" (n,), "labels" (n,)},
    best first.
    """
    classes, apart = scores.shape[-1], boxes.max().double() + 1
    scores = scores.flatten(1)
    most, shown = min(candidates, scores.shape[1]), keep + keep // 4
    results = [{}] * len(scores)
    unsettled = list(range(len(scores)))
    while unsettled:
        shown = min(shown, most)
        top, place = scores[unsettled].topk(shown)  # (images, shown)
        where, label = boxes[unsettled].gather(1, (place // classes)[..., None].expand(-1, -1, 4)), place % classes
        # every class at a place of its own, where it overlaps with no other; float32 would be too coarse there
        placed, order = where.double() + (label * apart)[..., None], top.double()
        above = (top > floor).sum(1).tolist()
        few = []
        for row, (image, count) in enumerate(zip(unsettled, above, strict=True)):
            best = nms(placed[row, :count], order[row, :count], iou)[:keep]
            if len(best) < keep and count == shown < most:
                few.append(image)  # else: what NMS keeps first of the best few, it keeps first of all
            else:
                results[image] = {"boxes": where[row, best], "scores": top[row, best], "labels": label[row, best]}
        unsettled, shown = few, 4 * shown
    return results
