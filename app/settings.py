"""Read the environment, once, typed and checked; no other module reads it."""

import json
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SERVICE_VARIABLES = "service.json"
"""In the laptop's data folder: the variables that the service's processes were started with."""

KUBERNETES_URL = "https://kubernetes.default.svc"
KUBERNETES_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where every pod finds the API, and what it needs to be known there."""

_DNS_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_PLACEHOLDERS = {"", "changeme", "change-me", "password", "secret", "placeholder", "example"}


def _refuse_placeholder(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value().strip().lower() in _PLACEHOLDERS:
        raise ValueError("is a placeholder; set a real secret")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_refuse_placeholder)]


def _split(listed: object) -> object:
    return listed.replace(",", " ").split() if isinstance(listed, str) else listed


def _refuse_everybody(network: IPvAnyNetwork) -> IPvAnyNetwork:
    if network.prefixlen == 0:
        raise ValueError("names every address there is; name those of the proxies")
    return network


def _refuse_no_origin(given: str) -> str:
    origin = given.lower()
    parts = urlsplit(origin)
    is_whole = f"{parts.scheme}://{parts.netloc}" == origin and parts.hostname is not None
    if parts.scheme not in {"http", "https"} or not is_whole or set(origin) & set("*@"):
        raise ValueError("is no origin such as https://viewer.example.org")
    return origin


def _refuse_no_https(given: str) -> str:
    origin = _refuse_no_origin(given)
    if not origin.startswith("https://") or urlsplit(origin).port == 0:
        raise ValueError("is no origin such as https://kubernetes.default.svc")
    return origin


def _refuse_no_collector(given: str) -> str | None:
    parts = urlsplit(given)
    if not given:
        return None
    is_whole = parts.scheme in {"http", "https"} and parts.hostname is not None
    if not is_whole or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("is no URL such as http://collector:4318")
    # The extra `traces`; looked for here, so that no process starts that cannot do as it is told.
    if find_spec("opentelemetry.sdk") is None:
        raise ValueError("needs what `pip install gliaforge[traces]` installs")
    return given.rstrip("/")


Listed = (NoDecode, BeforeValidator(_split))
"""In the environment a list is written with commas or spaces between."""
Network = Annotated[IPvAnyNetwork, AfterValidator(_refuse_everybody)]
Origin = Annotated[str, AfterValidator(_refuse_no_origin)]
SecureOrigin = Annotated[str, AfterValidator(_refuse_no_https)]
Collector = Annotated[str, AfterValidator(_refuse_no_collector)]


def _with_query(url: str, **parameters: str) -> SecretStr:
    """Return `url` with more parameters; what it says already stands as it is written.

    Raises:
        ValueError: if it has one of them already.
    """
    twice = parse_qs(urlsplit(url).query).keys() & parameters.keys()
    if twice:
        raise ValueError(f"says {', '.join(sorted(twice))} too; say it in one place")
    if not parameters:
        return SecretStr(url)
    # libpq reads a plus sign as it is.
    query = urlencode(parameters, quote_via=quote)
    return SecretStr(f"{url}{'&' if '?' in url else '?'}{query}")


class HomeSettings(BaseSettings):
    """Where the laptop's data lives and where its API listens."""

    model_config = SettingsConfigDict(env_prefix="GLIAFORGE_", frozen=True, extra="ignore")

    home: Path = Field(Path("~/.gliaforge"), description="Data folder of `gliaforge up`.")
    port: int | None = Field(
        None, ge=1, le=65535, description="The API's port; 8000, or a free one if that is taken."
    )


class ClientSettings(BaseSettings):
    """Which service a command talks to, and where it remembers what it began."""

    model_config = SettingsConfigDict(env_prefix="GLIAFORGE_", frozen=True, extra="ignore")

    url: str | None = Field(None, description="Of the service; else that of `gliaforge up`.")
    api_key: SecretStr | None = Field(None, description="For that service.")
    state: Path = Field(
        Path("~/.local/state/gliaforge"), description="Where begun uploads are remembered."
    )


