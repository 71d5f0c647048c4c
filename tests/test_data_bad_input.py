"""Bad input of every kind: each bad file is listed, with what is wrong and what was expected, and nothing else is."""

import json
import struct

import numpy as np
import pytest
from PIL import Image
from tiny_sets import (
    HEIGHT,
    LAYOUTS,
    WIDTH,
    assert_found,
    coco_index,
    everything_wrong,
    mask_values,
    photo,
    truncate,
    write_coco,
    write_imagefolder,
    write_list,
    write_mask,
    write_voc,
)

from data.coco import Coco
from data.decode import read_image, read_mask
from data.imagefolder import ImageFolder
from data.validate import SHOWN, DataError, findings, open_with_findings
from data.voc import Voc
from errors import UserError


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_no_damaged_file_yields_an_image(tmp_path, suffix):
    path = photo(tmp_path / f"whole{suffix}", "x", (64, 48))
    content = path.read_bytes()
    for damaged in (b"", b"not an image", content[: len(content) // 2], content[:20]):
        path.write_bytes(damaged)
        for read in (read_image, read_mask):
            with pytest.raises(UserError, match=f"whole{suffix}: unreadable"):
                read(path)
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "absent.jpg")


def test_no_damage_escapes_as_another_error(tmp_path):
    bitmap = struct.pack("<IIiiHHI", 54, 40, 1 << 15, 1 << 15, 1, 24, 0)  # says 32768 x 32768
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    first, second, *rest = (tmp_path / "whole.png").read_bytes().split(b"IDAT")
    damaged = {  # what Pillow raises
        "header.ppm": b"P6\n4\xe7 4\n255\n" + bytes(48),  # ValueError
        "size.bmp": b"BM" + bytes(8) + bitmap + bytes(20),  # DecompressionBombError
        "chunk.png": first + b"IDAT" + second + b"\xe7DAT" + b"IDAT".join(rest),  # SyntaxError
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: unreadable image"):
            read_image(tmp_path / name)


def test_voc_lists_every_bad_file(tmp_path):
    folder = write_voc(tmp_path, "lists")
    truncate(folder / "JPEGImages" / "a.jpg")
    unknown = mask_values("b")
    unknown[0, :2] = 21, 254
    write_mask(folder / "SegmentationClass" / "b.png", unknown[:-1])  # two findings: values and size
    (folder / "SegmentationClass" / "c.png").unlink()
    (folder / "JPEGImages" / "d.png").write_bytes((folder / "JPEGImages" / "d.jpg").read_bytes())
    list_file = write_list(folder, "train.txt", "abcc" + "dz")
    assert_found(
        everything_wrong(Voc, tmp_path, "train"),
        [
            ("JPEGImages/a.jpg", "unreadable image"),
            ("SegmentationClass/b.png", "mask values 21, 254 mean no class", "0..20 or 255"),
            ("SegmentationClass/b.png", "mask is 12x9", "b.jpg is 12x10"),
            ("no mask named 'c.png'", str(list_file)),
            ("'c' is listed 2 times", str(list_file)),
            ("d.jpg, d.png share an id",),
            ("no image named 'z'", str(list_file)),
            ("no mask named 'z.png'", str(list_file)),
        ],
    )


@pytest.mark.parametrize("layout", ["folders", "side by side"])
def test_voc_pairs_without_a_list_need_both_files(tmp_path, layout):
    folder = write_voc(tmp_path, layout) / "train"
    next(folder.rglob("a.jpg")).unlink()
    next(folder.rglob("b.png")).unlink()
    assert_found(everything_wrong(Voc, tmp_path, "train"), [("no image named 'a'", ".jpg"), ("no mask named 'b.png'",)])


@pytest.mark.parametrize("text", ["", "star\nstar\n", "star\nbackground\n", "\n".join(map(str, range(255)))])
def test_voc_refuses_a_bad_class_list(tmp_path, text):
    folder = write_voc(tmp_path, "lists")
    (folder / "classes.txt").write_text(text)
    assert_found(everything_wrong(Voc, tmp_path, "train"), [("classes.txt", "expected 1 to 254 different")])


def test_voc_refuses_an_empty_list(tmp_path):
    write_list(write_voc(tmp_path, "lists"), "train.txt", "")
    assert_found(everything_wrong(Voc, tmp_path, "train"), [("train.txt", "holds no image")])


@pytest.mark.parametrize(("reader", "write", "layout"), [LAYOUTS[0], LAYOUTS[3], LAYOUTS[6]])
def test_another_vocabulary_is_refused_with_the_nearest_name(tmp_path, reader, write, layout):
    write(tmp_path, layout)
    known = reader(tmp_path, "train").classes
    renamed = f"{known[-1]}x"
    expected = [(f"unknown class '{known[-1]}'; did you mean '{renamed}'",), (f"class '{renamed}' is missing",)]
    with pytest.raises(DataError) as caught:
        reader(tmp_path, "val", classes=(*known[:-1], renamed))
    assert_found(list(caught.value.findings), expected)


BAD_ANNOTATIONS = [
    ({"category_id": 8}, "unknown category_id 8, the file's categories are [3, 7, 90]"),
    ({"category_id": None}, "unknown category_id None"),
    ({"image_id": 99}, "image_id 99 is not among the images"),
    ({"id": 1}, "duplicate annotation id"),
    ({"id": "x"}, "expected an integer 'id'"),
    ({"iscrowd": 2}, "iscrowd 2, expected 0 or 1"),
    ({"bbox": [1, 1, 0, 4]}, "[1, 1, 0, 4] has no area"),
    ({"bbox": [1, 1, 4, -3]}, "[1, 1, 4, -3] has no area"),
    ({"bbox": [float("nan"), 1, 4, 3]}, "is not finite"),
    ({"bbox": [1, 1, float("inf"), 3]}, "is not finite"),
    ({"bbox": [1, 10**400, 4, 3]}, "is not finite"),
    ({"bbox": [12, 0, 3, 3]}, "lies outside its image c.jpg (12x10)"),
    ({"bbox": [0, -5, 3, 5]}, "lies outside"),
    ({"bbox": [0, 0, 3]}, "expected four numbers"),
    ({"bbox": [0, 0, 3, "4"]}, "expected four numbers"),
    ({"bbox": None}, "bbox None, expected four numbers"),
    ({"area": "12"}, "area '12', expected a number of pixels"),
    ({"area": -1}, "area -1, expected a number of pixels"),
    ({"area": float("nan")}, "area nan, expected a number of pixels"),
]


def test_coco_lists_every_bad_annotation(tmp_path):
    folder = write_coco(tmp_path, "images")
    file = folder / "annotations" / "instances_train.json"
    index = coco_index("train")
    good = {"image_id": 12, "category_id": 3, "bbox": [0, 0, 2, 2], "iscrowd": 0}
    index["annotations"] += [{"id": 100 + n, **good, **bad} for n, (bad, _) in enumerate(BAD_ANNOTATIONS)]
    index["annotations"].append("nonsense")
    file.write_text(json.dumps(index))
    expected = [(str(file), message) for _, message in BAD_ANNOTATIONS] + [("'nonsense', expected an object",)]
    dataset, found = open_with_findings(Coco, tmp_path, "train")
    assert_found(found, expected)
    assert len(dataset.read(2).target["boxes"]) == 0  # none of them slips through


def test_coco_lists_every_bad_image_and_category(tmp_path):
    folder = write_coco(tmp_path, "images")
    file = folder / "annotations" / "instances_train.json"
    index = coco_index("train")
    size = {"width": WIDTH, "height": HEIGHT}
    index["images"] += [
        {"id": 10, "file_name": "again.jpg", **size},
        {"id": 20, "file_name": "a.jpg", **size},
        {"id": 21, "file_name": "absent.jpg", **size},
        {"id": 22, "file_name": "flat.jpg", "width": 0, "height": 3},
        {"id": 23, "file_name": None, **size},
    ]
    index["categories"] += [{"id": 7, "name": "cow"}, {"id": 8, "name": "cat"}, {"id": 9}]
    index["annotations"].append({"id": 50, "image_id": 22, "category_id": 8, "bbox": [0, 0, 2, 2]})  # no finding more
    file.write_text(json.dumps(index))
    truncate(folder / "images/train/b.jpg")
    photo(folder / "images/train/c.jpg", "c", (HEIGHT, WIDTH))
    assert_found(
        everything_wrong(Coco, tmp_path, "train"),
        [
            ("image 10: duplicate image id (a.jpg and again.jpg)",),
            ("image 20: duplicate file_name a.jpg",),
            ("images/train/absent.jpg: no such image", str(file)),
            ("image 22: width 0 and height 3",),
            ("image 23: expected", "'file_name'"),
            ("category 7: duplicate category id (also 'cat')",),
            ("category 8: duplicate category name 'cat'",),
            ("category 9: expected", "'name'"),
            ("images/train/b.jpg: unreadable image",),
            ("images/train/c.jpg: image is 10x12", "says 12x10"),
        ],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("unreadable JSON",)]),
        ('{"images": [', [("unreadable JSON",)]),
        ("\xff", [("unreadable JSON",)]),
        ("[]", [("holds a list",)]),
        ("{}", [("'images' is not a list",), ("'annotations' is not a list",), ("'categories' is not a list",)]),
        ('{"images": [], "annotations": [], "categories": []}', [("lists no images",), ("lists no categories",)]),
    ],
)
def test_coco_refuses_what_is_no_coco_file(tmp_path, text, expected):
    file = write_coco(tmp_path, "labels.json") / "train" / "labels.json"
    file.write_bytes(text.encode("latin-1"))
    assert_found(everything_wrong(Coco, tmp_path, "train"), [(str(file), *words) for words in expected])


