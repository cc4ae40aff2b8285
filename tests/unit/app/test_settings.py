import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import settings
from app.settings import DatabaseSettings, Settings

GOOD = {
    "GLIAFORGE_DATABASE_URL": "postgresql+psycopg://u:p@db/d",
    "GLIAFORGE_BROKER_URL": "redis://:p@broker/0",
    "GLIAFORGE_S3_ENDPOINT_INTERNAL": "http://s3:8333",
    "GLIAFORGE_S3_ENDPOINT_PUBLIC": "https://files.example",
    "GLIAFORGE_S3_ACCESS_KEY": "AK77X",
    "GLIAFORGE_S3_SECRET_KEY": "9f2b",
    "GLIAFORGE_DATA_KEY": "c41d",
}
SECRETS = [name for name in GOOD if "ENDPOINT" not in name]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("GLIAFORGE_"):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    settings.settings.cache_clear()


def _faults() -> dict[object, str]:
    with pytest.raises(ValidationError) as caught:
        settings.settings()
    return {fault["loc"][0]: fault["msg"] for fault in caught.value.errors()}


def test_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings.settings()
    monkeypatch.setenv("GLIAFORGE_S3_BUCKET", "another")
    assert settings.settings() is first
    assert first.s3_bucket == "gliaforge"


@pytest.mark.parametrize("name", GOOD)
def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    assert list(_faults()) == [name.removeprefix("GLIAFORGE_").lower()]


@pytest.mark.parametrize("placeholder", ["", " ", "changeme", "Change-Me", "PASSWORD"])
@pytest.mark.parametrize("name", SECRETS)
def test_placeholder_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, placeholder: str
) -> None:
    monkeypatch.setenv(name, placeholder)
    assert "placeholder" in _faults()[name.removeprefix("GLIAFORGE_").lower()]


def test_all_faults_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIAFORGE_BROKER_URL")
    monkeypatch.setenv("GLIAFORGE_LEASE_S", "0")
    monkeypatch.setenv("GLIAFORGE_DEVICE", "tpu")
    assert set(_faults()) == {"broker_url", "lease_s", "device"}


def test_secrets_are_not_printed() -> None:
    shown = repr(Settings.model_validate({}))
    assert not any(GOOD[name] in shown for name in SECRETS)


def test_database_of_the_environment_comes_first(tmp_path: Path) -> None:
    (tmp_path / settings.SERVICE_VARIABLES).write_text('{"GLIAFORGE_DATABASE_URL": "known"}')
    found = DatabaseSettings.read(tmp_path).database_url.get_secret_value()
    assert found == GOOD["GLIAFORGE_DATABASE_URL"]


def test_database_of_the_laptop_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GLIAFORGE_DATABASE_URL")
    (tmp_path / settings.SERVICE_VARIABLES).write_text('{"GLIAFORGE_DATABASE_URL": "known"}')
    assert DatabaseSettings.read(tmp_path).database_url.get_secret_value() == "known"


def test_without_any_database_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GLIAFORGE_DATABASE_URL")
    with pytest.raises(ValidationError, match="database_url"):
        DatabaseSettings.read(tmp_path)


def test_children_inherit_no_variable_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    inherited = settings.base_environment()
    assert inherited["CUDA_VISIBLE_DEVICES"] == "1"
    assert "PATH" in inherited
    assert not set(GOOD) & set(inherited)


@pytest.mark.parametrize("listed", ["10.0.0.7, 10.1.0.0/16", "10.0.0.7 10.1.0.0/16"])
def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("GLIAFORGE_TRUSTED_PROXIES", listed)
    assert [str(one) for one in settings.settings().trusted_proxies] == [
        "10.0.0.7/32",
        "10.1.0.0/16",
    ]


