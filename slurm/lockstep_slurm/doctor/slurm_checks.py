"""Checks of slurm.conf and cgroup.conf: what binds ranks to cores, ends, forgets and hides jobs. Pure."""

from __future__ import annotations

from lockstep_slurm.doctor.cluster import Cluster
from lockstep_slurm.doctor.finding import Answer, Check, note, ok, problem, warning

# Slurm's default. A checkpoint of some GB to a shared file system fits in it, and hardly in a fifth of it.
KILL_WAIT_DEFAULT, KILL_WAIT_SHORT = 30, 5
# A job that ended has to be seen at least once: three looks, so that one may fail.
LOOKS = 3
COMMAND_SECONDS = 30


def task_plugin(cluster: Cluster) -> Answer:
    """Whether `--cpu-bind` does anything."""
    plugins = cluster.words("TaskPlugin")
    found = f"TaskPlugin={','.join(plugins) or 'task/none'}"
    if any("affinity" in plugin for plugin in plugins):
        return ok(found)
    return problem(
        f"{found}: `srun --cpu-bind` is ignored without a word", "ask for TaskPlugin=task/cgroup,task/affinity"
    )


def constrain_cores(cluster: Cluster) -> Answer | None:
    """Whether cgroups keep jobs on their own cores."""
    if not any("cgroup" in plugin for plugin in cluster.words("TaskPlugin")):
        return note(
            f"TaskPlugin={cluster.text('TaskPlugin') or 'task/none'}, without task/cgroup",
            "on shared nodes ask for task/cgroup with ConstrainCores=yes in cgroup.conf; whole nodes do without",
        )
    value = cluster.text("ConstrainCores").lower()
    if not value:
        return None  # this Slurm does not show cgroup.conf
    if value == "yes":
        return ok("ConstrainCores=yes")
    return warning(
        f"ConstrainCores={value} in cgroup.conf", "ask for ConstrainCores=yes, or take whole nodes: exclusive"
    )


def process_tracking(cluster: Cluster) -> Answer:
    """Whether everything of a job ends with it."""
    found = f"ProctrackType={cluster.text('ProctrackType')}"
    if "cgroup" in found:
        return ok(found)
    return note(found, "a process that leaves its session outlives the job: ask for ProctrackType=proctrack/cgroup")


def requeue(cluster: Cluster) -> Answer:
    """Whether jobs are put back into the queue after a node failed."""
    if cluster.text("JobRequeue") != "0":
        return ok("JobRequeue=1")
    return note(
        "JobRequeue=0",
        "a script of Lockstep says --requeue and is requeued all the same (tried with 22.05); your own has to say it",
    )


def kill_wait(cluster: Cluster) -> Answer | None:
    """Whether a last checkpoint can be written."""
    seconds = cluster.seconds("KillWait")
    if seconds is None:
        return None
    cure = (
        "ask for KillWait=30 or more, or write checkpoints more often: what a kill costs is the time since the last one"
    )
    if seconds < KILL_WAIT_SHORT:
        return warning(f"KillWait={seconds} s", cure)
    return note(f"KillWait={seconds} s", cure) if seconds < KILL_WAIT_DEFAULT else ok(f"KillWait={seconds} s")


def min_job_age(cluster: Cluster) -> Answer | None:
    """Whether an ended job is still there when the service looks."""
    seconds = cluster.seconds("MinJobAge")
    if seconds is None:
        return None
    found = f"MinJobAge={seconds} s, and the service looks every {cluster.reconcile_seconds:g} s at the latest"
    if seconds == 0 or seconds >= LOOKS * cluster.reconcile_seconds:  # 0: never forgotten
        return ok(found)
    return warning(
        found,
        f"ask for MinJobAge=300 (the default), or set LOCKSTEP_RECONCILE_LIMIT_SECONDS to {max(1, seconds // LOOKS)}",
    )


def records(cluster: Cluster) -> Answer:
    """Whether how a job ended can be read after Slurm forgot it."""
    if cluster.text("AccountingStorageType").endswith("slurmdbd"):
        return ok("accounting by slurmdbd")
    if cluster.text("JobCompType") == "jobcomp/filetxt":
        return ok(f"completion records in {cluster.text('JobCompLoc')}, where this machine can read them")
    return warning(
        f"AccountingStorageType={cluster.text('AccountingStorageType') or 'none'}, "
        f"JobCompType={cluster.text('JobCompType') or 'none'}",
        "ask for slurmdbd, or JobCompType=jobcomp/filetxt; until then keep the service running while jobs run",
    )


