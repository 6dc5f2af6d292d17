"""``submit``, ``ls``, ``show``, ``watch``, ``logs``, ``cancel`` and ``import``: the service's client."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lockstep_slurm.cli import attempts, listing, step_time, timeline, verdict
from lockstep_slurm.cli.api import Api, Json
from lockstep_slurm.cli.output import Exit, age, console, errors, number, phase, print_json, until

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, the end of one, or a name (the newest).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document for scripts.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Put over the file, such as resources.nodes=4.")
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Follow the job to its end; exit 0 only if it ended well.")]
KeyOption = Annotated[
    str | None, typer.Option("--idempotency-key", help="The same key submits once, however often it is sent.")
]
AfterOption = Annotated[
    str | None, typer.Option("--after", metavar="JOB", help="Start only when that job has ended well.")
]
AfterAnyOption = Annotated[bool, typer.Option("--after-any", help="With --after: any end of that job will do.")]
EachOption = Annotated[
    list[str] | None,
    typer.Option("--each", metavar="KEY=V1,V2,...", help="A job for each value; of several, for each combination."),
]
SpecArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The job's spec, a TOML file.")]

_LISTED = 20
"""Jobs of a submission that are named one by one."""


def submit(
    file: SpecArgument,
    settings: SetOption = None,
    each: EachOption = None,
    *,
    watch: WatchOption = False,
    key: KeyOption = None,
    after: AfterOption = None,
    after_any: AfterAnyOption = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Store and submit nothing: show script, placement, and what Slurm says of it."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a training to the service, or with --each many that differ in a few values, by one request."""
    from lockstep_slurm.job import file as spec_file
    from lockstep_slurm.job import sweep

    if each and watch and not dry_run:
        raise typer.BadParameter("follows one job, and --each makes several; see `lockstep ls`", param_hint="--watch")
    specs = sweep.read(file, settings or (), each) if each else [spec_file.read(file, settings or ())]
    documents = [spec.model_dump(mode="json", exclude_none=True) for spec in specs]
    with Api() as api:
        if dry_run:
            from lockstep_slurm.cli import preview

            names = [spec.name for spec in specs] if each else []
            follows = _follows(api, after, any_end=after_any)
            raise typer.Exit(preview.show(api, documents[0], follows, as_json=as_json, names=names))
        for note in dict.fromkeys(note for spec in specs for note in spec_file.not_seen(spec, "here")):
            errors.print(f"note: {note}", markup=False, soft_wrap=True)
        if each:
            common, rest = sweep.shared(documents)
            _submit_many(api, {"spec": common, "changes": rest}, key, _follows(api, after, any_end=after_any), as_json)
        else:
            submit_to(api, "/jobs", documents[0], watch=watch, key=key, after=(after, after_any), as_json=as_json)


def _submit_many(api: Api, body: Json, key: str | None, query: dict[str, str], as_json: bool) -> None:  # noqa: FBT001
    """Makes all jobs of ``body``, or none, and says which."""
    found = api.post("/jobs/batch", body, {"Idempotency-Key": key} if key else None, **query)
    jobs = found["items"]
    for job in jobs if len(jobs) <= _LISTED else jobs[: _LISTED - 1]:
        errors.print(f"{job['name']} {job['id']} accepted", markup=False, soft_wrap=True)
    left = f", of which {len(jobs) - _LISTED + 1} are not listed here" if len(jobs) > _LISTED else ""
    errors.print(f"{len(jobs)} jobs accepted{left}; {api.address.url}", markup=False, soft_wrap=True)
    if as_json:
        print_json(found)