def test_imagefolder_lists_every_bad_file(tmp_path):
    folder = write_imagefolder(tmp_path, "imagenette-160") / "train"
    truncate(folder / "n01440764" / "a.JPEG")
    (folder / "n01440764" / "b.png").write_text("no image")
    for name in ("hollow", "texts"):
        (folder / name).mkdir()
    (folder / "texts" / "notes.txt").touch()
    (folder / ".hidden").mkdir()
    (folder / "n01440764" / "._a.jpg").write_text("what a Mac leaves behind")
    assert_found(
        everything_wrong(ImageFolder, tmp_path, "train"),
        [
            ("n01440764/a.JPEG: unreadable image",),
            ("n01440764/b.png: unreadable image",),
            ("train/hollow: empty class folder",),
            ("train/texts: empty class folder",),
        ],
    )


def test_a_message_shows_the_first_findings_and_counts_all(tmp_path):
    folder = write_imagefolder(tmp_path, "imagenette-160")
    for number in range(SHOWN + 5):
        (folder / "train" / f"empty{number:02}").mkdir()
    with pytest.raises(DataError, match=f"{SHOWN + 5} findings, the first {SHOWN}") as caught:
        ImageFolder(tmp_path, "train")
    assert len(caught.value.findings) == SHOWN + 5
    assert str(caught.value).count("empty class folder") == SHOWN


def test_findings_hands_on_every_good_sample(tmp_path):
    folder = write_imagefolder(tmp_path, "imagenette-160")
    truncate(folder / "train" / "n01440764" / "b.png")
    dataset, samples = ImageFolder(tmp_path, "train"), {}
    assert len(findings(dataset, samples.__setitem__)) == 1
    assert {index: sample.id for index, sample in samples.items()} == {
        index: id_ for index, id_ in enumerate(dataset.ids) if id_ != "n01440764/b.png"
    }
