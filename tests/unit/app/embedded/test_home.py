from pathlib import Path

import pytest

from app.embedded.home import Connection, Home, HomeError


def test_folder_and_secrets_are_private(tmp_path: Path) -> None:
    with Home(tmp_path / "deep" / "home") as home:
        home.write_connection("http://127.0.0.1:8000", "key")
    modes = {path.name: path.stat().st_mode & 0o777 for path in home.path.iterdir()}
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert modes == {
        "credentials.json": 0o600,
        "connection.json": 0o600,
        "lock": 0o600,
        "logs": 0o700,
    }


def test_secrets_are_made_once(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        first = home.credentials
    with home:
        assert home.credentials == first
    with Home(tmp_path / "other") as other:
        assert other.credentials != first


def test_secret_of_a_later_version_is_added(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        path = home.path / "credentials.json"
    path.write_text('{"valkey_password": "kept"}')
    with home:
        assert home.credentials.valkey_password == "kept"
        assert home.credentials.postgres_password in path.read_text()


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        assert home.credentials.s3_secret_key not in repr(home.credentials)


def test_damaged_secrets_are_not_replaced(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        path = home.path / "credentials.json"
    path.write_text("{")
    with pytest.raises(HomeError, match="damaged"):
        home.open()
    assert path.read_text() == "{"


def test_missing_secrets_of_existing_data_are_not_invented(tmp_path: Path) -> None:
    (tmp_path / "home" / "postgres" / "data").mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    with pytest.raises(HomeError, match=r"credentials.json is missing"):
        Home(tmp_path / "home").open()


def test_open_folder_of_other_things_is_refused_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(HomeError, match="holds other things"):
        Home(tmp_path).open()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_loosened_folder_is_closed_again(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        home.path.chmod(0o755)
    with home:
        assert home.path.stat().st_mode & 0o777 == 0o700


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(HomeError, match="belongs to user"):
        Home(tmp_path).open()


def test_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="file"):
        Home(tmp_path / "file" / "home").open()


def test_second_open_is_refused_while_starting(tmp_path: Path) -> None:
    with (
        Home(tmp_path / "home"),
        pytest.raises(HomeError, match=r"process \d+ serves it and is still starting"),
    ):
        Home(tmp_path / "home").open()


def test_closed_folder_opens_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.open().close()
    home.close()
    with home:
        assert home.lock_descriptor > 0


def test_closed_folder_has_no_secrets(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(HomeError, match="not open"):
        _ = home.credentials
    with pytest.raises(HomeError, match="not open"):
        _ = home.lock_descriptor


def test_lock_of_a_dead_holder_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.home._LAST_WORDS_S", 0.1)
    with Home(tmp_path / "home") as home:
        # The reaper of a killed `up` holds the lock, and whoever wrote the file is gone.
        (home.path / "lock").write_text('{"pid": 4194305, "url": null}')
        with pytest.raises(HomeError, match="4194305"):
            Home(home.path).open()
        (home.path / "lock").write_text("")
        with pytest.raises(HomeError, match="process 0 "):
            Home(home.path).open()


def test_connection_is_read_without_the_lock(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        assert home.read_connection() is None
        home.write_connection("http://127.0.0.1:8000", "key")
        assert Home(home.path).read_connection() == Connection("http://127.0.0.1:8000", "key")


@pytest.mark.parametrize("text", ["", "[]", '{"url": "http://127.0.0.1"}'])
def test_damaged_connection_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "connection.json").write_text(text)
    with pytest.raises(HomeError, match=r"connection.json is damaged"):
        Home(tmp_path).read_connection()
