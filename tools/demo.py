"""``make demo``: a real training through a real Slurm on this machine; ``--stop`` ends what it started.

It brings up a one-machine Slurm (or, without root or Slurm's packages, does without), starts the service on SQLite,
submits ``examples/digits.toml`` and shows its progress. What runs already and is current is used again. The last line
printed is the dashboard's address; the exit code is 0 only if the training ended well.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
from steps import ROOT, digest, tree

from lockstep_slurm.cli.home import home, service_address
from lockstep_slurm.cluster import ClusterError, cluster_folder, down, processes, up
from lockstep_slurm.cluster.lifecycle import check_machine

NAME = "demo"
NODES = 2
EXAMPLE = "examples/digits.toml"
LOCKSTEP = str(ROOT / ".venv" / "bin" / "lockstep")
PORT = 8080
READY_WITHIN = 60.0
# In the service's environment: by it a later `make demo` or `make stop` knows the service that an earlier one started,
# even one that was interrupted before it could note anything.
MARK = "LOCKSTEP_DEMO_HOME"
VERSION_MARK = "LOCKSTEP_DEMO_VERSION"


def say(message: str) -> None:
    """One line for a person."""
    print(f"demo: {message}", flush=True)


def stop(message: str) -> NoReturn:
    """Ends the demo with sentences a person can act on."""
    print(f"demo: {message}", file=sys.stderr)
    raise SystemExit(1)


def slurm() -> Path | None:
    """The slurm.conf of a running one-machine Slurm, or None where this machine cannot have one."""
    try:
        check_machine()
    except ClusterError as error:
        say(f"going on without Slurm: the same job script runs straight on this machine. {error}")
        return None
    folder = cluster_folder(NAME, home())
    try:
        info = up(NAME, NODES, folder)
    except ClusterError as error:
        stop(str(error))
    said = "runs already" if info.already_running else "is up"
    say(f"a Slurm of {len(info.nodes)} nodes {said} on this machine (SLURM_CONF={info.slurm_conf})")
    for warning in info.warnings:
        say(f"warning: {warning}")
    return info.slurm_conf


def version(slurm_conf: Path | None) -> str:
    """What a running service was started from: its code, its packages and the Slurm it talks to."""
    code = [
        file for part in ("slurm", "service", "migrations") for file in tree(ROOT / part, ()) if file.suffix == ".py"
    ]
    return digest(*code, ROOT / "requirements" / "demo.lock", str(slurm_conf))


def own_services() -> Iterator[processes.Process]:
    """The services that this demo started for this home, and that still run."""
    for process in processes.everything():
        if processes.environment(process).get(MARK) == str(home()) and "serve" in process.command:
            yield process


def service(slurm_conf: Path | None) -> None:
    """Sees to a running service: the one that is there where it is current, else a new one."""
    wanted = version(slurm_conf)
    for process in list(own_services()):
        if processes.environment(process).get(VERSION_MARK) == wanted and ready() is not None:
            say(f"the service runs already at {ready()}")
            return
        say("ending a service that an earlier demo started: it is not ready, or not current")
        processes.end([process], patience=15.0)
    if ready() is not None:
        stop(
            f"a service that the demo did not start runs for {home()} at {ready()}. "
            "End it, or choose another folder for the demo: LOCKSTEP_HOME=/some/folder make demo"
        )
    start(slurm_conf, wanted)


def start(slurm_conf: Path | None, wanted: str) -> None:
    """Starts the service in the background and returns when it is ready."""
    log = home() / "logs" / "service.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
    environment |= {MARK: str(home()), VERSION_MARK: wanted, "LOCKSTEP_HOME": str(home())}
    client = ["--client", "local"] if slurm_conf is None else ["--client", "command", "--slurm-conf", str(slurm_conf)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [LOCKSTEP, "serve", "--port", str(free_port()), *client],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            cwd=home(),
            start_new_session=True,  # Ctrl-C here is not meant for it
        )
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        if ready() is not None:
            say(f"the service runs at {ready()}")
            return
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    processes.end([found for found in own_services() if found.pid == process.pid], patience=5.0)
    stop(f"the service did not come up within {READY_WITHIN:.0f} s; the last lines of {log}:\n{tail}")


def ready() -> str | None:
    """The address of the service of this home if it answers that it is ready."""
    try:
        url = str(json.loads((home() / "service.json").read_text(encoding="utf-8"))["url"])
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    except (FileNotFoundError, json.JSONDecodeError, httpx.TransportError):
        return None
    return url if answer.status_code == httpx.codes.OK else None


def free_port() -> int:
    """8080, or any free port where something listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def train(slurm_conf: Path | None) -> dict[str, Any]:
    """Submits the example, shows its progress to the end, and returns the job as it ended."""
    # Without Slurm there is one node, this machine: the same two ranks share it.
    one_node = [] if slurm_conf else ["--set", "resources.nodes=1", "--set", f"placement.ranks_per_node={NODES}"]
    command = [LOCKSTEP, "submit", EXAMPLE, "--json", *one_node]
    submitted = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if submitted.returncode != 0:
        stop(f"the job was not accepted (exit code {submitted.returncode}).")
    job_id = json.loads(submitted.stdout)["id"]
    watched = subprocess.run([LOCKSTEP, "watch", job_id], cwd=ROOT, check=False)
    shown = subprocess.run([LOCKSTEP, "show", job_id, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if shown.returncode != 0:
        stop(f"the service does not tell how the job ended; its log is in {home() / 'logs'}.")
    job: dict[str, Any] = json.loads(shown.stdout)
    if watched.returncode != 0 or job["phase"] != "ended well":
        subprocess.run([LOCKSTEP, "logs", job_id], cwd=ROOT, check=False)
        say(f"the dashboard: {address()}")
        stop(f"the job {job['phase']}: {job['reason'] or 'see its log above'}.")
    return job


def address() -> str:
    """A link to the dashboard that lets one browser in."""
    opened = subprocess.run([LOCKSTEP, "open", "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if opened.returncode != 0:
        return service_address().url
    return str(json.loads(opened.stdout)["url"])


def end() -> None:
    """Ends the service and the cluster that a demo started for this home, and nothing else."""
    running = list(own_services())
    processes.end(running, patience=15.0)
    ran = down(cluster_folder(NAME, home()))
    ended = [what for what, was in (("the service", running), ("the one-machine Slurm", ran)) if was]
    say(f"ended {' and '.join(ended)}" if ended else f"nothing of a demo runs for {home()}")


def main() -> None:
    """Runs the demo, or with ``--stop`` ends it."""
    if sys.argv[1:] == ["--stop"]:
        end()
        return
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["LOCKSTEP_HOME"] = str(home())
    os.environ.pop("LOCKSTEP_URL", None)
    slurm_conf = slurm()
    service(slurm_conf)
    job = train(slurm_conf)
    last = job["last"]
    say(
        f"ended well: test accuracy {last['accuracy']:.4f}, {last['samples_per_s']:,.0f} samples/s "
        f"on {job['ranks']} ranks ({', '.join(job['nodes'])}). `make stop` ends the service and the Slurm. "
        "The dashboard:"
    )
    print(address(), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; `make demo` goes on with what runs, `make stop` ends it")
