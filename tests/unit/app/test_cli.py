from pathlib import Path

import pytest

from app.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLIAFORGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GLIAFORGE_URL", raising=False)
    monkeypatch.delenv("GLIAFORGE_API_KEY", raising=False)
    return tmp_path / "home"


def test_without_a_service_it_says_how_to_have_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"gliaforge up.*GLIAFORGE_URL and GLIAFORGE_API_KEY"):
        main(["upload", str(tmp_path)])


def test_the_key_of_the_home_goes_to_no_other_url(tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / "connection.json").write_text('{"url": "http://here", "api_key": "gf_1"}')
    with pytest.raises(SystemExit, match="set both GLIAFORGE_URL and GLIAFORGE_API_KEY"):
        main(["upload", str(tmp_path), "--url", "http://elsewhere"])


def test_a_damaged_connection_is_named(tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / "connection.json").write_text("{")
    with pytest.raises(SystemExit, match=r"connection\.json is damaged"):
        main(["upload", str(tmp_path)])


def test_what_is_no_url_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIAFORGE_API_KEY", "gf_1")
    with pytest.raises(SystemExit, match="is no URL"):
        main(["upload", str(tmp_path), "--url", "http://a:b"])


def test_no_path_is_a_fault_of_usage() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["upload"])
    assert caught.value.code == 2


@pytest.mark.parametrize("arguments", [["migrate", "--to"], ["migrate", "--to", "0001", "0002"]])
def test_a_revision_is_one_word(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
