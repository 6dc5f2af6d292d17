"""The two record kinds of a placement, read and checked (docs/records.md). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lockstep_service.placement.schemas import NodeDocument, Result, Verdict

KINDS = frozenset({"placement", "verdict"})

_Document = TypeVar("_Document", NodeDocument, Verdict)
_Values = TypeVar("_Values", "PlacementValues", "VerdictValues")


class PlacementValues(BaseModel):
    """The values of a ``placement`` record."""

    model_config = ConfigDict(strict=True, frozen=True)

    node: Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f]+$")]
    document: str


class VerdictValues(PlacementValues):
    """The values of a ``verdict`` record."""

    local_rank: Annotated[int, Field(ge=0, lt=2**31)]
    when: Literal["init", "steps"]
    result: Result
    deviations: Annotated[int, Field(ge=0)]


def check(kind: str, values: Mapping[str, Any], rank: int) -> None:
    """Nothing for another kind, or for one that is as it should be; else ``ValueError``: what is wrong, and where."""
    if kind == "placement":
        node(_valid(PlacementValues, values).document)
    elif kind == "verdict":
        told = _valid(VerdictValues, values)
        _agree(told, verdict(told.document), rank)


def _agree(told: VerdictValues, found: Verdict, rank: int) -> None:
    """Refuses a record that says one thing in short and another at length: each is shown somewhere."""
    pairs: dict[str, tuple[object, object]] = {
        "rank": (rank, found.rank),
        "values.node": (told.node, found.node),
        "values.local_rank": (told.local_rank, found.local_rank),
        "values.when": (told.when, found.when),
        "values.result": (told.result, found.result),
        "values.deviations": (told.deviations, len(found.deviations)),
    }
    for where, (short, long) in pairs.items():
        if short != long:
            raise ValueError(f"has {where} {short!r:.60}, but its values.document says {long!r:.60}")


def placement_values(values: Mapping[str, Any]) -> PlacementValues:
    """The values of a ``placement`` record, which ``check`` has found good."""
    return _valid(PlacementValues, values)


def verdict_values(values: Mapping[str, Any]) -> VerdictValues:
    """The values of a ``verdict`` record, which ``check`` has found good."""
    return _valid(VerdictValues, values)


def node(document: str) -> NodeDocument:
    """What a node's first rank told; ``ValueError`` where it is not as it should be."""
    return _parsed(NodeDocument, document)


def verdict(document: str) -> Verdict:
    """What a rank told of its threads; ``ValueError`` where it is not as it should be."""
    return _parsed(Verdict, document)


def _valid(form: type[_Values], values: Mapping[str, Any]) -> _Values:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise ValueError(_first("values", error)) from None


def _parsed(form: type[_Document], document: str) -> _Document:
    try:
        # A thread's name is any bytes, and half a surrogate pair among them can be written in JSON but never be sent.
        text = json.dumps(json.loads(document), ensure_ascii=False).encode("utf-8", "replace")
        return form.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(_first("values.document", error)) from None
    except RecursionError:
        raise ValueError("has a values.document that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"has a values.document that is not JSON: {error}") from None


def _first(of: str, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in (of, *found["loc"]))
    return f"has {where:.200}: {found['msg']:.200}"
