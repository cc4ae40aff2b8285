"""What every answer tells a browser: run nothing, show it in no frame, keep no copy."""

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Our pages have their style and their pictures inside, and no script.
_PAGE = f"{_NOTHING}; img-src data:; style-src 'unsafe-inline'"
_YEAR_S = 31_536_000


def security_headers(media_type: str, *, is_secure: bool) -> dict[str, str]:
    """Return the headers of an answer of `media_type` that does not have them of its own.

    `is_secure` says that it goes by TLS, as far as we or a trusted proxy know: a browser ignores
    the promise of RFC 6797 on plain HTTP. Other hosts of the domain are not ours to promise for.
    """
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": _PAGE if media_type.startswith("text/html") else _NOTHING,
        # A path names resources, and a signed URL must not be told to whom it links.
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    if is_secure:
        headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
    return headers