def submit_to(
    api: Api,
    path: str,
    body: Json,
    *,
    watch: bool,
    key: str | None,
    after: tuple[str | None, bool],
    as_json: bool,
    from_checkpoint: str | None = None,
) -> None:
    """Makes a job by ``POST path`` and says so, or follows it; ``after``: what ``--after`` and ``--after-any`` said."""
    before, any_end = after
    query = _follows(api, before, any_end=any_end)
    if from_checkpoint is not None:
        query["from"] = from_checkpoint
    job = api.post(path, body, {"Idempotency-Key": key} if key else None, **query)
    errors.print(
        f"{job['name']} {job['id']} accepted; {api.address.url}/jobs/{job['id']}", markup=False, soft_wrap=True
    )
    if watch:
        _follow(api, job["id"], as_json=as_json)
    elif as_json:
        print_json(job)


def _follows(api: Api, before: str | None, *, any_end: bool) -> dict[str, str]:
    """The query that says after which job a new one is to come."""
    if any_end and before is None:
        raise typer.BadParameter("is for --after JOB", param_hint="--after-any")
    return {"after": api.job_id(before), "after_any": str(any_end).lower()} if before is not None else {}


def ls(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    jobs: list[Json] = []
    with Api() as api:
        cursor: str | None = None
        while len(jobs) < limit:
            page = api.get("/jobs", limit=min(limit - len(jobs), 200), **({"cursor": cursor} if cursor else {}))
            jobs += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if as_json:
        print_json(jobs)
        return
    console.print(listing.table(jobs, console))
    if not jobs:
        errors.print("no jobs yet; submit one with `lockstep submit examples/digits.toml --watch`")


def show(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Show one job: state, attempts, newest figures, where a step's time goes, where threads sit, what happened."""
    with Api() as api:
        found = api.get(f"/jobs/{api.job_id(job)}")
        placement = api.get(f"/jobs/{found['id']}/placement", brief="true") if found["verdicts"] else None
        happened = timeline.read(api, found["id"])
        figures = api.get(f"/jobs/{found['id']}/metrics", points=2)
    spent, data = figures["step_time"], figures.get("data")  # an older service tells none
    if as_json:
        print_json(found | {"placement": placement, "timeline": happened, "step_time": spent, "data": data})
        return
    last = found["last"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path or an id that is cut leads nowhere
    for name, value in (
        ("job", found["id"]),
        ("name", Text(found["name"])),
        ("phase", phase(found)),
        ("Slurm", f"job {found['slurm_job_id'] or '-'}, {found['state'] or 'no state yet'} {' '.join(found['flags'])}"),
        ("reason", Text(found["reason"] or "-")),
        *((("Slurm's word", Text(found["slurm_reason"])),) if found["slurm_reason"] else ()),
        *(
            (("may start", f"in {until(found['expected_start'])}, by Slurm's estimate"),)
            if found["expected_start"]
            else ()
        ),
        *(
            (("after", f"{found['after']}, {'any end' if found['after_any'] else 'if it ends well'}"),)
            if found["after"]
            else ()
        ),
        *((("rerun of", found["rerun_of"]),) if found["rerun_of"] else ()),
        ("nodes", ", ".join(found["nodes"]) or f"{found['nodes_requested']} asked for"),
        ("ranks", str(found["ranks"])),
        *((("global batch", _batch(found)),) if found.get("global_batch") is not None else ()),
        # What a rank told: a path may be anything.
        *(((name, Text(data[key])) for name, key in _DATA if data[key]) if data is not None else ()),
        ("placement", verdict.line(found)),
        ("step", f"{last['step'] or 0} of {last['steps'] or '?'}"),
        ("throughput", f"{number(last['samples_per_s'])} samples/s" + _of_ranks(last, found["ranks"])),
        ("loss", number(last["loss"])),
        ("accuracy", number(last["accuracy"])),
        ("CPUs", f"{number(last['cpus'])} in use per rank"),
        ("network", _network(last)),
        ("submitted", f"{age(found['created_at'])} ago"),
        ("observed", f"{age(found['observed_at'])} ago" + (" (stale)" if found["stale_since"] else "")),
        # Until there are nodes nothing has run, so nothing has written to a log.
        *((("log", f"lockstep logs {found['id']}"),) if found["nodes"] else ()),
        ("files", Text(found["run_dir"])),
    ):
        table.add_row(Text(name, style="dim"), value)
    console.print(table)
    for line in step_time.lines(spent) if spent is not None else ():
        console.print(line, markup=False, soft_wrap=True)
    for line in attempts.lines(found["attempts"]):
        console.print(line, markup=False, soft_wrap=True)
    for sentence in verdict.sentences(placement) if placement is not None else ():
        console.print(sentence, markup=False, soft_wrap=True)
    for line in timeline.lines(happened):
        console.print(line, markup=False, soft_wrap=True)


_DATA = (("data", "sentence"), ("staging", "staging"))


def _batch(job: Json) -> str:
    training = job["spec"]["training"]
    each, parts = training["batch_size"], training["accumulate"] or 1
    ranks = job["global_batch"] // each
    return f"{job['global_batch']} = {ranks} x {each}" + (f", each in {parts} parts" if parts > 1 else "")


def watch(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Follow a job to its end; exit 0 only if it ended well."""
    with Api() as api:
        _follow(api, api.job_id(job), as_json=as_json)


def logs(
    job: JobArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print a job's log; with --follow a service that is away for a while is waited for."""
    with Api() as api:
        job_id = api.job_id(job)
        offset = _print_log(api.get, job_id, 0)
        if follow:
            from lockstep_slurm.cli import stream

            def get(path: str, *, offset: int) -> Json:
                return stream.patiently(api, api.get, path, offset=offset)

            for event, _ in stream.events(api, job_id):
                if event in {"log", "end"}:
                    offset = _print_log(get, job_id, offset)


def cancel(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Cancel a job, whether Slurm has it already or not."""
    with Api() as api:
        found = api.post(f"/jobs/{api.job_id(job)}/cancel")
    if as_json:
        print_json(found)
    else:
        console.print(f"{found['name']} {found['id']}: cancelling", markup=False)


def import_run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The run directory that the script printed.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Give a run that was made by hand the same page as any other job."""
    with Api() as api:
        job = api.post("/jobs/import", {"run_dir": str(directory.expanduser().absolute())})
        if as_json:
            print_json(job)
        else:
            console.print(
                f"{job['name']} {job['id']} ",
                phase(job),
                f" {api.address.url}/jobs/{job['id']}",
                sep="",
                soft_wrap=True,
            )


def _follow(api: Api, job_id: str, *, as_json: bool) -> None:
    from lockstep_slurm.cli import watch as watching

    try:
        job = watching.watch(api, job_id)
    except KeyboardInterrupt:
        errors.print(f"\nstopped watching; the job goes on: `lockstep watch {job_id}`, `lockstep cancel {job_id}`")
        raise typer.Exit(Exit.INTERRUPTED) from None
    if as_json:
        print_json(job)
        raise typer.Exit(Exit.WELL if job["phase"] == "ended well" else Exit.BADLY)
    raise typer.Exit(watching.outcome(job))


def _print_log(get: Callable[..., Json], job_id: str, offset: int) -> int:
    """Prints what the log has from ``offset`` on and returns where it ends; control characters of a log stay out."""
    while True:
        page = get(f"/jobs/{job_id}/logs", offset=offset)
        sys.stdout.write(
            "".join(character for character in page["text"] if character.isprintable() or character in "\n\t")
        )
        sys.stdout.flush()
        if page["next_offset"] == offset or page["next_offset"] >= page["size"]:
            return int(page["next_offset"])
        offset = page["next_offset"]


def _of_ranks(last: Json, ranks: int) -> str:
    """Whose throughput it is, where not every rank told one: a script may print it on its first rank only."""
    told = last["samples_per_s_ranks"]
    return "" if told in (None, ranks) else f" (told by {told} of {ranks} ranks)"


def _network(last: Json) -> str:
    received, sent = last["received_bytes_per_s"], last["sent_bytes_per_s"]
    if received is None or sent is None:
        return "-"
    return f"{number(received / 1e6)} MB/s in, {number(sent / 1e6)} MB/s out per node"
