"""Small fakes of the three originals, in their archives' own layout."""

import io
import json
import random
import tarfile
import zipfile

from PIL import Image

from data.imagefolder import IMAGENETTE
from DL_data.originals import COCO_CLASSES, SETS

VOC_TAR, COCO_ZIP, IMAGENETTE_TGZ = (SETS[task].archive.name for task in ("seg", "det", "cls"))


def picture(number: int, **options) -> bytes:
    return encoded(Image.frombytes("RGB", (16, 12), random.Random(number).randbytes(16 * 12 * 3)), "JPEG", **options)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def tiny_voc() -> bytes:
    """30 + 25 images with one class each, classes 11 to 20 in one train image; one without mask; two hostile names."""
    files = {"../evil.jpg": b"evil", "VOCdevkit/VOC2012/JPEGImages/../../../evil.jpg": b"evil"}
    for split, first, total in (("train", 0, 30), ("val", 100, 25)):
        names = [f"2007_{number:06d}" for number in range(first, first + total)]
        files[f"VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt"] = "\n".join(names).encode()
        for number, name in enumerate(names):
            mask = Image.new("P", (16, 12), 0)
            mask.putpalette([value for index in range(256) for value in (index, 255 - index, 0)])
            mask.paste(255, (3, 3, 12, 9))
            mask.paste(number % 20 + 1, (4, 4, 11, 8))
            files[f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg"] = picture(first + number)
            files[f"VOCdevkit/VOC2012/SegmentationClass/{name}.png"] = encoded(mask, "PNG")
    files["VOCdevkit/VOC2012/JPEGImages/2012_000001.jpg"] = picture(999)
    return tar_of(files, "w")


def tiny_imagenette() -> bytes:
    """4 train and 3 val images per class, and a large file that nobody wants."""
    files = {"imagenette2-160/noisy_imagenette.csv": random.Random(0).randbytes(400_000)}
    for split, first, each in (("train", 1000, 4), ("val", 2000, 3)):
        for place, label in enumerate(sorted(IMAGENETTE)):
            for number in range(each):
                name = f"imagenette2-160/{split}/{label}/{label}_{first + number}.JPEG"
                files[name] = picture(first + 10 * place + number)
    return tar_of(files, "w:gz")


def tiny_coco() -> dict[str, bytes]:
    """Category ids with gaps, as COCO's; a crowd beside a person; images of a crowd only, an empty box, no category."""
    numbers = dict(zip(COCO_CLASSES, (1, 3, 16, 17, 18, 44, 47, 62, 67, 84), strict=True))
    categories = [{"id": 90, "name": "toothbrush"}, *({"id": number, "name": name} for name, number in numbers.items())]
    files, indices = {}, {}
    for split, first, total in (("train", 3000, 40), ("val", 4000, 30)):
        images = [{"id": first + n, "width": 16, "height": 12, "license": 1} for n in range(total + 3)]
        rows = [(first + n, list(numbers.values())[n % 10], [1.5, 2, 9, 7.25], 0) for n in range(total)]
        rows += [(first, 84, [0, 0, 16, 12], 1), (first, 90, [0, 0, 3, 3], 0), (first + total, 1, [0, 0, 9, 9], 1)]
        rows += [(first + total + 1, 84, [1, 1, 5, 0.0], 0), (first + total + 2, 90, [1, 1, 5, 5], 0)]
        keys = ("image_id", "category_id", "bbox", "iscrowd")
        annotations = [
            {"id": 7 * n, "area": 12.5, "segmentation": [[1, 2, 3]], **dict(zip(keys, row, strict=True))}
            for n, row in enumerate(rows)
        ]
        indices[split] = {"images": images, "annotations": annotations, "categories": categories}
        files |= {f"{split}2017/{image['id']:012d}.jpg": picture(image["id"]) for image in images}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        for split, index in indices.items():
            content.writestr(f"annotations/instances_{split}2017.json", json.dumps(index))
    return {COCO_ZIP: archive.getvalue(), **files}
