"""Objects are of kinds that we know, and are written as those demand."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import jsonschema_rs
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

from tests.unit.deploy.rendering import Manifest, walk

SCHEMAS = Path(__file__).parent / "schemas"


@lru_cache(maxsize=1)
def _schemas() -> dict[str, jsonschema_rs.Validator]:
    kinds: dict[str, str] = {}
    definitions: Manifest = {}
    for path in SCHEMAS.glob("*.json"):
        read = json.loads(path.read_text())
        kinds |= read["kinds"]
        definitions |= read["$defs"]
    return {
        kind: jsonschema_rs.validator_for({"$ref": f"#/$defs/{name}", "$defs": definitions})
        for kind, name in kinds.items()
    }


def schema(objects: Sequence[Manifest]) -> list[str]:
    """Each object is of a kind that we know, and has that kind's fields and no others."""
    complaints = []
    for one in objects:
        name = f"{one['apiVersion']}/{one['kind']}"
        if one["kind"] == "TrainingRuntime":
            known = TrainerV1alpha1TrainingRuntime.from_dict(one)
            if known is None or known.to_dict() != one:
                complaints.append(f"{name} has fields that are not in its schema")
        elif name not in _schemas():
            complaints.append(f"{name} has no schema")
        else:
            found = _schemas()[name].iter_errors(one)
            complaints += [f"{name}: {error.message}" for error in found]
    return complaints


def quantities(objects: Sequence[Manifest]) -> list[str]:
    """Each amount of something is written in units that Kubernetes reads."""
    written = [
        value
        for one in objects
        for key, part in walk(one)
        if key in {"requests", "limits"}
        for value in part.values()
    ]
    written += [part for one in objects for key, part in walk(one) if key == "sizeLimit"]
    return [f"{v} is no quantity" for v in written if not re.fullmatch(r"\d+(m|Ki|Mi|Gi)?", str(v))]
