"""Colours and text that the tasks' drawings share."""

from PIL import Image, ImageDraw, ImageFont

# Okabe & Ito's colours for colour-blind readers, repeated darker for long vocabularies
_BASE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66))
COLOURS = tuple(tuple(c * shade // 10 for c in colour) for shade in (10, 6, 3) for colour in _BASE)


def colour_of(label: int) -> tuple[int, int, int]:
    return COLOURS[label % len(COLOURS)]


def write_label(image: Image.Image, at: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
    """A line of text on a filled box, kept inside the image."""
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(10, round(min(image.size) / 22)))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = min(max(at[0], 0), max(image.width - right - 4, 0))
    y = min(max(at[1], 0), max(image.height - bottom - 4, 0))
    draw.rectangle((x, y, x + right + 4, y + bottom + 3), fill=colour)
    light = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    draw.text((x + 2, y + 1), text, font=font, fill="black" if light > 130 else "white")
