"""/v1/generators and /v1/presets: train, follow, delete."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app import generators, resources, tables, workers
from app.api import idempotency
from app.api.auth import GeneratorsReader, GeneratorsTrainer, demand
from app.api.caching import cached_png
from app.api.dependencies import Cascade, RequestID, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import GeneratorID
from app.api.pagination import After, Limit, Page, page
from app.api.problems import documented, pointer
from app.api.schemas import generators as schemas
from app.api_keys import Scope
from app.errors import (
    ConflictError,
    HasDerivedError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    TooManyJobsError,
)
from app.queue import QUEUES, Task
from models.config import PRESETS, TRAINING_CONFIG, DCGANConfig, HybridConfig, Preset

router = APIRouter(prefix="/v1", tags=["generators"], route_class=IdempotentRoute)
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.get("/presets", responses=documented())
def list_presets(_caller: GeneratorsReader, session: Session) -> schemas.Presets:
    """List the presets with their configuration and cost here, and the bounds of each knob."""
    return schemas.presets(_training_machines(session))


@router.post(
    "/generators",
    status_code=202,
    dependencies=[Depends(documented_key)],
    response_model=schemas.Generator,
    responses=documented(NotFoundError, ConflictError, NotReadyError, TooManyJobsError)
    | {200: {"model": schemas.DryRun, "description": "With `dry_run`: nothing was made."}},
)
def create_generator(
    body: schemas.NewGenerator,
    caller: GeneratorsTrainer,
    session: Session,
    request: Request,
    response: Response,
    request_id: RequestID,
    *,
    dry_run: Annotated[
        bool, Query(description="Make nothing: say what it would take, and what to think of.")
    ] = False,
) -> schemas.Generator | JSONResponse:
    """Train a generator on a dataset, or say what that would take."""
    preset, config = _config(body)
    dataset = resources.get(
        session, tables.Dataset, caller.tenant_id, body.dataset_id, to_derive=True
    )
    if dry_run:
        idempotency.free(request)
        labels = generators.check(dataset, config)
        shown = schemas.dry_run(dataset, preset, config, labels, _training_machines(session))
        return JSONResponse(shown.model_dump(mode="json"))
    row = generators.create(
        session,
        dataset,
        name=body.name,
        preset=body.preset,
        config=config,
        seed=body.seed,
        request_id=request_id,
    )
    response.headers["Location"] = f"/v1/generators/{row.id}"
    return schemas.generator(session, row, {})


@router.get("/generators", responses=documented())
def list_generators(
    caller: GeneratorsReader, session: Session, limit: Limit = 20, after: After = None
) -> Page[schemas.Generator]:
    """List generators, newest first."""
    rows = resources.page(session, tables.Generator, caller.tenant_id, after=after, limit=limit)
    return page(rows, limit, cursor=lambda row: row.id, item=lambda row: _show(session, row))


@router.get("/generators/{generator_id}", responses=documented(NotFoundError))
def get_generator(
    generator_id: GeneratorID, caller: GeneratorsReader, session: Session
) -> schemas.Generator:
    """Show a generator."""
    row = resources.get(session, tables.Generator, caller.tenant_id, generator_id)
    return _show(session, row)


@router.delete(
    "/generators/{generator_id}",
    status_code=204,
    responses=documented(NotFoundError, HasDerivedError),
)
def delete_generator(
    generator_id: GeneratorID,
    caller: GeneratorsTrainer,
    session: Session,
    *,
    cascade: Cascade = False,
) -> None:
    """Delete a generator and its checkpoints; refused, unless told to cascade, if it was used."""
    if cascade:
        demand(caller, Scope.SAMPLES_GENERATE, Scope.REPORTS_WRITE)
    row = resources.get(session, tables.Generator, caller.tenant_id, generator_id)
    resources.delete(session, row, cascade=cascade)


@router.get("/generators/{generator_id}/history", responses=documented(NotFoundError))
def get_generator_history(
    generator_id: GeneratorID, caller: GeneratorsReader, session: Session
) -> schemas.History:
    """Return the losses, and what was measured live against the validation split, as series.

    The latter is the profile `live`: seconds at each snapshot, in place of the minutes of a report.
    """
    row = resources.get(session, tables.Generator, caller.tenant_id, generator_id)
    return schemas.history(generators.history(session, row.id))


@router.get("/generators/{generator_id}/checkpoints", responses=documented(NotFoundError))
def list_generator_checkpoints(
    generator_id: GeneratorID, caller: GeneratorsReader, session: Session
) -> schemas.Checkpoints:
    """List the checkpoints, the last one first."""
    row = resources.get(session, tables.Generator, caller.tenant_id, generator_id)
    points = generators.history(session, row.id)
    return schemas.Checkpoints(
        data=[
            schemas.checkpoint(found, row, generators.values_at(points, found.step))
            for found in generators.checkpoints(session, row.id)
        ]
    )


@router.get(
    "/generators/{generator_id}/progress.png",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError)
    | {
        200: {"description": "A PNG", "content": _PNG},
        304: {"description": "The picture that you have is the current one"},
    },
)
def get_generator_progress(
    generator_id: GeneratorID,
    caller: GeneratorsReader,
    parts: ServiceParts,
    session: Session,
    request: Request,
    step: Annotated[int | None, Query(ge=0, le=2**53 - 1)] = None,
) -> Response:
    """Draw the samples of the same latents at a step, or the last one."""
    row = resources.get(session, tables.Generator, caller.tenant_id, generator_id)
    shown = generators.checkpoint_at(session, row, step)
    return cached_png(
        request,
        f"{shown.id}-{shown.prefix}",
        lambda: generators.progress_sheet(parts.storage, row, shown),
    )


def _show(session: Session, row: tables.Generator) -> schemas.Generator:
    return schemas.generator(session, row, generators.latest_values(session, row.id))


def _training_machines(session: Session) -> list[workers.Machine]:
    return workers.machines(session, QUEUES[Task.TRAIN])


def _config(body: schemas.NewGenerator) -> tuple[Preset, DCGANConfig | HybridConfig]:
    """Return the preset, and its configuration with the overrides.

    Raises:
        InvalidRequestError: pointing at the preset or knobs that are wrong, with what they may be.
    """
    preset = PRESETS.get(body.preset)
    if preset is None:
        raise InvalidRequestError(f"/preset: there are {', '.join(sorted(PRESETS))}")
    usual = preset.config.model_dump()
    kind = body.config.get("architecture", preset.config.architecture)
    if kind != preset.config.architecture:
        raise InvalidRequestError(
            f"/config/architecture: it is {preset.config.architecture} in the preset"
            f" {preset.name}; for another one take another preset"
        )
    try:
        return preset, TRAINING_CONFIG.validate_python(usual | body.config)
    except ValidationError as error:
        # The place begins with the architecture, by which the kind of configuration is told.
        faults = (
            f"{pointer(('body', 'config', *fault['loc'][1:]))}: {_fault(fault, usual)}"
            for fault in error.errors()
        )
        raise InvalidRequestError("; ".join(faults)) from error


def _fault(fault: ErrorDetails, usual: Mapping[str, object]) -> str:
    if fault["type"] == "extra_forbidden":
        return f"there is no such knob; there are {', '.join(sorted(usual))}"
    return fault["msg"]
