"""What Python imports first in a rank's training: it starts Lockstep's eyes there, then the user's own sitecustomize.

Only the process that the rank's wrapper started has them. Nothing of this is left in what its children inherit.
"""

import importlib
import os
import sys


def _begin() -> None:
    """Takes our traces out of the environment and of the path, and begins where this is the wrapper's own child."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is not for every child
    sys.path[:] = [entry for entry in sys.path if entry != here]
    given = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    if left := [entry for entry in given if entry != here]:  # an empty entry is the working directory: it stays
        os.environ["PYTHONPATH"] = os.pathsep.join(left)
    settings = os.environ.pop("LOCKSTEP_HOOK", None)
    if settings is None or not settings.startswith(f"{os.getppid()} "):
        return
    try:
        from lockstep_worker import inside

        inside.begin(settings.partition(" ")[2])
    except Exception as error:
        print(f"lockstep: the threads of this rank are not seen: {error!r}", file=sys.stderr, flush=True)


_begin()

# The next one of that name: Debian's, conda's or the user's own. An error in it is told by Python, as without us.
_own = sys.modules.pop(__name__, None)
try:
    importlib.import_module("sitecustomize")
except ModuleNotFoundError as _error:
    if _error.name != "sitecustomize":
        raise
finally:
    # Python takes the module out of there once more, when this one is done.
    if _own is not None:
        sys.modules.setdefault(__name__, _own)
