"""Runs inside the ranks' own environment and prints what it has as JSON; standard library only.

The environment is the user's, so the syntax is one that Python 3.7 reads: it has to be able to say that it is too old.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import sysconfig
from pathlib import Path


def look(modules: list[str], note: str) -> dict[str, object]:
    """Modules that are missing, versions, and what Horovod's installation says; ``note``: the builder's file in it."""
    found: dict[str, object] = {"version": list(sys.version_info[:2]), "missing": [], "cuda": 0}
    found["headers"] = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    found["torch"] = found["horovod"] = None
    if sys.version_info < (3, 8):  # noqa: UP036 - the user's Python, which lacks what follows
        return found
    from importlib.metadata import distributions

    found["missing"] = [name for name in modules if importlib.util.find_spec(name) is None]
    # The first of a name is the one that is imported.
    installed = {str(one.metadata["Name"]).lower(): one for one in reversed(list(distributions()))}
    found["cuda"] = sum(name.startswith("nvidia-") for name in installed)
    if "torch" in installed:
        found["torch"] = installed["torch"].version
    if "horovod" in installed:
        horovod = installed["horovod"]
        # Horovod's own note of the frameworks that it was built for.
        own = Path(str(horovod.locate_file("horovod/metadata.json")))
        torch = json.loads(own.read_text(encoding="utf-8")).get("pytorch") if own.exists() else None
        found["horovod"] = {"version": horovod.version, "torch": torch, "note": horovod.read_text(note)}
    return found


if __name__ == "__main__":
    print(json.dumps(look(json.loads(sys.argv[1]), sys.argv[2])))
