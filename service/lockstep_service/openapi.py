"""The OpenAPI document, by which the web client is made: ``python -m lockstep_service.openapi > web/openapi.json``."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from lockstep_service.app import routes
from lockstep_service.errors import Problem, TooLargeError, TooSlowError, describe
from lockstep_service.events.schemas import JobEvent, JobsChanged

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def document() -> dict[str, Any]:
    """The document as one JSON object; the same for every installation of one version."""
    api = routes()
    made = get_openapi(
        title=api.title,
        version=api.version,
        summary=api.summary,
        routes=api.routes,
        separate_input_output_schemas=False,
    )
    _keys, further = models_json_schema(
        [(model, "serialization") for model in (Problem, JobsChanged, JobEvent)],
        ref_template="#/components/schemas/{model}",
    )
    schemas = made["components"]["schemas"]
    for name, schema in further["$defs"].items():
        schemas.setdefault(name, schema)
    # The framework describes its own form of a validation error, which is never sent.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path in made["paths"].values():
        for operation in path.values():
            if "requestBody" in operation:  # what stands before every route has its say of every body
                said = describe(TooLargeError, TooSlowError)
                operation["responses"] |= {str(status): answer for status, answer in said.items()}
            if "422" in operation["responses"]:
                operation["responses"]["422"]["content"] = _PROBLEM
                operation["responses"]["422"]["description"] = "The request is not valid"
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    return made


def main() -> int:
    """Prints the document."""
    json.dump(document(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
