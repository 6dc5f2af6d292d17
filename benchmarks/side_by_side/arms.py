"""The arms: the same training started by Lockstep, by plain srun, by horovodrun, and by torch's own CPU launcher."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.gate import ArmError, Gate
from lockstep_slurm.cluster import ClusterInfo
from lockstep_slurm.job.malloc import malloc_variables
from lockstep_slurm.job.rundir import spool_files

TRAINING = Path(__file__).with_name("training.py")
PATIENCE = 300
"""Seconds that a collective of Gloo waits, in every arm as in Lockstep's: a rank that is held still is no dead one."""
MALLOC = malloc_variables({})
"""What Lockstep gives its ranks, in every arm: it is placement that is measured. Left to itself, glibc (2.36) gives
what a step frees back to the kernel, and how much is settled anew at each start: the step times of six starts of one
program differed by 20 % (small-cnn, one rank on one CPU)."""
LEAKING = ("SLURM", "SBATCH", "SRUN", "LOCKSTEP_", "HOROVOD_", "OMP_", "GOMP_", "KMP_", "MKL_", "CCL_", "PMI")
"""Of the shell that measures; each arm starts from what a user's own shell has."""


@dataclass(frozen=True)
class Work:
    """What is trained, and how many ranks share how many CPUs."""

    model: str
    batch_size: int
    ranks: int
    cpus: int
    """Of each rank, as srun's -c counts them."""

    def command(self, gate: Path) -> list[str]:
        """The training, as one starts a Python script."""
        return [sys.executable, str(TRAINING), *self.arguments(gate)]

    def arguments(self, gate: Path) -> list[str]:
        """The script's own arguments."""
        return ["--gate", str(gate), "--model", self.model, "--batch-size", str(self.batch_size)]


class Arm:
    """One way to start the training: a process that runs as long as the training, its log, and its gate."""

    def __init__(self, name: str, folder: Path, work: Work) -> None:
        self.name = name
        self.folder = folder
        self.folder.mkdir()
        self.work = work
        self.log = self.folder / "log"
        self.gate = Gate(self.folder / "gate", work.ranks, self.trouble)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Starts what starts the ranks."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment), cwd=self.folder,
            )  # fmt: skip

    def trouble(self) -> str | None:
        """Why no more is to be expected of it, with the end of its log; None while its process runs."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        words = self.log.read_text(errors="replace")[-2000:]
        return f"the arm {self.name!r} ended with code {code}: {words}"

    def finish(self) -> tuple[str, ...]:
        """Lets the training end well; returns the ranks' digests. Raises ``ArmError`` where it does not."""
        digests = self.gate.end()
        assert self._process is not None
        code = self._process.wait(PATIENCE)
        if code != 0:
            raise ArmError(self.trouble() or self.name)
        return digests

    def verdicts(self) -> tuple[str, ...]:
        """What Lockstep's proof said of the threads, each word once; nothing where it is not Lockstep's arm."""
        found = []
        for run in (self.folder / "home" / "runs").glob("*/spool"):
            for file in spool_files(run.parent, 1):
                records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
                found += [record["values"]["result"] for record in records if record["kind"] == "verdict"]
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Leaves no process behind, however the training went."""
        self.gate.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def clean(environment: Mapping[str, str], info: ClusterInfo) -> dict[str, str]:
    """A user's shell on that cluster: this one's without what placement or a launcher may have left in it."""
    kept = {name: value for name, value in environment.items() if not name.startswith(LEAKING)}
    # Where the programs of this very environment are found first: horovodrun, lockstep.
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept.get('PATH', '/usr/bin:/bin')}"
    kept["SLURM_CONF"] = str(info.slurm_conf)
    kept.update(MALLOC)
    kept["HOROVOD_GLOO_TIMEOUT_SECONDS"] = str(PATIENCE)
    return kept


def share(environment: Mapping[str, str]) -> None:
    """Lets jobs of the cluster have the same CPUs at once, since all arms are there while one at a time trains."""
    subprocess.run(
        ["scontrol", "update", "PartitionName=main", "OverSubscribe=FORCE:32"],
        env=dict(environment), check=True, timeout=60,
    )  # fmt: skip


def lockstep(arm: Arm, environment: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """As a user of Lockstep: `lockstep script FILE > j.sbatch && sbatch j.sbatch`."""
    work = arm.work
    spec: dict[str, dict[str, Any]] = {
        "environment": {"variables": MALLOC},
        "training": {"script": str(TRAINING), "arguments": work.arguments(arm.gate.path)},
        "resources": {"nodes": 1, "time": "1:00:00", "requeue": False},
        "placement": {"ranks_per_node": work.ranks, "cpus_per_rank": work.cpus},
        # Horovod's own default, which the other arms have as well: it is placement that is measured.
        "communication": {"fusion_threshold_mib": 128},
    }
    file = arm.folder / "benchmark.toml"
    file.write_text(as_toml(spec), encoding="utf-8")
    home = arm.folder / "home"
    home.mkdir(mode=0o700)
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(
        ["lockstep", "script", file, *words],
        env={**environment, "LOCKSTEP_HOME": str(home)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        raise ArmError(f"`lockstep script` refused the arm {arm.name!r}: {done.stderr}")
    script = arm.folder / "j.sbatch"
    script.write_text(done.stdout, encoding="utf-8")
    arm.start(["sbatch", "--wait", f"--output={arm.log}", script], environment)


def srun(arm: Arm, environment: Mapping[str, str]) -> None:
    """As a user of Slurm alone: `srun -n N -c C python training.py`, with a rendezvous and nothing else said."""
    work = arm.work
    arm.start(["srun", "-n", str(work.ranks), "-c", str(work.cpus), *work.command(arm.gate.path)], environment)


def horovodrun(arm: Arm, environment: Mapping[str, str]) -> None:
    """As Horovod's documentation has it: `horovodrun -np N python training.py`."""
    arm.start(["horovodrun", "-np", str(arm.work.ranks), *arm.work.command(arm.gate.path)], environment)


def run_cpu(arm: Arm, environment: Mapping[str, str], cores: int) -> None:
    """As torch's documentation has it, one instance on all ``cores``; what it preloads is what it finds installed."""
    arm.start(
        [sys.executable, "-m", "torch.backends.xeon.run_cpu", "--ninstances", "1", "--ncores-per-instance", str(cores),
         TRAINING, *arm.work.arguments(arm.gate.path)],
        # It looks for programs and libraries by these two.
        {**environment, "VIRTUAL_ENV": sys.prefix},
    )  # fmt: skip


@contextlib.contextmanager
def rendezvous(ranks: int) -> Iterator[dict[str, str]]:
    """Horovod's own rendezvous on the loopback interface, and the variables by which ranks of plain srun find it."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server = RendezvousHTTPServer(("127.0.0.1", 0), RendezvousHandler, 0)
    server.init(get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_address[1]),
            "HOROVOD_GLOO_IFACE": "lo",
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def as_toml(document: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of strings, numbers, booleans, lists and tables of strings: but for the last, JSON's forms are TOML's."""
    lines = []
    for section, values in document.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            inner = value.items() if isinstance(value, dict) else ()
            lines += [f"{key}.{name} = {json.dumps(one)}" for name, one in inner] or [f"{key} = {json.dumps(value)}"]
    return "\n".join(lines) + "\n"
