"""From a TOML file and ``--set`` values to a ``JobSpec``, with errors that say where."""

from __future__ import annotations

import datetime as dt
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lockstep_slurm.errors import InputError
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.words import place, sentence, unknown

SIZE_LIMIT = 1 << 20
_PATHS = (
    "training.script",
    "training.data_path",
    "checkpoint.resume_from",
    "training.model_path",
    "environment.venv",
    "environment.conda",
    "environment.setup_file",
    "environment.module_use",
    "environment.container.image",
)


class SpecError(InputError):
    """A spec that cannot be used; ``problems`` has one entry for each place."""

    def __init__(self, source: str, problems: Sequence[tuple[str, str]]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = [f"{where}: {message}" if where else message for where, message in problems]
        super().__init__(f"{source}: " + "\n".join(lines) if len(lines) == 1 else "\n  ".join([f"{source}:", *lines]))


def read(file: Path, settings: Sequence[str] = ()) -> JobSpec:
    """Reads a spec from a TOML file, with ``key=value`` settings (dotted keys, TOML values) put over it.

    Relative paths (of ``training`` and ``environment``, but ``stage`` and the binds) are taken from the file's folder.
    Raises ``SpecError`` naming file, place and cure.
    """
    return finished(document(file, settings), file, str(file))


def document(file: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What the file says, with the settings put over it, before it is looked at as a spec."""
    found = parse(file, "job spec")
    for setting in settings:
        _put(found, setting)
    return found


def finished(document: dict[str, Any], file: Path, source: str) -> JobSpec:
    """The spec in ``document`` with relative paths taken from the folder of ``file``; errors name ``source``."""
    _resolve(document, file.resolve().parent, source)
    return check(document, source)


def changes(settings: Sequence[str], removed: Sequence[str] = ()) -> dict[str, Any]:
    """What ``key=value`` settings change of a spec that is elsewhere, as a merge patch (RFC 7396).

    Relative paths are taken from the working folder; ``removed`` are dotted keys that are to have no value. Raises
    ``SpecError`` for a setting that is none, and for a key to remove that no spec has.
    """
    document: dict[str, Any] = {}
    for setting in settings:
        _put(document, setting)
    _resolve(document, Path.cwd(), "--set")
    for key in removed:
        if (wrong := unknown(key.split("."))) is not None:
            raise SpecError("--unset", [(key, wrong)])
        put(document, key, None, "--unset")
    return document


def check(document: Mapping[str, Any], source: str) -> JobSpec:
    """Validates a parsed document; raises ``SpecError`` with one problem for each place."""
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(source, problems(error)) from None


def problems(error: ValidationError, of: type[BaseModel] = JobSpec) -> list[tuple[str, str]]:
    """Pydantic's findings on an ``of`` as (dotted place, sentence): value and what is allowed are in the sentence."""
    return [(place(found["loc"]), sentence(found, found["loc"], of)) for found in error.errors(include_url=False)]


def not_seen(spec: JobSpec, whence: str) -> Iterator[str]:
    """A sentence on each file that the spec names and this machine, ``whence``, does not have; the nodes may."""
    environment = spec.environment
    named = {
        "training.script": spec.training.script,
        "environment.venv": environment.venv,
        "environment.conda": environment.conda,
        "environment.setup_file": environment.setup_file,
        "environment.container.image": environment.container.image if environment.container is not None else None,
    }
    for key, path in named.items():
        # pathlib raises for a name that is too long or a folder that may not be searched; either is not seen from here.
        if path is not None and not os.path.exists(path):  # noqa: PTH110
            yield f"{key}: {path} is not there as seen from {whence}; the compute nodes need it"


def parse(file: Path, what: str, error_of: type[SpecError] = SpecError) -> dict[str, Any]:
    """A TOML file as a document; raises an ``error_of`` that names the file, and calls what it should be ``what``."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise error_of(str(file), [("", f"cannot be read: {error.strerror}; give the path of a TOML file")]) from None
    if len(raw) > SIZE_LIMIT:
        raise error_of(str(file), [("", f"is larger than {SIZE_LIMIT >> 20} MiB, so it is no {what}")])
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        message = f"is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}; save the file as UTF-8"
        raise error_of(str(file), [("", message)]) from None
    except tomllib.TOMLDecodeError as error:
        raise error_of(str(file), [("", f"is not valid TOML: {error}")]) from None


def _put(document: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise SpecError("--set", [("", f"{setting!r} is not of the form key=value, such as resources.nodes=4")])
    put(document, key.strip(), value(text), "--set")


def value(text: str) -> object:
    """The TOML value that ``text`` is, as far as a spec can have it; anything else is meant as text: ``name=trial``."""
    try:
        found: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text.strip() if _is_meant_as_text(found) else as_text(found)


def as_text(found: object) -> object:
    """``found``, with what of TOML's no key of a spec takes, and JSON cannot say, as the text that it was written as.

    That are dates and times, which ``resources.time=12:00:00`` looks like, and numbers that are none.
    """
    if isinstance(found, list):
        return [as_text(one) for one in found]
    if isinstance(found, dict):
        return {key: as_text(one) for key, one in found.items()}
    if isinstance(found, dt.date | dt.time):  # a datetime is a date
        return found.isoformat()
    return str(found) if _is_meant_as_text(found) else found


def _is_meant_as_text(found: object) -> bool:
    if isinstance(found, float):
        return not math.isfinite(found)
    return isinstance(found, dt.date | dt.time)


def put(document: dict[str, Any], key: str, value: object, option: str) -> None:
    """Puts ``value`` at the dotted ``key``, in place; ``SpecError`` names ``option``."""
    *path, last = key.split(".")
    section = document
    for part in path:
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SpecError(option, [(key, f"{part!r} is a value in the file, not a section")])
        section = inner
    section[last] = value


def _resolve(document: dict[str, Any], folder: Path, source: str) -> None:
    """Makes paths absolute, in place: those in a key, and those in a list of them."""
    for dotted in _PATHS:
        *sections, key = dotted.split(".")
        values: Any = document
        for section in sections:
            values = values.get(section) if isinstance(values, dict) else None
        if not isinstance(values, dict):
            continue
        given = values.get(key)
        try:
            if isinstance(given, str) and given:
                values[key] = _absolute(folder, given)
            elif isinstance(given, list):
                values[key] = [_absolute(folder, one) if isinstance(one, str) and one else one for one in given]
        except RuntimeError:
            message = f"{given!r} begins with the home folder of a user that there is not; give the whole path"
            raise SpecError(source, [(dotted, message)]) from None


def _absolute(folder: Path, given: str) -> str:
    """``given`` as a path from ``folder``; what has a scheme, such as docker://, is none, and is left to the model."""
    return given if "://" in given else str(folder / Path(given).expanduser())
