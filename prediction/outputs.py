"""What is written for predictions: masks, one COCO-style file, a table of labels, overlays. Each file appears whole."""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from PIL import Image

from errors import UserError
from files import write_json, write_whole, written_whole
from palette import voc_palette
from prediction import Answer, Result
from prediction.inputs import is_within
from prediction.video import VideoWriter
from tasks import Task

OVERLAYS = "visualized"


class Writer(ABC):
    """Writes the answers of one task to `path`, a folder or a file below that of all results."""

    place: ClassVar[str]  # of `path`, with the task's name in it

    def __init__(self, path: Path, task: Task):
        self.path = path
        self.task = task

    @abstractmethod
    def add(self, result: Result, answer: Answer, name: str) -> None:
        """The next image; `name`: of its files, without suffix."""

    def finish(self) -> None:  # noqa: B027  (what is written image by image is finished)
        """After the last image."""


class MaskWriter(Writer):
    """masks_TASK/NAME.png: palette images in VOC's colours, class indices as pixel values, at the original size."""

    place = "masks_{}"

    def add(self, result, answer, name):
        mask = Image.fromarray(answer.mask)
        mask.putpalette(voc_palette())
        save_image(mask, self.path / f"{name}.png")


class CocoWriter(Writer):
    """detections_TASK.json: COCO's images, categories and annotations, the latter with a score.

    A category's id is its index in the task's vocabulary, from 0; image ids count from 1 in the order of the input.
    """

    place = "detections_{}.json"

    def __init__(self, path, task):
        super().__init__(path, task)
        self.images: list[dict] = []
        self.annotations: list[dict] = []

    def add(self, result, answer, name):
        height, width = result.pixels.shape[-2:]
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, "file_name": result.source, "width": width, "height": height})
        rows = zip(answer.boxes_xyxy.tolist(), answer.labels.tolist(), answer.scores.tolist(), strict=True)
        for (left, top, right, bottom), label, score in rows:
            annotation = {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": label,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
                "score": score,
            }
            self.annotations.append(annotation)

    def finish(self):
        categories = [{"id": label, "name": name} for label, name in enumerate(self.task.classes)]
        write_json(self.path, {"images": self.images, "categories": categories, "annotations": self.annotations})


class LabelWriter(Writer):
    """labels_TASK.csv: a line per image: source, label, its probability, then the probability of every class."""

    place = "labels_{}.csv"

    def __init__(self, path, task):
        super().__init__(path, task)
        self.rows: list[list] = [["source", "label", "probability", *task.classes]]

    def add(self, result, answer, name):
        probabilities = answer.probabilities.tolist()
        self.rows.append([result.source, answer.name, probabilities[answer.index], *probabilities])

    def finish(self):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows)
        write_whole(self.path, text.getvalue())


WRITERS: dict[str, type[Writer]] = {
    "segmentation": MaskWriter,
    "detection": CocoWriter,
    "classification": LabelWriter,
}


class Outputs:
    """All that is written for a sequence of results. Use it in a `with`: tables are written at its end.

    UserError where something cannot be written. A kind of task without a writer is found in --json only.
    """

    def __init__(self, out: Path, tasks: dict[str, Task], visualize: bool):
        self.out = out
        self.visualize = visualize
        self.writers = {
            name: WRITERS[tasks[name].kind](path, tasks[name]) for name, path in _places(out, tasks).items()
        }
        self._videos: dict[str, VideoWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Outputs":
        with _reported(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, result: Result, name: str, rate: Fraction | None = None) -> None:
        """Write what belongs to one image; of a video's frame `rate` is given, and `name` is VIDEO/NUMBER."""
        with _reported(self.out):
            for task, writer in self.writers.items():
                writer.add(result, result[task], name)
            if self.visualize and rate is None:
                save_image(
                    result.plot(), self.out / OVERLAYS / f"{name}.jpg", quality=92, subsampling=0
                )  # thin coloured lines
            elif self.visualize:
                self._video(name.rpartition("/")[0], rate).add(result.plot())

    def _video(self, name: str, rate: Fraction) -> VideoWriter:
        if name not in self._videos:
            path = self.out / OVERLAYS / (name if name.lower().endswith(".mp4") else f"{name}.mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._videos[name] = self._open.enter_context(VideoWriter(path, rate))
        return self._videos[name]

    def write_table(self, path: Path, content: dict) -> None:
        """--json: everything in one file."""
        with _reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)

    def __exit__(self, kind, error, trace) -> None:
        with _reported(self.out):
            self._open.__exit__(kind, error, trace)
            if kind is None:
                for writer in self.writers.values():
                    writer.finish()


def output_paths(out: Path, tasks: dict[str, Task]) -> list[Path]:
    """Folders and files below `out` that hold nothing but results."""
    return [out / OVERLAYS, *_places(out, tasks).values()]


def _places(out: Path, tasks: dict[str, Task]) -> dict[str, Path]:
    kinds = {name: task.kind for name, task in tasks.items() if task.kind in WRITERS}
    return {name: out / WRITERS[kind].place.format(name) for name, kind in kinds.items()}


def require_writable(out: Path, table: Path | None, others: list[Path]) -> None:
    """UserError where the folder `out` or the file `table` (--json) cannot be, or where the file would overwrite `others`."""
    _require_folder(out, "--out")
    if table is None:
        return
    _require_folder(table.absolute().parent, "--json")
    if table.is_dir():
        raise UserError(f"{table}: is a folder, expected a file; choose another --json")
    if hit := [path for path in others if is_within(table, path)]:
        raise UserError(f"{table}: would overwrite {hit[0]}; choose another --json")


def _require_folder(folder: Path, flag: str) -> None:
    for place in (folder, *folder.absolute().parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place}: is a file, expected a folder; choose another {flag}")


def save_image(image: Image.Image, path: Path, **options) -> None:
    """The format is that of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        image.save(beside, format=Image.registered_extensions()[path.suffix], **options)


@contextmanager
def _reported(out: Path) -> Iterator[None]:
    """What cannot be written as a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); make room, or choose another --out") from error
