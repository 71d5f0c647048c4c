"""python predict.py --weights RUN/final.pt IMAGES...: masks, boxes and labels of images or videos. The same as an API:

from predict import load_model
result = load_model("RUN/final.pt").predict("photo.jpg")
"""

import argparse
import datetime
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

import checkpoint
import registry
from command_line import choose_device
from data import Dataset, Sample
from data.loader import ahead
from data.transforms import whole_image
from errors import UserError, command
from evaluation import choose_tasks, predict_all
from models import OneHead
from prediction import Result
from prediction.inputs import Picture, Reader, as_sample, batches, find_inputs
from prediction.outputs import Outputs, output_paths, require_writable
from tasks import Task

BATCH = 16
_USAGE = "%(prog)s --weights RUN/final.pt IMAGES ... [--out DIR] [--visualize] [--tasks NAME ...] [more, see below]"
_ABOUT = "Masks, boxes and labels of images or videos, by all tasks of a checkpoint in one pass."


def load_model(
    weights: str | Path,
    device: str = "auto",
    tasks: Iterable[str] = ("all",),
    score_threshold: float = 0.3,
    nms_threshold: float = 0.5,
) -> "Predictor":
    """A checkpoint of train.py, ready to predict.

    device: "auto", "cpu" or "cuda". tasks: some of the checkpoint's, by the names of their stages. score_threshold: boxes
    must score above it. nms_threshold: of two boxes of a class that overlap by more than this (IoU) the better one stays.
    UserError for a file that is no checkpoint, an unknown name, or a threshold outside [0, 1].
    """
    for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not 0 <= value <= 1:  # false for NaN too
            raise UserError(f"{name} is {value}, expected 0 to 1")
    model, learned, recipe, _ = checkpoint.restore(Path(weights), choose_device(device))
    if not learned:
        raise UserError(f"{weights}: this checkpoint has learned no task yet; use RUN/final.pt or RUN/stageN_NAME.pt")
    chosen = {name: learned[name] for name in choose_tasks(tasks, learned)}
    for name, task in chosen.items():
        dataset = registry.load(Dataset, recipe.stages[name].dataset["name"])[0]
        task.classes = tuple(dataset.display_name(label) for label in task.classes)
        task.keep_above(score_threshold, nms_threshold)
    return Predictor(model, chosen, recipe.image_size)


class Predictor:
    """Predicts with all its tasks from one forward pass. Images are resized to the network's square, as eval.py does."""

    def __init__(self, model: OneHead, tasks: dict[str, Task], image_size: int):
        self.model = model
        self.tasks = tasks
        self.image_size = image_size

    def predict(self, images: Picture | list[Picture], batch_size: int = BATCH) -> Result | list[Result]:
        """The result of an image, or the list of results of a list, in its order.

        An image is a path, a PIL image, a NumPy array (H, W, 3) or a tensor (3, H, W), RGB; prediction/inputs.py has the
        particulars. UserError for what is no image; then nothing is predicted for the rest of its list either.
        """
        if isinstance(images, list | tuple):
            return list(self.stream(images, batch_size))
        return self.predict_batch([as_sample(images)])[0]

    def stream(self, images: Iterable[Picture], batch_size: int = BATCH) -> Iterator[Result]:
        """Results one by one, for more images than fit into memory; with batch_size 1, each as soon as its image is there."""
        samples = (as_sample(image, number) for number, image in enumerate(images))
        for batch in batches(samples, batch_size):
            yield from self.predict_batch(batch)

    def predict_batch(self, samples: list[Sample]) -> list[Result]:
        """Images of any sizes at once."""
        images = torch.stack([whole_image(sample, self.image_size) for sample in samples])
        sizes = [tuple(sample.image.shape[-2:]) for sample in samples]
        found = predict_all(self.model, self.tasks, images.to(self.model.mean.device), sizes)
        answers = [
            {name: {key: value.cpu() for key, value in rows[number].items()} for name, rows in found.items()}
            for number in range(len(samples))
        ]
        return [Result(s.id, s.image, answer, self.tasks) for s, answer in zip(samples, answers, strict=True)]


@command
def main(argv: list[str] | None = None) -> int:
    """Predict, write the results and list what could not be read (then the exit code is 1)."""
    flags = _parse(argv)
    out = Path(flags.out or f"runs/predict-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    table = Path(flags.json) if flags.json else None
    model = load_model(flags.weights, flags.device, flags.tasks, flags.score_threshold, flags.nms_threshold)
    results = output_paths(out, model.tasks)
    inputs = find_inputs(flags.images, results)
    require_writable(out, table, [Path(flags.weights), *results, *(item.path for item in inputs)])
    reader = Reader(inputs)
    bar = tqdm(total=reader.count(), disable=None, unit="image")
    images, rows, began = 0, [], time.perf_counter()
    try:
        with bar, Outputs(out, model.tasks, flags.visualize) as outputs:
            for batch in ahead(batches(reader, BATCH)):
                for result in model.predict_batch(batch):
                    name, rate = reader.places.pop(result.source)
                    outputs.add(result, name, rate)
                    bar.update()
                    tqdm.write(str(result))
                    images += 1
                    if table:
                        rows.append({"name": name, **result.to_dict()})
    except KeyboardInterrupt:
        print(f"\nstopped after {images} images: {out} holds their pictures, but no tables", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - began
    if table:
        settings = {key: getattr(flags, key) for key in ("weights", "score_threshold", "nms_threshold")}
        outputs.write_table(table, {**settings, "unreadable": reader.unreadable, "results": rows})
    print(f"{images} images in {seconds:.1f} s ({images / seconds:.1f} images/s); results in {out}")
    if reader.unreadable:
        print(f"{len(reader.unreadable)} files could not be read:", *reader.unreadable, sep="\n  ", file=sys.stderr)
    return 1 if reader.unreadable else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="predict.py", usage=_USAGE, description=_ABOUT, allow_abbrev=False)
    parser.add_argument("--weights", required=True, help="checkpoint, RUN/final.pt or RUN/stageN_NAME.pt")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image or video files, folders of images, globs")
    parser.add_argument("--out", metavar="DIR", help="folder of the results (default: runs/predict-<date>)")
    parser.add_argument("--visualize", action="store_true", help="also draw everything onto the images")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="all (default), or some of seg det cls …")
    parser.add_argument("--score_threshold", type=float, default=0.3, help="boxes must score above (default: 0.3)")
    parser.add_argument(
        "--nms_threshold", type=float, default=0.5, help="of boxes that overlap by more, one stays (default: 0.5)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to this file too")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(main())