@pytest.mark.parametrize("listed", ["*", "0.0.0.0/0", "::/0", "proxy.example", "10.0.0.7/8"])
def test_proxies_that_are_anybody_are_refused(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("GLIAFORGE_TRUSTED_PROXIES", listed)
    assert _faults()


@pytest.mark.parametrize("name", ["GLIAFORGE_TRUSTED_PROXIES", "GLIAFORGE_CORS_ORIGINS"])
def test_empty_list_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert getattr(settings.settings(), name.removeprefix("GLIAFORGE_").lower()) == ()


def test_origins_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIAFORGE_CORS_ORIGINS", "https://A.example,http://localhost:3000")
    assert settings.settings().cors_origins == ("https://a.example", "http://localhost:3000")


@pytest.mark.parametrize(
    "listed",
    [
        "*",
        "null",
        "a.example",
        "https://",
        "https://*.a.example",
        "https://a.example/",
        "ftp://a",
        "https://u@a.example",
    ],
)
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("GLIAFORGE_CORS_ORIGINS", listed)
    assert _faults()


def test_laptop_takes_no_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_CA", "DATABASE_SSLMODE", "BROKER_CA", "S3_CA"):
        monkeypatch.setenv(f"GLIAFORGE_{name}", __file__)
    for name in ("POD_NAME", "KUBERNETES_URL", "KUBERNETES_ACCOUNT"):
        monkeypatch.setenv(f"GLIAFORGE_{name}", "Of A Cluster")
    monkeypatch.setenv("GLIAFORGE_BODY_TIMEOUT_S", "5")
    assert settings.check_tuning().pod_name is None
    assert settings.check_tuning().body_timeout_s == 5
    assert settings.tuning() == {"GLIAFORGE_BODY_TIMEOUT_S": "5"}


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("", None),
        ("http://collector:4318", "http://collector:4318"),
        ("https://c.example/otel/", "https://c.example/otel"),
        ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
    ],
)
def test_collector_is_a_url_or_none(
    monkeypatch: pytest.MonkeyPatch, given: str, known: str | None
) -> None:
    monkeypatch.setenv("GLIAFORGE_TRACES_ENDPOINT", given)
    assert settings.settings().traces_endpoint == known


@pytest.mark.parametrize(
    "given",
    ["collector:4318", "grpc://c:4317", "http://", "http://u:p@c", "http://c?k=v", "http://c#f"],
)
def test_what_is_no_collector_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("GLIAFORGE_TRACES_ENDPOINT", given)
    assert set(_faults()) == {"traces_endpoint"}


def test_collector_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIAFORGE_TRACES_ENDPOINT", "http://c")
    monkeypatch.setattr(settings, "find_spec", lambda _name: None)
    assert "gliaforge[traces]" in _faults()["traces_endpoint"]


@pytest.mark.parametrize("endpoint", ["", "http://c"])
def test_authority_of_a_collector_needs_tls(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("GLIAFORGE_TRACES_CA", __file__)
    monkeypatch.setenv("GLIAFORGE_TRACES_ENDPOINT", endpoint)
    assert set(_faults()) == {"traces_endpoint"}
    settings.settings.cache_clear()
    monkeypatch.setenv("GLIAFORGE_TRACES_ENDPOINT", "https://c")
    assert settings.settings().traces_endpoint == "https://c"


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", "nan", "all"])
def test_ratio_is_a_share(monkeypatch: pytest.MonkeyPatch, ratio: str) -> None:
    monkeypatch.setenv("GLIAFORGE_TRACES_RATIO", ratio)
    assert set(_faults()) == {"traces_ratio"}


def test_worker_is_no_pod_unless_it_is_named() -> None:
    assert settings.settings().pod_name is None
    assert settings.settings().kubernetes_url == "https://kubernetes.default.svc"


@pytest.mark.parametrize("name", ["worker-train-6d5f9c-x7k2p", "a.b", "0"])
def test_pod_has_a_name_of_the_dns(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GLIAFORGE_POD_NAME", name)
    assert settings.settings().pod_name == name


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "A", "-a", "a-", "a\n", "a" * 254])
def test_what_is_no_name_of_a_pod_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GLIAFORGE_POD_NAME", name)
    assert set(_faults()) == {"pod_name"}


@pytest.mark.parametrize(
    "url", ["https://10.96.0.1", "https://k8s.example:6443", "https://[::1]:1"]
)
def test_kubernetes_is_an_origin_with_tls(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GLIAFORGE_KUBERNETES_URL", url)
    assert settings.settings().kubernetes_url == url


@pytest.mark.parametrize(
    "url",
    ["", "http://k8s", "k8s:6443", "https://k8s/api", "https://u@k8s", "https://k8s:x"]
    + [f"https://k8s:{port}" for port in (0, 99999)],
)
def test_kubernetes_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GLIAFORGE_KUBERNETES_URL", url)
    assert set(_faults()) == {"kubernetes_url"}
