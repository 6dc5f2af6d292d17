"""``Api``: the FastAPI application whose OpenAPI document has its own errors, and the events of streams."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from lockstep_service.errors import Problem, TooLargeError, TooSlowError, describe
from lockstep_service.events.schemas import JobEvent, JobsChanged

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


class Api(FastAPI):
    """Serves the document under its ``openapi_url``, to everybody: it is the same for every installation."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once, when every route is there."""
        if self.openapi_schema is None:
            self.openapi_schema = self._described()
        return self.openapi_schema

    def _described(self) -> dict[str, Any]:
        made = get_openapi(
            title=self.title,
            version=self.version,
            summary=self.summary,
            routes=self.routes,
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
