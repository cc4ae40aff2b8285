import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from app.contact_sheet import SYNTHETIC_NOTICE, Tile, draw, split_mosaic, tile_from_pixels


def _gray(value: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("L", size, value)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _open(png: bytes) -> PngImageFile:
    return PngImageFile(io.BytesIO(png))


def test_mosaic_is_cut_into_its_tiles() -> None:
    mosaic = Image.new("L", (12, 8))
    for number in range(6):
        mosaic.paste(_gray(number * 40), (number % 3 * 4, number // 3 * 4))
    tiles = split_mosaic(_png(mosaic), ["a", "b"])
    assert [tile.caption for tile in tiles] == ["a", "a", "a", "b", "b", "b"]
    assert [tile.image.getextrema() for tile in tiles] == [(n * 40, n * 40) for n in range(6)]


@pytest.mark.parametrize("size", [(12, 7), (10, 8)])
def test_picture_that_is_no_mosaic_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}, {size[1]}"):
        split_mosaic(_png(_gray(0, size)), ["a", "b"])


def test_pixels_become_rows_of_a_tile() -> None:
    tile = tile_from_pixels(bytes([0, 50, 100, 255]), 2, "glioma")
    assert [tile.image.getpixel(place) for place in ((0, 0), (1, 0), (0, 1), (1, 1))] == [
        0,
        50,
        100,
        255,
    ]


def test_tiles_stand_in_rows_unsmoothed() -> None:
    checks = tile_from_pixels(bytes([0, 255, 255, 0]), 2, "")
    sheet = _open(draw([checks, Tile(_gray(77))], title="t", columns=1, tile_px=64))
    first = sheet.crop((8, 34, 8 + 64, 34 + 64))
    assert {color for _, color in first.getcolors() or ()} == {0, 255}
    second = sheet.crop((8, 34 + 90, 8 + 64, 34 + 90 + 64))
    assert second.getextrema() == (77, 77)


def test_caption_is_drawn_under_its_tile() -> None:
    def below(caption: str) -> object:
        sheet = _open(draw([Tile(_gray(0), caption)], title="t", columns=1, tile_px=64))
        return sheet.crop((8, 34 + 64, 72, 34 + 64 + 18)).getextrema()

    assert below("glioma") != below("")


def test_synthetic_sheet_says_so_in_pixels_and_text() -> None:
    real = _open(draw([], title="t", columns=5))
    synthetic = _open(draw([], title="t", columns=5, synthetic=True))
    assert synthetic.text["Synthetic"] == "true"
    assert synthetic.text["Description"] == SYNTHETIC_NOTICE
    assert "Synthetic" not in real.text
    assert synthetic.tobytes() != real.tobytes()


def test_empty_sheet_is_its_title() -> None:
    assert _open(draw([], title="nothing", columns=5)).size == (688, 42)


def test_long_names_do_not_break_the_sheet() -> None:
    draw([Tile(_gray(0), "x" * 1000)], title="y" * 1000, columns=1)