def message_timeout(cluster: Cluster) -> Answer | None:
    """Whether the service waits long enough before it tries a lost submit again."""
    seconds = cluster.seconds("MessageTimeout")
    if seconds is None:
        return None
    found = f"MessageTimeout={seconds} s"
    if cluster.lookup_seconds is None:
        return ok(f"{found}, and the service waits twice as long")
    found = f"{found}, and the service waits {cluster.lookup_seconds:g} s"
    if 2 * seconds > cluster.lookup_seconds:
        return warning(found, f"unset LOCKSTEP_LOOKUP_SECONDS, or set it to {2 * seconds}, for the service")
    return ok(found)


def scheduling(cluster: Cluster) -> Answer:
    """Whether a job can start as soon as it is submitted."""
    parameters = cluster.words("SchedulerParameters")
    slow = [word for word in parameters if word.startswith(("defer", "max_rpc_cnt"))]
    if not slow:
        return ok("no defer in SchedulerParameters")
    return note(
        f"SchedulerParameters={','.join(slow)}",
        "nothing to mend: jobs start with the next scheduling pass and not at once, also on an idle cluster",
    )


def rate_limit(cluster: Cluster) -> Answer:
    """Whether Slurm limits how often a user may ask."""
    words = [word for word in cluster.words("SlurmctldParameters") if word.startswith("rl_")]
    if "rl_enable" not in words:
        return ok("no rl_enable in SlurmctldParameters")
    return note(
        f"SlurmctldParameters={','.join(words)}",
        "nothing to mend: the service asks a few times a minute; your own loops around squeue count too",
    )


def part_limits(cluster: Cluster) -> Answer:
    """Whether a job that can never run is refused."""
    value = cluster.text("EnforcePartLimits").upper()
    if value in {"ALL", "YES"}:
        return ok(f"EnforcePartLimits={value}")
    return note(
        f"EnforcePartLimits={value or 'NO'}",
        "a job beyond its partition's limits waits for ever: `lockstep show` has the reason (PartitionTimeLimit)",
    )


def submit_plugins(cluster: Cluster) -> Answer:
    """Whether the site changes jobs as they are submitted."""
    plugins = cluster.text("JobSubmitPlugins")
    if not plugins:
        return ok("no JobSubmitPlugins")
    return note(
        f"JobSubmitPlugins={plugins}",
        "if submitted jobs are never found again, ask whether the plugin changes a job's name",
    )


def return_to_service(cluster: Cluster) -> Answer:
    """Whether a node that was away comes back by itself."""
    value = cluster.text("ReturnToService")
    if value in {"1", "2"}:
        return ok(f"ReturnToService={value}")
    return note(
        f"ReturnToService={value or '0'}",
        "after a failure the administrator has to say `scontrol update nodename=... state=resume`",
    )


def private_data(cluster: Cluster) -> Answer:
    """Whether Slurm shows this user the nodes and jobs."""
    hidden = [word for word in cluster.words("PrivateData") if word in {"jobs", "nodes", "partitions", "reservations"}]
    if not hidden:
        return ok(f"PrivateData={cluster.text('PrivateData') or 'none'}")
    found = f"PrivateData={','.join(hidden)}"
    if cluster.privileged:
        return note(found, f"{cluster.user} sees everything here; a service of another user's will not")
    if "nodes" in hidden or "partitions" in hidden:
        return warning(
            found, "a spec cannot be checked against the nodes: ask for the operator's view (AdminLevel=Operator)"
        )
    return note(found, "your own jobs are seen; run the service as the user whose jobs it looks after")


CHECKS: tuple[Check[Cluster], ...] = (
    Check("task-plugin", "Without task/affinity every rank of a node may run on every core of its job.", task_plugin),
    Check("constrain-cores", "Without it another job's threads may run on this job's cores.", constrain_cores),
    Check("process-tracking", "What a killed job leaves behind takes cores from the next one.", process_tracking),
    Check("requeue", "A training goes on after a node failed only if its job is put back into the queue.", requeue),
    Check(
        "kill-wait", "It is the time from SIGTERM to SIGKILL, in which a last checkpoint must be written.", kill_wait
    ),
    Check("min-job-age", "Slurm forgets an ended job after it, and with it how it ended.", min_job_age),
    Check(
        "completion-records", "Without records an ended job is known from the queue alone, and then forgotten.", records
    ),
    Check(
        "message-timeout",
        "A submit whose answer was lost may still happen within it: tried again sooner, the job would run twice.",
        message_timeout,
    ),
    Check("scheduler-defer", "It says when a submitted job is looked at first.", scheduling),
    Check("rate-limit", "Slurm answers a user who asks too often only later.", rate_limit),
    Check("partition-limits", "A job that can never run should be refused and not wait for ever.", part_limits),
    Check("submit-plugins", "A job is found again by its name, which such a plugin may rewrite.", submit_plugins),
    Check(
        "return-to-service", "A node that came back takes no jobs until it is returned to service.", return_to_service
    ),
    Check("private-data", "What Slurm hides from a user, Lockstep cannot show that user.", private_data),
)
