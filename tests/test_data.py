"""Readers: every layout, what a sample holds, decoding; the real sets where ONEHEAD_DATA names them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import (
    HEIGHT,
    LAYOUTS,
    SPLITS,
    WIDTH,
    assert_found,
    everything_wrong,
    mask_values,
    write_coco,
    write_imagefolder,
    write_list,
    write_voc,
)

from data import VOID
from data.coco import Coco
from data.decode import read_image, read_mask
from data.imagefolder import IMAGENETTE, ImageFolder
from data.validate import findings
from data.voc import VOC_CLASSES, Voc
from errors import UserError

REAL = os.environ.get("ONEHEAD_DATA")


@pytest.mark.parametrize(("reader", "write", "layout"), LAYOUTS)
def test_every_layout_yields_the_same_samples(tmp_path, reader, write, layout):
    folder = write(tmp_path, layout)
    train, val = reader(tmp_path, "train"), reader(tmp_path, "val")
    assert train.folder == val.folder == folder
    assert train.classes == val.classes
    assert [Path(id_).stem for id_ in train.ids[:3]] == ["a", "b", "c"]
    assert [Path(id_).stem for id_ in val.ids[:2]] == ["d", "e"]
    for dataset in (train, val):
        assert list(dataset.ids) == sorted(set(dataset.ids))
        assert findings(dataset) == []
        for index, id_ in enumerate(dataset.ids):
            sample = dataset.read(index)
            assert sample.id == id_
            assert sample.image.dtype == torch.uint8
            assert sample.image.shape == (3, HEIGHT, WIDTH)
            assert torch.equal(sample.image, read_image(dataset.files(index)[0]))
            assert dataset.labels(index) == dataset._labels_of(sample)
            assert all(path.is_file() for path in dataset.files(index))


@pytest.mark.parametrize(("reader", "write", "layout"), LAYOUTS)
def test_data_root_may_be_the_sets_own_folder_or_any_named_one(tmp_path, reader, write, layout):
    folder = write(tmp_path, layout)
    ids = reader(tmp_path, "train").ids
    assert reader(folder, "train").ids == ids
    folder.rename(tmp_path / "mine")
    assert reader(str(tmp_path), "train", folder="mine").ids == ids
    (tmp_path / "mine").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="set not found"):
        reader(tmp_path / "moved", "train", folder=reader.folders[0])


@pytest.mark.parametrize("reader", [Voc, Coco, ImageFolder])
def test_a_missing_set_says_where_it_was_looked_for(tmp_path, reader):
    with pytest.raises(UserError, match="set not found") as caught:
        reader(tmp_path, "train")
    assert all(str(tmp_path / name) in str(caught.value) for name in reader.folders)
    with pytest.raises(UserError, match="data_root does not exist"):
        reader(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="unknown split 'valid'; did you mean 'val'"):
        reader(tmp_path, "valid")


@pytest.mark.parametrize(("reader", "write", "layout"), [LAYOUTS[0], LAYOUTS[3], LAYOUTS[6]])
def test_an_unknown_layout_says_what_was_looked_for(tmp_path, reader, write, layout):
    (tmp_path / layout if reader is ImageFolder else tmp_path / reader.folders[0]).mkdir()
    wanted = {
        Voc: ("ImageSets/Segmentation", "val/JPEGImages + val/SegmentationClass", "val/*.png"),
        Coco: ("images/val + annotations/instances_val.json", "missing: val/data, val/labels.json"),
        ImageFolder: ("missing: val",),
    }[reader]
    assert_found(everything_wrong(reader, tmp_path, "val"), [("no known layout", *wanted)])


def test_a_file_in_a_folders_place_is_no_layout(tmp_path):
    (write_imagefolder(tmp_path, "imagenette-160") / "train").rename(tmp_path / "elsewhere")
    (tmp_path / "imagenette-160" / "train").touch()
    assert_found(everything_wrong(ImageFolder, tmp_path, "train"), [("no known layout", "missing: train")])


def test_two_sets_or_two_layouts_at_once_are_refused(tmp_path):
    write_imagefolder(tmp_path, "imagenette-160")
    write_imagefolder(tmp_path, "imagenette_160")
    assert_found(everything_wrong(ImageFolder, tmp_path, "val"), [("imagenette-160", "imagenette_160", "'folder'")])
    write_coco(tmp_path, "images")
    write_coco(tmp_path, "labels.json")
    assert_found(everything_wrong(Coco, tmp_path, "val"), [("two layouts", "images/val", "val/labels.json")])


def test_voc_masks_are_indices_and_void(tmp_path):
    write_voc(tmp_path, "lists")
    dataset = Voc(tmp_path, "train")
    assert dataset.classes == ("background", *VOC_CLASSES)
    assert len(dataset.classes) == 21
    for index, name in enumerate(dataset.ids):
        mask = dataset.read(index).target["mask"]
        assert mask.dtype == torch.uint8
        assert torch.equal(mask, torch.from_numpy(mask_values(name)))
        assert dataset.labels(index) == {1 + ord(name) % 3}


@pytest.mark.parametrize("first_line", ["", "background\n"])
def test_voc_classes_txt_names_the_foreground(tmp_path, first_line):
    folder = write_voc(tmp_path, "folders")
    (folder / "train" / "classes.txt").write_text(f"{first_line}disc\nstar\n\ncross\n")
    (folder / "val" / "classes.txt").write_text("star\ndisc\ncross\n")  # numbered differently: matched by name
    train = Voc(tmp_path, "train")
    assert train.classes == ("background", "disc", "star", "cross")
    val = Voc(tmp_path, "val", classes=train.classes)
    own = torch.from_numpy(mask_values("d"))
    assert own.unique().tolist() == [0, 2, VOID]  # value 2 is "disc" there, index 1 in the vocabulary
    assert torch.equal(val.read(0).target["mask"], torch.where(own == 2, 1, own))


def test_voc_list_names(tmp_path):
    folder = write_voc(tmp_path, "lists")
    write_list(folder, "trainval.txt", "abcde")  # as in VOC 2012: never a train list
    write_list(folder, "train240.txt", "ab")
    assert Voc(tmp_path, "train").ids == ("a", "b")
    (folder / "ImageSets/Segmentation/train240.txt").unlink()
    assert Voc(tmp_path, "train").ids == ("a", "b", "c")
    (folder / "ImageSets/Segmentation/train.txt").rename(folder / "ImageSets/Segmentation/train_mine.txt")
    assert Voc(tmp_path, "train").ids == ("a", "b", "c")
    write_list(folder, "train_other.txt", "a")
    assert_found(everything_wrong(Voc, tmp_path, "train"), [("several lists", "train_mine.txt", "train_other.txt")])
    for name in ("train_mine.txt", "train_other.txt"):
        (folder / "ImageSets/Segmentation" / name).unlink()
    assert_found(everything_wrong(Voc, tmp_path, "train"), [("no list for split 'train'", "train240.txt")])


def test_coco_boxes_are_clipped_matched_by_name_and_kept_with_crowds(tmp_path):
    write_coco(tmp_path, "images")
    dataset = Coco(tmp_path, "train")
    assert dataset.classes == ("bird", "cat", "dog")  # in the order of the ids 3, 7, 90
    target = dataset.read(0).target
    assert target["boxes"].tolist() == [[1, 2, 5, 5], [0, 4, 4, 10], [0, 0, 12, 10]]
    assert target["labels"].tolist() == [1, 2, 0]
    assert target["iscrowd"].tolist() == [False, False, True]
    assert target["area"].shape == (3,)
    reordered = Coco(tmp_path, "val", classes=("dog", "cat", "bird"))
    assert reordered.read(0).target["labels"].tolist() == [1, 0, 2]
    empty = dataset.read(2).target
    assert empty["boxes"].shape == (0, 4)
    assert (empty["boxes"].dtype, empty["labels"].dtype, empty["iscrowd"].dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )
    assert dataset.labels(2) == set()


def test_a_samples_target_is_the_callers_own(tmp_path):
    write_coco(tmp_path, "images")
    dataset = Coco(tmp_path, "train")
    dataset.read(0).target["boxes"].zero_()
    assert dataset.read(0).target["boxes"].any()


def test_imagefolder_keeps_wnids_and_knows_their_names(tmp_path):
    write_imagefolder(tmp_path, "imagenette_160")
    dataset = ImageFolder(tmp_path, "train")
    assert dataset.classes == ("n01440764", "n02102040")
    assert dataset.display_names == {"n01440764": "tench", "n02102040": "English springer"}
    assert len(IMAGENETTE) == 10
    assert [dataset.read(index).target["label"].item() for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert dataset.ids[0] == "n01440764/a.JPEG"
    assert ImageFolder(tmp_path, "train", classes=("n02102040", "n01440764")).labels(0) == {1}


def test_every_usual_mode_becomes_rgb(tmp_path):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    grey = rgb[..., 0]
    wide = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    palette = Image.fromarray(grey % 4)
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    colours = np.arange(10, 130, 10, dtype=np.uint8).reshape(4, 3)
    cases = {
        "rgb.png": (Image.fromarray(rgb), rgb),
        "rgba.png": (Image.fromarray(np.dstack([rgb, grey])), rgb),
        "grey.png": (Image.fromarray(grey), np.dstack([grey] * 3)),
        "wide.png": (Image.fromarray(wide), np.dstack([wide // 256] * 3)),
        "palette.png": (palette, colours[grey % 4]),
        "bits.png": (Image.fromarray(grey > 127), np.dstack([(grey > 127) * 255] * 3)),
        "cmyk.tif": (Image.fromarray(np.dstack([rgb, grey * 0]), mode="CMYK"), 255 - rgb),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        decoded = read_image(tmp_path / name)
        assert decoded.dtype == torch.uint8, name
        assert torch.equal(decoded, torch.from_numpy(expected.astype(np.uint8)).permute(2, 0, 1)), name


def test_exif_rotation_only_on_request(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # orientation: the stored pixels must be turned by 90 degrees clockwise for viewing
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for split in SPLITS:
        path = tmp_path / "imagenette-160" / split / "cat" / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path, exif=exif)
    stored = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(ImageFolder(tmp_path, "train").read(0).image, stored)
    turned = ImageFolder(tmp_path, "train", upright=True).read(0).image
    assert torch.equal(turned, torch.rot90(stored, -1, (1, 2)))


def test_masks_are_indices_or_grey_never_colours(tmp_path):
    values = mask_values("a")
    Image.fromarray(values).save(tmp_path / "grey.png")
    assert torch.equal(read_mask(tmp_path / "grey.png"), torch.from_numpy(values))
    Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match=r"colour\.png: mask has mode RGB"):
        read_mask(tmp_path / "colour.png")


@pytest.mark.skipif(not REAL, reason="ONEHEAD_DATA names no folder with the real sets")
@pytest.mark.parametrize(("reader", "classes"), [(Voc, 21), (Coco, 10), (ImageFolder, 10)])
def test_the_real_sets(reader, classes):
    train = reader(REAL, "train")
    val = reader(REAL, "val", classes=train.classes)
    assert (len(train), len(val), len(train.classes)) == (240, 60, classes)
    seen: dict[str, set[int]] = {}
    for dataset in (train, val):
        assert findings(dataset, lambda _, sample, of=dataset: seen.setdefault(sample.id, of._labels_of(sample))) == []
    assert len(seen) == 300
    foreground = set(range(classes)) - ({0} if reader is Voc else set())
    assert set().union(*seen.values()) == foreground
