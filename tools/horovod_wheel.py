"""Horovod's wheel for this checkout's ``.venv``, built once per machine by the part that `lockstep worker build` uses.

    .venv/bin/python tools/horovod_wheel.py [--mpi openmpi]            # the wheel's path on standard output
    .venv/bin/python tools/horovod_wheel.py [--mpi openmpi] --where    # where it is or would be; nothing is built

It runs before Lockstep is installed, so it finds that part in the checkout.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "slurm"))

from lockstep_slurm.horovod import machine, release, target, wheel
from lockstep_slurm.horovod.errors import WheelError
from lockstep_slurm.horovod.step import Progress

LINE_EVERY = 15.0


def say(message: str) -> None:
    """Progress goes to standard error; standard output carries the wheel's path alone."""
    print(f"horovod: {message}", file=sys.stderr, flush=True)


class Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_EVERY

    def __call__(self, progress: Progress) -> None:
        """Says how far it is, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_EVERY
            share = "" if progress.share is None else f", {progress.share:.0%}"
            say(f"  {progress.what}: {progress.seconds:.0f} s{share}")


def main() -> None:
    """Prints the path of the wheel, building it first where this machine has none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mpi", choices=release.MPI, default="none")
    parser.add_argument("--where", action="store_true", help="build nothing")
    options = parser.parse_args()
    # The set-up that is interrupted ends this so; as an exception it ends the compilers, too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        request = wheel.Request(target.look(Path(sys.executable)), machine.find_mpi(options.mpi))
        if options.where:
            print(wheel.cached(request))
            return
        started = time.monotonic()
        path, built = wheel.get(request, Lines(), say)
    except WheelError as error:
        say(str(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if built:
        say(f"built in {time.monotonic() - started:.0f} s, {path.stat().st_size / 1e6:.1f} MB")
    print(path)


if __name__ == "__main__":
    main()