class DatabaseSettings(BaseSettings):
    """Where the database is: all that migrating and making a first key need to know."""

    model_config = SettingsConfigDict(
        env_prefix="GLIAFORGE_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # it may be a URL with a password, and errors are logged
    )

    # Before the URL, into which they are put.
    database_ca: FilePath | None = Field(
        None, description="PEM certificates that the database's must be signed by."
    )
    database_sslmode: Literal["require", "verify-ca", "verify-full"] | None = Field(
        None, description="libpq's; without it, it is what the URL says, or `prefer`."
    )
    database_url: Secret = Field(description="`postgresql+psycopg://...`; TLS is put into it.")

    @field_validator("database_url")
    @classmethod
    def _secure_database(cls, url: SecretStr, known: ValidationInfo) -> SecretStr:
        mode, ca = known.data.get("database_sslmode"), known.data.get("database_ca")
        if (mode in {"verify-ca", "verify-full"}) != (ca is not None):
            raise ValueError("verify-ca and verify-full need database_ca, and it needs one of them")
        wanted = {"sslmode": mode, "sslrootcert": ca}
        return _with_query(
            url.get_secret_value(), **{name: str(value) for name, value in wanted.items() if value}
        )

    @classmethod
    def read(cls, home: Path) -> Self:
        """Return the settings of the environment, or else of the laptop's service in `home`.

        Raises:
            pydantic.ValidationError: if neither knows a database.
        """
        known = home / SERVICE_VARIABLES
        if "GLIAFORGE_DATABASE_URL" in os.environ or not known.exists():  # noqa: TID251 - this is the one place
            return cls()
        return cls(
            database_url=json.loads(known.read_text())["GLIAFORGE_DATABASE_URL"],
            database_ca=None,
            database_sslmode=None,
        )


