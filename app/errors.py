"""What can go wrong, by name: each error has a stable code, a title and an HTTP status.

Texts never carry a patient value, a path or a stack trace.
"""

from typing import ClassVar


class GliaforgeError(Exception):
    """An error that a caller can act on; the API shows it as RFC 9457 problem details."""

    code: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None) -> None:
        """Explain in `detail` what happened here and what to do next."""
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}


class NotFoundError(GliaforgeError):
    """It is not there, or belongs to somebody else: nobody can tell which."""

    code, title, status = "not_found", "Not found", 404


class UnauthorizedError(GliaforgeError):
    """No key, or one that is unknown, expired or revoked."""

    code, title, status = "unauthorized", "A valid API key is required", 401


class ForbiddenError(GliaforgeError):
    """The key is good, its scopes are not enough."""

    code, title, status = "forbidden", "The API key lacks a scope", 403


class ConflictError(GliaforgeError):
    """The resource is in a state that does not allow this."""

    code, title, status = "conflict", "The state of the resource does not allow this", 409


class NotReadyError(ConflictError):
    """What was asked for exists only once a job has succeeded."""

    code, title = "not_ready", "The resource is not ready"


class HasDerivedError(ConflictError):
    """Something was made from the resource and stands on it."""

    code, title = "has_derived", "Something was made from the resource"

    def __init__(self, detail: str, derived: list[str]) -> None:
        """Name the ids of what was `derived`, directly or not."""
        super().__init__(detail)
        self.derived = derived


class UploadIncompleteError(ConflictError):
    """The storage does not have all parts of an upload as they were named."""

    code, title = "upload_incomplete", "Parts of the upload are missing"


class IdempotencyInFlightError(ConflictError):
    """The first request with this Idempotency-Key has not been answered yet."""

    code, title = "idempotency_in_flight", "The first request with this key is in progress"


class IdempotencyMismatchError(GliaforgeError):
    """The Idempotency-Key was used with another request."""

    code, title, status = "idempotency_mismatch", "The key was used for another request", 422


class TooSlowError(GliaforgeError):
    """The body did not come in time."""

    code, title, status = "too_slow", "The body came too slowly", 408


class TooLargeError(GliaforgeError):
    """The body is larger than this route takes."""

    code, title, status = "too_large", "The body is too large", 413


class UnsupportedArchiveError(GliaforgeError):
    """The body is no zip, tar or tar.gz."""

    code, title, status = "unsupported_archive", "The body is not a supported archive", 415


class InvalidRequestError(GliaforgeError):
    """The request is well-formed and cannot be meant."""

    code, title, status = "invalid_request", "The request cannot be carried out as written", 422


class BadRequestError(GliaforgeError):
    """The body broke off or cannot be read."""

    code, title, status = "bad_request", "The request could not be read", 400


class TooManyJobsError(GliaforgeError):
    """The tenant has as many unfinished jobs as it may have."""

    code, title, status = "too_many_jobs", "Too many unfinished jobs", 429


class UnavailableError(GliaforgeError):
    """A part that this service stands on does not answer."""

    code, title, status = "unavailable", "A part of the service does not answer", 503


class NotInstalledError(GliaforgeError):
    """Raise when an optional part of the installation is absent."""

    code, title, status = "not_installed", "This installation cannot do that", 501


class LeaseLostError(Exception):
    """The attempt no longer owns its job: it was reaped, cancelled or claimed anew."""
