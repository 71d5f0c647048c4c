"""Videos through PyAV: frames in, upright; results by frame number; an annotated video out."""

import json
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from errors import UserError
from predict import load_model
from prediction.video import VideoWriter, describe, read_frames


@pytest.fixture
def pictures(tiny_data) -> list[Image.Image]:
    """Five frames of a size with odd sides."""
    images = sorted(tiny_data.glob("mini_coco_det/images/val/*.jpg"))[:5]
    return [Image.open(path).resize((95, 71)) for path in images]


@pytest.fixture
def clip(tmp_path, pictures) -> Path:
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "clip.mp4", Fraction(12)) as writer:
        for picture in pictures:
            writer.add(picture)
    return tmp_path / "clip.mp4"


def near(one, other) -> bool:
    """Equal but for the losses of a codec."""
    return np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean() < 6


def test_frames_come_back_as_they_were_written(clip, pictures):
    facts = describe(clip)
    assert (facts.frames, facts.rate) == (5, 12)
    frames = list(read_frames(clip))
    assert [frame.id for frame in frames] == [f"{clip}#{number}" for number in range(5)]
    assert all(near(f.image.permute(1, 2, 0), p) for f, p in zip(frames, pictures, strict=True))
    assert not near(frames[0].image.permute(1, 2, 0), pictures[1])


def test_a_telephones_video_is_upright(clip, pictures):
    """The header's matrix says how to turn what the sensor saw: here a quarter clockwise."""
    content = bytearray(clip.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 36  # type, version and flags, times to volume
    assert struct.unpack(">9i", content[matrix : matrix + 36])[:5] == (1 << 16, 0, 0, 0, 1 << 16)
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 71 * one, 0, 1 << 30)
    clip.write_bytes(content)
    frame = next(read_frames(clip))
    assert near(frame.image.permute(1, 2, 0), pictures[0].transpose(Image.Transpose.ROTATE_270))


def test_the_command_names_frames_by_number_and_writes_an_annotated_video(clip, pictures, finished, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--out", str(out), "--visualize", "--json", str(tmp_path / "all.json")]
    image = tmp_path / "other.png"
    pictures[0].resize((40, 60)).save(image)
    assert predict.main(["--weights", str(finished / "final.pt"), str(clip), str(image), *flags]) == 0
    assert "6 images in" in capsys.readouterr().out
    rows = json.loads((tmp_path / "all.json").read_text())["results"]
    sources = [f"{clip}#{number}" for number in range(5)]
    assert [row["source"] for row in rows] == [*sources, str(image)]
    assert [row["name"] for row in rows] == [*(f"clip.mp4/{number:06d}" for number in range(5)), "other"]
    assert all(
        Image.open(out / "masks_seg" / f"{row['name']}.png").size == (row["width"], row["height"]) for row in rows
    )
    index = json.loads((out / "detections_det.json").read_text())
    assert [entry["file_name"] for entry in index["images"]] == [*sources, str(image)]
    assert sorted(path.name for path in (out / "visualized").iterdir()) == ["clip.mp4", "other.jpg"]
    assert describe(out / "visualized" / "clip.mp4").rate == 12
    results = load_model(finished / "final.pt", "cpu").stream(read_frames(clip), batch_size=2)
    for frame, result in zip(read_frames(out / "visualized" / "clip.mp4"), results, strict=True):
        assert near(frame.image.permute(1, 2, 0), result.plot())


def test_damaged_videos_are_listed(clip, finished, tmp_path, capsys):
    content = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.avi").write_text("no video")
    paths = [str(tmp_path / name) for name in ("cut.mp4", "text.avi", "clip.mp4")]
    assert predict.main(["--weights", str(finished / "final.pt"), *paths, "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert "5 images in" in out and "2 files could not be read" in err
    assert all(f"{path}: unreadable video" in err for path in paths[:2])


def test_a_video_that_cannot_be_finished_leaves_nothing(tmp_path, pictures):
    pytest.importorskip("av")
    with pytest.raises(UserError, match="stop"), VideoWriter(tmp_path / "new.mp4", Fraction(25)) as writer:
        writer.add(pictures[0])
        raise UserError("stop")
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_videos_are_refused_before_anything_is_done(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mov").write_bytes(b"any")
    flags = ["--weights", str(finished / "final.pt"), "--out", str(tmp_path / "out")]
    assert predict.main([*flags, str(tmp_path / "clip.mov")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "clip.mov: videos need PyAV" in err and "pip install av" in err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mov"]
