"""Draw grids of slices with a caption under each tile, as PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from PIL.PngImagePlugin import PngInfo

SYNTHETIC_NOTICE = "SYNTHETIC - made by a generative model, not for diagnosis"
_BACKGROUND, _INK, _MARGIN, _CAPTION, _TITLE = 24, 235, 8, 18, 34
_OUTLINE = (255, 90, 20)


@dataclass(frozen=True)
class Tile:
    """One square grayscale picture and what stands under it."""

    image: Image.Image
    caption: str = ""

    def outlined(self, mask: bytes) -> "Tile":
        """Return it with the outline of a mask: as many bytes as pixels, 0 outside."""
        marked = Image.frombytes("L", self.image.size, mask).point(lambda value: 255 * bool(value))
        edge = ImageChops.subtract(marked, marked.filter(ImageFilter.MinFilter(3)))
        drawn = self.image.convert("RGB")
        drawn.paste(_OUTLINE, (0, 0), edge)
        return Tile(drawn, self.caption)


def tile_from_pixels(pixels: bytes, size_px: int, caption: str) -> Tile:
    """Return a tile of `size_px`^2 bytes, row by row, 0 black to 255 white."""
    return Tile(Image.frombytes("L", (size_px, size_px), pixels), caption)


def split_mosaic(png: bytes, captions: Sequence[str]) -> list[Tile]:
    """Cut a bare mosaic, one row of tiles a caption, into captioned tiles.

    Raises:
        ValueError: if the mosaic's height is not a whole number of rows.
    """
    mosaic = Image.open(io.BytesIO(png), formats=["PNG"]).convert("L")
    side, rest = divmod(mosaic.height, len(captions))
    if rest or mosaic.width % side:
        raise ValueError(f"{mosaic.size} px is no mosaic of {len(captions)} rows of squares")
    return [
        Tile(mosaic.crop((x, row * side, x + side, (row + 1) * side)), caption)
        for row, caption in enumerate(captions)
        for x in range(0, mosaic.width, side)
    ]


def draw(
    tiles: Sequence[Tile | None],
    *,
    title: str,
    columns: int,
    tile_px: int = 128,
    synthetic: bool = False,
) -> bytes:
    """Return the PNG of a grid, `columns` wide; an empty one is just its title.

    A place without a tile stays free. Where a tile has colour the sheet has.

    A synthetic sheet says so in its title line and in the PNG's text chunks.
    """
    rows = ceil(len(tiles) / columns)
    width = max(columns * (tile_px + _MARGIN) + _MARGIN, 640)
    height = _TITLE + rows * (tile_px + _CAPTION + _MARGIN) + _MARGIN
    has_colour = any(tile is not None and tile.image.mode == "RGB" for tile in tiles)
    sheet = Image.new("L", (width, height), _BACKGROUND).convert("RGB" if has_colour else "L")
    pen = ImageDraw.Draw(sheet)
    heading = f"{title}  |  {SYNTHETIC_NOTICE}" if synthetic else title
    ink = (_INK,) * 3 if has_colour else _INK
    pen.text((_MARGIN, 9), heading, fill=ink, font=ImageFont.load_default(14))
    small = ImageFont.load_default(11)
    for number, tile in enumerate(tiles):
        if tile is None:
            continue
        row, column = divmod(number, columns)
        x = _MARGIN + column * (tile_px + _MARGIN)
        y = _TITLE + row * (tile_px + _CAPTION + _MARGIN)
        # Enlarged pixels stay pixels: the picture must not look better than the data.
        sheet.paste(tile.image.resize((tile_px, tile_px), Image.Resampling.NEAREST), (x, y))
        pen.text((x, y + tile_px + 2), tile.caption[: tile_px // 6], fill=ink, font=small)
    text = PngInfo()
    text.add_text("Software", "Gliaforge")
    if synthetic:
        text.add_text("Synthetic", "true")
        text.add_text("Description", SYNTHETIC_NOTICE)
    out = io.BytesIO()
    sheet.save(out, "PNG", pnginfo=text)
    return out.getvalue()
