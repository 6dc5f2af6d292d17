"""``JobSpec``: the one model of a submission, from which the REST body, the TOML file and the script header come."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from lockstep_slurm.job import forms
from lockstep_slurm.job.fields import (
    AbsolutePath,
    BeginTime,
    JobName,
    Line,
    Memory,
    Section,
    Subnet,
    TimeLimit,
    VariableName,
    Word,
)
from lockstep_slurm.job.saving import Checkpoint, too_short
from lockstep_slurm.job.training import Training

READ_ONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS"})
"""Variables that bash itself refuses to set (man bash, 5.2)."""


def _auto_or_count(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """One sentence for a value that is neither, in place of one for each form that it is not."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(f'{value!r} is neither "auto" nor a whole number from 0 to 64') from None


class Container(Section):
    """The image in which the ranks run, by Apptainer; the wrapper runs inside it, too."""

    image: AbsolutePath = Field(description="The image's file or sandbox folder, as the compute nodes see it")
    binds: list[Line] = Field(
        default_factory=list, max_length=64, description='Further folders seen inside: "/data" or "/data:/mnt:ro"'
    )
    python: Annotated[str, Field(pattern=forms.PROGRAM, max_length=4096)] = Field(
        "python3", description="The interpreter inside the image: a name on its PATH, or a path"
    )


class Environment(Section):
    """What a rank finds around it: which Python, which variables, which set-up."""

    module_use: list[AbsolutePath] = Field(
        default_factory=list, max_length=32, description="Further folders of module files, `module use`"
    )
    modules: list[Word] = Field(
        default_factory=list,
        max_length=64,
        description="Loaded in this order after a purge; any that fails ends the job",
    )
    venv: AbsolutePath | None = Field(
        None, description="The virtual environment of the ranks; by default the one that holds `lockstep`"
    )
    conda: AbsolutePath | None = Field(None, description="The prefix of a conda environment, in place of `venv`")
    container: Container | None = Field(None, description="An Apptainer image, in place of `venv`")
    variables: dict[VariableName, Line] = Field(
        default_factory=dict, description="Set for every rank, nothing else leaks in"
    )
    malloc: Literal["keep", "system"] = Field(
        "keep",
        description="Whether a rank keeps what a step frees for its next one, or glibc gives it back to the kernel as "
        "it does by itself",
    )
    setup_file: AbsolutePath | None = Field(
        None, description="A shell script of the user's own, sourced as the user before the ranks start"
    )

    @model_validator(mode="after")
    def _one_python(self) -> Environment:
        given = [name for name in ("venv", "conda", "container") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(f'`{name}`' for name in given)}, which each bring a Python; keep one")
        return self

    @model_validator(mode="after")
    def _ours_are_ours(self) -> Environment:
        for name in self.variables:
            if name in READ_ONLY:
                raise ValueError(f"variables.{name}: a batch shell cannot set it; choose another name")
            if name.startswith(("SLURM_", "SBATCH_", "PMI", "LOCKSTEP_", "lockstep_", "HOROVOD_")):
                raise ValueError(f"variables.{name}: this prefix belongs to the launcher; choose another name")
        return self


class Resources(Section):
    """What Slurm is asked for; names and forms are sbatch's own (man sbatch, 22.05)."""

    nodes: int = Field(1, ge=1, le=65_536)
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    reservation: Word | None = None
    constraint: Annotated[str, Field(pattern=forms.CONSTRAINT, max_length=256)] | None = None
    mem: Memory | None = Field(None, description="Memory per node, such as 4G")
    time: TimeLimit | None = Field(None, description="Limit, in a form of sbatch's such as 30, 1:00:00 or 1-12")
    exclusive: bool = Field(False, description="Whole nodes: all CPUs and, unless `mem` says otherwise, all memory")  # noqa: FBT003
    requeue: bool = Field(True, description="Whether Slurm may start the job again after a node failure")  # noqa: FBT003
    mail_user: Annotated[str, Field(pattern=forms.MAIL, max_length=254)] | None = None
    mail_type: list[Literal["BEGIN", "END", "FAIL", "REQUEUE", "ALL", "TIME_LIMIT"]] = Field(default_factory=list)
    begin: BeginTime | None = Field(None, description="Not before, such as 2026-12-01T08:00 or now+2hours")

    @model_validator(mode="after")
    def _mail_needs_a_reader(self) -> Resources:
        if self.mail_type and self.mail_user is None:
            raise ValueError("mail_type is set without mail_user; say who reads it")
        return self


