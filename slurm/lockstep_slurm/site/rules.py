"""What a site makes of a spec: what it fills in, what it does not allow, and the script's own view of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep_slurm.job.saving import too_short
from lockstep_slurm.job.script import ScriptSite
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.site.model import NodeType, Partition, Site
from lockstep_slurm.site.units import seconds, size


def runs_folder(site: Site, user: str) -> Path | None:
    """The site's folder of run directories for this user; None where it names none."""
    return None if site.runs is None else Path(site.runs.replace("{user}", user))


def fill(spec: JobSpec, site: Site) -> JobSpec:
    """``spec`` with what it leaves out and the site has a default for: the partition's, else the site's own."""
    resources = spec.resources
    missing: dict[str, Any] = {}
    if resources.partition is None and site.defaults.partition is not None:
        missing["partition"] = site.defaults.partition
    partition = site.partitions.get(missing.get("partition") or resources.partition or "")
    for key in ("account", "qos", "time"):
        own = getattr(partition.defaults, key) if partition else None
        default = own if own is not None else _allowed_default(site, partition, key)
        if getattr(resources, key) is None and default is not None:
            missing[key] = default
    placement = spec.placement
    if partition is not None and _leaves_one_to_compute(spec, site, partition):
        placement = placement.model_copy(update={"communication_cpus": partition.communication_cpus})
    if not missing and placement is spec.placement:
        return spec
    return spec.model_copy(update={"resources": resources.model_copy(update=missing), "placement": placement})


def filled(said: JobSpec, effective: JobSpec) -> list[str]:
    """The dotted keys whose values the site gave, sorted."""
    return sorted(_differences(said.model_dump(), effective.model_dump(), ""))


def refusals(spec: JobSpec, site: Site) -> list[tuple[str, str, object]]:
    """What of a filled ``spec`` the site does not allow: (dotted place, sentence that names what is, value).

    Also what does not go together with what the site filled in: to that nobody has put the spec's own checks.
    """
    found = list(_defaults(spec, site))
    name = spec.resources.partition
    if name is None or not site.partitions:
        return found
    if name not in site.partitions:
        offered = ", ".join(sorted(site.partitions))
        said = f"is {name!r}, which this site does not offer; it has {offered}"
        return [*found, ("resources.partition", said, name)]
    partition = site.partitions[name]
    found += [*_words(spec, name, partition), *_amounts(spec, name, partition), *_nodes(spec, name, site, partition)]
    return found


def script_site(site: Site, *, python: str, runs: str, library: str | None) -> ScriptSite:
    """What a script has to know of the site; ``python`` is of the ranks whose spec brings none."""
    return ScriptSite(
        python=python,
        runs=runs,
        library=library,
        module_init=site.modules.init,
        container_init=site.container.init,
        apptainer=site.container.program,
        subnets=tuple(site.network.subnets),
        ports=site.network.ports,
        mpi=site.mpi.type,
        mpirun=site.mpi.mpirun,
    )


def _allowed_default(site: Site, partition: Partition | None, key: str) -> str | None:
    """The site's own default; none where the partition does not allow it, since nobody asked for that value."""
    default: str | None = getattr(site.defaults, key)
    if default is None or partition is None:
        return default
    if key == "time":
        return default if partition.time is None or seconds(default) <= seconds(partition.time) else None
    allowed = partition.accounts if key == "account" else partition.qos
    return default if not allowed or default in allowed else None


def _leaves_one_to_compute(spec: JobSpec, site: Site, partition: Partition) -> bool:
    """Whether the partition's communication CPUs are to be used: where ranks are known to have more than those.

    Not with the policies by which no core is given up: with ``none`` the number says nothing, and with ``sibling`` it
    is of idle hardware threads, of which a rank may have fewer.
    """
    wanted, placement = partition.communication_cpus, spec.placement
    if wanted is None or placement.communication_cpus != "auto" or placement.policy in ("sibling", "none"):
        return False
    each = placement.cpus_per_rank
    kinds = _kinds(site, partition)
    if each is None and spec.resources.exclusive and kinds:
        each = min(kind.cpus for kind in kinds.values()) // placement.ranks_per_node
    return (each or 1) > wanted + placement.loader_cpus


def _defaults(spec: JobSpec, site: Site) -> Iterator[tuple[str, str, object]]:
    """What a spec that its own checks have passed cannot do with the site's defaults."""
    limit, saved, name = spec.resources.time, spec.checkpoint, spec.resources.partition
    if limit is None or saved is None:
        return
    own = site.partitions[name].defaults.time if name in site.partitions else None
    whose = f"the default of partition {name!r}" if limit == own else "the site's default"
    if (problem := too_short(limit, saved.signal_seconds, whose)) is not None:
        yield "resources.time", problem, limit


def _words(spec: JobSpec, name: str, partition: Partition) -> Iterator[tuple[str, str, object]]:
    for key, allowed in (("account", partition.accounts), ("qos", partition.qos)):
        value = getattr(spec.resources, key)
        if value is not None and allowed and value not in allowed:
            said = f"is {value!r}, which partition {name!r} does not allow; it allows {', '.join(sorted(allowed))}"
            yield f"resources.{key}", said, value


def _amounts(spec: JobSpec, name: str, partition: Partition) -> Iterator[tuple[str, str, object]]:
    nodes, limit = spec.resources.nodes, spec.resources.time
    if partition.nodes is not None and nodes > partition.nodes:
        yield "resources.nodes", f"is {nodes}, but partition {name!r} allows at most {partition.nodes} a job", nodes
    if partition.time is not None and limit is not None and seconds(limit) > seconds(partition.time):
        yield "resources.time", f"is {limit!r}, but partition {name!r} allows at most {partition.time!r}", limit


def _nodes(spec: JobSpec, name: str, site: Site, partition: Partition) -> Iterator[tuple[str, str, object]]:
    """What no kind of node of the partition has."""
    kinds = _kinds(site, partition)
    if not kinds:
        return
    ranks, each = spec.placement.ranks_per_node, spec.placement.cpus_per_rank or 1
    shown = ", ".join(f"{kind} with {found.cpus}" for kind, found in sorted(kinds.items()))
    if ranks * each > max(kind.cpus for kind in kinds.values()):
        said = (
            f"is {ranks} of {each} CPUs each, which is {ranks * each} CPUs on a node, but partition {name!r} has "
            f"{shown}; ask for fewer ranks per node or fewer CPUs per rank"
        )
        yield "placement.ranks_per_node", said, ranks
    memory = spec.resources.mem
    sizes = [kind.memory for kind in kinds.values()]
    largest = max((found for found in sizes if found is not None), key=size, default=None)
    if memory is not None and largest is not None and None not in sizes and size(memory) > size(largest):
        yield "resources.mem", f"is {memory!r}, but the nodes of partition {name!r} have at most {largest!r}", memory


def _kinds(site: Site, partition: Partition) -> dict[str, NodeType]:
    return {kind: site.node_types[kind] for kind in partition.node_types}


def _differences(said: Mapping[str, Any], effective: Mapping[str, Any], before: str) -> Iterator[str]:
    for key, value in effective.items():
        if isinstance(value, dict) and isinstance(said.get(key), dict):
            yield from _differences(said[key], value, f"{before}{key}.")
        elif said.get(key) != value:
            yield f"{before}{key}"
