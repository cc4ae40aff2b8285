"""The command line: `gliaforge up | demo | upload | bootstrap | migrate | api`."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError
from sqlalchemy.exc import IntegrityError

from app import api_keys
from app.database import Database
from app.errors import ConflictError, NotFoundError
from app.settings import ClientSettings, DatabaseSettings, HomeSettings, settings
from app.telemetry import configure_logging

if TYPE_CHECKING:
    from rich.console import Console


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return 130
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(("gliaforge", *map(str, fault["loc"]))).upper()
            print(f"gliaforge: {name}: {fault['msg']}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gliaforge",
        description="Synthetic brain-tumour MRI from your own images, and honest numbers.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="run the whole service until Ctrl-C")
    up.set_defaults(command=_up)
    demo = commands.add_parser("demo", help="walk the main job: upload, train, sample, report")
    demo.add_argument("--dataset", type=Path, help="a .zip, .tar, .tar.gz or folder of images")
    demo.add_argument("--preset", default="demo", help="see GET /v1/presets (default: demo)")
    demo.add_argument("--epochs", type=_positive, help="passes over the training images")
    demo.add_argument(
        "--set",
        type=_override,
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="override a knob of the preset, such as batch_size=16; may be repeated",
    )
    demo.add_argument("--images", type=_positive, default=100, help="synthetic images per label")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--output", type=Path, help="folder for the results")
    demo.set_defaults(command=_demo)
    _add_upload(commands)
    bootstrap = commands.add_parser("bootstrap", help="make a tenant and print its first API key")
    bootstrap.add_argument("--tenant", default="default", help="its name (default: default)")
    bootstrap.set_defaults(command=_bootstrap)
    limit = commands.add_parser(
        "limit", help="say how many jobs of one kind a tenant may have running at a time"
    )
    limit.add_argument("count", type=_positive, metavar="N")
    limit.add_argument("--tenant", default="default", help="its name (default: default)")
    limit.set_defaults(command=_limit)
    api = commands.add_parser(
        "api", help="run the API alone, on servers that the environment names"
    )
    api.add_argument("--host", default="127.0.0.1", help="address to listen at")
    api.add_argument("--port", type=_positive, default=8000)
    api.set_defaults(command=_api)
    migrate = commands.add_parser("migrate", help="bring the database to this version")
    migrate.add_argument(
        "--to",
        default="head",
        metavar="REVISION",
        help="or to another revision that this version knows, which may be an older one",
    )
    migrate.set_defaults(command=_migrate)
    return parser


def _add_upload(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    upload = commands.add_parser(
        "upload",
        help="send a folder, an archive or a file as a dataset; again, it goes on where it stopped",
        description="To the service of `gliaforge up`, or to that of GLIAFORGE_URL with the key in"
        " GLIAFORGE_API_KEY. After Ctrl-C the same command sends only what is missing.",
    )
    upload.add_argument("path", type=Path, metavar="PATH")
    upload.add_argument("--name", help="of the dataset; name no patient (default: upload)")
    upload.add_argument(
        "--url", help="of the service (default: GLIAFORGE_URL); needs GLIAFORGE_API_KEY"
    )
    upload.add_argument("--kind", choices=("real", "synthetic"), default="real")
    upload.add_argument(
        "--labels",
        choices=("folder", "mask"),
        default="folder",
        help="label by folder, or by whether the mask of a slice marks something",
    )
    upload.add_argument(
        "--axis",
        choices=("auto", "axial", "coronal", "sagittal"),
        default="auto",
        help="across which axis volumes are cut",
    )
    upload.add_argument(
        "--keep-original", action="store_true", help="keep the uploaded files after the ingest"
    )
    upload.add_argument("--no-wait", action="store_true", help="leave once all is sent")
    upload.add_argument(
        "--at-a-time", type=_positive, default=4, metavar="N", help="parts sent side by side"
    )
    upload.set_defaults(command=_upload)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _override(text: str) -> tuple[str, JsonValue]:
    knob, mark, value = text.partition("=")
    if not mark or not knob:
        raise argparse.ArgumentTypeError(f"{text!r} is not KNOB=VALUE")
    try:
        return knob, json.loads(value)
    except json.JSONDecodeError:
        return knob, value


def _up(_options: argparse.Namespace) -> int:
    from app import laptop  # noqa: PLC0415 - the API image has no embedded servers

    home = HomeSettings()
    with suppress(KeyboardInterrupt), _explained(), laptop.run(home, print) as running:
        print(f"\nGliaforge answers at {running.url}  (Ctrl-C stops it)")
        print(f"  URL and API key: {home.home.expanduser() / 'connection.json'}")
        print(f"  try: curl -H 'Authorization: Bearer <api_key>' {running.url}/v1/presets")
        sys.stdout.flush()
        running.stack.wait()
    return 0


def _demo(options: argparse.Namespace) -> int:
    from app.client import Client, ServiceError  # noqa: PLC0415 - the API image lacks its parts
    from app.demo import main_job  # noqa: PLC0415

    console = _console()
    home = HomeSettings()
    wish = main_job.Wish(
        dataset=options.dataset,
        preset=options.preset,
        config=dict(options.set),
        epochs=options.epochs,
        images_per_label=options.images,
        seed=options.seed,
    )
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    output = options.output or home.home.expanduser() / "demo" / stamp
    with _explained(), ExitStack() as exits:
        url, key = exits.enter_context(_service(home))
        client = Client(url, key)
        exits.callback(client.close)
        try:
            main_job.run(client, wish, output, console)
        except ServiceError as error:
            print(f"gliaforge: {error}", file=sys.stderr)
            return 1
    return 0


def _upload(options: argparse.Namespace) -> int:
    from httpx import InvalidURL, TransportError  # noqa: PLC0415 - the API image lacks these

    from app.client import Client, ServiceError  # noqa: PLC0415
    from app.uploader import command  # noqa: PLC0415
    from app.uploader.packing import PackingError  # noqa: PLC0415

    wish = command.Wish(
        path=options.path,
        name=options.name,
        kind=options.kind,
        ingest={
            "labels": options.labels,
            "axis": options.axis,
            "keep_original": options.keep_original,
        },
        waits=not options.no_wait,
        at_a_time=options.at_a_time,
    )
    known = ClientSettings()
    url, key = _reachable(known, options.url)
    try:
        client = Client(url, key)
    except InvalidURL as error:
        raise SystemExit(f"gliaforge: {url} is no URL: {error}") from error
    try:
        command.run(client, url, wish, known.state, _console())
    except (PackingError, ServiceError) as error:
        print(f"gliaforge: {error}", file=sys.stderr)
        return 1
    except TransportError as error:
        print(
            f"gliaforge: {url} does not answer ({type(error).__name__}): start it with"
            " `gliaforge up`, or set GLIAFORGE_URL, with http://, and GLIAFORGE_API_KEY",
            file=sys.stderr,
        )
        return 1
    finally:
        client.close()
    return 0


def _reachable(known: ClientSettings, url: str | None) -> tuple[str, str]:
    """Return URL and key of the service that was named, or else of the one on the home.

    A key is only sent where its owner said: that of the home goes to no other URL.
    """
    from app.embedded.home import Home, HomeError  # noqa: PLC0415 - the API image has no servers

    url = url or known.url
    if url is not None and known.api_key is not None:
        return url.rstrip("/"), known.api_key.get_secret_value()
    if url is not None or known.api_key is not None:
        raise SystemExit("gliaforge: set both GLIAFORGE_URL and GLIAFORGE_API_KEY, or neither")
    try:
        found = Home(HomeSettings().home.expanduser()).read_connection()
    except HomeError as error:
        raise SystemExit(f"gliaforge: {error}") from error
    if found is None:
        raise SystemExit(
            "gliaforge: no service is running here: start one with `gliaforge up`, or set"
            " GLIAFORGE_URL and GLIAFORGE_API_KEY"
        )
    return found.url, found.api_key


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - it is not in the API image

    console = Console()
    return console if console.is_terminal else Console(width=120)


@contextmanager
def _service(home: HomeSettings) -> Iterator[tuple[str, str]]:
    """Yield URL and key of the service that runs on the home, or of one started for the while."""
    from app import laptop  # noqa: PLC0415 - the API image has no embedded servers
    from app.embedded.home import Home, HomeInUseError  # noqa: PLC0415

    try:
        with laptop.run(home, print) as running:
            yield running.url, running.api_key
    except HomeInUseError:
        known = Home(home.home.expanduser()).read_connection()
        if known is None:
            raise
        yield known.url, known.api_key


@contextmanager
def _explained() -> Iterator[None]:
    """Show what cannot be started, or used, as a message instead of a traceback."""
    from app.embedded.home import HomeError  # noqa: PLC0415 - the API image has no servers
    from app.embedded.processes import PartFailedError  # noqa: PLC0415
    from app.embedded.stack import stop_on_signals  # noqa: PLC0415

    try:
        with stop_on_signals():
            yield
    except (HomeError, PartFailedError) as error:
        raise SystemExit(f"gliaforge: {error}") from error


def _api(options: argparse.Namespace) -> int:
    from app.api.server import make_server  # noqa: PLC0415
    from app.main import create_app  # noqa: PLC0415 - only this command needs them

    known = settings()
    configure_logging(known.log_level, "api")
    make_server(create_app(known), known, host=options.host, port=options.port).run()
    return 0


def _bootstrap(options: argparse.Namespace) -> int:
    with _database() as database:
        try:
            with database.transaction() as session:
                key = api_keys.bootstrap(session, options.tenant)
        except ConflictError as error:
            print(f"gliaforge: {error.detail}", file=sys.stderr)
            return 1
    print(key)
    return 0


def _limit(options: argparse.Namespace) -> int:
    with _database() as database:
        try:
            with database.transaction() as session:
                api_keys.limit(session, options.tenant, options.count)
        except NotFoundError as error:
            print(f"gliaforge: {error.detail}", file=sys.stderr)
            return 1
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from app import migrations  # noqa: PLC0415 - alembic takes a while to import

    with _database() as database:
        try:
            migrations.move(database.engine, options.to)
        except NotFoundError as error:
            print(f"gliaforge: {error.detail}", file=sys.stderr)
            return 1
        except IntegrityError as error:
            # Its words would quote a row.
            refused = getattr(error.orig, "diag", None)
            place = f"{refused.table_name}.{refused.column_name}" if refused else "a table"
            print(
                f"gliaforge: {place} holds what the older tables cannot; delete it first"
                " (docs/operations.md)",
                file=sys.stderr,
            )
            return 1
    return 0


@contextmanager
def _database() -> Iterator[Database]:
    """Yield the database of the environment, or else of the service that runs on the home."""
    home = HomeSettings().home.expanduser()
    database = Database(DatabaseSettings.read(home).database_url.get_secret_value(), pool_size=1)
    try:
        yield database
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
