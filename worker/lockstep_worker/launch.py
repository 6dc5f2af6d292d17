"""The rank wrapper: what ``srun`` starts for each rank; without Slurm, all ranks of this machine (``--local-ranks N``).

Standard library only (Python >= 3.9), so that it can be put into a user's own environment by ``PYTHONPATH``; nothing
here or in what it imports brings in torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.rundir import begin_start
from lockstep_slurm.placement import PlacementError, TopologyError
from lockstep_worker import local
from lockstep_worker.errors import WorkerError
from lockstep_worker.meeting import Network, parse_subnet
from lockstep_worker.ports import parse_ports
from lockstep_worker.rank import Interrupted, Rank
from lockstep_worker.world import from_mpi, from_slurm
from lockstep_worker.world import local as local_world

T = TypeVar("T")


def main() -> int:
    """The exit code of the training, 75 for a second copy of a job, else of what kept it from starting."""
    options = _options()
    network = Network(tuple(options.subnet), options.ports)
    try:
        run = begin_start(options.run)
        if options.local_ranks is None:
            world = from_mpi(os.environ) if "OMPI_COMM_WORLD_RANK" in os.environ else from_slurm(os.environ)
            return Rank(run, world, network).execute()
        if options.local_rank is None:
            return local.Ranks(run, options.local_ranks, options.local_id, options.restart_count, network).wait()
        world = local_world(options.local_rank, options.local_ranks, options.local_id, options.restart_count)
        return Rank(run, world, network).execute()
    except (LockstepError, PlacementError, TopologyError, OSError) as error:
        print(f"lockstep: {error}", file=sys.stderr, flush=True)
        if isinstance(error, WorkerError):
            return error.code
        return 74 if isinstance(error, OSError) else 78  # EX_IOERR, EX_CONFIG
    except Interrupted as interrupted:
        return 128 + interrupted.number


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lockstep_worker.launch", description="Starts one rank, or all on this machine."
    )
    parser.add_argument("--run", type=Path, required=True, help="the run directory")
    parser.add_argument(
        "--subnet",
        action="append",
        default=[],
        type=_option(parse_subnet),
        help="a network such as 10.1.0.0/16 in which the ranks meet; several: the first that every node is in",
    )
    parser.add_argument(
        "--ports",
        type=_option(parse_ports),
        help="FIRST-LAST: the range for the rendezvous's port and MASTER_PORT; by default the kernel's choice",
    )
    parser.add_argument("--local-ranks", type=int, help="start this many ranks on this machine, without Slurm")
    parser.add_argument(
        "--local-id",
        default=local.new_id(),
        help="stands for the Slurm job where there is none; a restart is told by the same id with a higher count",
    )
    parser.add_argument(
        "--restart-count",
        type=int,
        default=int(os.environ.get("LOCKSTEP_RESTART_COUNT") or 0),
        help="how often this local run has been started again",
    )
    parser.add_argument("--local-rank", type=int, help=argparse.SUPPRESS)  # one of them; used by --local-ranks itself
    options = parser.parse_args()
    if options.local_ranks is not None and options.local_ranks < 1:
        parser.error(f"--local-ranks {options.local_ranks}: at least 1 rank is needed")
    return options


def _option(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``parse`` for argparse, which keeps the sentence of an error only when it is of its own kind."""

    def converted(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


if __name__ == "__main__":
    sys.exit(main())
