"""``lockstep cluster up``, ``status``, ``down`` and ``link``: a real Slurm on this one machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.output import Exit, console, errors, print_json
from lockstep_slurm.errors import InputError

if TYPE_CHECKING:
    from lockstep_slurm.cluster import ClusterInfo, ClusterStatus, LinkStatus

app = typer.Typer(help="A real Slurm on this machine, for development, tests and the demo.", no_args_is_help=True)

Name = Annotated[str, typer.Option(help="Clusters of different names run side by side.")]
NameIfSeveral = Annotated[
    str | None, typer.Option("--name", help="Which cluster, where this home has several.", show_default="the only one")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]


def _folder(name: str) -> Path:
    from lockstep_slurm.cluster import cluster_folder

    return cluster_folder(name, home())


def _chosen(name: str | None) -> str:
    """The cluster that is meant: the one named, else the only one of this home, else "default"."""
    if name is not None:
        return name
    there = sorted(folder.name for folder in (home() / "cluster").glob("*") if (folder / "slurm.conf").exists())
    if len(there) > 1 and "default" not in there:
        raise InputError(f"this home has several clusters ({', '.join(there)}); say which with --name")
    return there[0] if len(there) == 1 else "default"


@app.command()
def up(
    *,
    nodes: Annotated[int, typer.Option(help="How many nodes (slurmd) to run.")] = 2,
    name: Name = "default",
    min_job_age: Annotated[int, typer.Option(min=2, help="Seconds for which Slurm remembers an ended job.")] = 300,
    hosts: Annotated[
        bool, typer.Option("--hosts", help="Make each node (h1, h2, ...) a host with a network of its own.")
    ] = False,
    link: Annotated[
        str | None, typer.Option(help="Limit each host's link to so many bits per second.", metavar="1gbit")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring up munged, slurmctld and the nodes, and wait until all nodes are idle. Needs root."""
    from lockstep_slurm import cluster

    with errors.status(f"Bringing up cluster {name!r} with {nodes} nodes"):
        info = cluster.up(name, nodes, _folder(name), min_job_age=min_job_age, hosts=hosts, link=link)
    if as_json:
        print_json(_as_json(info))
        return
    verb = "runs already" if info.already_running else "is up"
    console.print(f"Cluster {name!r} {verb}: {len(info.nodes)} nodes, {info.folder}", markup=False, soft_wrap=True)
    _warn(info.warnings)
    console.print(f"export SLURM_CONF={info.slurm_conf}", markup=False, soft_wrap=True)


@app.command()
def status(*, name: NameIfSeveral = None, as_json: AsJson = False) -> None:
    """Show the nodes, and the line that lets Slurm's own commands reach them. Exits 1 when not everything runs."""
    from lockstep_slurm import cluster

    found = cluster.status(_folder(_chosen(name)))
    if as_json:
        print_json(_as_json(found) | {"running": found.running})
    else:
        table = Table("node", "state", "slurmd", "CPUs of its own")
        for node in found.nodes:
            cpus = ",".join(str(cpu) for cpu in node.cpus)
            table.add_row(node.name, node.state, "runs" if node.daemon else "does not run", cpus)
        console.print(table)
        if found.links:
            console.print(_links(found.links))
        for problem in found.problems:
            errors.print(problem, style="red", markup=False)
        _warn(found.warnings)
        console.print(f"export SLURM_CONF={found.slurm_conf}", markup=False, soft_wrap=True)
    raise typer.Exit(Exit.WELL if found.running else Exit.BADLY)


@app.command()
def link(
    node: Annotated[str, typer.Argument(help="The host whose link is meant: h1, h2, ...")],
    *,
    cut: Annotated[bool, typer.Option("--down", help="Cut it, as if its plug were pulled.")] = False,
    mend: Annotated[bool, typer.Option("--up", help="Mend it.")] = False,
    rate: Annotated[
        str | None,
        typer.Option(help="Limit it to so many bits per second.", metavar="200mbit", show_default="as it is"),
    ] = None,
    name: NameIfSeveral = None,
    as_json: AsJson = False,
) -> None:
    """Cut, mend or slow down the link of one host; without an option, show it."""
    from lockstep_slurm import cluster

    if cut and mend:
        raise InputError("--down cuts the link and --up mends it: say one of them")
    on = True if mend else False if cut else None
    found = cluster.link(_folder(_chosen(name)), node, on=on, rate=rate)
    if as_json:
        print_json(asdict(found))
    else:
        console.print(_links((found,)))


@app.command()
def down(*, name: NameIfSeveral = None, as_json: AsJson = False) -> None:
    """Cancel the cluster's jobs and end its daemons; logs, job ids and completion records stay."""
    from lockstep_slurm import cluster

    chosen = _chosen(name)
    with errors.status(f"Ending cluster {chosen!r}"):
        ran = cluster.down(_folder(chosen))
    if as_json:
        print_json({"name": chosen, "ended": ran})
    else:
        said = "has ended" if ran else "was not running"
        console.print(f"Cluster {chosen!r} {said}.", markup=False)


def _links(links: tuple[LinkStatus, ...]) -> Table:
    table = Table("host", "link", "rate", "interface", "address", "namespace")
    for one in links:
        host = one.host
        table.add_row(one.node, one.state, one.rate or "no limit", host.interface, host.address, host.namespace)
    return table


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        errors.print(f"warning: {warning}", style="yellow", markup=False)


def _as_json(value: ClusterInfo | ClusterStatus) -> dict[str, Any]:
    return {key: str(item) if isinstance(item, Path) else item for key, item in asdict(value).items()}
