"""How far one network's answers are from another's. Every function is 0, with gradient 0, where student equals teacher."""

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, mse_loss, softmax


def softened_kl(student: Tensor, teacher: Tensor, temperature: float, weight: Tensor | None = None) -> Tensor:
    """T² · KL(softmax(teacher/T) ‖ softmax(student/T)) (Hinton et al. 2015): summed over classes, mean over all else.

    Logits (B, C) or (B, C, H, W). The mean is over positions only: `reduction="mean"` would divide by C too.
    weight: of each position, (B,) or (B, H, W) ≥ 0; the mean is then weighted.
    """
    wanted = softmax(teacher / temperature, dim=1)
    divergence = kl_div(log_softmax(student / temperature, dim=1), wanted, reduction="none").sum(1)
    if weight is None:
        return temperature**2 * divergence.mean()
    return temperature**2 * (weight * divergence).sum() / weight.sum().clamp(min=1e-6)


def response_weighted_mse(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Σ w · mean_c (s − t)² / Σ w: dense responses compared where the teacher is confident (cf. ERD, Feng et al. 2022).

    student, teacher (..., C); weight (...) ≥ 0. 0 where no weight is left.
    """
    squared = (student - teacher).square().mean(-1)
    return (weight * squared).sum() / weight.sum().clamp(min=1e-6)


def map_distance(student: Tensor, teacher: Tensor, relative: bool = True) -> Tensor:
    """Mean squared difference of feature maps (FitNets, Romero et al. 2015).

    relative: in units of the teacher map's mean square (our deviation), so that a weight means the same at any scale.
    """
    unit = teacher.square().mean().clamp(min=torch.finfo(teacher.dtype).tiny) if relative else 1.0
    return mse_loss(student, teacher) / unit
