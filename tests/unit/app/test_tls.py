"""What the settings say of TLS reaches the libraries that connect, and nothing weakens it."""

import ssl
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from app.notices import Notices
from app.parts import make_parts
from app.settings import Settings

PLAIN = {
    "database_url": "postgresql+psycopg://u:hunter2@db.example/d",
    "broker_url": "rediss://:hunter2@broker.example/0",
    "s3_endpoint_internal": "https://s3.example",
    "s3_endpoint_public": "https://files.example",
    "s3_access_key": "AK77X",
    "s3_secret_key": "9f2b",
    "data_key": "c41d",
}


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "a b+c.pem"  # what a URL must quote
    path.touch()
    return path


def _settings(**said: object) -> Settings:
    return Settings.model_validate(PLAIN | said)


@pytest.mark.parametrize(
    "url", [PLAIN["database_url"], f"{PLAIN['database_url']}?connect_timeout=3"]
)
def test_database_is_told_mode_and_ca(ca: Path, url: str) -> None:
    said = {"database_url": url, "database_sslmode": "verify-full", "database_ca": ca}
    settings = _settings(**said)
    parts = make_parts(settings)
    _, arguments = parts.database.engine.dialect.create_connect_args(parts.database.engine.url)
    parts.close()
    listener = conninfo_to_dict(Notices(settings.database_url.get_secret_value())._conninfo)
    for reached in (arguments, listener):
        assert (reached["sslmode"], reached["sslrootcert"]) == ("verify-full", str(ca))


def test_database_url_stands_as_it_is_without_settings() -> None:
    assert _settings().database_url.get_secret_value() == PLAIN["database_url"]


@pytest.mark.parametrize("given", ["", "?ssl_cert_reqs=required", "?ssl_cert_reqs=CERT_REQUIRED"])
def test_broker_is_told_to_check_the_certificate(ca: Path, given: str) -> None:
    parts = make_parts(_settings(broker_url=PLAIN["broker_url"] + given, broker_ca=ca))
    with parts.queue.celery.connection_for_write() as connection:
        assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(ca)}
        assert connection.virtual_host == "0"
    parts.close()


def test_broker_by_tls_is_checked_without_a_word() -> None:
    parts = make_parts(_settings())
    with parts.queue.celery.connection_for_write() as connection:
        assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    parts.close()


def test_storage_is_told_the_ca(ca: Path) -> None:
    parts = make_parts(_settings(s3_ca=ca))
    assert parts.storage.client._endpoint.http_session._verify == str(ca)  # type: ignore[attr-defined]  # the stubs lack it
    parts.close()


@pytest.mark.parametrize(
    "said",
    [
        {"database_sslmode": "verify-full"},
        {"database_sslmode": "require", "database_ca": __file__},
        {"database_ca": __file__},
        {"database_sslmode": "prefer"},
        {
            "database_url": f"{PLAIN['database_url']}?sslmode=disable",
            "database_sslmode": "require",
        },
        {"database_sslmode": "verify-ca", "database_ca": "/nowhere.pem"},
        {"broker_url": "redis://:hunter2@broker.example/0", "broker_ca": __file__},
        {"broker_url": f"{PLAIN['broker_url']}?ssl_cert_reqs=none"},
        {"broker_url": f"{PLAIN['broker_url']}?ssl_cert_reqs=CERT_OPTIONAL"},
        {"broker_url": f"{PLAIN['broker_url']}?ssl_check_hostname=False"},
        {"broker_url": f"{PLAIN['broker_url']}?ssl_ca_certs=/x", "broker_ca": __file__},
        {"s3_endpoint_internal": "http://s3.example", "s3_ca": __file__},
    ],
)
def test_contradiction_is_refused_and_shows_no_password(said: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        _settings(**said)
    assert "hunter2" not in str(caught.value)
