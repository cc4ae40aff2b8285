from pathlib import Path

from app.uploader.bookmark import Bookmark, place_of

MARK = Bookmark(dataset_id="ds_1", upload_id="upl_1", sha256="0" * 64)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "x.json"
    MARK.write(place)
    assert Bookmark.read(place) == MARK
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_and_nonsense_are_no_bookmark(tmp_path: Path) -> None:
    assert Bookmark.read(tmp_path / "absent") is None
    (tmp_path / "x.json").write_text("{")
    assert Bookmark.read(tmp_path / "x.json") is None


def test_place_tells_services_and_paths_apart_and_names_neither(tmp_path: Path) -> None:
    places = {
        place_of(tmp_path, url, path)
        for url in ("http://a", "http://b")
        for path in (Path("MEIER"), Path("OTHER"))
    }
    assert len(places) == 4
    assert not any("MEIER" in str(place.relative_to(tmp_path)) for place in places)
    assert place_of(tmp_path, "http://a", Path("x/../MEIER")) in places
