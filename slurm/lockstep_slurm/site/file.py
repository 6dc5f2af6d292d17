"""Finding and reading ``cluster.toml``."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from lockstep_slurm.job.file import SpecError, parse, problems
from lockstep_slurm.site.model import Site

SYSTEM = Path("/etc/lockstep/cluster.toml")


class SiteError(SpecError):
    """A ``cluster.toml`` that cannot be used; ``problems`` has one entry for each place."""


def find(given: Path | None, home: Path) -> Path | None:
    """The file that counts: the one ``given``, else the administrator's, else the home's; None where there is none."""
    if given is not None:
        return given
    return next((file for file in (SYSTEM, home / "cluster.toml") if file.exists()), None)


def read(file: Path | None) -> Site:
    """The site that ``file`` describes; without one, a site of which nothing is said.

    Raises ``SiteError`` naming file, place, value and cure.
    """
    if file is None:
        return Site.model_validate({})
    document = parse(file, "cluster.toml", SiteError)
    try:
        return Site.model_validate(document)
    except ValidationError as error:
        raise SiteError(str(file), problems(error, Site)) from None
