"""What was forgotten, shown: the same val images with truth and the prediction after each stage."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import checkpoint
from data import Sample
from data.loader import Split
from data.transforms import whole_image
from evaluation import predict
from models import OneHead
from tasks import Task

WIDTH = 260  # of one picture, in pixels
EDGE = 22  # height of the captions


def stage_checkpoints(run: Path) -> list[Path]:
    """Checkpoints of the finished stages, in order."""
    return [*sorted(run.glob("stage*_*.pt"), key=lambda path: int(path.name[5:].split("_")[0])), *run.glob("final.pt")]


def draw_forgotten(run: Path, val: dict[str, Split], out: Path, images: int = 4) -> list[Path]:
    """One PNG per task: a row per val image (evenly spaced over the split); columns truth, then each stage."""
    columns: dict[str, list[tuple[str, list[Image.Image]]]] = {}
    for path in stage_checkpoints(run):
        model, tasks, recipe, _ = checkpoint.restore(path)
        for name, task in tasks.items():
            samples = _chosen(val[name], images)
            if name not in columns:
                columns[name] = [("truth", _truth(task, samples))]
            drawn = _predicted(model, name, task, samples, recipe.image_size)
            columns[name].append((f"after {list(tasks)[-1]}", drawn))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, parts in columns.items():
        written.append(out / f"predictions_{name}.png")
        _sheet(parts).save(written[-1])
    return written


def log_predictions(run, images: int = 3) -> None:
    """For a logger that takes pictures: of every task learned so far one, val images with truth and present prediction."""
    if not run.logger.takes_pictures:
        return
    for name in run.learned:
        samples = _chosen(run.val[name], images)
        drawn = _predicted(run.model, name, run.tasks[name], samples, run.recipe.image_size)
        sheet = _sheet([("truth", _truth(run.tasks[name], samples)), (f"after {run.learned[-1]}", drawn)])
        run.logger.picture(f"{name}/predictions", sheet, run.global_epoch)


def _truth(task: Task, samples: list[Sample]) -> list[Image.Image]:
    return [task.draw(_photograph(sample), sample.target) for sample in samples]


def _predicted(model: OneHead, name: str, task: Task, samples: list[Sample], image_size: int) -> list[Image.Image]:
    device = next(model.parameters()).device
    batch = torch.stack([whole_image(sample, image_size) for sample in samples]).to(device)
    predictions = predict(model, name, task, batch, [tuple(sample.image.shape[-2:]) for sample in samples])
    return [task.draw(_photograph(s), p) for s, p in zip(samples, predictions, strict=True)]


def _photograph(sample: Sample) -> Image.Image:
    return Image.fromarray(sample.image.permute(1, 2, 0).numpy())


def _chosen(split: Split, count: int) -> list[Sample]:
    count = min(count, len(split))
    return [split.sample((2 * i + 1) * len(split) // (2 * count)) for i in range(count)]


def _sheet(columns: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    rows = len(columns[0][1])
    heights = [round(WIDTH * columns[0][1][row].height / columns[0][1][row].width) for row in range(rows)]
    sheet = Image.new("RGB", (len(columns) * (WIDTH + 4) - 4, EDGE + sum(heights) + 4 * (rows - 1)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, pictures) in enumerate(columns):
        x, y = number * (WIDTH + 4), EDGE
        pen.text((x + 2, 3), caption, fill="black", font=ImageFont.load_default(size=14))
        for picture, height in zip(pictures, heights, strict=True):
            sheet.paste(picture.resize((WIDTH, height), Image.Resampling.LANCZOS), (x, y))
            y += height + 4
    return sheet
