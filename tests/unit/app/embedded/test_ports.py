from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import ports
from app.embedded.home import Home
from app.embedded.ports import forget_ports, ports_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(ports, "is_free", lambda _port: True)
    with Home(tmp_path / "home") as home:
        yield home


def test_ports_are_kept(home: Home) -> None:
    chosen = ports_of(home, "seaweedfs", ["s3", "filer"])
    assert len(set(chosen.values())) == 2
    assert ports_of(home, "seaweedfs", ["s3", "filer"]) == chosen


def test_forgotten_ports_are_chosen_anew(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([1, 2])
    monkeypatch.setattr("secrets.randbelow", lambda _bound: next(draws))
    first = ports_of(home, "valkey", ["port"])
    forget_ports(home, "valkey")
    assert ports_of(home, "valkey", ["port"]) != first


def test_ports_are_below_those_of_outgoing_connections(home: Home) -> None:
    chosen = ports_of(home, "seaweedfs", [str(number) for number in range(200)])
    assert all(port > 1024 and port + ports.GRPC_OFFSET < 32768 for port in chosen.values())


@pytest.mark.parametrize("taken", [13000, 23000])
def test_port_whose_pair_is_taken_is_not_chosen(
    home: Home, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != taken)
    draws = iter([1000, 1001])
    monkeypatch.setattr("secrets.randbelow", lambda _bound: next(draws))
    assert ports_of(home, "postgres", ["port"]) == {"port": 13001}


def test_kept_port_that_was_taken_is_replaced(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ports_of(home, "postgres", ["port"])["port"]
    monkeypatch.setattr(ports, "is_free", lambda port: port != before)
    assert ports_of(home, "postgres", ["port"])["port"] != before


@pytest.mark.parametrize("text", ["", "[]", '{"port": null}', '{"other": 1}'])
def test_damaged_memory_is_replaced(home: Home, text: str) -> None:
    (home.path / "postgres-ports.json").write_text(text)
    assert ports_of(home, "postgres", ["port"])["port"] > 1024