class PlacementSpec(Section):
    """How many ranks share a node, and what each gets of it."""

    ranks_per_node: int = Field(1, ge=1, le=1024)
    cpus_per_rank: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="CPUs asked for each rank; by default 1, or with `exclusive` a fair share of the node",
    )
    communication_cpus: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0, le=64)], WrapValidator(_auto_or_count)
    ] = Field(
        "auto",
        description="CPUs per rank kept for communication threads; auto: one for each thread where a rank has 16 "
        "cores, one core for all of them from 4 on, idle hardware threads or none below",
    )
    policy: Literal["last", "first", "sibling", "nic", "none"] = Field(
        "last",
        description="Where communication threads go: the last or first cores of the rank, the SMT siblings of its "
        "compute cores, the cores nearest the network card, or none of their own",
    )
    loader_cpus: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPUs per rank set aside for workers that load data; 0: they share the compute CPUs",
    )
    smt: bool = Field(False, description="Compute on every hardware thread of a core, not only on its first")  # noqa: FBT003
    threads: Literal["rank", "cpu"] = Field(
        "rank", description="Each OpenMP thread may run on all compute CPUs of its rank, or on one CPU of its own"
    )
    memory: Literal["auto", "bind", "preferred", "local"] = Field(
        "auto", description="Where pages come from: only the rank's NUMA domains, these first, or where a thread runs"
    )
    on_shortage: Literal["fail", "degrade"] = Field(
        "fail", description="With fewer CPUs than the plan needs: stop before training, or go on and record it"
    )
    on_mismatch: Literal["fail", "warn"] = Field(
        "warn", description="When threads do not sit as planned: end the training, or say so and go on"
    )

    @model_validator(mode="after")
    def _something_must_compute(self) -> PlacementSpec:
        wanted = self.communication_cpus
        if isinstance(wanted, int) and self.cpus_per_rank is not None and wanted >= self.cpus_per_rank:
            raise ValueError(
                f"communication_cpus is {wanted} of cpus_per_rank {self.cpus_per_rank}: no CPU would be left "
                f"to compute on; ask for at least {wanted + 1} CPUs per rank"
            )
        return self


