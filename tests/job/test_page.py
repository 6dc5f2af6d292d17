"""docs/job-spec.md: that its one big TOML has every key, and tells truly which values are the defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from lockstep_slurm.job import cycle
from lockstep_slurm.job.fields import Section
from lockstep_slurm.job.file import read
from lockstep_slurm.job.spec import JobSpec
from lockstep_worker import watchdog
from lockstep_worker.checkpoint import settings
from lockstep_worker.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "job-spec.md"
SECTION = re.compile(r"(?:# )?\[([a-z_.]+)\]")
KEY = re.compile(r"(?:# )?([A-Za-z0-9_]+) = (.*)")


class Value(NamedTuple):
    """A key of the page."""

    value: Any
    example: bool
    """Whether its comment says that it is one, and so not the default."""


def toml() -> str:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def values() -> dict[str, Value]:
    """All keys by their dotted names, those that are commented out as well; a section is one without a value."""
    found, section = {}, ""
    for line in toml().splitlines():
        if (header := SECTION.match(line)) is not None:
            section = f"{header[1]}."
            found[header[1]] = Value(None, example=True)
        elif (pair := KEY.match(line)) is not None:
            comment = pair[2].partition("#")[2].strip()
            value = tomllib.loads(f"it = {pair[2]}")["it"]
            found[section + pair[1]] = Value(value, example=re.match(r"example\b", comment) is not None)
    return found


def keys_of(model: type[Section], section: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The keys of a section and of those in it, by their dotted names."""
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        if inner is None:
            yield section + name, field
        else:
            yield from keys_of(inner, f"{section}{name}.")


def defaults() -> dict[str, Any]:
    """What holds where a key is left out; of one for which the spec itself has nothing, what is made of that."""
    made_of_nothing = {
        **{f"training.{field.name}": field.default for field in fields(Recipe)},
        "training.classes": 1000,
        "training.hang_minutes": watchdog.MINUTES,
        "communication.exchange": Recipe.exchange,
        "communication.defer": Recipe.defer,
        "communication.transport": "tcp" if cycle.goes_over_tcp({}, ranks=1) else "horovod",
        "communication.cycle_time_ms": cycle.HOROVODS,
        "checkpoint.every_minutes": settings.MINUTES,
    }
    found = {}
    for key, field in keys_of(JobSpec):
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        found[key] = made_of_nothing.get(key) if default is None else default
    return found


def test_the_page_has_every_key_and_no_other() -> None:
    known = dict(keys_of(JobSpec))
    of_the_users_own = tuple(f"{key}." for key, field in known.items() if "dict[" in str(field.annotation))
    told = {key for key in values() if not key.startswith(of_the_users_own)}
    sections = {key.rpartition(".")[0] for key in known}
    assert told - sections == known.keys()


def test_what_the_page_does_not_call_an_example_is_the_default_and_what_it_does_is_none() -> None:
    by_default, told = defaults(), values()
    wrong = {
        key: (value, by_default.get(key))
        for key, (value, example) in told.items()
        if (value == by_default.get(key)) is example and value is not None
    }
    assert wrong == {}
    assert sum(not example for _, example in told.values()) > 40


def test_what_is_not_commented_out_is_a_valid_spec(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(toml(), encoding="utf-8")
    assert read(tmp_path / "job.toml").name == "digits"
