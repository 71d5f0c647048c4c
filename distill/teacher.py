"""A frozen copy of the model, which computes only what the student has not computed already."""

import copy

import torch
from torch import Tensor

from models import OneHead


class Teacher:
    """The model as it was, in eval mode.

    A leading run of trunk parts that the student keeps frozen gives the same maps in both networks: the teacher starts from
    the student's. (no_grad rather than inference mode: its answers enter losses that autograd differentiates.)
    """

    def __init__(self, model: OneHead, frozen: set[str]):
        self.model = copy.deepcopy(model)
        self.model.freeze(self.model.parts())
        self.model.eval()
        self.start = None
        for name in self.model.trunk:
            if name not in frozen:
                break
            self.start = name

    @torch.no_grad()
    def __call__(self, images: Tensor, student_maps: dict[str, object]) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Images (B, 3, H, W) → trunk maps by part (the shared ones are the student's) and raw predictions by task."""
        maps = dict(student_maps)
        if self.start != self.model.last_part:
            maps |= self.model.trunk_maps(images, self.start, maps.get(self.start))
        shared = self.model.shared_map(maps)
        return maps, {task: predictor(shared) for task, predictor in self.model.predictors.items()}