class Communication(Section):
    """How gradients travel."""

    backend: Literal["gloo", "mpi", "ccl"] = Field(
        "gloo",
        description="What carries Horovod's collectives; ccl is oneCCL, which the ranks' Horovod has to be built with",
    )
    ccl_workers: int = Field(1, ge=1, le=16, description="oneCCL's worker threads per rank, CCL_WORKER_COUNT")
    mpi: Annotated[str, Field(pattern=forms.SHORT_WORD)] | None = Field(
        None,
        description="How MPI's processes are started: a type of `srun --mpi=list` such as pmix or pmi2, or mpirun; "
        "by default the site's",
    )
    exchange: Literal["lockstep", "horovod"] | None = Field(
        None,
        description="Who averages the gradients of a built-in recipe: lockstep.DistributedOptimizer (the default) or "
        "Horovod's own. Of a script: lockstep where it uses lockstep.DistributedOptimizer, so that the exchange's "
        "thread is planned for",
    )
    defer: bool | None = Field(
        None,
        description="Whether lockstep's exchange does an update when its parameters are used next (the default), or "
        "in the optimizer's step(); of a built-in recipe",
    )
    transport: Literal["horovod", "gloo", "tcp"] | None = Field(
        None,
        description="What carries lockstep's exchange: horovod, gloo, a process group of torch's own, or tcp, "
        "connections of Lockstep's own; by the latter two ranks need not agree before each piece. By default tcp with "
        "backend gloo and 16 ranks at most, else horovod; of a built-in recipe",
    )
    short_slices: bool = Field(
        default=True,
        description="Whether threads that communicate have a short slice of the scheduler, so that they wait less for "
        "those that compute on the same CPU; from Linux 6.12 on",
    )
    cycle_time_ms: float | None = Field(
        None,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="HOROVOD_CYCLE_TIME; by default 1.0; where nothing is saved 10.0 with transport gloo or tcp, 5.0 "
        "where tcp is taken unasked",
    )
    fusion_threshold_mib: int = Field(64, ge=0, le=4096, description="HOROVOD_FUSION_THRESHOLD, in MiB")
    interface: Annotated[str, Field(pattern=forms.INTERFACE)] | None = Field(
        None, description="The network interface, where it is called the same on every node"
    )
    subnet: Subnet | None = Field(
        None,
        description="The network to use, such as 10.1.0.0/16: each node takes its interface in it; by default the "
        "site's, else the one that routes to the other nodes",
    )

    @model_validator(mode="after")
    def _only_ours_defers(self) -> Communication:
        if self.defer and self.exchange == "horovod":
            raise ValueError(
                '`defer` is true, but exchange is "horovod", whose optimizer defers nothing; take exchange "lockstep", '
                "or leave `defer` out"
            )
        return self

    @model_validator(mode="after")
    def _only_ours_has_a_transport(self) -> Communication:
        if self.transport in ("gloo", "tcp") and self.exchange == "horovod":
            raise ValueError(
                f'`transport` is "{self.transport}", but exchange is "horovod", whose optimizer knows no other than '
                'Horovod; take exchange "lockstep", or leave `transport` out'
            )
        return self

    @model_validator(mode="after")
    def _one_way(self) -> Communication:
        if self.interface is not None and self.subnet is not None:
            raise ValueError("has both `interface` and `subnet`; keep one (`subnet` where names differ between nodes)")
        return self


class Report(Section):
    """How what the ranks report reaches the service."""

    transport: Literal["auto", "files"] = Field(
        "auto",
        description="auto: compute nodes ship it, and the service reads from the run directory what does not come; "
        "files: compute nodes do not try, as where no connection from them to the service is possible",
    )


class JobSpec(Section):
    """One submission. Everything that Lockstep does with a job follows from this and from the site."""

    name: JobName = Field(
        "training", description="For people: letters, digits, '_', '.' and '-', starting with a letter or digit"
    )
    environment: Environment = Field(default_factory=lambda: Environment.model_validate({}))
    training: Training
    resources: Resources = Field(default_factory=lambda: Resources.model_validate({}))
    placement: PlacementSpec = Field(default_factory=lambda: PlacementSpec.model_validate({}))
    communication: Communication = Field(default_factory=lambda: Communication.model_validate({}))
    report: Report = Field(default_factory=lambda: Report.model_validate({}))
    checkpoint: Checkpoint | None = Field(
        None, description="When the training is saved; without the section it never is"
    )

    @model_validator(mode="after")
    def _it_comes_to_something(self) -> JobSpec:
        limit = self.resources.time
        if limit is not None and self.checkpoint is not None:
            problem = too_short(limit, self.checkpoint.signal_seconds)
            if problem is not None:
                raise ValueError(f"resources.time {problem}")
        return self

    @model_validator(mode="after")
    def _a_script_says_itself_how_it_exchanges(self) -> JobSpec:
        for name in ("defer", "transport"):
            if getattr(self.communication, name) is not None and self.training.script is not None:
                raise ValueError(
                    f"communication.{name} is for built-in recipes; a training.script says it itself, "
                    f"`lockstep.DistributedOptimizer(..., {name}=...)`"
                )
        return self

    @property
    def ranks(self) -> int:
        """Ranks of the whole job."""
        return self.resources.nodes * self.placement.ranks_per_node
