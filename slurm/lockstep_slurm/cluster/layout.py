"""The files of a one-machine cluster: all under its folder, but sockets in a short one where its path is too long."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.cluster.info import ClusterError

# A Unix socket's path has at most 107 characters; slurmstepd's is "<spool>/node99/node99_4294967295.4294967294".
LONGEST_FOLDER = 107 - len("/spool/node99/node99_4294967295.4294967294")
# Slurm reads these without quotes; "%" and "," mean something to it.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@~=-]*")


@dataclass(frozen=True)
class Layout:
    """Where each file of the cluster in ``folder`` is."""

    folder: Path
    sockets: Path
    """Holds what has a socket in it: the folder itself, or a short folder under /run."""
    slurm_conf: Path
    cgroup_conf: Path
    notes: Path
    """What ``up`` noted about the cluster it started."""
    lock: Path
    munge_key: Path
    munge_seed: Path
    munge_socket: Path
    munge_pid: Path
    munge_log: Path
    controller_pid: Path
    controller_log: Path
    state: Path
    spool: Path
    completions: Path
    """Slurm's job-completion records, kept from one ``up`` to the next."""

    @classmethod
    def of(cls, folder: Path) -> Layout:
        """The layout for this folder; raises ``ClusterError`` for a path that slurm.conf cannot carry."""
        if not PLAIN_PATH.fullmatch(str(folder)):
            raise ClusterError(
                f"{folder} has characters that slurm.conf cannot carry: "
                "set LOCKSTEP_HOME to a path of letters, digits and ._-/ only."
            )
        sockets = folder
        if len(str(folder)) > LONGEST_FOLDER:
            sockets = Path("/run") / f"lockstep-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
        return cls(
            folder=folder,
            sockets=sockets,
            slurm_conf=folder / "slurm.conf",
            cgroup_conf=folder / "cgroup.conf",
            notes=folder / "cluster.json",
            lock=folder / "lock",
            munge_key=folder / "munge" / "munge.key",
            munge_seed=folder / "munge" / "munged.seed",
            munge_socket=sockets / "munge.socket",
            munge_pid=folder / "pids" / "munged.pid",
            munge_log=folder / "logs" / "munged.log",
            controller_pid=folder / "pids" / "slurmctld.pid",
            controller_log=folder / "logs" / "slurmctld.log",
            state=folder / "state",
            spool=sockets / "spool",
            completions=folder / "jobcomp.log",
        )

    def node_pid(self, node: str) -> Path:
        """The pid file of this node's slurmd."""
        return self.folder / "pids" / f"slurmd-{node}.pid"

    def node_log(self, node: str) -> Path:
        """The log of this node's slurmd."""
        return self.folder / "logs" / f"slurmd-{node}.log"

    def make(self, nodes: tuple[str, ...]) -> None:
        """Makes all folders, 0700 throughout; slurmd (22.05) does not make its own spool folder's parents."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        folders = (self.folder, self.sockets, self.state, self.spool, *(self.spool / node for node in nodes))
        folders += tuple(self.spool / node / "tmp" for node in nodes)
        for folder in (*folders, self.munge_key.parent, self.munge_pid.parent, self.munge_log.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
        # Nodes that a last run left drained would keep the new one from ever being idle; jobs and job ids are kept.
        for old in self.state.glob("node_state*"):
            old.unlink()

    def remove_sockets(self) -> None:
        """Removes what only a running cluster needs: pid files, sockets, and the short folder for them."""
        for pid_file in self.munge_pid.parent.glob("*.pid"):
            pid_file.unlink()
        if self.sockets != self.folder:
            shutil.rmtree(self.sockets, ignore_errors=True)
        else:
            for left in self.sockets.glob("munge.socket*"):
                left.unlink()
            for left in self.spool.glob("*/*"):
                if left.is_socket():
                    left.unlink()

    def write_notes(self, notes: dict[str, Any]) -> None:
        """Writes ``cluster.json`` whole or not at all."""
        partial = self.notes.with_suffix(".partial")
        partial.write_text(json.dumps(notes, indent=2) + "\n")
        partial.replace(self.notes)

    def read_notes(self) -> dict[str, Any] | None:
        """What ``up`` noted, or None where no cluster was ever brought up here."""
        try:
            notes: dict[str, Any] = json.loads(self.notes.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ClusterError(f"{self.notes} cannot be read ({error}); remove {self.folder} to begin anew.") from error
        return notes