class Settings(DatabaseSettings):
    """What the API, the workers and the scheduler need to know."""

    broker_ca: FilePath | None = Field(
        None, description="PEM certificates that the broker's must be signed by; else the system's."
    )
    broker_url: Secret = Field(description="`redis://...`, or `rediss://...` for TLS.")
    s3_endpoint_internal: str = Field(description="Where this process reaches the storage.")
    s3_endpoint_public: str = Field(
        description="Where clients reach it: a presigned URL signs its host."
    )
    s3_region: str = "us-east-1"
    s3_bucket: str = "gliaforge"
    s3_access_key: Secret
    s3_secret_key: Secret
    s3_ca: FilePath | None = Field(
        None, description="PEM certificates that the storage's must be signed by; else botocore's."
    )
    data_key: Secret = Field(
        description="Seals names of files and stands behind hashes of patients. Keep it: another"
        " opens no name, and gives the same patient another hash."
    )

    trusted_proxies: Annotated[tuple[Network, ...], *Listed] = Field(
        (), description="Addresses, or networks, whose X-Forwarded-For and -Proto are believed."
    )
    cors_origins: Annotated[tuple[Origin, ...], *Listed] = Field(
        (), description="Origins of pages of others that may call the API from a browser."
    )
    head_timeout_s: int = Field(
        20, ge=1, description="A connection that brings no whole head of a request is then closed."
    )
    body_timeout_s: float = Field(
        60, gt=0, description="A body that is silent, or comes at a crawl, for so long is refused."
    )

    max_upload_bytes: int = Field(20 << 30, ge=1, description="Largest body of a dataset upload.")
    max_import_bytes: int = Field(
        1 << 30, ge=1, description="Largest archive of a generator, and largest file in it."
    )
    presigned_lifetime_s: int = Field(3600, ge=60, le=7 * 86400)

    lease_s: float = Field(60, gt=0, description="A worker silent for longer has lost its job.")
    lease_renewal_s: float = Field(10, gt=0, description="How often a worker renews its lease.")
    reap_interval_s: float = Field(15, gt=0, description="How often lost jobs are looked for.")
    max_attempts: int = Field(3, ge=1, description="Attempts lost before a job fails.")
    stop_grace_s: float = Field(
        10, gt=0, description="From SIGTERM to SIGKILL for a model process."
    )

    checkpoint_lifetime_s: float = Field(
        7 * 86400, gt=0, description="Weights that are neither best nor last are then removed."
    )
    event_lifetime_s: float = Field(
        30 * 86400, gt=0, description="Events of a job that ended are then removed."
    )
    upload_lifetime_s: float = Field(
        86400, gt=0, description="An upload that nobody finished is then removed."
    )
    retention_interval_s: float = Field(
        600, gt=0, description="How often what has had its time is looked for."
    )

    sampler_memory_bytes: int = Field(
        2 << 30, ge=1 << 20, description="Weights that a sampling process keeps."
    )
    sampler_idle_s: float = Field(
        300, gt=0, description="A sampling process without work ends after this."
    )

    scratch: Path = Field(Path("/tmp/gliaforge"), description="Run folders of jobs.")  # noqa: S108 - containers mount it; each run folder is private
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0, description="CPU threads of a model process; 0 is its choice.")
    encoders: Path | None = Field(
        None,
        description="Folder of ONNX files in whose features standard reports compare too, each with"
        " a description beside it.",
    )
    ingest_workers: int = Field(2, ge=1, description="Decoding processes of one ingest.")
    ingest_memory_bytes: int = Field(
        4 << 30, ge=1 << 30, description="Address space of each process of an ingest."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Where the API listens for Prometheus; 0.0.0.0 in a container."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="On which port; without one there are no metrics."
    )
    pod_name: str | None = Field(
        None,
        max_length=253,
        pattern=rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$",
        description="Of this worker in Kubernetes; it then tells in that pod's annotations whether"
        " it has a job.",
    )
    kubernetes_url: SecureOrigin = Field(
        KUBERNETES_URL, description="Where the Kubernetes API is, for a worker with a pod_name."
    )
    kubernetes_account: Path = Field(
        KUBERNETES_ACCOUNT,
        description="Folder of that worker's `token`, of the `namespace` of its pod, and of the"
        " `ca.crt` that the API's certificate must be signed by.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # Before the endpoint, which is checked against it.
    traces_ca: FilePath | None = Field(
        None, description="PEM certificates that the collector's must be signed by; else certifi's."
    )
    traces_endpoint: Collector | None = Field(
        None,
        description="A collector of OpenTelemetry's traces, as http://collector:4318: OTLP over"
        " HTTP. Without it, or if it is empty, nothing is traced.",
    )
    traces_ratio: float = Field(
        1.0, ge=0, le=1, description="Of the traces that begin here, those that are kept."
    )

    @field_validator("broker_url")
    @classmethod
    def _secure_broker(cls, url: SecretStr, known: ValidationInfo) -> SecretStr:
        """Have certificates checked: kombu checks none unless it is told to."""
        plain, ca = url.get_secret_value(), known.data.get("broker_ca")
        if urlsplit(plain).scheme != "rediss":
            if ca is not None:
                raise ValueError("broker_ca needs a rediss:// URL")
            return url
        said = {name: value[-1].lower() for name, value in parse_qs(urlsplit(plain).query).items()}
        demand = said.get("ssl_cert_reqs", "required").removeprefix("cert_")
        if demand != "required" or said.get("ssl_check_hostname") == "false":
            raise ValueError("must not turn the check of the certificate off")
        wanted = {} if "ssl_cert_reqs" in said else {"ssl_cert_reqs": "required"}
        return _with_query(plain, **wanted, **({"ssl_ca_certs": str(ca)} if ca else {}))

    @field_validator("traces_endpoint")
    @classmethod
    def _check_traces_ca(cls, url: str | None, known: ValidationInfo) -> str | None:
        if known.data.get("traces_ca") is not None and not (url or "").startswith("https://"):
            raise ValueError("traces_ca needs an https:// URL")
        return url

    @model_validator(mode="after")
    def _check_s3_ca(self) -> Self:
        if self.s3_ca is not None and not self.s3_endpoint_internal.startswith("https://"):
            raise ValueError("s3_ca needs an s3_endpoint_internal with https://")
        return self


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read at the first call.

    Raises:
        pydantic.ValidationError: naming each variable that is missing, malformed or a placeholder.
    """
    return Settings()


def tuning() -> dict[str, str]:
    """Return the variables by which a user tunes the laptop's service, such as the device.

    Where the servers are is not among them: the laptop starts its own, and is no pod.
    """
    own = {"scratch", "data_key"}
    servers = ("database_", "broker_", "s3_", "pod_", "kubernetes_")
    names = (
        f"GLIAFORGE_{name.upper()}"
        for name in Settings.model_fields
        if name not in own and not name.startswith(servers)
    )
    return {name: os.environ[name] for name in names if name in os.environ}  # noqa: TID251 - this is the one place


def check_tuning() -> Settings:
    """Check the user's variables before anything is started, and return what they set.

    Where the servers are is not known yet.

    Raises:
        pydantic.ValidationError: naming each that is malformed or out of its bounds.
    """
    nowhere = SecretStr("not connected")
    return Settings(
        database_ca=None,
        database_sslmode=None,
        database_url=nowhere,
        broker_ca=None,
        broker_url=nowhere,
        s3_endpoint_internal="",
        s3_endpoint_public="",
        s3_access_key=nowhere,
        s3_secret_key=nowhere,
        s3_ca=None,
        data_key=nowhere,
        pod_name=None,
        kubernetes_url=KUBERNETES_URL,
        kubernetes_account=KUBERNETES_ACCOUNT,
    )


def base_environment() -> dict[str, str]:
    """Return what a child process inherits: where to find programs, home, language, scratch."""
    # By the last one the laptop's reaper finds all that a killed `up` left.
    inherited = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    marks = ("GLIAFORGE_STACK",)
    gpu = tuple(name for name in os.environ if name.startswith(("CUDA_", "NVIDIA_")))  # noqa: TID251 - this is the one place
    return {name: os.environ[name] for name in (*inherited, *marks, *gpu) if name in os.environ}  # noqa: TID251 - this is the one place
