"""Specs that differ in a few values: every combination of what ``--each`` names, and what they have in common."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from lockstep_slurm.job import file as spec_file
from lockstep_slurm.job import forms
from lockstep_slurm.job.file import SpecError
from lockstep_slurm.job.identity import NAME_LIMIT
from lockstep_slurm.job.spec import JobSpec

MOST_JOBS = 500
"""Of one request."""
OPTION = "--each"


def read(file: Path, settings: Sequence[str], each: Sequence[str]) -> list[JobSpec]:
    """The spec of ``file``, with ``settings`` put over it, once for every combination of the values in ``each``.

    ``each``: ``key=value,value,...`` (dotted keys, TOML values); the values of the last one change fastest. Each spec's
    name tells its values, or its number where they make no name. Raises ``SpecError`` naming place and cure.
    """
    axes = _axes(each)
    if (count := math.prod(len(values) for values in axes.values())) > MOST_JOBS:
        raise SpecError(OPTION, [("", f"makes {count} jobs; one request takes {MOST_JOBS} at most, so make several")])
    document = spec_file.document(file, settings)
    said = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return _named([_spec(document, file, one) for one in said], said)


def shared(documents: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all documents have in common, and what each has besides: put over it, key by key, that is the document."""
    first = documents[0]
    common: dict[str, Any] = {}
    rest: list[dict[str, Any]] = [{} for _ in documents]
    for key in dict.fromkeys(key for one in documents for key in one):
        having = [one[key] for one in documents if key in one]
        if len(having) == len(documents) and all(_same(value, first[key]) for value in having):
            common[key] = first[key]
        elif len(having) == len(documents) and all(isinstance(value, dict) for value in having):
            common[key], parts = shared(having)
            for one, part in zip(rest, parts, strict=True):
                if part:
                    one[key] = part
        else:
            for one, whole in zip(rest, documents, strict=True):
                if key in whole:
                    one[key] = whole[key]
    return common, rest


def _axes(each: Sequence[str]) -> dict[str, list[object]]:
    """The values of each key, in the order in which they were given."""
    axes: dict[str, list[object]] = {}
    for given in each:
        key, equals, text = given.partition("=")
        key = key.strip()
        if not equals or not key or not text.strip():
            message = f"{given!r} is not of the form key=value,value,..., such as training.seed=1,2,3"
            raise SpecError(OPTION, [("", message)])
        if key in axes:
            raise SpecError(OPTION, [(key, "is given twice; give all its values by one, such as training.seed=1,2,3")])
        axes[key] = _values(text)
        words = [_word(value) for value in axes[key]]
        if twice := sorted({word for word in words if words.count(word) > 1}):
            raise SpecError(OPTION, [(key, f"has {', '.join(twice)} twice; each value makes jobs of its own")])
    return axes


def _values(text: str) -> list[object]:
    try:
        found: list[object] = tomllib.loads(f"value = [{text}]")["value"]
    except tomllib.TOMLDecodeError:
        return [spec_file.value(part.strip()) for part in text.split(",")]  # bare words are meant as text
    return [spec_file.as_text(one) for one in found]


def _spec(document: Mapping[str, Any], file: Path, said: Mapping[str, object]) -> JobSpec:
    """The document's spec with the values that are ``said``."""
    variant = deepcopy(dict(document))
    for key, value in said.items():
        spec_file.put(variant, key, value, OPTION)
    shown = ", ".join(f"{key}={_word(value)}" for key, value in said.items())
    return spec_file.finished(variant, file, f"{file} with {shown}")


def _named(specs: Sequence[JobSpec], said: Sequence[Mapping[str, object]]) -> list[JobSpec]:
    """The specs, each with a name of its own."""
    endings = [
        "".join(f"-{key.rpartition('.')[2]}{_word(value)}" for key, value in values.items() if key != "name")
        for values in said
    ]
    names = [f"{spec.name}{ending}" for spec, ending in zip(specs, endings, strict=True)]
    if len(set(names)) < len(names) or not all(re.match(forms.NAME, one) and len(one) <= NAME_LIMIT for one in names):
        width = len(str(len(specs)))
        names = [f"{spec.name[: NAME_LIMIT - width - 1]}-{n:0{width}}" for n, spec in enumerate(specs, start=1)]
    return [spec.model_copy(update={"name": name}) for spec, name in zip(specs, names, strict=True)]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same(one: object, other: object) -> bool:
    """Equal and of one kind: to JSON, ``true`` is not 1."""
    return type(one) is type(other) and one == other
