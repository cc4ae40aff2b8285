"""Pages for people: self-contained HTML, no script, everything from outside escaped."""

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined


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


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
