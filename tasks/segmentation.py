"""Semantic segmentation: a class for every pixel, background among them."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

import distill
from data import VOID
from errors import UserError, in_range
from metrics.segmentation import IouMetric
from tasks import Task
from tasks._anchor_free import box_losses, box_predictor, initialise_bias
from tasks._drawing import colour_of, write_label
from tasks._regions import region_boxes

HIDDEN = 128  # channels of the second branch
LEAST_REGION = 48  # pixels of the network's input; smaller regions are ignored


class Segmentation(Task):
    """A 1x1 convolution on the shared map; cross-entropy over all classes with background, void ignored.

    With `region_boxes` a second branch detects, as detection_anchor_free does, the boxes around the masks' connected regions,
    so that a detector to come finds a map that knows where objects end. raw then is (B, classes + 4 + 1 + classes - 1, h, w),
    and only the masks are decoded, distilled, and learned from replayed images.

    Args:
        loss_stride: Resolution of the loss: logits are upsampled to the input size divided by this, and the mask subsampled.
        background_weight: Weight of background pixels in the loss, against 1 for an object's; the loss is the weighted mean.
        label_smoothing: Share of the target spread over all classes.
        distill_background: In distillation, weight of a pixel that the teacher takes for background, against 1 for an object;
            below 1, since background drowns the informative pixels.
        region_boxes: Weight of the losses of the boxes around regions; 0: no second branch.
    """

    kind = "segmentation"
    metric = "miou"
    label = "mIoU"
    flag = "miou"
    headlines = {"miou": "mIoU", "miou_fg": "mIoU_fg"}

    def __init__(
        self,
        classes,
        *,
        loss_stride: int = 1,
        background_weight: float = 1.0,
        label_smoothing: float = 0.0,
        distill_background: float = 1.0,
        region_boxes: float = 0.0,
    ):
        super().__init__(classes)
        if loss_stride not in (1, 2, 4):
            raise UserError(f"segmentation.loss_stride is {loss_stride}, expected 1, 2 or 4")
        weights = {"background_weight": background_weight, "distill_background": distill_background}
        in_range("segmentation.", 0, region_boxes=region_boxes, **weights)
        in_range("segmentation.", 0, 1, label_smoothing=label_smoothing)
        self.loss_stride = loss_stride
        self.class_weights = torch.tensor([background_weight] + [1.0] * (len(self.classes) - 1))
        self.label_smoothing = label_smoothing
        self.distill_background = distill_background
        self.region_boxes = region_boxes

    def build_predictor(self, channels, stride, make_norm) -> nn.Module:
        masks = nn.Conv2d(channels, len(self.classes), 1)  # (B, classes, h, w), at the shared map's stride
        if not self.region_boxes:
            return masks
        boxes = box_predictor(channels, HIDDEN, 4 + 1 + len(self.classes) - 1, make_norm)
        initialise_bias(boxes[-1].bias.data)
        return _SideBySide(masks, boxes)

    def losses(self, raw, targets, stride) -> dict[str, Tensor]:
        terms = self.replay_losses(raw, targets, stride)
        if self.region_boxes:
            regions = [region_boxes(t["mask"].cpu(), LEAST_REGION) for t in targets]
            for name, value in box_losses(raw[:, len(self.classes) :], regions, stride).items():
                terms[f"region_{name}"] = self.region_boxes * value
        return terms

    def replay_losses(self, raw, targets, stride) -> dict[str, Tensor]:
        raw = self._mask_logits(raw)
        mask = torch.stack([_subsampled(t["mask"], self.loss_stride) for t in targets]).to(raw.device).long()
        logits = interpolate(raw.float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
        weights = self.class_weights.to(raw.device)
        options = {"ignore_index": VOID, "reduction": "sum", "label_smoothing": self.label_smoothing}
        total = weights[mask[mask != VOID]].sum().clamp(min=1)
        return {"cross_entropy": cross_entropy(logits, mask, weights, **options) / total}

    def distill_loss(self, student, teacher, temperature) -> Tensor:
        student, teacher = self._mask_logits(student), self._mask_logits(teacher)
        background = teacher.float().softmax(1)[:, 0]  # (B, h, w)
        weight = 1 - (1 - self.distill_background) * background
        return distill.softened_kl(student.float(), teacher.float(), temperature, weight)

    def decode(self, raw, stride, sizes):
        masks = []
        # a pixel's logits side by side: a third of the time
        raw = self._mask_logits(raw).float().contiguous(memory_format=torch.channels_last)
        for logits, size in zip(raw.split(1), sizes, strict=True):
            full = interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)[0]
            masks.append({"mask": full.permute(1, 2, 0).argmax(-1).to(torch.uint8)})  # (H, W)
        return masks

    def _mask_logits(self, raw: Tensor) -> Tensor:
        """Without what the second branch predicts."""
        return raw[:, : len(self.classes)]

    def make_metric(self) -> IouMetric:
        return IouMetric(self.classes)

    def draw(self, image, prediction) -> Image.Image:
        mask = prediction["mask"].cpu().numpy()
        picture = np.asarray(image, dtype=np.float32).copy()
        present = [label for label in np.unique(mask) if label not in (0, VOID)]
        for label in present:
            area = mask == label
            picture[area] = 0.4 * picture[area] + 0.6 * np.array(colour_of(int(label) - 1), dtype=np.float32)
        drawn = Image.fromarray(picture.astype(np.uint8))
        for label in present:
            ys, xs = np.nonzero(mask == label)
            if len(ys) > mask.size / 200:  # no names on specks
                write_label(drawn, (xs.mean() - 15, ys.mean() - 5), self.classes[label], colour_of(int(label) - 1))
        return drawn


class _SideBySide(nn.Module):
    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, shared: Tensor) -> Tensor:
        return torch.cat([branch(shared) for branch in self.branches], dim=1)


def _subsampled(mask: Tensor, step: int) -> Tensor:
    """One pixel of every step x step: the one before the step's middle and the one after it by turns, so nothing shifts."""
    if step == 1:
        return mask
    numbers = [torch.arange(side // step, device=mask.device) for side in mask.shape]
    rows, columns = [number * step + step // 2 - number % 2 for number in numbers]
    return mask[rows[:, None], columns]
