"""The connected regions of a mask as boxes: what a set without boxes can still teach a detector."""

import numpy as np
import torch
from torch import Tensor

from data import VOID


def region_boxes(mask: Tensor, least: int) -> dict[str, Tensor]:
    """Boxes around the connected regions (8 neighbours) of a mask's foreground classes, as a detection target.

    mask (H, W) of class indices, 0 background, VOID no class. Returns {"boxes" (N, 4) xyxy in pixels, "labels" (N,) class index
    minus 1, "iscrowd" (N,): true, so to be ignored, where a region has fewer than `least` pixels}.
    """
    values = np.where(mask.numpy() == VOID, 0, mask.numpy())
    height, width = values.shape
    border = np.zeros((height, 1), values.dtype)
    ends = np.diff(np.concatenate([border, values, border], axis=1).astype(np.int16), axis=1) != 0
    rows, columns = ends.nonzero()  # every run of equal values starts and ends where the value changes
    follows = (rows[:-1] == rows[1:]) & (values[rows[:-1], np.minimum(columns[:-1], width - 1)] > 0)
    row, start, stop = rows[:-1][follows], columns[:-1][follows], columns[1:][follows]
    label = values[row, start]
    parent = list(range(len(row)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = run = parent[parent[run]]
        return run

    first = np.searchsorted(row, np.arange(height + 1))
    for line in range(1, height):
        above, last_above = first[line - 1], first[line]
        for run in range(first[line], first[line + 1]):
            while above < last_above and stop[above] < start[run]:
                above += 1
            other = above
            while other < last_above and start[other] <= stop[run]:
                if label[other] == label[run]:
                    parent[root(run)] = root(other)
                other += 1
    region = np.array([root(run) for run in range(len(row))], dtype=np.int64)
    boxes, labels, crowds = [], [], []
    for number in np.unique(region):
        runs = region == number
        boxes.append([start[runs].min(), row[runs].min(), stop[runs].max(), row[runs].max() + 1])
        labels.append(int(label[number]) - 1)
        crowds.append(bool((stop[runs] - start[runs]).sum() < least))
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "iscrowd": torch.tensor(crowds, dtype=torch.bool),
    }
