"""Image classification: one class for the whole image."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import distill
from errors import UserError, in_range, nearest
from metrics.classification import AccuracyMetric
from tasks import Task
from tasks._drawing import colour_of, write_label


class Classification(Task):
    """Pooling over the shared map, then a linear layer; cross-entropy.

    Args:
        pooling: "avg", "max" or "avg+max" (concatenated).
        label_smoothing: Share of the target spread over all classes.
        dropout: On the pooled features.
    """

    kind = "classification"
    metric = "top1"
    label = "Top-1"
    flag = "top1"
    headlines = {"top1": "Top-1"}

    def __init__(self, classes, *, pooling: str = "avg", label_smoothing: float = 0.0, dropout: float = 0.0):
        super().__init__(classes)
        if pooling not in ("avg", "max", "avg+max"):
            raise UserError(f"unknown classification.pooling '{pooling}'{nearest(pooling, ['avg', 'max', 'avg+max'])}")
        in_range("classification.", 0, 1, label_smoothing=label_smoothing, dropout=dropout)
        self.pooling = pooling
        self.label_smoothing = label_smoothing
        self.dropout = dropout

    def build_predictor(self, channels, stride, make_norm) -> nn.Module:
        return _PoolLinear(channels, len(self.classes), self.pooling, self.dropout)  # (B, classes)

    def losses(self, raw, targets, stride) -> dict[str, Tensor]:
        label = torch.stack([t["label"] for t in targets]).to(raw.device)
        return {"cross_entropy": cross_entropy(raw.float(), label, label_smoothing=self.label_smoothing)}

    def distill_loss(self, student, teacher, temperature) -> Tensor:
        return distill.softened_kl(student.float(), teacher.float(), temperature)

    def decode(self, raw, stride, sizes):
        return [{"probabilities": row} for row in raw.float().softmax(1)]

    def make_metric(self) -> AccuracyMetric:
        return AccuracyMetric(self.classes)

    def draw(self, image, prediction):
        drawn = image.copy()
        if "label" in prediction:
            label, text = int(prediction["label"]), ""
        else:
            probability, label = prediction["probabilities"].max(0)
            label, text = int(label), f" {float(probability):.2f}"
        write_label(drawn, (0, 0), self.classes[label] + text, colour_of(label))
        return drawn


class _PoolLinear(nn.Module):
    def __init__(self, channels: int, classes: int, pooling: str, dropout: float):
        super().__init__()
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels * (2 if pooling == "avg+max" else 1), classes)

    def forward(self, shared: Tensor) -> Tensor:
        pooled = []
        if "avg" in self.pooling:
            pooled.append(shared.mean((2, 3)))
        if "max" in self.pooling:
            pooled.append(shared.amax((2, 3)))
        return self.linear(self.dropout(torch.cat(pooled, dim=1)))
