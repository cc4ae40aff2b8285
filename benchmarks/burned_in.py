"""Measure how much drawn text the detector finds over phantom slices, and how often it errs.

`python -m benchmarks.burned_in [--patients N]` prints a table: the share found by height of the
letters, brightness (of the brightest pixel) and place, and the share of slices without text that
are taken for some. In the corner the text is on air, in the middle on anatomy, in the box on a
black ground over anatomy.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.data.burned_in import has_text
from models.data.phantom import CLASSES, draw_patient, load_head

SIZES_PX = (256, 512)
HEIGHTS_PX = (8, 10, 12, 16, 24, 40)
"""Sizes of the font; a capital letter is about 0.7 of it high."""
BRIGHTNESSES = (1.0, 0.8, 0.6, 0.4)
PLACES = ("corner", "middle", "box")
TEXTS = ("MUSTERMANN^ERIKA", "12.08.1964 F", "Id: 0815-4711", "R. Smith")

Grey = NDArray[np.uint8]


def slices(size_px: int, patients: int, seed: int = 0) -> list[Grey]:
    """Return four phantom slices of each patient."""
    head = load_head()
    drawn = [
        draw_patient(head, CLASSES[at % 3], 4, size_px, np.random.default_rng([seed, at]))
        for at in range(patients)
    ]
    return [one for patient in drawn for one in patient]


def with_text(pixels: Grey, text: str, height_px: int, brightness: float, place: str) -> Grey:
    """Draw a line of text as a scanner's console would."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(height_px)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    at = (5.0, 5.0)
    if place != "corner":
        at = ((image.width - right + left) / 2, image.height * 0.55)
    if place == "box":
        edges = (at[0] + left - 3, at[1] + top - 3, at[0] + right + 3, at[1] + bottom + 3)
        draw.rectangle(edges, fill=0)
    fill = round(brightness * int(pixels.max()))
    draw.text(at, text, fill=fill, font=font)
    return np.asarray(image)


def found(images: list[Grey], *, is_suspected: bool = False) -> float:
    """Return the share of images that seem to show text."""
    return float(np.mean([has_text(one, is_suspected=is_suspected) for one in images]))


def table(size_px: int, patients: int) -> Iterator[str]:
    """Yield the lines of a Markdown table for squares of a size."""
    plain = slices(size_px, patients)
    usual, suspected = (found(plain, is_suspected=one) for one in (False, True))
    yield f"{len(plain)} slices of {size_px} px without text: {usual:.1%} taken for some,"
    yield f"{suspected:.1%} where it is suspected."
    yield ""
    yield "| place, brightness | " + " | ".join(f"{one} px" for one in HEIGHTS_PX) + " |"
    yield "|---" * (len(HEIGHTS_PX) + 1) + "|"
    for place in PLACES:
        for brightness in BRIGHTNESSES:
            shares = [
                found(
                    [
                        with_text(one, TEXTS[at % len(TEXTS)], height_px, brightness, place)
                        for at, one in enumerate(plain)
                    ]
                )
                for height_px in HEIGHTS_PX
            ]
            cells = " | ".join(f"{share:.0%}" for share in shares)
            yield f"| {place}, {brightness:.0%} | {cells} |"


def main() -> None:
    """Print the table for each size of the image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=30)
    options = parser.parse_args()
    for size_px in SIZES_PX:
        print("\n".join(table(size_px, options.patients)), end="\n\n")


if __name__ == "__main__":
    main()
