"""``rerun``, ``hold``, ``release`` and ``requeue``: what can be asked of a job after its submission."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep_slurm.cli.api import Api, Json
from lockstep_slurm.cli.jobs import (
    AfterAnyOption,
    AfterOption,
    JobArgument,
    JsonOption,
    KeyOption,
    SetOption,
    WatchOption,
    submit_to,
)
from lockstep_slurm.cli.output import console, print_json


def rerun(
    job: JobArgument,
    settings: SetOption = None,
    *,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", metavar="KEY", help="Leave a key out, such as resources.time.")
    ] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STEP|best|last", help="Go on from this checkpoint of the job, in place of anew."
        ),
    ] = None,
    watch: WatchOption = False,
    key: KeyOption = None,
    after: AfterOption = None,
    after_any: AfterAnyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job's spec again as a new job: exactly as it was, or changed; anew, or from one of its checkpoints."""
    from lockstep_slurm.job.file import changes

    wanted = changes(settings or (), unset or ())
    with Api() as api:
        path = f"/jobs/{api.job_id(job)}/rerun"
        submit_to(
            api, path, wanted, watch=watch, key=key, after=(after, after_any), as_json=as_json,
            from_checkpoint=from_checkpoint,
        )  # fmt: skip


def hold(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Keep a job from starting, whether Slurm has it already or not."""
    _ask("hold", job, as_json=as_json)


def release(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Let a held job start when its turn comes."""
    _ask("release", job, as_json=as_json)


def requeue(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """End a running job's attempt and put it back into Slurm's queue, for another attempt."""
    _ask("requeue", job, as_json=as_json)


def _ask(verb: str, job: str, *, as_json: bool) -> None:
    with Api() as api:
        found = api.post(f"/jobs/{api.job_id(job)}/{verb}")
    if as_json:
        print_json(found)
    else:
        console.print(f"{found['name']} {found['id']}: {_said(verb, found)}", markup=False, soft_wrap=True)


def _said(verb: str, job: Json) -> str:
    """How far it is: the service passes it on to Slurm within seconds, or it concerns the service alone."""
    if job["wanted"] is not None:
        return f"{verb} is passed on to Slurm"
    return {"hold": "held", "release": "released"}.get(verb, verb)
