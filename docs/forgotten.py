r"""python -m docs.forgotten FINETUNED OURS: draws the README's first picture from two runs on the generated set.

The runs: python train.py --config configs/generated.yaml --run_dir OURS, and
python train.py --config configs/finetune.yaml --run_dir FINETUNED --data_root DL_data/generated --image_size 160 \
    --stages.seg.epochs 12 --stages.det.epochs 14 --stages.cls.epochs 8
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from errors import UserError, command
from pictures import draw_forgotten
from recipe_parser import make_recipe, read_recipe
from splits import open_splits

TITLES = ("plain fine-tuning: configs/finetune.yaml", "the default recipe: make run")
EDGE = 28  # height of a title


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m docs.forgotten", description=__doc__.split(": ", 1)[1].split("\n")[0]
    )
    parser.add_argument(
        "runs", nargs=2, type=Path, metavar="RUN", help="Folder of a finished run: finetune.yaml's, then ours."
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "forgotten.png", help="The picture.")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        sheets = [_sheet(run, Path(folder) / str(number)) for number, run in enumerate(options.runs)]
    picture = Image.new("RGB", (max(s.width for s in sheets), sum(s.height + EDGE for s in sheets)), "white")
    pen, y = ImageDraw.Draw(picture), 0
    for title, sheet in zip(TITLES, sheets, strict=True):
        pen.text((2, y + 5), title, fill="black", font=ImageFont.load_default(size=16))
        picture.paste(sheet, (0, y + EDGE))
        y += EDGE + sheet.height
    picture.quantize(128).save(options.out, optimize=True)


def _sheet(run: Path, out: Path) -> Image.Image:
    """Two val images of the run's first stage: truth, and the answer after each stage."""
    if not (run / "final.pt").is_file():
        raise UserError(f"{run / 'final.pt'}: missing; expected the folder of a finished run")
    recipe = make_recipe(read_recipe(run / "config.yaml"))[0]
    draw_forgotten(run, open_splits(recipe, recipe.running(), "val"), out, images=2)
    return Image.open(out / f"predictions_{recipe.running()[0].name}.png").copy()


if __name__ == "__main__":
    sys.exit(main())
