"""Pages for people: self-contained HTML, no script, everything from outside escaped."""

import base64
from collections.abc import Collection, Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined
from PIL import ImageFile

from app.errors import NotInstalledError
from models.config import GENERATED_STRIP, REAL_STRIP, shows_generated, shows_patients

_LEFT_OUT = {
    shows_patients: "the images of patients",
    shows_generated: "the synthetic ones, since copies of patients among them are not ruled out",
}


def certificate(
    document: Mapping[str, object],
    *,
    name: str,
    dataset_id: str,
    sealed_at: str,
    keeps_original: bool,
) -> str:
    """Return the certificate of an ingest as a page."""
    page = _environment().get_template("certificate.html")
    return page.render(
        document,
        name=name,
        dataset_id=dataset_id,
        sealed_at=sealed_at,
        keeps_original=keeps_original,
    )


def report(
    document: Mapping[str, object],
    plots: Mapping[str, bytes],
    *,
    report_id: str,
    about: str,
    real_dataset_id: str,
    measured_at: str,
    left_out: Collection[str],
) -> str:
    """Return a report as one page, with its `plots`, PNGs by name, inside.

    `about` names the batch or dataset that it is about; `left_out` are the names of other plots,
    which this reader may not see. The `notes` of the document are what was known of the batch when
    it was drawn.
    """
    inlined = {name: base64.b64encode(data).decode() for name, data in plots.items()}
    page = _environment().get_template("report.html")
    return page.render(
        document,
        plots=inlined,
        strips=document.get("strips") if any(map(_is_strip, plots)) else None,
        report_id=report_id,
        about=about,
        real_dataset_id=real_dataset_id,
        measured_at=measured_at,
        left_out=left_out,
        hidden=[text for shows, text in _LEFT_OUT.items() if any(map(shows, left_out))],
        shows_patients=any(map(shows_patients, plots)),
    )


def _is_strip(plot: str) -> bool:
    return plot.startswith((REAL_STRIP, GENERATED_STRIP))


def comparison(
    found: Mapping[str, object],
    document: Mapping[str, object],
    sides: Mapping[str, object],
) -> str:
    """Return the comparison `found` of two reports as one page.

    `document` is one of the two: what they have in common is read off it. `sides` are `a` and `b`,
    their rows.
    """
    page = _environment().get_template("comparison.html")
    return page.render(found, document=document, sides=sides)


def docs(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as one page: operations by tag, then the schemas they name."""
    tags: dict[str, list[dict[str, object]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = {**operation, "method": method.upper(), "path": path}
            tags.setdefault(operation["tags"][0], []).append(shown)
    # What a schema does not say is left out; there are too many things that one may say.
    page = _environment().overlay(undefined=Undefined).get_template("docs.html")
    return page.render(document, tags=tags)


_PRINTER = Lock()
"""A page takes seconds of a core to print: one at a time."""


def pdf(page: str) -> bytes:
    """Return one of these pages as a PDF; whatever it names outside of itself is not fetched.

    Raises:
        NotInstalledError: if the extra `pdf`, or the library that it draws text with, is absent.
    """
    try:
        import weasyprint  # noqa: PLC0415 - it is optional, and takes a second
    except (ImportError, OSError) as error:
        raise NotInstalledError(
            "PDF needs the extra `pdf` and the system's Pango; or print the page at .../html"
        ) from error
    finally:
        # It lets Pillow take half of a file for an image, everywhere in the process.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    with _PRINTER:
        return _printed(weasyprint, page)


def _printed(weasyprint: Any, page: str) -> bytes:
    fetcher = weasyprint.URLFetcher(allowed_protocols={"data"})
    made: bytes = weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf()
    return made


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
