"""From a TOML file and ``--set`` values to a ``JobSpec``, with errors that say where."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.words import place, sentence

SIZE_LIMIT = 1 << 20


class SpecError(LockstepError):
    """A spec that cannot be used; ``problems`` has one entry for each place."""

    def __init__(self, source: str, problems: Sequence[tuple[str, str]]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = [f"{where}: {message}" if where else message for where, message in problems]
        super().__init__(f"{source}: " + "\n".join(lines) if len(lines) == 1 else "\n  ".join([f"{source}:", *lines]))


def read(file: Path, settings: Sequence[str] = ()) -> JobSpec:
    """Reads a spec from a TOML file, with ``key=value`` settings (dotted keys, TOML values) put over it.

    Relative ``training.script``, ``environment.venv`` and ``environment.setup_file`` are taken from the file's folder.
    Raises ``SpecError`` naming file, place and cure.
    """
    document = _parse(file)
    for setting in settings:
        _put(document, setting)
    _resolve(document, file.resolve().parent, str(file))
    return check(document, str(file))


def check(document: Mapping[str, Any], source: str) -> JobSpec:
    """Validates a parsed document; raises ``SpecError`` with one problem for each place."""
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(source, problems(error)) from None


def problems(error: ValidationError) -> list[tuple[str, str]]:
    """Pydantic's findings as (dotted place, sentence): the value and what is allowed are in the sentence."""
    return [(place(found["loc"]), sentence(found, found["loc"])) for found in error.errors(include_url=False)]


def _parse(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SpecError(str(file), [("", f"cannot be read: {error.strerror}; give the path of a TOML file")]) from None
    if len(raw) > SIZE_LIMIT:
        raise SpecError(str(file), [("", f"is larger than {SIZE_LIMIT >> 20} MiB, so it is no job spec")])
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        message = f"is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}; save the file as UTF-8"
        raise SpecError(str(file), [("", message)]) from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(str(file), [("", f"is not valid TOML: {error}")]) from None


def _put(document: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise SpecError("--set", [("", f"{setting!r} is not of the form key=value, such as resources.nodes=4")])
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is meant as text: --set name=trial
    *path, last = key.strip().split(".")
    section = document
    for part in path:
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SpecError("--set", [(key, f"{part!r} is a value in the file, not a section")])
        section = inner
    section[last] = value


def _resolve(document: dict[str, Any], folder: Path, source: str) -> None:
    for section, key in (("training", "script"), ("environment", "venv"), ("environment", "setup_file")):
        values = document.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str) and values[key]:
            try:
                values[key] = str(folder / Path(values[key]).expanduser())
            except RuntimeError:
                message = (
                    f"{values[key]!r} begins with the home folder of a user that there is not; give the whole path"
                )
                raise SpecError(source, [(f"{section}.{key}", message)]) from None
