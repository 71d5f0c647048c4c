"""Decoding of a grid detector one cell at a time, as the original system does it: what the vectorised form is timed against."""

import torch
from torch import Tensor
from torchvision.ops import nms


def decode_by_loop(raw: Tensor, stride: int, score_floor: float, nms_iou: float) -> list[dict[str, Tensor]]:
    """raw (B, 4 + 1 + K, h, w) → boxes (n, 4) xyxy in pixels, scores (n,), labels (n,) per image; every class of every cell."""
    height, width = raw.shape[-2] * stride, raw.shape[-1] * stride
    results = []
    for image in raw:
        boxes, scores, labels = [], [], []
        for row in range(raw.shape[-2]):
            for column in range(raw.shape[-1]):
                cell = image[:, row, column]
                x = (column + torch.sigmoid(cell[0]).item()) * stride
                y = (row + torch.sigmoid(cell[1]).item()) * stride
                half_width = torch.sigmoid(cell[2]).item() ** 2 * width / 2
                half_height = torch.sigmoid(cell[3]).item() ** 2 * height / 2
                objectness = torch.sigmoid(cell[4]).item()
                probabilities = torch.softmax(cell[5:], dim=0)
                for label in range(len(probabilities)):
                    score = objectness * probabilities[label].item()
                    if score > score_floor:
                        boxes.append([x - half_width, y - half_height, x + half_width, y + half_height])
                        scores.append(score)
                        labels.append(label)
        boxes, scores, labels = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels)
        kept = []
        for label in labels.unique():
            where = (labels == label).nonzero().flatten()
            kept.append(where[nms(boxes[where], scores[where], nms_iou)])
        best = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.long)
        best = best[scores[best].argsort(descending=True)]
        results.append({"boxes": boxes[best], "scores": scores[best], "labels": labels[best]})
    return results
