"""Build the ASGI application: lifespan, middleware, routers, problem handlers. Wiring only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import JsonValue

from app.api import problems
from app.api.caching import PictureCache
from app.api.cross_origin import CrossOrigin
from app.api.deadlines import BodyDeadline
from app.api.event_stream import EventReader
from app.api.middleware import RequestContext
from app.api.request_spans import RequestSpan
from app.api.routers import (
    api_keys,
    content,
    curation,
    datasets,
    docs,
    exports,
    generator_archives,
    generators,
    health,
    jobs,
    reports,
    samples,
    uploads,
)
from app.api.traffic import Traffic
from app.exporter import Exporter
from app.notices import Notices
from app.parts import make_parts
from app.settings import Settings, settings
from app.telemetry import configure_logging


def create_app(values: Settings | None = None) -> FastAPI:
    """Return the application; it makes its parts, from `values` or the environment, at start."""
    traffic = Traffic()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        known = values or settings()
        configure_logging(known.log_level, "api")
        parts = app.state.parts = make_parts(known)
        app.state.pictures = PictureCache()
        reader = app.state.event_reader = EventReader(parts.database)
        notices = app.state.notices = Notices(known.database_url.get_secret_value())
        listener = asyncio.create_task(notices.listen())
        exporter = None
        if known.metrics_port is not None:
            exporter = Exporter(parts, traffic.registry, known.metrics_host, known.metrics_port)
        yield
        if exporter is not None:
            exporter.close()
        notices.close()
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener
        await reader.close()
        parts.close()

    app = FastAPI(
        title="Gliaforge",
        summary="Synthetic brain-tumour MRI from your own images, and honest numbers about them",
        version=version("gliaforge"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        # FastAPI's own spans have addresses and queries, its records the texts of exceptions.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    # The last is the outermost. What they need to know is known once the application has started.
    app.add_middleware(BodyDeadline, timeout_s=lambda: app.state.parts.settings.body_timeout_s)
    app.add_middleware(CrossOrigin, origins=lambda: app.state.parts.settings.cors_origins)
    app.add_middleware(RequestContext, traffic=traffic)
    app.add_middleware(RequestSpan, tracer=lambda: app.state.parts.tracer)
    problems.install(app)
    for router in (
        content.router,
        datasets.router,
        uploads.router,
        exports.router,
        generator_archives.router,
        generators.router,
        samples.router,
        curation.router,
        reports.router,
        jobs.router,
        api_keys.router,
        health.router,
        docs.router,
    ):
        app.include_router(router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _operation_id(route: APIRoute) -> str:
    """Name operations like `createDataset`."""
    first, *rest = route.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _openapi(app: FastAPI) -> dict[str, JsonValue]:
    """Return the OpenAPI document, with the schema that every error refers to."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
