"""A stand-in for pyslurm that hangs, dies and talks nonsense when a test tells it to, and the process that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.client.pyslurm_process import PySlurmProcess

STAND_IN = """
import pathlib
__version__ = "25.11.2"
class PyslurmError(Exception): pass
class RPCError(PyslurmError):
    def __init__(self, words, errno=2000):
        super().__init__(words)
        self.errno = errno
def do():
    exec((pathlib.Path(__file__).parent / "ping").read_text(), globals())
class slurmctld:
    class Config:
        def load():
            do()
class Job:
    def __init__(self, job_id):
        pass
    def load(job_id):
        job = Job(job_id)
        job.state = (pathlib.Path(__file__).parent / "state").read_text()
        return job
    def cancel(self):
        do()
class JobSubmitDescription:
    def __init__(self, **fields):
        do()
"""


@dataclass(frozen=True)
class StandIn:
    """The folder of a pyslurm whose ping and submit do what they are told."""

    folder: Path
    conf: Path

    def ping_does(self, code: str) -> None:
        (self.folder / "pyslurm" / "ping").write_text(code)

    def job_is(self, state: str) -> None:
        (self.folder / "pyslurm" / "state").write_text(state)

    def process(self, timeout: float = 30) -> PySlurmProcess:
        return PySlurmProcess(self.folder, self.conf, timeout)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def pid_of(process: PySlurmProcess) -> int:
    assert process.pid is not None
    return process.pid
