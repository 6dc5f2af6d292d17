"""``Site``: every key of ``cluster.toml``, with what it means. docs/site.md has the same keys (a test holds it so)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from lockstep_slurm.job import forms
from lockstep_slurm.job.fields import AbsolutePath, Memory, Section, Subnet, TimeLimit, Word
from lockstep_slurm.site.units import seconds

# A tab or a newline is a shell script's own; anything else would only hide what it does.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _shell_lines(text: str) -> str:
    if found := _HIDDEN.search(text):
        raise ValueError(f"has the control character {found.group()!r} at position {found.start()}; remove it")
    return text.strip("\n")


def _port_range(text: str) -> str:
    first, last = (int(part) for part in text.split("-"))
    if not 1024 <= first <= last <= 65_535:
        raise ValueError(f'is {text!r}, but has to be "first-last" within 1024-65535')
    return text


def _with_user(text: str) -> str:
    if unknown := [name for name in _PLACEHOLDER.findall(text) if name != "user"]:
        raise ValueError(f"has {{{unknown[0]}}}, but the only word that is filled in is {{user}}")
    return text


ShellLines = Annotated[str, Field(min_length=1, max_length=16_384), AfterValidator(_shell_lines)]
"""Lines of bash, as they are: the file is the administrator's."""
PortRange = Annotated[str, Field(pattern=forms.PORTS), AfterValidator(_port_range)]
Program = Annotated[str, Field(pattern=forms.PROGRAM, max_length=4096)]


class Modules(Section):
    """How a batch shell gets the `module` command."""

    init: ShellLines | None = Field(
        None,
        description="Lines of bash after which there is a `module` command, such as "
        "`source /opt/lmod/lmod/init/bash`; by default the usual places are tried",
    )


class ContainerProgram(Section):
    """How images are opened."""

    init: ShellLines | None = Field(
        None, description="Lines of bash after which the program is there, such as `module load apptainer`"
    )
    program: Program = Field("apptainer", description="Apptainer, or SingularityCE: a name on PATH, or a path")


class Network(Section):
    """Where ranks listen and meet."""

    subnets: list[Subnet] = Field(
        default_factory=list,
        max_length=16,
        description='Networks for gradients, best first, such as ["10.1.0.0/16"]: each node takes its interface in '
        "one; a spec's `communication.interface` or `subnet` goes before them",
    )
    ports: PortRange | None = Field(
        None, description='Ports on which ranks may listen, such as "20000-29999"; by default any'
    )


class Mpi(Section):
    """How MPI's processes are started, for jobs with `communication.backend = "mpi"`."""

    type: Annotated[str, Field(pattern=forms.SHORT_WORD)] | None = Field(
        None, description="A type of `srun --mpi=list` such as pmix or pmi2, or mpirun; a spec may name another"
    )
    mpirun: Program = Field("mpirun", description="The program of that name: on PATH, or a path")


class Defaults(Section):
    """What a spec is given where it leaves it out."""

    partition: Word | None = Field(None, description="For jobs that name no partition; else it is Slurm's default one")
    account: Word | None = Field(None, description="For jobs that name no account")
    qos: Word | None = Field(None, description="For jobs that name no QOS")
    time: TimeLimit | None = Field(None, description="For jobs that name no time limit")


class PartitionDefaults(Section):
    """What a job in this partition is given where its spec leaves it out; before the site's own defaults."""

    account: Word | None = Field(None, description="For jobs that name no account")
    qos: Word | None = Field(None, description="For jobs that name no QOS")
    time: TimeLimit | None = Field(None, description="For jobs that name no time limit")


class NodeType(Section):
    """A kind of node."""

    cpus: int = Field(ge=1, le=1_000_000, description="CPUs that Slurm gives out on one (its CPUTot)")
    memory: Memory | None = Field(None, description="Memory that Slurm gives out on one, such as 256G")


class Partition(Section):
    """A partition for training jobs; what a list names is allowed and nothing else, an empty list allows all."""

    node_types: list[Word] = Field(default_factory=list, description="The kinds of its nodes, from `node_types`")
    nodes: int | None = Field(None, ge=1, description="The most nodes of one job")
    accounts: list[Word] = Field(default_factory=list, description="Accounts that may be named")
    qos: list[Word] = Field(default_factory=list, description="QOS that may be named")
    time: TimeLimit | None = Field(None, description="The longest time limit")
    communication_cpus: int | None = Field(
        None,
        ge=0,
        le=64,
        description="CPUs of each rank kept for communication threads where a spec says auto and a rank has more, "
        "beside its loader CPUs; not with the policies sibling and none",
    )
    defaults: PartitionDefaults = Field(
        default_factory=lambda: PartitionDefaults.model_validate({}), description="What a spec may leave out"
    )

    @model_validator(mode="after")
    def _defaults_are_allowed(self) -> Partition:
        for key, allowed in (("account", self.accounts), ("qos", self.qos)):
            value = getattr(self.defaults, key)
            if value is not None and allowed and value not in allowed:
                raise ValueError(f"defaults.{key} is {value!r}, which is not among {', '.join(allowed)}")
        default, longest = self.defaults.time, self.time
        if default is not None and longest is not None and seconds(default) > seconds(longest):
            raise ValueError(f"defaults.time is {default!r}, which is longer than time {longest!r}")
        return self


class Site(Section):
    """What the administrator says of the cluster. Everything may be left out."""

    python: AbsolutePath | None = Field(
        None,
        description="The Python of ranks whose spec brings none, as the compute nodes see it; by default the one that "
        "runs Lockstep",
    )
    runs: Annotated[AbsolutePath, AfterValidator(_with_user)] | None = Field(
        None,
        description="The folder of run directories, on a file system that compute nodes see, such as "
        "/scratch/{user}/lockstep; by default `<home>/runs`",
    )
    modules: Modules = Field(default_factory=lambda: Modules.model_validate({}), description="The `module` command")
    container: ContainerProgram = Field(
        default_factory=lambda: ContainerProgram.model_validate({}), description="Apptainer"
    )
    network: Network = Field(default_factory=lambda: Network.model_validate({}), description="Addresses and ports")
    mpi: Mpi = Field(default_factory=lambda: Mpi.model_validate({}), description="Starting MPI's processes")
    defaults: Defaults = Field(
        default_factory=lambda: Defaults.model_validate({}), description="What a spec may leave out"
    )
    node_types: dict[Word, NodeType] = Field(default_factory=dict, description="The kinds of nodes, by names of yours")
    partitions: dict[Word, Partition] = Field(
        default_factory=dict,
        description="The partitions for training jobs, by Slurm's names; with none here any may be named",
    )

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Site:
        for name, partition in self.partitions.items():
            if unknown := [kind for kind in partition.node_types if kind not in self.node_types]:
                known = ", ".join(sorted(self.node_types)) or "none"
                raise ValueError(f"partitions.{name}.node_types has {unknown[0]!r}, but `node_types` has {known}")
        default = self.defaults.partition
        if default is not None and self.partitions and default not in self.partitions:
            raise ValueError(f"defaults.partition is {default!r}, but `partitions` has {', '.join(self.partitions)}")
        return self
