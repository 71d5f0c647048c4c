"""PASCAL VOC's palette: the colours in which masks of class indices are shown."""


def voc_palette() -> list[int]:
    """256 x RGB: bits 0, 3, 6 of a label are the high bits of red, 1, 4, 7 of green, 2, 5, 8 of blue."""
    palette = []
    for label in range(256):
        for channel in range(3):
            palette.append(sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return palette
