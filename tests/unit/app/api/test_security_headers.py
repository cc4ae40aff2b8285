"""Headers by what is answered, and the pages themselves: they need nothing that is forbidden."""

import re
from pathlib import Path

import pytest

import app
from app.api.security_headers import security_headers

TEMPLATES = sorted((Path(app.__path__[0]) / "templates").glob("*.html"))


def test_data_may_load_nothing() -> None:
    policy = security_headers("application/json", is_secure=False)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_page_may_load_only_what_is_inside_it() -> None:
    policy = security_headers("text/html; charset=utf-8", is_secure=False)[
        "Content-Security-Policy"
    ]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives.pop("img-src") == "data:"
    assert directives.pop("style-src") == "'unsafe-inline'"
    assert set(directives.values()) == {"'none'"}
    assert {"default-src", "frame-ancestors", "base-uri", "form-action"} == set(directives)


def test_tls_is_promised_by_tls_alone() -> None:
    promise = "Strict-Transport-Security"
    assert promise not in security_headers("text/html", is_secure=False)
    assert security_headers("text/html", is_secure=True)[promise] == "max-age=31536000"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_page_needs_neither_script_nor_network(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"<(script|iframe|object|embed|form|link|base)\b|\son\w+=", text)
    assert all(source.startswith("data:") for source in re.findall(r"src=\"([^\"]*)", text))
