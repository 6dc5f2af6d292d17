"""What a submission would come to, before there is one: the script, the placement, Slurm's opinion. Stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lockstep_service.boundary import Application
from lockstep_service.clusters import fit
from lockstep_service.clusters import service as clusters
from lockstep_service.errors import InvalidError
from lockstep_service.jobs import service
from lockstep_service.jobs.following import Following
from lockstep_service.jobs.forecasts import Answer, NoAnswer
from lockstep_service.jobs.preview_schemas import Forecast, PlannedNode, Preview
from lockstep_service.placement.schemas import Plan, Topology
from lockstep_slurm.client.protocol import SlurmNode
from lockstep_slurm.job import planned
from lockstep_slurm.job.file import not_seen
from lockstep_slurm.job.script import render
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.placement import PlacementError, TopologyError, from_slurm, from_sysfs
from lockstep_slurm.site import rules


def preview(app: Application, said: JobSpec, after: Following | None = None) -> Preview:
    """What ``said`` would come to if it were submitted; ``InvalidError`` for all that a submission is refused for."""
    spec = rules.fill(said, app.site)
    if refused := rules.refusals(spec, app.site):
        raise InvalidError.at_all(refused)
    answer = clusters.check(app, spec)
    waits = service.waits(app, after)
    script = render(spec, service.script_site(app))
    slurm = _forecast(app.forecasts.of(app.client, script, spec.name))
    placement, notes = _placed(app, spec, fit.hosts(spec, answer))
    return Preview(
        spec=spec,
        filled=rules.filled(said, spec),
        ranks=spec.ranks,
        script=script,
        placement=placement,
        slurm=slurm,
        warnings=[*([] if waits is None else [waits]), *notes, *not_seen(spec, "the service")],
    )


def _forecast(told: Answer | NoAnswer) -> Forecast:
    if isinstance(told, NoAnswer):
        return _without_answer("no answer" if told.asked else "not asked", told.why, told.seconds)
    if told.forecast is None:
        if told.refusal is None:
            return _without_answer("no answer", f"Slurm does not answer: {told.silence}")
        return _without_answer("refused", told.refusal).model_copy(update={"asked_at": told.asked_at})
    found = told.forecast
    return Forecast(
        opinion="would start" if found.start is not None else "would wait",
        message=found.words,
        expected_start=found.start,
        nodes=list(found.nodes),
        cpus=found.processors,
        asked_at=told.asked_at,
        ask_again_s=None,
    )


def _without_answer(opinion: str, message: str, again: float | None = None) -> Forecast:
    return Forecast.model_validate(
        {
            "opinion": opinion,
            "message": message,
            "expected_start": None,
            "nodes": [],
            "cpus": None,
            "asked_at": None,
            "ask_again_s": again,
        }
    )


def _placed(app: Application, spec: JobSpec, nodes: Sequence[SlurmNode]) -> tuple[PlannedNode | None, list[str]]:
    """The plan for the most common kind of these nodes, and what to know of it."""
    if not nodes:
        return None, ["No node of the partition is known here, so no placement is shown; the ranks plan on the node"]
    kinds: dict[tuple[int, ...], list[SlurmNode]] = {}
    for node in nodes:
        shape = (node.sockets, node.cores_per_socket, node.threads_per_core, node.cpus, node.memory)
        kinds.setdefault(shape, []).append(node)
    alike = max(kinds.values(), key=len)
    notes = list(_of_the_kind(alike, len(kinds)))
    try:
        found = _foreseen(app, spec, alike[0])
    except (PlacementError, TopologyError) as error:
        return None, [*notes, f"No placement can be planned on {alike[0].name}: {error}"]
    shown = PlannedNode(
        nodes=[node.name for node in alike],
        granted=list(found.granted),
        topology=Topology.model_validate(found.topology.document()),
        placement=Plan.model_validate(found.placement.document()),
        environment=found.environment,
        srun=list(found.srun),
    )
    return shown, [*notes, *found.warnings, *found.placement.degraded]


def _of_the_kind(alike: Sequence[SlurmNode], kinds: int) -> Iterator[str]:
    first = alike[0]
    if kinds > 1:
        yield (
            f"The partition has {kinds} kinds of nodes; the placement is that of {len(alike)} like {first.name}, and "
            "the ranks of others plan on theirs"
        )
    whole = first.sockets * first.cores_per_socket * first.threads_per_core
    if first.cpus < whole:
        yield (
            f"{first.name} gives jobs {first.cpus} of its {whole} CPUs; which it keeps is not told, so the placement "
            "is an example"
        )


def _foreseen(app: Application, spec: JobSpec, node: SlurmNode) -> planned.Planned:
    if app.client.kind == "local":
        machine = from_sysfs()
    else:
        # NUMA domains and Linux's numbers are not in Slurm's record: the ranks read the machine itself.
        machine = from_slurm(
            {
                "name": node.name,
                "sockets": node.sockets,
                "cores": node.cores_per_socket,
                "threads": node.threads_per_core,
                "real_memory": node.memory,
            }
        )
    granted = machine.cpus[: node.cpus] if node.cpus < len(machine.cpus) else None
    return planned.foresee(spec, machine, granted, mpi=app.site.mpi.type, told=False)
