"""The rank wrapper: what ``srun`` starts for each rank; without Slurm, all ranks of this machine (``--local-ranks N``).

Standard library only (Python >= 3.9), so that it can be put into a user's own environment by ``PYTHONPATH``; nothing
here or in what it imports brings in torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.rundir import check_run_directory
from lockstep_slurm.placement import PlacementError
from lockstep_worker import local
from lockstep_worker.errors import WorkerError
from lockstep_worker.rank import Interrupted, Rank
from lockstep_worker.world import from_slurm
from lockstep_worker.world import local as local_world


def main() -> int:
    """The exit code of the training, 75 for a second copy of a job, else of what kept it from starting."""
    options = _options()
    try:
        run = check_run_directory(options.run)
        if options.local_ranks is None:
            return Rank(run, from_slurm(os.environ)).execute()
        if options.local_rank is None:
            return local.Ranks(run, options.local_ranks, options.local_id, options.restart_count).wait()
        world = local_world(options.local_rank, options.local_ranks, options.local_id, options.restart_count)
        return Rank(run, world).execute()
    except (LockstepError, PlacementError, OSError) as error:
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


if __name__ == "__main__":
    sys.exit(main())
