"""A script that ran with the hook, as a rank's wrapper starts it, and what the wrapper would have heard."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.ranks import ROOT, base_environment

FIRST, SECOND = sorted(os.sched_getaffinity(0))[:2]
HOOK = str(ROOT / "worker" / "lockstep_worker" / "hook")


@dataclass
class Trained:
    """A script that ran with the hook, and what the wrapper would have heard."""

    done: subprocess.CompletedProcess[str]
    heard: list[dict[str, Any]]
    why: list[dict[str, Any]]
    """What it said of its end."""

    def roles(self, look: int = 0) -> dict[str, list[str]]:
        """The masks of the threads at a look, by role."""
        found: dict[str, list[str]] = {}
        for _, role, _, cpus, _ in self.heard[look]["threads"]:
            found.setdefault(role, []).append(cpus)
        return found


Train = Callable[..., Trained]


def run_hooked(
    folder: Path,
    code: str,
    *arguments: str,
    variables: Mapping[str, str] = {},
    path: str = "",
    hook: str = HOOK,
    python: str = sys.executable,
    cpus: tuple[int, ...] = (FIRST, SECOND),
    **settings: Any,
) -> Trained:
    """Runs ``code`` in ``folder`` on two CPUs, Gloo's threads to be born on the second, workers on the second."""
    script = folder / "script.py"
    script.write_text(code)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        said = {"socket": theirs.fileno(), "rank": 0, "backend": "gloo", "born_on": [SECOND],
                "workers_on": [SECOND], **settings}  # fmt: skip
        environment = base_environment() | {
            "PYTHONPATH": f"{hook}:{path}" if path else hook,
            "LOCKSTEP_HOOK": f"{os.getpid()} {json.dumps(said)}",
            "OMP_NUM_THREADS": str(len(cpus)),
            **variables,
        }
        done = subprocess.run(
            [python, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=120,
            check=False, pass_fds=[theirs.fileno()], cwd=folder,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip
        ours.setblocking(False)
        heard = []
        try:
            while True:
                heard.append(json.loads(ours.recv(1 << 20)))
        except BlockingIOError:
            pass
    why = [told["why"] for told in heard if "why" in told]
    return Trained(done, [told for told in heard if "why" not in told], why)
