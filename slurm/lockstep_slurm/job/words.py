"""Pydantic's findings in words a person can act on: the same on the command line and in the service's answers. Pure."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from lockstep_slurm.job import forms
from lockstep_slurm.job.spec import JobSpec

# How pydantic marks the branches of a union within a place; no key of ours begins like this.
_BRANCHES = ("literal[", "constrained-")
_BOUNDS = {
    "greater_than_equal": ("has to be at least", "ge"),
    "greater_than": ("has to be more than", "gt"),
    "less_than_equal": ("may be at most", "le"),
    "less_than": ("has to be less than", "lt"),
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a section of keys and values (in JSON an object)",
    "model": "a section of keys and values (in JSON an object)",
}
"""What a value has to be, by what pydantic's name of the finding begins with: ``int_parsing``, ``model_type``, ..."""
_MISTYPED = ("_type", "_parsing", "_from_float", "_attributes_type")
_SHOWN = 80


def place(location: Sequence[int | str]) -> str:
    """A finding's place as a dotted key, such as ``training.model``."""
    return ".".join(str(part) for part in location if not str(part).startswith(_BRANCHES))


def sentence(found: Mapping[str, Any], location: Sequence[int | str], of: type[BaseModel] = JobSpec) -> str:  # noqa: PLR0911 - one return a kind
    """What is wrong with the value at ``location`` of an ``of``: the value, and what is allowed there."""
    context = found.get("ctx") or {}
    value = _shown(found.get("input"))
    match found["type"]:
        case "missing":
            return "is missing; it is required"
        case "extra_forbidden":
            return _no_key(str(location[-1]), known_keys(location[:-1], of), of)
        case "literal_error" | "enum":
            return f"is {value}, but has to be one of {str(context['expected']).replace(' or ', ', ')}"
        case kind if kind in _BOUNDS:
            words, limit = _BOUNDS[kind]
            return f"is {value}, but {words} {context[limit]}"
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            return f"is {value}, but has to be {forms.WORDS.get(pattern, f'of the form {pattern}')}"
        case "string_type" if isinstance(given := found.get("input"), int | float | dt.date | dt.time):
            return f'is {value}, but has to be text; put it in quotes: "{_written(given)}"'
        case "value_error":
            return str(found["msg"]).removeprefix("Value error, ")
        case kind if (name := kind.partition("_")[0]) in _KINDS and kind.endswith(_MISTYPED):
            return f"is {value}, but has to be {_KINDS[name]}"
        case _:
            message = str(found["msg"])
            return f"is {value}: {message[:1].lower()}{message[1:]}"


def unknown(key: Sequence[str], of: type[BaseModel] = JobSpec) -> str | None:
    """What is wrong with a dotted key of an ``of``, by its parts, or None where there is such a key."""
    for depth, part in enumerate(key):
        known = known_keys(key[:depth], of)
        if not known:
            return None  # what is under it is the user's own to name
        if part not in known:
            return _no_key(part, known, of)
    return None


def _no_key(key: str, known: Sequence[str], of: type[BaseModel]) -> str:
    hint = f" (did you mean {meant}?)" if (meant := _meant(key, known, of)) else ""
    return f"is not a key that exists here{hint}{'; there are: ' + ', '.join(known) if known else ''}"


def known_keys(location: Sequence[int | str], of: type[BaseModel] = JobSpec) -> list[str]:
    """The keys that an ``of`` has at ``location``, sorted; none where that is not a section."""
    model = of
    parts = iter(location)
    for part in parts:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *get_args(field.annotation)]
        models = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
        if get_origin(field.annotation) is dict:
            next(parts, None)  # a name of the user's own, behind which are the model's keys
    return sorted(model.model_fields)


def _meant(key: str, known: Sequence[str], of: type[BaseModel]) -> str | None:
    """What ``key`` may have been meant for: one of ``known`` that is spelled alike, or a key of another section."""
    if close := difflib.get_close_matches(key, known, n=1, cutoff=0.75):
        return close[0]
    for section, field in of.model_fields.items():
        if get_origin(field.annotation) is not dict and key in known_keys([section], of):
            return f"{section}.{key}"
    return None


def _written(value: object) -> str:
    """A number, a date or a time as a file has it; a person may have left out the ``T`` between the last two."""
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def _shown(value: object) -> str:
    kind = "the date" if isinstance(value, dt.date) else "the time" if isinstance(value, dt.time) else ""
    text = f"{kind} {_written(value)}" if kind else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
